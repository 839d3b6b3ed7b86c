//! `--adapter` and `inlaid adapter`: figures are those of the library that wrote the adapters.

use crate::{golden, json, output, text};
use serde_json::Value;

fn expected(name: &str) -> Value {
    let text = std::fs::read(format!("{}/expected.json", golden(&format!("adapters/{name}")))).unwrap();
    serde_json::from_slice(&text).unwrap()
}

/// The largest logit that the program prints for the third case of an adapter, with these options.
fn largest(name: &str, more: &[&str]) -> f64 {
    let json = expected(name);
    let ids: Vec<String> =
        json["cases"][2]["ids"].as_array().unwrap().iter().map(ToString::to_string).collect();
    let (model, ids) = (golden(json["base"].as_str().unwrap()), ids.join(","));
    let args = [&["logits", &model, "--ids", &ids, "--json"], more].concat();
    let printed = crate::json(&args);
    let rows = printed["logits"].as_array().unwrap().iter().flat_map(|row| row.as_array().unwrap());
    rows.map(|x| x.as_f64().unwrap().abs()).fold(0.0, f64::max)
}

#[test]
fn adapters_merged_and_unmerged_and_with_weights() {
    let dir = |name: &str| golden(&format!("adapters/{name}"));
    let close = |a: f64, b: f64| (a - b).abs() <= 2e-4 * b;
    for name in ["lora-names", "ia3-gated", "dora-conv1d"] {
        let (dir, want) = (dir(name), expected(name)["cases"][2]["max_abs"].as_f64().unwrap());
        assert!(close(largest(name, &["--adapter", &dir]), want), "{name}");
        assert!(close(largest(name, &["--adapter", &dir, "--unmerged"]), want), "{name}");
        let none = largest(name, &["--adapter", &format!("{dir}:0")]);
        assert!(close(none, largest(name, &[])) && !close(none, want), "{name}");
    }
    let parts = ["lora-names:0.75", "lora-patterns:-0.5"].map(dir);
    let both = ["--adapter", &parts[0], "--adapter", &parts[1]];
    assert!(close(largest("mixed", &both), expected("mixed")["cases"][2]["max_abs"].as_f64().unwrap()));
    // Quantised weights keep what they are.
    assert!(largest("lora-16bit", &["--weights", "packed", "--adapter", &dir("lora-16bit")]) > 0.0);
    let quantised = largest("lora-names", &["--weights", "q8", "--adapter", &dir("lora-names")]);
    assert!((quantised - expected("lora-names")["cases"][2]["max_abs"].as_f64().unwrap()).abs() < 0.5);
}

#[test]
fn info_says_what_an_adapter_is() {
    let found = json(&["adapter", "info", &golden("adapters/lora-names"), "--json"]);
    assert_eq!(found["type"], "LORA");
    assert_eq!(found["rank"], 4);
    assert_eq!(found["target_modules"], serde_json::json!(["q_proj", "v_proj"]));
    assert_eq!(found["base_model"], "llama-gqa");
    // Two blocks, each [4, 40], [40, 4], [4, 40] and [20, 4].
    assert_eq!((&found["tensors"], &found["parameters"]), (&8.into(), &(2 * (160 + 160 + 160 + 80)).into()));
    let people = text(&output(&["adapter", "info", &golden("adapters/ia3-gated")]));
    assert!(people.contains("IA3") && people.contains("down_proj"), "{people}");
}

#[test]
fn a_merged_model_is_a_model_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    // Fused rows, a row per input, a head that leaves its table, biases and norms, 16 bits.
    for name in
        ["lora-fused", "lora-grouped", "lora-conv1d", "lora-tied", "lora-saved", "lora-16bit", "ia3-gated"]
    {
        let (out, adapter) = (dir.path().join(name), golden(&format!("adapters/{name}")));
        let (out, json) = (out.to_str().unwrap(), expected(name));
        let model = golden(json["base"].as_str().unwrap());
        let printed = crate::json(&["adapter", "merge", &model, &adapter, out, "--json"]);
        assert!(printed["files"].as_array().unwrap().contains(&"model.safetensors".into()), "{printed}");
        let ids: Vec<u64> =
            json["cases"][2]["ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap()).collect();
        let list: Vec<String> = ids.iter().map(u64::to_string).collect();
        let beside =
            crate::json(&["logits", &model, "--adapter", &adapter, "--ids", &list.join(","), "--json"]);
        let alone = crate::json(&["logits", out, "--ids", &list.join(","), "--json"]);
        assert_eq!(beside["logits"], alone["logits"], "{name}");
    }
    let refused = output(&[
        "adapter",
        "merge",
        &golden("t5"),
        &golden("adapters/lora-names"),
        dir.path().join("x").to_str().unwrap(),
    ]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(!dir.path().join("x").exists());
}

#[test]
fn a_wrong_adapter_is_one_line() {
    let model = golden("phi3");
    for (args, words) in [
        (vec!["--adapter".to_owned(), golden("adapters/lora-names")], ["tensor", "phi3"]),
        (vec!["--adapter".to_owned(), golden("llama-gqa")], ["adapter_config.json", "llama-gqa"]),
        (vec!["--adapter".to_owned(), "/nowhere:2".to_owned()], ["/nowhere", "No such file"]),
    ] {
        let mut all = vec!["logits", &model, "--ids", "1"];
        all.extend(args.iter().map(String::as_str));
        let output = output(&all);
        let line = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{line}");
        assert!(words.iter().all(|word| line.contains(word)) && line.lines().count() == 1, "{line}");
    }
    let usage = output(&["logits", &model, "--ids", "1", "--unmerged"]);
    assert_eq!(usage.status.code(), Some(2));
}
