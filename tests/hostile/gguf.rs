//! Malformed GGUF files.

use crate::{Case, case};
use inlaid::Error;
use inlaid::format::gguf::{Value, parse, tensors, to_config};
use inlaid::format::source::Source;

pub fn open(bytes: &[u8]) -> Result<(), Error> {
    let file = parse(Source::memory("model.gguf", std::sync::Arc::new(bytes.to_vec())))?;
    let mut values = 0_usize;
    for key in file.keys() {
        values += match file.get(key) {
            Some(Value::List(list)) => list.iter().count(),
            Some(_) => 1,
            None => panic!("{key} was accepted and cannot be read"),
        };
    }
    assert!(values <= bytes.len());
    to_config(&file)?;
    for (_, tensor) in tensors(&file)?.iter() {
        assert_eq!(Some(tensor.bytes().len()), tensor.dtype().row_bytes(tensor.elements()));
    }
    Ok(())
}

pub const TEXT: u32 = 8;
pub const LIST: u32 = 9;

/// A file being put together, with what may be wrong about it.
#[derive(Clone)]
pub struct Draft {
    magic: [u8; 4],
    version: u32,
    n_tensors: Option<u64>,
    n_keys: Option<u64>,
    pub keys: Vec<Vec<u8>>,
    tensors: Vec<Vec<u8>>,
    data: usize,
}

pub fn text(text: impl AsRef<[u8]>) -> Vec<u8> {
    [&(text.as_ref().len() as u64).to_le_bytes(), text.as_ref()].concat()
}

pub fn key(name: impl AsRef<[u8]>, kind: u32, value: &[u8]) -> Vec<u8> {
    [text(name), kind.to_le_bytes().to_vec(), value.to_vec()].concat()
}

pub fn number(name: &str, value: u32) -> Vec<u8> {
    key(name, 4, &value.to_le_bytes())
}

pub fn list(kind: u32, len: u64, values: &[u8]) -> Vec<u8> {
    [&kind.to_le_bytes(), len.to_le_bytes().as_slice(), values].concat()
}

fn tensor(name: impl AsRef<[u8]>, dims: &[u64], kind: u32, offset: u64) -> Vec<u8> {
    let dims: Vec<u8> = dims.iter().flat_map(|n| n.to_le_bytes()).collect();
    let rank = (dims.len() / 8) as u32;
    [
        text(name),
        rank.to_le_bytes().to_vec(),
        dims,
        kind.to_le_bytes().to_vec(),
        offset.to_le_bytes().to_vec(),
    ]
    .concat()
}

impl Draft {
    fn new() -> Draft {
        Draft {
            magic: *b"GGUF",
            version: 3,
            n_tensors: None,
            n_keys: None,
            keys: vec![
                key("general.architecture", TEXT, &text("llama")),
                number("llama.block_count", 1),
                number("llama.context_length", 64),
                number("llama.embedding_length", 32),
                number("llama.feed_forward_length", 32),
                number("llama.attention.head_count", 2),
                key("llama.attention.layer_norm_rms_epsilon", 6, &1e-5_f32.to_le_bytes()),
                key("flag", 7, &[1]),
                key("tokens", LIST, &list(TEXT, 2, &[text("a"), text("b")].concat())),
                key("scores", LIST, &list(6, 2, &[0; 8])),
            ],
            tensors: vec![
                tensor("token_embd.weight", &[32, 3], 8, 0),
                tensor("output_norm.weight", &[32], 0, 128),
            ],
            data: 256,
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let counts = [(self.n_tensors, self.tensors.len()), (self.n_keys, self.keys.len())];
        let mut out = [self.magic.as_slice(), &self.version.to_le_bytes()].concat();
        for (said, held) in counts {
            out.extend(said.unwrap_or(held as u64).to_le_bytes());
        }
        out.extend(self.keys.iter().chain(&self.tensors).flatten());
        out.resize(out.len().next_multiple_of(32), 0);
        out.resize(out.len() + self.data, 0);
        out
    }

    pub fn with(change: impl FnOnce(&mut Draft)) -> Vec<u8> {
        let mut draft = Draft::new();
        change(&mut draft);
        draft.bytes()
    }
}

pub fn valid() -> Vec<u8> {
    Draft::new().bytes()
}

pub fn cases() -> Vec<Case> {
    [heads(), keys(), values(), infos(), places(), metadata()].into_iter().flatten().collect()
}

fn heads() -> Vec<Case> {
    let mut cases = vec![
        case("another magic", Draft::with(|d| d.magic = *b"GGML")),
        case("a magic backwards", Draft::with(|d| d.magic = *b"FUGG")),
        case("zeros", vec![0; 4096]),
        case("ones", vec![0xff; 4096]),
    ];
    for version in [0, 1, 4, 0x0300_0000, 0x0200_0000, u32::MAX] {
        cases.push(case(format!("version {version:x}"), Draft::with(|d| d.version = version)));
    }
    for count in [0, 1, 3, 1000, 1 << 17, 1 << 32, 1 << 56, 1 << 63, u64::MAX] {
        cases.push(case(format!("{count} tensors"), Draft::with(|d| d.n_tensors = Some(count))));
    }
    for count in [0, 9, 11, 12, 1000, 1 << 32, 1 << 56, 1 << 63, u64::MAX] {
        cases.push(case(format!("{count} keys"), Draft::with(|d| d.n_keys = Some(count))));
    }
    cases
}

fn keys() -> Vec<Case> {
    let push = |key: Vec<u8>| Draft::with(|d| d.keys.push(key));
    let mut cases = vec![
        case("a key twice", push(number("llama.block_count", 1))),
        case("a key twice, of another type", push(key("llama.block_count", 10, &[0; 8]))),
        case("a key that is not UTF-8", push(key(b"\xff\xfe", 7, &[1]))),
        case("a key of 70,000 bytes", push(key("x".repeat(70_000), 7, &[1]))),
        case("a list of lists", push(key("x", LIST, &list(LIST, 1, &list(4, 1, &[0; 4]))))),
        case("lists without end", push(key("x", LIST, &list(LIST, 1, &[9, 0, 0, 0].repeat(1000))))),
        case("a switch of 2", push(key("x", 7, &[2]))),
        case("a list of switches of 2", push(key("x", LIST, &list(7, 3, &[0, 1, 2])))),
    ];
    for length in [1 << 20, 1 << 32, 1 << 63, u64::MAX, u64::MAX - 7] {
        let bytes = [&length.to_le_bytes(), [7; 32].as_slice()].concat();
        cases.push(case(format!("a key of {length} bytes"), push(bytes)));
    }
    for kind in [13, 14, 255, 1 << 31, u32::MAX] {
        cases.push(case(format!("value type {kind}"), push(key("x", kind, &[0; 8]))));
        cases.push(case(format!("list of type {kind}"), push(key("x", LIST, &list(kind, 1, &[0; 8])))));
    }
    cases
}

fn values() -> Vec<Case> {
    let push = |key: Vec<u8>| Draft::with(|d| d.keys.push(key));
    let mut cases = Vec::new();
    for length in [5_000, 1 << 32, 1 << 61, 1 << 62, 1 << 63, u64::MAX, u64::MAX - 11] {
        cases.push(case(format!("a text of {length} bytes"), push(key("x", TEXT, &length.to_le_bytes()))));
        for kind in [0, 4, 7, TEXT, 10, 12] {
            let what = format!("a list of {length} values of type {kind}");
            cases.push(case(what, push(key("x", LIST, &list(kind, length, &[0; 64])))));
        }
        let inner = [text("a"), length.to_le_bytes().to_vec()].concat();
        cases.push(case(
            format!("a list with a text of {length}"),
            push(key("x", LIST, &list(TEXT, 2, &inner))),
        ));
    }
    cases
}

fn infos() -> Vec<Case> {
    let first = |info: Vec<u8>| Draft::with(|d| d.tensors[0] = info);
    let name = "token_embd.weight";
    let mut cases = vec![
        case("a tensor twice", Draft::with(|d| d.tensors.push(tensor("output_norm.weight", &[0], 0, 256)))),
        case("two tensors of one name", Draft::with(|d| d.tensors[1] = tensor(name, &[32], 0, 128))),
        case("a name that is not UTF-8", first(tensor(b"\xc3\x28", &[32, 3], 8, 0))),
        case("a name of 2,000 bytes", first(tensor("x".repeat(2000), &[32, 3], 8, 0))),
        case("five dimensions", first(tensor(name, &[32, 3, 1, 1, 1], 8, 0))),
    ];
    for rank in [5_u32, 1000, 1 << 31, u32::MAX] {
        let bytes = [text(name), rank.to_le_bytes().to_vec(), vec![1; 64]].concat();
        cases.push(case(format!("{rank} dimensions"), first(bytes)));
    }
    let shapes: &[&[u64]] = &[
        &[31, 3],
        &[33, 3],
        &[32, 4],
        &[32, 2],
        &[32],
        &[],
        &[0, 3],
        &[3, 32],
        &[32, u64::MAX],
        &[u64::MAX, 3],
        &[u64::MAX - 31, 3],
        &[1 << 32, 1 << 32],
        &[1 << 63, 2],
        &[1 << 62, 4, 4, 4],
        &[32, 1 << 60],
        &[32, 0x0f0f_0f0f_0f0f_0f10],
        &[1 << 32, 1 << 32, 0],
    ];
    for dims in shapes {
        cases.push(case(format!("dimensions {dims:?}"), first(tensor(name, dims, 8, 0))));
    }
    for kind in
        [0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 15, 16, 23, 29, 31, 33, 34, 39, 40, 99, 1 << 31, u32::MAX]
    {
        cases.push(case(format!("element type {kind}"), first(tensor(name, &[32, 3], kind, 0))));
    }
    cases
}

fn places() -> Vec<Case> {
    let at = |a: u64, b: u64| {
        Draft::with(|d| {
            d.tensors =
                vec![tensor("token_embd.weight", &[32, 3], 8, a), tensor("output_norm.weight", &[32], 0, b)];
        })
    };
    let mut cases: Vec<Case> = [
        (0, 0),
        (0, 32),
        (0, 64),
        (0, 96),
        (0, 102),
        (0, 127),
        (0, 129),
        (0, 160),
        (32, 160),
        (128, 256),
        (256, 0),
        (0, 1 << 32),
        (0, 1 << 63),
        (0, u64::MAX),
        (u64::MAX, 128),
        (u64::MAX - 31, 128),
        (1 << 63, 1 << 63),
    ]
    .into_iter()
    .map(|(a, b)| case(format!("offsets {a} and {b}"), at(a, b)))
    .collect();
    for data in [0, 1, 102, 128, 255, 257, 288, 1 << 16] {
        cases.push(case(format!("{data} bytes of data"), Draft::with(|d| d.data = data)));
    }
    for alignment in [0, 3, 31, 33, 128, 256, 1 << 21, 1 << 31, u32::MAX] {
        let bytes = Draft::with(|d| d.keys.push(number("general.alignment", alignment)));
        cases.push(case(format!("alignment {alignment}"), bytes));
    }
    cases.push(case(
        "an alignment of text",
        Draft::with(|d| d.keys.push(key("general.alignment", TEXT, &text("32")))),
    ));
    cases
}

fn metadata() -> Vec<Case> {
    let set = |at: usize, key: Vec<u8>| Draft::with(|d| d.keys[at] = key);
    let push = |key: Vec<u8>| Draft::with(|d| d.keys.push(key));
    let number_of = |name: &str| number(&format!("llama.{name}"), 7);
    let mut cases = vec![
        case("no architecture", set(0, number("x", 1))),
        case("an architecture that is a number", set(0, number("general.architecture", 1))),
        case("an architecture that is not UTF-8", set(0, key("general.architecture", TEXT, &text(b"\xff")))),
        case("an unknown architecture", set(0, key("general.architecture", TEXT, &text("llama\n")))),
        case("a long architecture", set(0, key("general.architecture", TEXT, &text("x".repeat(1 << 20))))),
        case("no blocks", set(1, number("x", 1))),
        case("blocks as a float", set(1, key("llama.block_count", 6, &[0; 4]))),
        case("blocks below zero", set(1, key("llama.block_count", 5, &[0xff; 4]))),
        case("blocks as a list", set(1, key("llama.block_count", LIST, &list(4, 1, &[1; 4])))),
        case("heads of zero", set(5, number("llama.attention.head_count", 0))),
        case(
            "epsilon that is not a number",
            set(6, key("llama.attention.layer_norm_rms_epsilon", 6, &[0xff; 4])),
        ),
        case("epsilon as text", set(6, key("llama.attention.layer_norm_rms_epsilon", TEXT, &text("1")))),
        case("an end token below zero", push(key("tokenizer.ggml.eos_token_id", 5, &[0xff; 4]))),
        case("an end token of 64 bits", push(key("tokenizer.ggml.eos_token_id", 10, &[0xff; 8]))),
        case("a split file", push(number("split.count", 2))),
        case("rope over more than a head", push(number("llama.rope.dimension_count", 18))),
        case("values and keys that differ", push(number("llama.attention.value_length", 17))),
        case("an unknown rope scaling", push(key("llama.rope.scaling.type", TEXT, &text("yarn")))),
        case(
            "a rope table of another length",
            Draft::with(|d| {
                d.tensors.push(tensor("rope_freqs.weight", &[32], 0, 256));
                d.data = 384;
            }),
        ),
        case(
            "a rope table of zeros",
            Draft::with(|d| {
                d.tensors.push(tensor("rope_freqs.weight", &[8], 0, 256));
                d.data = 288;
            }),
        ),
        case("no embedding", Draft::with(|d| d.tensors[0] = tensor("x", &[32, 3], 8, 0))),
        case(
            "an embedding of one dimension",
            Draft::with(|d| d.tensors[0] = tensor("token_embd.weight", &[96], 8, 0)),
        ),
    ];
    for name in
        ["expert_count", "attention.alibi", "logit_scale", "attention.causal", "rope.dimension_sections"]
    {
        cases.push(case(format!("metadata llama.{name}"), push(number_of(name))));
    }
    cases
}
