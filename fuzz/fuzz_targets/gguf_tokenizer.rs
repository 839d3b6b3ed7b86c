//! The tokenizer in a GGUF file's metadata. The file is put together from what is fuzzed, so that no work is lost on the
//! lengths and counts around it (the target `gguf` has those).
#![no_main]

use inlaid::format::files::{Files, Part};
use inlaid::tokenizer::Tokenizer;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use std::sync::Arc;

/// What a tokenizer's metadata may say.
#[derive(Arbitrary, Debug)]
struct Metadata<'a> {
    sentencepiece: bool,
    pre: u8,
    tokens: Vec<&'a [u8]>,
    types: Vec<u8>,
    merges: Vec<(&'a [u8], &'a [u8])>,
    scores: Vec<f32>,
    ids: [Option<u8>; 4],
    flags: [Option<bool>; 3],
    texts: Vec<&'a str>,
}

const NAMES: [&str; 8] =
    ["gpt-2", "smollm", "llama-bpe", "qwen2", "deepseek-r1-qwen", "tekken", "default", "none"];

fn text(text: &[u8]) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text].concat()
}

fn list(kind: u32, values: &[Vec<u8>]) -> (u32, Vec<u8>) {
    (9, [&kind.to_le_bytes()[..], &(values.len() as u64).to_le_bytes(), &values.concat()].concat())
}

impl Metadata<'_> {
    fn file(&self) -> Vec<u8> {
        let mut keys = vec![("general.architecture".to_owned(), (8, text(b"llama")))];
        let mut add = |name: &str, value| keys.push((format!("tokenizer.ggml.{name}"), value));
        add("model", (8, text(if self.sentencepiece { b"llama" } else { b"gpt2" })));
        add("pre", (8, text(NAMES[usize::from(self.pre) % NAMES.len()].as_bytes())));
        add("tokens", list(8, &self.tokens.iter().map(|token| text(token)).collect::<Vec<_>>()));
        if !self.types.is_empty() {
            let types: Vec<Vec<u8>> = self
                .tokens
                .iter()
                .enumerate()
                .map(|(n, _)| i32::from(self.types[n % self.types.len()] % 8))
                .map(|n| n.to_le_bytes().to_vec())
                .collect();
            add("token_type", list(5, &types));
        }
        let merges: Vec<Vec<u8>> =
            self.merges.iter().map(|(a, b)| text(&[a, &b" "[..], b].concat())).collect();
        add("merges", list(8, &merges));
        let scores = (0..self.tokens.len()).map(|n| self.scores.get(n).copied().unwrap_or(0.0));
        add("scores", list(6, &scores.map(|x| x.to_le_bytes().to_vec()).collect::<Vec<_>>()));
        for (name, id) in ["bos", "eos", "unknown", "padding"].iter().zip(self.ids) {
            if let Some(id) = id {
                add(&format!("{name}_token_id"), (4, u32::from(id).to_le_bytes().to_vec()));
            }
        }
        for (name, flag) in ["add_bos_token", "add_eos_token", "add_space_prefix"].iter().zip(self.flags) {
            if let Some(flag) = flag {
                add(name, (7, vec![flag.into()]));
            }
        }
        let mut out =
            [&b"GGUF"[..], &3_u32.to_le_bytes(), &[0; 8], &(keys.len() as u64).to_le_bytes()].concat();
        for (name, (kind, value)) in keys {
            out.extend([text(name.as_bytes()), u32::to_le_bytes(kind).to_vec(), value].concat());
        }
        out.resize(out.len().next_multiple_of(32), 0);
        out
    }
}

fuzz_target!(|metadata: Metadata| {
    let part = ("model.gguf".to_owned(), Part::Memory(Arc::new(metadata.file())));
    let files = Files::named([part]).expect("one file");
    let Ok(Some(tokenizer)) = Tokenizer::open(&files) else { return };
    for text in metadata.texts.iter().chain(&["Hello, wörld! 12345  \n\t🙂"]) {
        let Ok(ids) = tokenizer.encode(text, true, true) else { continue };
        tokenizer.decode(&ids, false).expect("tokens that it gave itself");
    }
});
