//! Prompts, streams and conversations.

use crate::{golden, ids, inlaid, json, output, text, with_input};
use std::path::Path;
use std::process::Stdio;

#[test]
fn the_model_that_ships_is_the_default_and_writes() {
    let args = ["--prompt", "It was a bright morning, and", "--max-tokens", "24"];
    let run = |first: &[&str], last: &[&str]| output(&[&["generate"], first, &args, last].concat());
    let plain = run(&[], &[]);
    let written = text(&plain);
    let said = String::from_utf8(plain.stderr).unwrap();
    assert!(said.contains("decode") && said.lines().count() == 1, "{said}");
    assert_eq!(text(&run(&["demo"], &[])), written);
    let printed = json(&[&["generate"], &args[..], &["--json"]].concat());
    let said = printed["text"].as_str().unwrap();
    assert_eq!(format!("{said}{}", if said.ends_with('\n') { "" } else { "\n" }), written);
    assert!(written.trim().len() > 20, "{written}");
    // The prompt may come from standard input, or as ids.
    let piped = with_input(&["generate", "--prompt", "-", "--max-tokens", "24"], args[1].as_bytes());
    assert_eq!(text(&piped), written);
    let list: Vec<String> = ids(&printed, "prompt_ids").iter().map(u64::to_string).collect();
    let by_ids = output(&["generate", "--ids", &list.join(","), "--max-tokens", "24"]);
    assert_eq!(text(&by_ids), written);
}

#[test]
fn a_stop_string_ends_the_text_before_it() {
    let args = ["generate", "--prompt", "In the beginning", "--max-tokens", "24", "--json"];
    let whole = json(&args);
    let whole = whole["text"].as_str().unwrap();
    // A piece of the text itself, from its middle on.
    let middle = (whole.len() / 2..).find(|at| whole.is_char_boundary(*at)).unwrap();
    let stop: String = whole[middle..].chars().take(3).collect();
    let stopped = json(&[&args[..], &["--stop", &stop]].concat());
    assert_eq!(stopped["finish"], "stop");
    assert_eq!(stopped["text"].as_str(), whole.split(&stop).next());
}

#[test]
fn a_seed_repeats_its_text_and_another_does_not() {
    let run = |seed: &str| {
        let args = ["generate", "--prompt", "Once", "--max-tokens", "20", "--temperature", "1", "--json"];
        ids(&json(&[&args[..], &["--seed", seed]].concat()), "ids")
    };
    assert_eq!(run("1"), run("1"));
    assert!((2..6).any(|seed| run(&seed.to_string()) != run("1")));
}

#[test]
fn a_banned_token_is_not_chosen() {
    let model = golden("llama-gqa");
    let args = ["generate", &model, "--ids", "5,9", "--max-tokens", "1", "--json"];
    let id = ids(&json(&args), "ids")[0];
    let bias = format!("{id}=-inf");
    assert_ne!(ids(&json(&[&args[..], &["--logit-bias", &bias]].concat()), "ids")[0], id);
}

#[test]
fn tokenize_prints_ids_and_names() {
    let printed = ids(&json(&["tokenize", "demo", "The sea, the sea!", "--json"]), "ids");
    let lines = text(&output(&["tokenize", "demo", "The sea, the sea!"]));
    let first = |line: &str| line.split_whitespace().next().unwrap().parse::<u64>().unwrap();
    assert_eq!(lines.lines().map(first).collect::<Vec<u64>>(), printed);
    assert_eq!(text(&with_input(&["tokenize", "demo", "-"], b"The sea, the sea!")), lines);
    // A special token's name is that token, unless it is to be plain text.
    let end = "<|end|>";
    assert_eq!(ids(&json(&["tokenize", "demo", end, "--bare", "--json"]), "ids"), [0]);
    assert!(ids(&json(&["tokenize", "demo", end, "--bare", "--plain", "--json"]), "ids").len() > 1);
}

/// The model that ships with a chat template beside it.
fn chatty() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("demo");
    for name in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(demo.join(name), dir.path().join(name)).unwrap();
    }
    let template = "{% for m in messages %}{{ m.role }} said: {{ m.content }}\n{% endfor %}\
        {% if add_generation_prompt %}assistant said:{% endif %}";
    std::fs::write(dir.path().join("chat_template.jinja"), template).unwrap();
    dir
}

#[test]
fn chat_answers_line_by_line_and_knows_its_commands() {
    let dir = chatty();
    let model = dir.path().to_str().unwrap();
    let lines = b"Good morning\n/stats\n/nonsense\n\n/reset\nGood morning\n/quit\nnever read\n";
    let args = ["chat", model, "--max-tokens", "8", "--temperature", "0", "--system", "Be kind"];
    let output = with_input(&args, lines);
    let (answers, said) = (text(&output), String::from_utf8(output.stderr).unwrap());
    // Both first turns of a conversation have the same answer, which `generate` gives too.
    let half = answers.len() / 2;
    assert_eq!(answers[..half], answers[half..]);
    let args =
        ["generate", model, "--chat", "--system", "Be kind", "--prompt", "Good morning", "--max-tokens", "8"];
    assert_eq!(text(&crate::output(&args)), answers[..half]);
    assert!(
        said.contains("tokens held") && said.contains("/nonsense") && said.contains("forgotten"),
        "{said}"
    );
}

#[test]
fn a_long_chat_forgets_its_oldest_turns() {
    let dir = chatty();
    let model = dir.path().to_str().unwrap();
    let output = with_input(
        &["chat", model, "--max-tokens", "8", "--context", "64"],
        "Tell me of the sea and the shore\n".repeat(8).as_bytes(),
    );
    let said = String::from_utf8(output.stderr.clone()).unwrap();
    text(&output);
    assert!(said.contains("oldest turn is forgotten") && !said.contains("inlaid:"), "{said}");
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_a_text_with_what_was_written() {
    use std::io::Read;
    let args = ["generate", "--max-tokens", "240", "--ignore-eos", "--threads", "1", "--isa", "scalar"];
    let mut child = inlaid(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = [0];
    child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    let kill = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(kill.unwrap().success());
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("cancelled") && output.stdout.ends_with(b"\n"), "{said}");
}
