//! `inlaid train`: what it writes, where it goes on, and what it refuses.

use crate::{golden, json, output};
use serde_json::Value;
use std::fs;
use std::path::Path;

/// The demo's first paragraphs and some answers, in files of a directory.
fn data() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let text = "It was a bright morning, and the whole of the house was in the garden.\n".repeat(40);
    fs::write(dir.path().join("text.txt"), &text).unwrap();
    let lines: String = ["the sea", "the house", "a king", "the garden"]
        .map(|what| format!("{{\"prompt\": \"Say {what}:\", \"completion\": \" {what}\"}}\n"))
        .concat();
    fs::write(dir.path().join("answers.jsonl"), lines).unwrap();
    let pair = r#"{"prompt": "Say it:", "chosen": " the sea", "rejected": " a king"}"#;
    fs::write(dir.path().join("pairs.jsonl"), format!("{pair}\n{pair}\n")).unwrap();
    fs::write(dir.path().join("prompts.txt"), "It was\nThe king\n").unwrap();
    fs::write(dir.path().join("words.txt"), "the and of a\n").unwrap();
    dir
}

fn log(run: &Path) -> Vec<Value> {
    let text = fs::read_to_string(run.join("log.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_text_is_learnt_and_what_was_learnt_opens() {
    let dir = data();
    let at = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
    let (text, run) = (at("text.txt"), at("run"));
    let args = ["train", "lm", "demo", "--data", &text, "--held-out", &text, "--out", &run, "--steps", "6"];
    let more = ["--batch", "2", "--max-length", "32", "--rate", "1e-3", "--json"];
    let said = json(&[&args[..], &more].concat());
    assert!(said["held_out_loss"].as_f64().unwrap() < 3.0, "{said}");
    let lines = log(Path::new(&run));
    assert_eq!(lines.len(), 6);
    assert!(lines[5]["loss"].as_f64().unwrap() < lines[0]["loss"].as_f64().unwrap());
    let picture = fs::read_to_string(Path::new(&run).join("loss.svg")).unwrap();
    assert!(picture.starts_with("<svg") && picture.contains("loss"));
    assert!(!Path::new(&run).join("checkpoints").exists());
    let model = said["out"].as_str().unwrap().to_owned();
    let written = json(&["generate", &model, "--prompt", "It was a bright", "--max-tokens", "6", "--json"]);
    assert!(written["text"].as_str().unwrap().contains("morning"), "{written}");
    let again = output(&[&args[..], &more].concat());
    assert_eq!(again.status.code(), Some(1), "the run is done");
}

#[test]
fn a_run_that_was_killed_goes_on_to_the_same_bits() {
    let dir = data();
    let at = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
    let (text, config) = (at("text.txt"), concat!(env!("CARGO_MANIFEST_DIR"), "/demo"));
    let args = |out: &str| -> Vec<String> {
        let args = ["train", "lm", "--config", config, "--data", &text, "--out", out, "--batch", "1"];
        let more = ["--max-length", "24", "--rate", "1e-3", "--steps", "24", "--checkpoint-every", "3"];
        args.into_iter().chain(more).map(str::to_owned).collect()
    };
    let run = |out: &str, more: &[&str]| {
        let args = args(out);
        output(&args.iter().map(String::as_str).chain(more.iter().copied()).collect::<Vec<_>>())
    };
    let (whole, parts) = (at("whole"), at("parts"));
    assert!(run(&whole, &[]).status.success());

    let names = args(&parts);
    let mut child = crate::inlaid(&names.iter().map(String::as_str).collect::<Vec<_>>()).spawn().unwrap();
    let checkpoints = Path::new(&parts).join("checkpoints");
    let begun = || {
        fs::read_dir(&checkpoints).is_ok_and(|list| {
            list.flatten().any(|entry| !entry.file_name().to_string_lossy().ends_with(".part"))
        })
    };
    while !begun() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    // Whoever has been killed too late has nothing to go on from.
    if !Path::new(&parts).join("model").exists() {
        let refused = run(&parts, &[]);
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
        assert!(String::from_utf8_lossy(&refused.stderr).contains("--resume"), "{refused:?}");
        let other = run(&parts, &["--resume", "--seed", "5"]);
        assert!(String::from_utf8_lossy(&other.stderr).contains("other settings"), "{other:?}");
        // What is only a matter of memory may change.
        let resumed = run(&parts, &["--resume", "--recompute"]);
        assert!(resumed.status.success(), "{resumed:?}");
    }
    let read = |out: &str| fs::read(Path::new(out).join("model/model.safetensors")).unwrap();
    assert!(read(&whole) == read(&parts), "other bits");
    let losses = |out: &str| -> Vec<f64> {
        log(Path::new(out)).iter().map(|line| line["loss"].as_f64().unwrap()).collect()
    };
    assert_eq!(losses(&whole), losses(&parts));
}

#[test]
fn answers_preferences_and_rewards_make_adapters() {
    let dir = data();
    let at = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
    let (answers, pairs, prompts) = (at("answers.jsonl"), at("pairs.jsonl"), at("prompts.txt"));
    let lora = ["--lora-rank", "2", "--lora-targets", "q_proj,v_proj", "--rate", "1e-2", "--json"];
    let (sft, dpo, ppo) = (at("sft"), at("dpo"), at("ppo"));
    let said = json(
        &[
            &["train", "sft", "demo", "--data", &answers, "--out", &sft, "--epochs", "3", "--batch", "2"],
            &lora[..],
        ]
        .concat(),
    );
    let adapter = said["out"].as_str().unwrap().to_owned();
    assert!(adapter.ends_with("adapter"));
    assert_eq!(json(&["adapter", "info", &adapter, "--json"])["rank"], 2);
    json(&[
        "generate",
        "demo",
        "--adapter",
        &adapter,
        "--prompt",
        "Say the sea:",
        "--max-tokens",
        "3",
        "--json",
    ]);
    let args = ["train", "dpo", "demo", "--data", &pairs, "--out", &dpo, "--steps", "4", "--batch", "2"];
    json(&[&args[..], &["--adapter", &adapter, "--rate", "1e-2", "--json"]].concat());
    let losses: Vec<f64> = log(Path::new(&dpo)).iter().map(|line| line["loss"].as_f64().unwrap()).collect();
    assert!(losses[3] < losses[0], "{losses:?}");
    let reward = format!("builtin:lexicon:{}", at("words.txt"));
    let args =
        ["train", "ppo", "demo", "--prompts", &prompts, "--reward", &reward, "--out", &ppo, "--steps", "2"];
    let mix = ["--mix", &at("text.txt"), "--mix-coef", "2", "--max-length", "24"];
    let said = json(&[&args[..], &["--batch", "4", "--max-tokens", "8"], &mix, &lora[..]].concat());
    assert_eq!(said["rounds"], 2);
    let lines = log(Path::new(&ppo));
    assert_eq!(lines[0]["kl"], 0.0, "a policy begins as its reference");
    assert!(lines[1]["mix_loss"].as_f64().unwrap() > 0.0);
    assert!(Path::new(&ppo).join("reward.svg").exists() && Path::new(&ppo).join("kl.svg").exists());
}

#[test]
fn a_masked_language_model_learns_what_is_hidden() {
    let (dir, model) = (data(), crate::words::reader("bert-mlm", |_| {}));
    let at = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
    let (text, run, model) = (at("words.txt"), at("run"), model.path().to_str().unwrap().to_owned());
    fs::write(&text, "w5 w9 w13 ".repeat(80)).unwrap();
    let args = ["train", "lm", &model, "--data", &text, "--held-out", &text, "--out", &run, "--steps", "300"];
    let more = ["--max-length", "26", "--batch", "4", "--rate", "5e-3", "--mask-share", "0.2", "--json"];
    let said = json(&[&args[..], &more].concat());
    assert!(said["held_out_loss"].as_f64().unwrap() < 1.0, "{said}");
    let filled =
        json(&["fill", said["out"].as_str().unwrap(), "w5 w9 [MASK] w5 w9 w13", "--top", "1", "--json"]);
    assert_eq!(filled["texts"][0][0][0]["text"], "w13", "{filled}");
    let none = output(&["train", "lm", &model, "--data", &text, "--out", &at("none"), "--mask-share", "0"]);
    assert!(String::from_utf8_lossy(&none.stderr).contains("mask_share"), "{none:?}");
}

#[test]
fn adapters_of_every_kind_learn() {
    let dir = data();
    let at = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
    let answers = at("answers.jsonl");
    let more: [(&str, &[&str]); 7] = [
        ("lora", &[]),
        ("dora", &["--lora-rank", "2"]),
        ("ia3", &["--peft-targets", "v_proj,down_proj", "--ia3-feedforward", "down_proj"]),
        ("prompt", &["--virtual-tokens", "4", "--prompt-text", "Say the sea"]),
        ("prefix", &["--virtual-tokens", "3"]),
        ("bottleneck", &["--bottleneck-place", "mlp", "--bottleneck-width", "5"]),
        ("bottleneck", &["--bottleneck-activation", "gelu"]),
    ];
    for (i, (kind, more)) in more.into_iter().enumerate() {
        let out = at(&format!("{kind}-{i}"));
        let args =
            ["train", "sft", "demo", "--data", &answers, "--out", &out, "--steps", "6", "--batch", "4"];
        let said = json(&[&args[..], &["--rate", "1e-2", "--json", "--peft", kind], more].concat());
        let losses: Vec<f64> =
            log(Path::new(&out)).iter().map(|line| line["loss"].as_f64().unwrap()).collect();
        assert!(losses[5] < losses[0], "{kind}: {losses:?}");
        let adapter = said["out"].as_str().unwrap();
        let args = ["generate", "demo", "--prompt", "Say the sea:", "--max-tokens", "3", "--json"];
        json(&[&args[..], &["--adapter", adapter]].concat());
    }
    let args = ["train", "sft", "demo", "--data", &answers, "--out", &at("out"), "--peft", "prefix"];
    for wrong in [["--lora-rank", "2"], ["--prompt-text", "a"], ["--bottleneck-width", "4"]] {
        assert_eq!(output(&[&args[..], &wrong].concat()).status.code(), Some(2), "{wrong:?}");
    }
}

#[test]
fn bad_data_and_options_are_refused_with_the_line() {
    let dir = data();
    let at = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
    let out = at("run");
    fs::write(dir.path().join("bad.jsonl"), "{\"prompt\": \"a\", \"completion\": \"b\"}\n{\"prompt\": 3}\n")
        .unwrap();
    let fails = |args: &[&str], status: i32, says: &str| {
        let done = output(args);
        let text = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(done.status.code(), Some(status), "{args:?}: {text}");
        assert!(
            text.contains(says) && text.trim_end().lines().count() == 1 || status == 2,
            "{args:?}: {text}"
        );
    };
    let bad = at("bad.jsonl");
    fails(
        &["train", "sft", "demo", "--data", &bad, "--out", &out],
        1,
        "line 2: expected a text called `prompt`",
    );
    fails(&["train", "sft", "demo", "--data", "/no/such/file", "--out", &out], 1, "/no/such/file");
    let answers = at("answers.jsonl");
    let none = ["train", "sft", "demo", "--data", &answers, "--out", &out, "--only", "nothing"];
    fails(&none, 1, "expected parts of names of tensors");
    fails(&["train", "reward", "demo", "--data", &at("pairs.jsonl"), "--out", &out], 1, "one output");
    let reward =
        ["train", "ppo", "demo", "--prompts", &at("prompts.txt"), "--out", &out, "--reward", "magic"];
    fails(&reward, 2, "builtin:length");
    fails(&["train", "lm", "--data", &answers, "--out", &out], 2, "MODEL");
    let bert = golden("bert-mlm");
    let classes = golden("bert-classify");
    fails(&["train", "lm", &classes, "--data", &answers, "--out", &out], 1, "expected a language model");
    fails(&["train", "sft", &bert, "--data", &answers, "--out", &out], 1, "tokenizer");
}
