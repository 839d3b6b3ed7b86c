//! What the commands that read whole texts print: vectors, classes, guesses, marks, answers, scores, weights of attention,
//! and answers of encoder-decoders. The numbers are those of the library, which has tests of its own.

use crate::words::reader;
use crate::{golden, ids, json, output, text};
use serde_json::{Value, json as object};

fn failed(args: &[&str], code: i32, says: &str) {
    let output = output(args);
    let line = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{line}");
    assert!(output.stdout.is_empty() && line.contains(says), "{line}");
}

fn path(dir: &tempfile::TempDir) -> &str {
    dir.path().to_str().unwrap()
}

#[test]
fn vectors_are_printed_and_compared() {
    let dir = reader("bert", |_| {});
    let printed = json(&["embed", path(&dir), "w5 w6", "w7", "w5 w6", "--similarity", "--json"]);
    let rows = printed["embeddings"].as_array().unwrap();
    assert_eq!(rows.len(), 3);
    assert_eq!(rows[0].as_array().unwrap().len() as u64, printed["dim"].as_u64().unwrap());
    assert!(rows[0] == rows[2] && rows[0] != rows[1]);
    let similarity = |a: usize, b: usize| printed["similarity"][a][b].as_f64().unwrap();
    assert!((similarity(0, 2) - 1.0).abs() < 1e-9 && similarity(0, 1) == similarity(1, 0));
    let shown = text(&output(&["embed", path(&dir), "w5 w6", "w7", "--similarity"]));
    assert_eq!(shown.lines().next().unwrap(), format!("1.0000 {:.4}", similarity(0, 1)));
    let file = dir.path().join("lines.txt");
    std::fs::write(&file, "w5 w6\nw7\n").unwrap();
    let of_file = json(&["embed", path(&dir), "--file", file.to_str().unwrap(), "--json"]);
    assert_eq!(of_file["embeddings"][1], rows[1]);
    let long = "w5 ".repeat(100);
    failed(&["embed", path(&dir), &long], 1, "102 tokens, the model takes 80");
    assert_eq!(json(&["embed", path(&dir), &long, "--truncate", "--json"])["dim"], printed["dim"]);
    failed(&["embed", path(&dir)], 2, "TEXT");
}

#[test]
fn classes_guesses_marks_and_answers_are_printed() {
    let dir = reader("bert-classify", |config| config["id2label"]["0"] = "bad".into());
    let printed = json(&["classify", path(&dir), "w5", "--second", "w6 w7", "--top", "2", "--json"]);
    let classes = printed["texts"][0].as_array().unwrap();
    assert!(classes.len() == 2 && classes[0]["probability"].as_f64() >= classes[1]["probability"].as_f64());
    assert!(text(&output(&["classify", path(&dir), "w5"])).contains("bad"));
    failed(&["fill", path(&dir), "[MASK]"], 1, "expected a model for masked language model");

    let dir = reader("bert-mlm", |_| {});
    let printed = json(&["fill", path(&dir), "w5 [MASK] w6", "--top", "3", "--json"]);
    assert_eq!(printed["texts"][0][0].as_array().unwrap().len(), 3);
    failed(&["fill", path(&dir), "w5"], 1, "text 0 has no [MASK]");

    let dir = reader("xlm-roberta-tag", |_| {});
    let printed = json(&["tag", path(&dir), "w5 w6", "--json"]);
    let mark = &printed["texts"][0][1];
    assert_eq!((&mark["text"], &mark["start"], &mark["end"]), (&object!("w6"), &object!(3), &object!(5)));

    let dir = reader("bert-span", |_| {});
    let printed = json(&["answer", path(&dir), "w5", "--second", "w6 w7 w8", "--json"]);
    let found = printed["texts"][0]["text"].as_str().unwrap();
    assert!("w6 w7 w8".contains(found) && !found.is_empty());
    failed(&["answer", path(&dir), "w5"], 2, "--second");
}

#[test]
fn states_and_logits_of_every_kind_of_model_are_printed() {
    let (encoder, both) = (golden("bert"), golden("bart"));
    let printed = json(&["hidden", &encoder, "--ids", "5,6,7", "--json"]);
    assert_eq!(printed["shape"][0], 3);
    assert_eq!(printed["hidden"].as_array().unwrap().len(), 3);
    let printed = json(&["logits", &golden("bert-classify"), "--ids", "5,6,7", "--json"]);
    assert_eq!(printed["shape"], object!([1, 5]));
    let printed = json(&["logits", &both, "--ids", "5,6,7", "--decoder-ids", "2,8", "--json"]);
    assert_eq!(printed["shape"][0], 2);
    assert_eq!(json(&["hidden", &both, "--ids", "5,6,7", "--json"])["shape"][0], 3);
    failed(&["logits", &encoder, "--ids", "5,6", "--decoder-ids", "1"], 2, "--decoder-ids");
    failed(&["generate", &encoder, "--ids", "5"], 1, "expected a language model, found an encoder");
    failed(&["logits", &golden("bert-mlm"), "--ids", "500"], 1, "expected ids below 61, found 500");
    failed(&["logits", &encoder, "--ids", "5"], 1, "without a head");
}

#[test]
fn encoder_decoders_answer_greedily_and_with_beams() {
    for name in ["bart", "t5", "marian", "bart-rules"] {
        let model = golden(name);
        let expected: Value =
            serde_json::from_str(&std::fs::read_to_string(format!("{model}/expected.json")).unwrap())
                .unwrap();
        for answer in expected["answers"].as_array().unwrap() {
            let source: Vec<String> = ids(answer, "source").iter().map(u64::to_string).collect();
            let beams = answer["beams"].to_string();
            let args = [
                "generate",
                &model,
                "--ids",
                &source.join(","),
                "--beams",
                &beams,
                "--max-tokens",
                "16",
                "--json",
            ];
            assert_eq!(ids(&json(&args), "ids"), ids(answer, "ids"), "{name}: {beams} beams");
        }
    }
    failed(
        &["generate", &golden("gpt2"), "--ids", "5", "--decoder-ids", "1"],
        2,
        "this model has no encoder",
    );
}

#[test]
fn attention_is_printed_and_drawn() {
    let printed = json(&["attention", &golden("bert"), "--ids", "5,6,7", "--layer", "1", "--json"]);
    assert_eq!(printed["shape"], object!([3, 3]));
    let sum: f64 = printed["weights"][1].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).sum();
    assert!((sum - 1.0).abs() < 1e-5);
    let cross = ["attention", &golden("bart"), "--ids", "5,6,7", "--decoder-ids", "2,8", "--json"];
    assert_eq!(json(&cross)["shape"], object!([2, 3]));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("map.png");
    let drawn = output(&["attention", &golden("gpt2"), "--ids", "5,6,7", "--png", file.to_str().unwrap()]);
    assert!(drawn.status.success() && drawn.stdout.is_empty(), "{drawn:?}");
    assert!(std::fs::read(&file).unwrap().starts_with(b"\x89PNG"));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing half-written is left");
    failed(&["attention", &golden("gpt2"), "--ids", "5", "--head", "9"], 1, "head");
}

#[test]
fn texts_are_scored() {
    let printed = json(&["score", &golden("llama-gqa"), "--ids", "5,6,7", "--json"]);
    let logprobs = printed["logprobs"].as_array().unwrap();
    assert_eq!((logprobs.len(), ids(&printed, "ids")), (2, vec![6, 7]));
    let total: f64 = logprobs.iter().map(|x| x.as_f64().unwrap()).sum();
    assert!((total - printed["total"].as_f64().unwrap()).abs() < 1e-6);
    let after = json(&["score", &golden("llama-gqa"), "--prompt-ids", "5", "--ids", "6,7", "--json"]);
    assert_eq!(after["logprobs"], printed["logprobs"]);
    let both = json(&["score", &golden("bart"), "--prompt-ids", "5,6", "--ids", "8,9", "--json"]);
    assert_eq!(both["tokens"], 2);
}
