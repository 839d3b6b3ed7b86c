//! Floor 3: magnitudes of rows apart from their directions (Liu et al. 2024, DoRA). Knows no files.

use super::{Lora, Module};
use crate::weights::{Weights, matrix_row};

/// The length of `row + scale B A`, of which `row` becomes the sum: `b [rank]` is the row's own of B, `a [rank, k]` all of A.
pub(crate) fn length(row: &mut [f32], a: &[f32], b: &[f32], scale: f32) -> f32 {
    for (a, b) in a.chunks_exact(row.len().max(1)).zip(b) {
        row.iter_mut().zip(a).for_each(|(x, a)| *x += scale * b * a);
    }
    let square: f64 = row.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
    square.sqrt() as f32
}

/// Lengths of the rows of a module's own weights with the product (equation 5), those of `lora`.
pub(super) fn lengths(weights: &Weights, module: &Module, lora: &Lora) -> Vec<f32> {
    let (mut lengths, mut row) = (vec![1.0; module.n], vec![0.0; module.k]);
    for site in weights.sites.of_module(&module.path) {
        let site = &weights.sites.list()[site as usize];
        let matrix = weights.params[site.w.0 as usize].matrix();
        for (i, at) in site.rows.rows(site.n).enumerate() {
            matrix_row(&matrix, i, &mut row);
            lengths[at] = length(&mut row, &lora.a, &lora.b[at * lora.rank..][..lora.rank], lora.scale);
        }
    }
    lengths
}

/// Each magnitude over a length: 1 where nothing has been learnt yet.
pub(crate) fn gains(magnitudes: &[f32], lengths: &[f32]) -> Vec<f32> {
    magnitudes.iter().zip(lengths).map(|(magnitude, length)| magnitude / length).collect()
}
