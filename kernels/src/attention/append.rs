//! Floor 0: new keys and values into the pages of their sequences, rounded to the cache's type.

use super::{AttendArgs, PAGE, head_words};
use crate::dtype::DType;
use crate::pages::StateMut;
use crate::simd::to_bf16;
use half::f16;

/// Writes `k`, `v` `[rows, kv_heads * dim]` of this worker's heads into the pages of the rows' sequences, rounded to
/// nearest even; bf16 results that are subnormal become zero.
///
/// Panics where a row's position has no page.
pub fn append(state: &mut StateMut, k: &[f32], v: &[f32], args: &AttendArgs) {
    let (shape, heads) = (args.shape, state.heads());
    let (dim, cols) = (shape.dim, shape.kv_heads * shape.dim);
    for (r, row) in args.rows.iter().enumerate() {
        let (id, slot) = args.place(row.seq, row.pos as usize);
        let page = state.page(id).chunks_exact_mut(head_words(dim, shape.cache));
        for (page, head) in page.zip(heads.clone()) {
            let at = r * cols + head * dim;
            let (k, v) = (&k[at..at + dim], &v[at..at + dim]);
            match shape.cache {
                DType::F16 => put(bytemuck::cast_slice_mut(page), k, v, slot, |x| f16::from_f32(x).to_bits()),
                DType::BF16 => put(bytemuck::cast_slice_mut(page), k, v, slot, |x| to_bf16(x) as u16),
                _ => put(page, k, v, slot, |x| x),
            }
        }
    }
}

/// One position into one head of a page: keys are interleaved, values are not.
#[inline(always)]
fn put<T: Copy>(page: &mut [T], k: &[f32], v: &[f32], slot: usize, round: impl Fn(f32) -> T) {
    let (keys, values) = page.split_at_mut(k.len() * PAGE);
    for (keys, k) in keys.chunks_exact_mut(PAGE).zip(k) {
        keys[slot] = round(*k);
    }
    for (value, v) in values[slot * v.len()..].iter_mut().zip(v) {
        *value = round(*v);
    }
}

impl AttendArgs<'_> {
    /// Page number and slot of a position. Panics where the sequence has no such page.
    pub(super) fn place(&self, seq: u32, pos: usize) -> (u32, usize) {
        (self.pages[self.seqs[seq as usize] as usize + pos / PAGE], pos % PAGE)
    }
}
