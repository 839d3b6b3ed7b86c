//! What models do with texts: vectors, classes, hidden words, marks on tokens, answers, scores. The numbers of models are
//! the golden tests' matter; here it is that the right ones come to the right texts.
#![cfg(feature = "tokenizer")]

mod common;
#[path = "common/words.rs"]
mod words;

use common::{bits, engine};
use inlaid::Error;
use inlaid::align::{self, Which};
use inlaid::arch::Rows;
use inlaid::encode::{self, Ask, Text};
use inlaid::format::files::Files;
use inlaid::model::{Model, ModelConfig};
use inlaid::task::{self, Call, EmbedConfig, Input};
use serde_json::json;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use words::reader;

fn open(dir: &Path) -> Arc<Model> {
    let files = Files::at(dir).expect("files");
    Model::open(&engine(2, None), &files, ModelConfig::default()).expect("a model")
}

fn rows(model: &Model, ids: &[u32], types: &[u32], ask: Ask) -> Vec<f32> {
    let (never, mut out) = (AtomicBool::new(false), Vec::new());
    let text = Text { ids, types };
    encode::run(model, &[text], ask, &never, &mut None, &mut |_, rows, _| out.extend_from_slice(rows))
        .expect("rows");
    out
}

#[test]
fn a_text_has_the_same_vector_alone_and_among_others() {
    let dir = reader("bert", |_| {});
    let model = open(dir.path());
    let long = (5..60).map(|i| format!("w{i}")).collect::<Vec<_>>().join(" ");
    let texts = ["w5 w6 w7", "w9", &long, "w8 w8 w8 w8 w8 w8 w8", "w5 w6 w7"];
    let inputs: Vec<Input> = texts.iter().map(|text| Input::new(text)).collect();
    let all = task::embed(&model, &inputs, &EmbedConfig::default(), Call::default()).expect("vectors");
    let each: Vec<&[f32]> = all.values.chunks_exact(all.dim).collect();
    assert_eq!(each.len(), 5);
    assert_eq!(each[0], each[4]);
    for (input, want) in inputs.iter().zip(&each) {
        let alone =
            task::embed(&model, &[*input], &EmbedConfig::default(), Call::default()).expect("a vector");
        assert_eq!(bits(&alone.values), bits(want));
    }
    // Unless files say otherwise it is the mean of all states, [CLS] and [SEP] among them.
    let hidden = rows(&model, &[2, 5, 6, 7, 3], &[], Ask::Hidden);
    for (i, found) in each[0].iter().enumerate() {
        let mean = hidden.chunks_exact(all.dim).map(|row| row[i]).sum::<f32>() / 5.0;
        assert!((mean - found).abs() <= 1e-5 * mean.abs().max(1.0), "{mean} {found}");
    }
    let first = EmbedConfig { rows: Some(Rows::First), normalize: Some(true) };
    let found = task::embed(&model, &inputs[..1], &first, Call::default()).expect("a vector").values;
    let length = found.iter().map(|x| x * x).sum::<f32>();
    assert!((length - 1.0).abs() < 1e-5, "{length}");
    assert!((found[0] / found[1] - hidden[0] / hidden[1]).abs() < 1e-3 * (hidden[0] / hidden[1]).abs());
}

#[test]
fn pooling_is_read_from_the_files_of_sentence_transformers() {
    let dir = reader("bert", |_| {});
    let write = |name: &str, value: serde_json::Value| {
        std::fs::create_dir_all(dir.path().join("1_Pooling")).expect("a directory");
        std::fs::write(dir.path().join(name), value.to_string()).expect("a file");
    };
    let kind = |name: &str| format!("sentence_transformers.models.{name}");
    write(
        "modules.json",
        json!([{"type": kind("Transformer"), "path": ""},
        {"type": kind("Pooling"), "path": "1_Pooling"}, {"type": kind("Normalize"), "path": "2_Normalize"}]),
    );
    write(
        "1_Pooling/config.json",
        json!({"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false}),
    );
    write("sentence_bert_config.json", json!({"max_seq_length": 6}));
    let model = open(dir.path());
    let input = [Input::new("w5 w6 w7")];
    let found =
        task::embed(&model, &input, &EmbedConfig::default(), Call::default()).expect("a vector").values;
    let asked = EmbedConfig { rows: Some(Rows::First), normalize: Some(true) };
    assert_eq!(found, task::embed(&model, &input, &asked, Call::default()).expect("a vector").values);
    // Longer than the authors meant it: an error, or cut at the end, where [SEP] stays.
    let long = [Input::new("w5 w6 w7 w8 w9")];
    let refused = task::embed(&model, &long, &EmbedConfig::default(), Call::default());
    assert!(matches!(refused, Err(Error::Argument { .. })), "{refused:?}");
    assert!(refused.unwrap_err().to_string().contains("7 tokens, the model takes 6"));
    let cut =
        task::embed(&model, &long, &asked, Call { truncate: true, ..Call::default() }).expect("cut").values;
    let short = [Input::new("w5 w6 w7 w8")];
    assert_eq!(cut, task::embed(&model, &short, &asked, Call::default()).expect("whole").values);

    write("modules.json", json!([{"type": kind("Dense"), "path": "2_Dense"}]));
    let refused =
        Model::open(&engine(1, None), &Files::at(dir.path()).expect("files"), ModelConfig::default());
    assert!(refused.err().expect("an error").to_string().contains("Dense"));
    write("modules.json", json!([{"type": kind("Pooling"), "path": "1_Pooling"}]));
    write("1_Pooling/config.json", json!({"pooling_mode_max_tokens": true}));
    let refused =
        Model::open(&engine(1, None), &Files::at(dir.path()).expect("files"), ModelConfig::default());
    assert!(refused.err().expect("an error").to_string().contains("pooling_mode_max_tokens"));
}

#[test]
fn classes_come_with_their_names_most_likely_first() {
    let dir = reader("bert-classify", |config| config["id2label"]["1"] = "good".into());
    let model = open(dir.path());
    let input = Input { text: "w5 w6", second: Some("w7") };
    let found = task::classify(&model, &[input], Call::default()).expect("classes").remove(0);
    assert_eq!(found.len(), 5);
    assert!(found.windows(2).all(|pair| pair[0].probability >= pair[1].probability));
    assert!((found.iter().map(|class| class.probability).sum::<f32>() - 1.0).abs() < 1e-5);
    assert!(found.iter().any(|class| class.label == "good" && class.id == 1));
    let logits = rows(&model, &[2, 5, 6, 3, 7, 3], &[0, 0, 0, 0, 1, 1], Ask::Head);
    assert!(found.iter().all(|class| class.logit == logits[class.id]), "the second text has the second type");

    let dir = reader("roberta-score", |_| {});
    let score =
        task::classify(&open(dir.path()), &[Input::new("w5")], Call::default()).expect("a score").remove(0);
    assert!(score.len() == 1 && score[0].probability < 1.0);
    let wrong = task::fill(&model, &[Input::new("[MASK]")], 3, Call::default());
    assert!(wrong.unwrap_err().to_string().contains("masked language model"));
}

#[test]
fn hidden_words_are_guessed_where_they_are() {
    let dir = reader("bert-mlm", |_| {});
    let model = open(dir.path());
    let found =
        task::fill(&model, &[Input::new("w5 [MASK] w7 [MASK]")], 4, Call::default()).expect("guesses");
    let logits = rows(&model, &[2, 5, 4, 7, 4, 3], &[], Ask::Head);
    let vocab = model.arch().vocab();
    for (mask, at) in found[0].iter().zip([2, 4]) {
        let row = &logits[at * vocab..][..vocab];
        let best = inlaid::sample::top_logprobs(row, 4);
        assert_eq!(
            mask.iter().map(|guess| guess.id).collect::<Vec<_>>(),
            best.iter().map(|b| b.0).collect::<Vec<_>>()
        );
        assert!((mask[0].probability - best[0].1.exp()).abs() < 1e-6);
    }
    let refused = task::fill(&model, &[Input::new("w5")], 4, Call::default());
    assert!(refused.unwrap_err().to_string().contains("text 0 has no [MASK]"));
}

#[test]
fn marks_stand_where_their_characters_do() {
    let dir = reader("xlm-roberta-tag", |config| config["id2label"]["2"] = "PLACE".into());
    let model = open(dir.path());
    let found = task::tag(&model, &[Input::new("w5  élan w9")], Call::default()).expect("marks").remove(0);
    let spans: Vec<_> = found.iter().map(|tag| (tag.text.as_str(), tag.span)).collect();
    assert_eq!(spans, [("w5", (0, 2)), ("élan", (4, 8)), ("w9", (9, 11))]);
    assert!(found.iter().all(|tag| tag.label == model.label(tag.class)));

    let dir = reader("bert-span", |_| {});
    let input = Input { text: "w5 w6", second: Some("w7 w8 w9 w10") };
    let answer =
        task::answer(&open(dir.path()), &[input], Call::default()).expect("answers").remove(0).expect("one");
    let text: String =
        "w7 w8 w9 w10".chars().skip(answer.span.0).take(answer.span.1 - answer.span.0).collect();
    assert_eq!(answer.text, text);
    let alone = task::answer(&open(dir.path()), &[Input::new("w5")], Call::default());
    assert!(alone.unwrap_err().to_string().contains("question 0"));
}

/// A model of the golden ones, and what it refuses to say of `ids`.
fn refused(name: &str, ids: &[u32], ask: Ask) -> String {
    let model = open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name));
    let (never, text) = (AtomicBool::new(false), Text { ids, types: &[] });
    let refused = encode::run(&model, &[text], ask, &never, &mut None, &mut |_, _, _| {});
    refused.expect_err("refused").to_string()
}

#[test]
fn heads_behind_a_decoder_say_what_they_need() {
    for (name, end) in [("bart-classify", 2), ("mbart-classify", 2), ("t5-classify", 1)] {
        let said = refused(name, &[5, 6, 7], Ask::Head);
        assert!(said.contains(&format!("text 0 lacks token {end}")), "{said}");
    }
    for name in ["bart", "t5", "marian"] {
        let said = refused(name, &[5, 6, 2], Ask::Head);
        assert!(said.contains("give a session the source"), "{said}");
    }
    let said = refused("t5-encoder", &[5, 1], Ask::Head);
    assert!(said.contains("saved without a head"), "{said}");
}

#[test]
fn calls_over_many_texts_can_be_ended() {
    let dir = reader("bert", |_| {});
    let model = open(dir.path());
    let inputs = vec![Input::new("w5 w6 w7 w8 w9"); 1000];
    let mut last = (0, 0);
    let mut count = |done, total| {
        last = (done, total);
        ControlFlow::Continue(())
    };
    let call = Call { progress: Some(&mut count), ..Call::default() };
    task::embed(&model, &inputs, &EmbedConfig::default(), call).expect("vectors");
    assert_eq!(last, (1000, 1000));
    let mut stop = |done, _| if done > 100 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
    let call = Call { progress: Some(&mut stop), ..Call::default() };
    let ended = task::embed(&model, &inputs, &EmbedConfig::default(), call);
    assert!(matches!(ended, Err(Error::Cancelled)), "{ended:?}");
    let set = AtomicBool::new(true);
    let call = Call { cancel: Some(&set), ..Call::default() };
    assert!(matches!(task::embed(&model, &inputs, &EmbedConfig::default(), call), Err(Error::Cancelled)));
    let empty = task::embed(&model, &[], &EmbedConfig::default(), Call::default()).expect("nothing");
    assert!(empty.values.is_empty());
}

#[test]
fn weights_of_attention_are_those_that_the_kernels_use() {
    // With one key alone the weight is 1; with more, each row sums to 1 and a causal one sees nothing ahead.
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let encoder = common::open(&engine(1, None), &root.join("bert"), None);
    let found =
        align::attention(&encoder, &[5, 6, 7, 8], &[], align::usual(&encoder), 1, 2).expect("weights");
    assert_eq!((found.rows, found.cols), (4, 4));
    assert!(found.weights.chunks_exact(4).all(|row| (row.iter().sum::<f32>() - 1.0).abs() < 1e-5));
    let decoder = common::open(&engine(1, None), &root.join("llama-gqa"), None);
    let found = align::attention(&decoder, &[5, 6, 7], &[], Which::Decoder, 0, 3).expect("weights");
    assert_eq!(found.weights[..3], [1.0, 0.0, 0.0]);
    assert!(found.weights[5] == 0.0 && found.weights[8] > 0.0);
    for (layer, head, which) in [(9, 0, Which::Decoder), (0, 99, Which::Decoder), (0, 0, Which::Cross)] {
        let refused = align::attention(&decoder, &[5], &[], which, layer, head);
        assert!(matches!(refused, Err(Error::Argument { .. })), "{refused:?}");
    }
}

#[test]
fn a_text_is_scored_after_what_comes_before_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let model = common::open(&engine(1, None), &root.join("llama-gqa"), None);
    let whole = task::score(&model, &[], &[5, 6, 7, 8]).expect("a score");
    assert_eq!((whole.ids.len(), whole.logprobs.len()), (3, 3));
    let part = task::score(&model, &[5, 6], &[7, 8]).expect("a score");
    assert_eq!(bits(&part.logprobs), bits(&whole.logprobs[1..]));
    assert!((part.total - part.logprobs.iter().map(|x| f64::from(*x)).sum::<f64>()).abs() < 1e-12);
}
