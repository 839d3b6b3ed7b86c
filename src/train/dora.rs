//! Floor 5: magnitudes of rows that learn apart from their directions (Liu et al. 2024, DoRA). Lengths are constants to the
//! gradient (section 4.3), as peft has it. Knows no files.
//!
//! A program reads gains (magnitudes over lengths) and shifts, which follow what learns; their gradients are brought back to
//! the magnitudes after each backward pass.

use super::adapt::{Additions, values};
use crate::adapter::{gains, length};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::learns::Learns;
use crate::weights::{DoraW, LinearW, LoraW, P, Param, VectorParam, Weights, matrix_row};
use kernels::Matrix;
use rayon::ThreadPool;
use rayon::prelude::*;

/// Threads to compute lengths on, where magnitudes learn.
///
/// # Errors
/// `Internal` where the system gives none.
pub(super) fn pool(weights: &Weights, engine: &Engine) -> Result<Option<ThreadPool>> {
    if all(weights).is_empty() {
        return Ok(None);
    }
    let threads = engine.threads();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    pool.map(Some).map_err(|e| Error::Internal(format!("{threads} threads to compute lengths on: {e}")))
}

/// Magnitudes of the linear called `name`, and what follows them.
pub(super) fn attach(made: &mut Additions, name: &str, magnitude: Vec<f32>, has_bias: bool) -> DoraW {
    let n = magnitude.len();
    let name = format!("{name}.{}.lora_magnitude_vector", made.next().0);
    DoraW {
        magnitude: made.vector(name, magnitude),
        lengths: made.constant(vec![1.0; n]),
        gains: made.follower(vec![1.0; n]),
        shifts: has_bias.then(|| made.follower(vec![0.0; n])),
    }
}

/// The length of each row.
pub(super) fn row_lengths(w: &Matrix) -> Vec<f32> {
    let mut row = vec![0.0; w.k()];
    let one = |i| {
        matrix_row(w, i, &mut row);
        length(&mut row, &[], &[], 1.0)
    };
    (0..w.n()).map(one).collect()
}

/// Linears that have magnitudes.
fn all(weights: &Weights) -> Vec<(LinearW, LoraW, DoraW)> {
    let dora = |w: &LinearW| w.added.lora.and_then(|lora| Some((*w, lora, lora.dora?)));
    weights.linears().filter_map(dora).collect()
}

/// Makes lengths, gains and shifts anew, on the threads of `pool`.
pub(super) fn follow(weights: &mut Weights, pool: &ThreadPool) {
    for (w, lora, dora) in all(weights) {
        let lengths = lengths(weights, &w, lora, pool);
        let gains = gains(values(weights, dora.magnitude), &lengths);
        let shifts = w.bias.map(|p| {
            let shift = |(bias, gain): (&f32, &f32)| bias - bias * gain;
            values(weights, p).iter().zip(&gains).map(shift).collect()
        });
        let made =
            [(Some(dora.lengths), Some(lengths)), (Some(dora.gains), Some(gains)), (dora.shifts, shifts)];
        for (p, values) in made {
            if let (Some(p), Some(values)) = (p, values) {
                weights.params[p.0 as usize] = Param::Vector(VectorParam::computed(values));
            }
        }
    }
}

/// The lengths of the rows of `W + scale B A`.
fn lengths(weights: &Weights, w: &LinearW, lora: LoraW, pool: &ThreadPool) -> Vec<f32> {
    let matrix = weights.params[w.w.0 as usize].matrix();
    let (a, b) = (values(weights, lora.a), values(weights, lora.b));
    let mut out = vec![0.0; w.n];
    let one = |row: &mut Vec<f32>, (i, out): (usize, &mut f32)| {
        matrix_row(&matrix, i, row);
        *out = length(row, a, &b[i * lora.rank..][..lora.rank], lora.scale);
    };
    pool.install(|| out.par_iter_mut().enumerate().for_each_init(|| vec![0.0; matrix.k()], one));
    out
}

/// Brings the gradients of gains and shifts to the magnitudes: `dm += (dgains - bias dshifts) / lengths`.
pub(super) fn bring_back(weights: &Weights, grads: &mut [f32], learns: &Learns) {
    for (w, _, dora) in all(weights) {
        let span = |p: P| learns.span(p).map(|span| span.at..span.at + span.cols);
        let (Some(to), Some(gains)) = (span(dora.magnitude), span(dora.gains)) else { continue };
        let lengths = values(weights, dora.lengths);
        let bias = w.bias.map(|p| values(weights, p)).zip(dora.shifts.and_then(span));
        for (i, (to, gain)) in to.zip(gains).enumerate() {
            let mut by_gain = std::mem::take(&mut grads[gain]);
            if let Some((bias, shifts)) = &bias {
                by_gain -= bias[i] * std::mem::take(&mut grads[shifts.start + i]);
            }
            grads[to] += by_gain / lengths[i];
        }
    }
}
