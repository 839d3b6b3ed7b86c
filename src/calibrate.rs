//! Floor 5: what a text tells about the inputs of a model's linears, so that `pack` can quantise them with the least harm.
//! Runs the model on ids; knows no text and no formats.

use crate::error::{Error, Result};
use crate::format::files::Load;
use crate::format::source::{Progress, Reading};
use crate::model::Model;
use crate::pack::Importance;
use crate::runner::{Feed, Observe, Pick, Runner};
use crate::weights::P;
use kernels::attention::Cache;
use kernels::linear::{Guide, Pack, spans};
use kernels::{Cut, DType, Matrix, Ops, Order, TileMut};
use rayon::ThreadPool;
use rayon::prelude::*;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Tokens that see each other; the next window begins anew.
const WINDOW: usize = 512;

/// Tokens of a run: few, since the inputs of all linears are in memory at once.
const ROWS: usize = 128;

/// Runs `ids` through `model` and learns how its linears are best quantised for such texts. Some thousand tokens do; more
/// than some ten thousand add little. `progress` is told tokens done and tokens in all.
///
/// Takes, besides what a session of 512 tokens takes, 4 bytes for every 512 inputs by every input of every matrix (for
/// q, k and v and for gate and up once); the result keeps that much of the budget until it is dropped.
///
/// # Errors
/// `Argument` for no ids or ids beyond the vocabulary; `Budget`; `Memory`; `Cancelled` by `progress`.
pub fn importance(model: &Model, ids: &[u32], progress: &mut Option<Progress>) -> Result<Importance> {
    let arch = model.arch();
    if ids.is_empty() {
        return Err(Error::Argument { name: "calibrate", what: "expected tokens, found none".to_owned() });
    }
    arch.check_ids(ids)?;
    let threads = model.engine().threads();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    let pool = pool.map_err(|e| Error::Internal(format!("{threads} threads to calibrate on: {e}")))?;
    let mut reading = Reading::new(Load::Map, progress);
    reading.expect(ids.len() as u64)?;

    let window = WINDOW.min(arch.max_positions);
    let _context = model.engine().charge("the context to calibrate in", model.kv_bytes(window))?;
    let mut runner = Runner::observing(arch, Cache::F32, Observe::Inputs);
    let mut seq = runner.pool.open(window)?;
    let (mut all, never) = (None, AtomicBool::new(false));
    for window in ids.chunks(window) {
        runner.pool.rewind(&mut seq, 0);
        for ids in window.chunks(ROWS) {
            let feed = Feed { pick: Pick::All, ..Feed::new(&mut seq, ids) };
            let shape = runner.run(model.parts(), feed, &never)?;
            let inputs = runner.inputs(shape);
            let (moments, _) = match &mut all {
                Some(all) => all,
                None => all.insert(empty(model, &inputs)?),
            };
            count(&pool, model.engine().ops(), moments, &inputs);
            reading.advance(ids.len() as u64)?;
        }
    }
    drop(runner);
    let (moments, charge) = all.ok_or_else(|| Error::Internal("nothing was observed".to_owned()))?;
    Ok(Importance::new(guides(&pool, model, moments), charge))
}

/// What has been counted of one input: it may be that of several matrices.
struct Moments {
    readers: Vec<P>,
    /// Which of the observed inputs it is.
    at: usize,
    k: usize,
    /// `[len, len]` of each of its spans: sums of products.
    sums: Vec<Vec<f32>>,
}

/// Nothing counted yet. Inputs of a width that is never quantised are left out.
fn empty(model: &Model, inputs: &[(P, &[f32], usize)]) -> Result<(Vec<Moments>, crate::engine::Charge)> {
    let mut all: Vec<Moments> = Vec::new();
    for (at, (w, rows, k)) in inputs.iter().enumerate().filter(|(_, (_, _, k))| k.is_multiple_of(32)) {
        let same = |m: &&mut Moments| std::ptr::eq(inputs[m.at].1, *rows);
        match all.iter_mut().find(same) {
            Some(known) => known.readers.push(*w),
            None => all.push(Moments { readers: vec![*w], at, k: *k, sums: Vec::new() }),
        }
    }
    let words = |m: &Moments| spans(m.k).map(|(_, len)| len * len).sum::<usize>();
    let (what, bytes) = ("what calibration counts", all.iter().map(|m| words(m) as u64 * 4).sum());
    let charge = model.engine().charge(what, bytes)?;
    for m in &mut all {
        for (_, len) in spans(m.k) {
            let mut sums = Vec::new();
            sums.try_reserve_exact(len * len).map_err(|_| Error::Memory { what, bytes })?;
            sums.resize(len * len, 0.0);
            m.sums.push(sums);
        }
    }
    Ok((all, charge))
}

/// Adds the rows of a run.
fn count(pool: &ThreadPool, ops: &Ops, all: &mut [Moments], inputs: &[(P, &[f32], usize)]) {
    let jobs = all.iter_mut().flat_map(|m| {
        let (rows, k) = (inputs[m.at].1, m.k);
        spans(k).zip(&mut m.sums).map(move |((first, len), sums)| (rows, k, first, len, sums))
    });
    let jobs: Vec<_> = jobs.collect();
    pool.install(|| {
        jobs.into_par_iter().for_each(|(rows, k, first, len, sums)| add(ops, sums, rows, k, first, len));
    });
}

/// Adds the products of inputs `first..first + len` over `rows` `[rows, k]`: a linear whose weights are the rows and whose
/// activations are the rows on their side.
fn add(ops: &Ops, sums: &mut Vec<f32>, rows: &[f32], k: usize, first: usize, len: usize) {
    let count = rows.len() / k.max(1);
    let mut across = vec![0.0; len * count];
    for (r, row) in rows.chunks_exact(k.max(1)).enumerate() {
        for (i, x) in row[first..first + len].iter().enumerate() {
            across[i * count + r] = *x;
        }
    }
    let piece = ops.pack_piece(len, count, Pack::F32);
    let words = ops.packed_words(len, count, Pack::F32);
    let mut packed = vec![0.0; words];
    let pieces = words.checked_div(piece).unwrap_or(0);
    let mut tile = TileMut::part(&mut packed, pieces, piece, Cut::Pieces(piece.max(1)), 0, 1);
    ops.pack(&mut tile, &across, len, count, Pack::F32);
    let bytes = bytemuck::cast_slice(&rows[first..]);
    let Ok(w) = Matrix::new(bytes, DType::F32, Order::Kn, len, count, 4 * k) else { return };
    let mut out = vec![0.0; len * len];
    let mut scratch = vec![0.0; ops.linear_scratch(count, DType::F32)];
    let mut tile = TileMut::part(&mut out, len, len, Cut::Cols(kernels::linear::PANEL), 0, 1);
    ops.linear(&mut tile, &packed, len, &w, None, Some(sums), &mut scratch);
    *sums = out;
}

/// What follows for every matrix.
fn guides(pool: &ThreadPool, model: &Model, all: Vec<Moments>) -> HashMap<String, Arc<Guide>> {
    let guide = |m: Moments| (m.readers, Arc::new(Guide::from_moments(m.k, m.sums)));
    let guides: Vec<_> = pool.install(|| all.into_par_iter().map(guide).collect());
    let named =
        guides.into_iter().flat_map(|(readers, guide)| readers.into_iter().map(move |w| (w, guide.clone())));
    named.filter_map(|(w, guide)| Some((model.matrix_name(w)?.to_owned(), guide))).collect()
}
