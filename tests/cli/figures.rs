//! Numbers that the program prints against each other: logits, greedy ids, log-probabilities, perplexity, bench.

use crate::{golden, ids, json, logits, output, text};
use serde_json::{Value, json as object};

/// ln of the probability of `id` in a row of logits.
fn logprob(row: &[f64], id: u64) -> f64 {
    let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = row.iter().map(|x| (x - max).exp()).sum();
    row[usize::try_from(id).unwrap()] - max - sum.ln()
}

fn argmax(row: &[f64]) -> u64 {
    let best = row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1).then(b.0.cmp(&a.0)));
    best.unwrap().0 as u64
}

#[test]
fn logits_have_a_row_for_every_position() {
    let model = golden("qwen2");
    let printed = json(&["logits", &model, "--ids", "1,2,3", "--json"]);
    let vocab = json(&["info", &model, "--json"])["vocab"].as_u64().unwrap();
    assert_eq!(printed["shape"], object!([3, vocab]));
    let rows = logits(&model, &[1, 2, 3]);
    assert!(rows.len() == 3 && rows.iter().all(|row| row.len() as u64 == vocab));
    let shown = text(&output(&["logits", &model, "--ids", "1,2,3"]));
    let best = |line: &str| line.split("->").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
    let bests: Vec<String> = shown.lines().map(best).collect();
    let expected: Vec<String> = rows.iter().map(|row| argmax(row).to_string()).collect();
    assert_eq!(bests, expected);
}

#[test]
fn greedy_ids_are_those_of_the_golden_model_and_of_the_logits() {
    for name in ["llama-gqa", "gpt2", "mistral-window"] {
        let model = golden(name);
        let expected: Value =
            serde_json::from_str(&std::fs::read_to_string(format!("{model}/expected.json")).unwrap())
                .unwrap();
        let greedy = &expected["greedy"];
        let (prompt, wanted) = (ids(greedy, "prompt"), ids(greedy, "ids"));
        let list: Vec<String> = prompt.iter().map(u64::to_string).collect();
        let (list, count) = (list.join(","), wanted.len().to_string());
        let args = ["generate", &model, "--ids", &list, "--max-tokens", &count, "--json", "--logprobs", "3"];
        let printed = json(&args);
        assert_eq!(ids(&printed, "prompt_ids"), prompt, "{name}");
        let chosen = ids(&printed, "ids");
        assert_eq!(chosen, wanted[..chosen.len()], "{name}");
        assert!(chosen.len() == wanted.len() || printed["finish"] == "end", "{printed}");
        for rate in ["prefill_tokens_per_s", "decode_tokens_per_s"] {
            assert!(printed[rate].as_f64().is_some_and(|rate| rate > 0.0), "{printed}");
        }
        let whole = [prompt.clone(), chosen.clone()].concat();
        let rows = logits(&model, &whole);
        for (i, (entry, id)) in printed["logprobs"].as_array().unwrap().iter().zip(&chosen).enumerate() {
            let row = &rows[prompt.len() - 1 + i];
            assert_eq!(argmax(row), *id, "{name}");
            let top = entry["top"].as_array().unwrap();
            assert!(top.len() == 3 && top[0]["id"] == *id && entry["id"] == *id, "{entry}");
            // Both are sums of f64 over the same f32 logits; the printed one is rounded to f32 once.
            let (found, exact) = (entry["logprob"].as_f64().unwrap(), logprob(row, *id));
            assert!(
                (found - exact).abs() <= 2.0 * f64::from(f32::EPSILON) * (1.0 + exact.abs()),
                "{found} {exact}"
            );
        }
        assert_eq!(printed["logprobs"].as_array().unwrap().len(), chosen.len());
    }
}

/// Tokens that count, and their negative log-likelihoods by the logits of windows that begin `stride` apart.
fn expected_nll(ids: &[u64], context: usize, stride: usize) -> (u64, f64) {
    let (mut begin, mut counted, mut tokens, mut nll) = (0, 0, 0, 0.0);
    while counted < ids.len() {
        let end = (begin + context).min(ids.len());
        let rows = logits("demo", &ids[begin..end]);
        for at in (begin + 1).max(counted)..end {
            nll -= logprob(&rows[at - 1 - begin], ids[at]);
            tokens += 1;
        }
        (counted, begin) = (end, begin + stride);
    }
    (tokens, nll)
}

#[test]
fn perplexity_is_the_sum_of_what_logits_say() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("text.txt");
    std::fs::write(
        &path,
        "The old king lived by the sea. Every morning he walked along the shore, and came home at noon.",
    )
    .unwrap();
    let path = path.to_str().unwrap();
    let words = std::fs::read_to_string(path).unwrap();
    let ids = ids(&json(&["tokenize", "demo", &words, "--json"]), "ids");
    let n = ids.len();
    for (context, stride) in [(n, n), (12, 12), (12, 5)] {
        let (context_arg, stride_arg) = (context.to_string(), stride.to_string());
        let mut args = vec!["perplexity", "demo", path, "--json", "--context", &context_arg];
        if stride != context {
            args.extend(["--stride", &stride_arg]);
        }
        let printed = json(&args);
        let (tokens, nll) = expected_nll(&ids, context, stride);
        assert_eq!(printed["tokens"], tokens, "{context} {stride}");
        // Each log-probability is rounded to f32 a few times: its sum of exponentials, its logarithm, their difference.
        let (found, bound) =
            (printed["nll"].as_f64().unwrap(), 64.0 * f64::from(f32::EPSILON) * (nll + n as f64));
        assert!((found - nll).abs() <= bound, "{context} {stride}: {found} {nll}");
        let perplexity = (found / tokens as f64).exp();
        assert!((printed["perplexity"].as_f64().unwrap() / perplexity - 1.0).abs() < 1e-12);
    }
    assert!(text(&output(&["perplexity", "demo", path])).starts_with("perplexity "));
}

#[test]
fn info_says_what_the_config_says() {
    let printed = json(&["info", "--json"]);
    assert_eq!(printed["model"], "demo");
    let config: Value =
        serde_json::from_str(include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/demo/config.json"))).unwrap();
    let pairs = [
        ("family", "model_type"),
        ("n_layers", "num_hidden_layers"),
        ("d_model", "hidden_size"),
        ("n_kv_heads", "num_key_value_heads"),
        ("vocab", "vocab_size"),
        ("max_positions", "max_position_embeddings"),
    ];
    for (ours, theirs) in pairs {
        assert_eq!(printed[ours], config[theirs], "{ours}");
    }
    let parameters = printed["parameters"].as_u64().unwrap();
    assert!((2_000_000..=3_800_000).contains(&parameters), "{parameters}");
    assert_eq!(printed["dtypes"]["BF16"]["elements"], parameters);
    assert_eq!(printed["stop_tokens"][0]["id"], config["eos_token_id"]);
    assert!(printed["memory"]["kv_bytes_per_token"].as_u64().is_some_and(|bytes| bytes > 0));
    let shown = text(&output(&["info"]));
    assert!(shown.contains(&format!("parameters                   {parameters}\n")), "{shown}");
}

#[test]
fn bench_prints_speeds_memory_and_shares() {
    let args =
        ["bench", "--prompt-tokens", "32", "--gen-tokens", "4", "--repeat", "2", "--threads", "1", "--json"];
    let printed = json(&args);
    for spread in ["load_ms", "prefill_tokens_per_s", "decode_tokens_per_s"] {
        let [min, median, max] = ["min", "median", "max"].map(|key| printed[spread][key].as_f64().unwrap());
        assert!(0.0 < min && min <= median && median <= max, "{spread}: {printed}");
    }
    for figure in [
        "read_bandwidth_bytes_per_s",
        "peak_flops_per_s",
        "decode_share_of_bandwidth",
        "prefill_share_of_peak",
    ] {
        assert!(printed[figure].as_f64().is_some_and(|x| x > 0.0), "{figure}: {printed}");
    }
    assert_eq!((&printed["depth"], &printed["sessions"]), (&object!(0), &object!(1)));
    assert!(printed["isa"].as_str().is_some_and(|isa| !isa.is_empty()));
    if cfg!(target_os = "linux") {
        let [private, peak] = ["private_bytes", "peak_rss_bytes"].map(|key| printed[key].as_u64().unwrap());
        assert!(0 < private && private <= peak, "{printed}");
    }
}

#[test]
fn bench_measures_at_a_depth_and_with_several_sessions() {
    let args =
        ["bench", "--prompt-tokens", "8", "--gen-tokens", "3", "--repeat", "1", "--threads", "1", "--json"];
    let printed = json(&[&args[..], &["--depth", "70", "--sessions", "3"]].concat());
    assert_eq!((&printed["depth"], &printed["sessions"]), (&object!(70), &object!(3)));
    for rate in ["prefill_tokens_per_s", "decode_tokens_per_s"] {
        assert!(printed[rate]["median"].as_f64().is_some_and(|rate| rate > 0.0), "{printed}");
    }
    let shown = text(&output(&[
        "bench",
        "--prompt-tokens",
        "8",
        "--gen-tokens",
        "2",
        "--repeat",
        "1",
        "--sessions",
        "2",
    ]));
    assert!(shown.lines().next().is_some_and(|line| line.ends_with("depth 0, 2 sessions")), "{shown}");
}

/// Guessing ahead gives the ids of plain steps, greedily and by chance.
#[test]
fn guesses_change_no_id() {
    for temperature in ["0", "0.8"] {
        let common =
            ["--prompt", "The old king", "-n", "60", "--json", "--temperature", temperature, "--seed", "7"];
        let run = |more: &[&str]| json(&[&["generate", "--ignore-eos"][..], &common[..], more].concat());
        let plain = run(&[]);
        assert_eq!((&plain["drafted_tokens"], &plain["accepted_tokens"]), (&object!(0), &object!(0)));
        let drafted = run(&["--draft", "demo", "--draft-tokens", "3"]);
        let (all, right) = (&drafted["drafted_tokens"], &drafted["accepted_tokens"]);
        assert!(all.as_u64().is_some_and(|n| n > 20) && all == right, "a model guesses itself: {drafted}");
        for printed in [&drafted, &run(&["--lookup", "8"])] {
            assert_eq!((&printed["ids"], &printed["text"]), (&plain["ids"], &plain["text"]));
        }
    }
}

#[test]
fn bench_reads_texts_and_answers_them() {
    let usual = ["--texts", "2", "--tokens", "5", "--repeat", "1", "--threads", "1"];
    let printed = json(&[&["bench", &golden("bert")][..], &usual, &["--json"]].concat());
    assert_eq!((&printed["texts"], &printed["tokens"]), (&object!(2), &object!(5)));
    for figure in [&printed["sentences_per_s"]["median"], &printed["share_of_peak"]] {
        assert!(figure.as_f64().is_some_and(|x| x > 0.0), "{printed}");
    }
    for beams in ["1", "3"] {
        let more = ["--gen-tokens", "4", "--beams", beams, "--json"];
        let printed = json(&[&["bench", &golden("marian")][..], &usual, &more].concat());
        assert!(printed["tokens_per_s"]["median"].as_f64().is_some_and(|x| x > 0.0), "{printed}");
        assert_eq!((&printed["gen_tokens"], &printed["sentences_per_s"]), (&object!(4), &Value::Null));
    }
    let shown = text(&output(&[&["bench", &golden("bert")][..], &usual].concat()));
    assert!(shown.contains("2 texts of 5 tokens\n") && shown.contains("sentences/s"), "{shown}");
}
