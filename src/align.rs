//! Floor 5: what attends to what: the weights of attention, which an alignment of words can be read from (Bahdanau et al.
//! 2015). Knows ids and no text.
//!
//! The kernels never hold these weights as a whole. Here queries and keys of one run are kept, and the weights of one head
//! are computed from them in f64, by the specification.

use crate::arch::{Side, Stack};
use crate::error::{Error, Result};
use crate::exec::{Shape, Want};
use crate::model::Model;
use crate::runner::{Feed, Mode, Observe, Pick, Runner};
use crate::state::Sequence;
use crate::verb::Of;
use kernels::attention::Cache;
use kernels::reference::{seen, softmax};
use std::sync::atomic::AtomicBool;

/// Which attention of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// An encoder's, of a text to itself.
    Encoder,
    /// A decoder's, of a text to itself.
    Decoder,
    /// A decoder's to the source text.
    Cross,
}

/// The weights of one head of one block.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Alignment {
    /// Tokens that attend.
    pub rows: usize,
    /// Tokens that are attended to.
    pub cols: usize,
    /// `[rows, cols]`; each row sums to 1, or is 0 where a token sees nothing.
    pub weights: Vec<f32>,
}

/// What the model attends to by default: the source, where there is one.
pub fn usual(model: &Model) -> Which {
    match (&model.arch().encoder, &model.arch().decoder) {
        (Some(_), Some(_)) => Which::Cross,
        (Some(_), None) => Which::Encoder,
        (None, _) => Which::Decoder,
    }
}

/// How much each of `ids` (of an encoder-decoder's decoder: of `decoder_ids`) attends to each token, by head `head` of block
/// `layer`, both from 0.
///
/// # Errors
/// `Argument` for a block, head or attention that the model lacks, or no ids; `ContextFull` for more ids than it can hold;
/// `Budget`, `Memory`.
pub fn attention(
    model: &Model,
    ids: &[u32],
    decoder_ids: &[u32],
    which: Which,
    layer: usize,
    head: usize,
) -> Result<Alignment> {
    let stack = stack(model, which)?;
    for (name, found, most) in [("layer", layer, stack.n_layers), ("head", head, stack.n_heads)] {
        if found >= most {
            return Err(Error::Argument {
                name,
                what: format!("expected a number below {most}, found {found}"),
            });
        }
    }
    if let Some((adapter, _)) = model.attached().as_ref().and_then(|grafts| grafts.prompt()) {
        let what = format!("attention beside an adapter of type {}", adapter.config().kind.name());
        return Err(Error::Unsupported { file: adapter.name().to_owned(), what });
    }
    let runner = Runner::observing(model.arch(), Cache::F32, Observe::Attention);
    let mut runner = runner.like(&*model.runner()?);
    let run = |runner: &mut Runner, side, ids: &[u32], source: Option<&Sequence>| {
        kept(runner, model, side, ids, source)
    };
    let (attends, seen) = match which {
        Which::Encoder => (run(&mut runner, Side::Encoder, ids, None)?, None),
        Which::Decoder if !model.arch().reads_source() => (run(&mut runner, Side::Decoder, ids, None)?, None),
        Which::Decoder | Which::Cross => {
            let read = run(&mut runner, Side::Encoder, ids, None)?;
            let wrote = run(&mut runner, Side::Decoder, decoder_ids, Some(&read.seq))?;
            (wrote, Some(read))
        }
    };
    let keys = if which == Which::Cross { seen.as_ref().unwrap_or(&attends) } else { &attends };
    let of_source = which == Which::Cross;
    let q = attends.find(layer, of_source, true)?;
    let k = keys.find(layer, of_source, false)?;
    Ok(weights(model, which, stack, [layer, head], q, k))
}

fn stack(model: &Model, which: Which) -> Result<&Stack> {
    let arch = model.arch();
    let own = match which {
        Which::Encoder => arch.encoder.as_ref(),
        Which::Decoder => arch.decoder.as_ref(),
        Which::Cross => arch.decoder.as_ref().filter(|_| arch.encoder.is_some()),
    };
    let what = || format!("expected a model with such attention, found a plain {}", arch.branch());
    own.ok_or_else(|| Error::Argument { name: "which", what: what() })
}

/// Queries and keys of a run, by block.
struct Kept {
    seq: Sequence,
    /// Block, whether of a source, whether queries, and the rows.
    all: Vec<(usize, bool, bool, Vec<f32>)>,
}

impl Kept {
    fn find(&self, layer: usize, source: bool, query: bool) -> Result<&[f32]> {
        let found = self.all.iter().find(|(l, s, q, _)| (*l, *s, *q) == (layer, source, query));
        found
            .map(|(_, _, _, rows)| &rows[..])
            .ok_or_else(|| Error::Internal("attention was not kept".to_owned()))
    }
}

/// Runs a whole text through one stack.
fn kept(
    runner: &mut Runner,
    model: &Model,
    side: Side,
    ids: &[u32],
    source: Option<&Sequence>,
) -> Result<Kept> {
    if ids.is_empty() {
        return Err(Error::Argument { name: "ids", what: "expected tokens, found none".to_owned() });
    }
    model.arch().check_len(ids.len())?;
    let mut seq = runner.pool.open(ids.len())?;
    runner.begin(Mode { side, want: Want::Hidden });
    let grafts = model.attached();
    let mut feed = Feed { source, pick: Pick::Last, grafts: grafts.as_ref(), ..Feed::new(&mut seq, ids) };
    runner.add(model.parts(), &mut feed)?;
    let shape: Shape = runner.go(model.parts(), &AtomicBool::new(false))?;
    seq.len = ids.len();
    let all = runner.watched(shape).into_iter();
    let all = all.map(|(w, rows)| (w.layer, w.of == Of::Source, w.query, rows.to_vec())).collect();
    Ok(Kept { seq, all })
}

/// The weights of one head.
fn weights(
    model: &Model,
    which: Which,
    s: &Stack,
    [layer, head]: [usize; 2],
    q: &[f32],
    k: &[f32],
) -> Alignment {
    let (dim, attention) = (s.head_dim, s.attention());
    let (q_cols, k_cols, kv) = (s.q_cols(), s.kv_cols(), head / (s.n_heads / s.n_kv_heads));
    let (rows, cols) = (q.len() / q_cols, k.len() / k_cols);
    let own = which != Which::Cross;
    let window = attention.window_of(layer).filter(|_| own).map(|w| w as usize);
    let mut out = vec![0.0; rows * cols];
    for (row, (q, out)) in q.chunks_exact(q_cols).zip(out.chunks_exact_mut(cols.max(1))).enumerate() {
        let q = &q[head * dim..][..dim];
        let seen = if own { seen(row, cols, attention.causal, window) } else { 0..cols };
        let score = |at: usize| {
            let k = &k[at * k_cols + kv * dim..][..dim];
            let dot: f64 = q.iter().zip(k).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum();
            let score = dot * f64::from(attention.scale);
            let capped = attention.cap.map(f64::from).map_or(score, |cap| cap * (score / cap).tanh());
            let bias = if own { model.bias(which == Which::Encoder, head, row, at) } else { 0.0 };
            capped + f64::from(bias)
        };
        let scores: Vec<f64> = seen.clone().map(score).collect();
        for (at, weight) in seen.zip(softmax(&scores)) {
            out[at] = weight as f32;
        }
    }
    Alignment { rows, cols, weights: out }
}
