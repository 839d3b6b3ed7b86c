//! Floor 0: new keys and values into the pages of their sequences, rounded to the cache's type.

use super::{AttendArgs, Cache, MAX_DIM, PAGE, head_words};
use crate::math::MAGIC;
use crate::pages::StateMut;
use crate::plan::TileMut;
use crate::simd::to_bf16;
use bytemuck::Pod;
use half::f16;
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};

/// Writes `k`, `v` `[rows, kv_heads * dim]` of this worker's heads into the pages of the rows' sequences, rounded to
/// nearest even; bf16 results that are subnormal become zero. In 8 bits, the largest magnitude of a position's key (or
/// value) becomes 127, and one that is not finite makes all of it NaN.
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
                // As they come: nothing lies between.
                Cache::F32 => {
                    let (keys, values) = page.split_at_mut(dim * PAGE);
                    interleave(keys, k, slot);
                    values[slot * dim..][..dim].copy_from_slice(v);
                }
                Cache::F16 => put(bytemuck::cast_slice_mut(page), [k, v], slot, to_f16s),
                Cache::BF16 => put(bytemuck::cast_slice_mut(page), [k, v], slot, to_bf16s),
                Cache::Q8 => put_q8(page, [k, v], slot),
            }
        }
    }
}

/// out `[rows, n]`, cut in rows: keys or values `x [rows, n]`, heads of `dim`, as [`append`] rounds them for a cache and
/// attention reads them.
///
/// Panics where the sizes do not fit.
pub fn round_to(out: &mut TileMut, x: &[f32], n: usize, dim: usize, cache: Cache) {
    for r in out.rows() {
        let (out, x) = (&mut out.row(r)[..n], &x[r * n..][..n]);
        match cache {
            Cache::F32 => out.copy_from_slice(x),
            Cache::F16 => each(out, x, |x| f16::from_f32(x).to_f32()),
            Cache::BF16 => each(out, x, |x| f32::from_bits(to_bf16(x) << 16)),
            Cache::Q8 => {
                for (out, x) in out.chunks_mut(dim).zip(x.chunks(dim)) {
                    let scale = scale(x);
                    each(out, x, |x| f32::from(to_q8(x, scale)) * scale);
                }
            }
        }
    }
}

#[inline(always)]
fn each(out: &mut [f32], x: &[f32], round: impl Fn(f32) -> f32) {
    for (out, x) in out.iter_mut().zip(x) {
        *out = round(*x);
    }
}

/// One position into one head of a page: keys are interleaved, values are not. A row is rounded at once, since vectors do
/// that.
#[inline(always)]
fn put<T: Pod>(page: &mut [T], [k, v]: [&[f32]; 2], slot: usize, round: impl Fn(&mut [T], &[f32])) {
    let (keys, values) = page.split_at_mut(k.len() * PAGE);
    put_key(keys, k, slot, &round);
    round(&mut values[slot * v.len()..][..v.len()], v);
}

#[inline(always)]
fn put_key<T: Pod>(keys: &mut [T], k: &[f32], slot: usize, round: impl Fn(&mut [T], &[f32])) {
    let mut row = [T::zeroed(); MAX_DIM];
    round(&mut row[..k.len()], k);
    interleave(keys, &row[..k.len()], slot);
}

#[inline(always)]
fn interleave<T: Copy>(keys: &mut [T], key: &[T], slot: usize) {
    for (keys, k) in keys.chunks_exact_mut(PAGE).zip(key) {
        keys[slot] = *k;
    }
}

fn put_q8(page: &mut [f32], [k, v]: [&[f32]; 2], slot: usize) {
    let (bytes, scales) = page.split_at_mut(page.len() - 2 * PAGE);
    let (keys, values) = bytemuck::cast_slice_mut::<f32, i8>(bytes).split_at_mut(k.len() * PAGE);
    let [of_key, of_value] = [k, v].map(scale);
    put_key(keys, k, slot, |out, x| to_q8s(out, x, of_key));
    to_q8s(&mut values[slot * v.len()..][..v.len()], v, of_value);
    (scales[slot], scales[PAGE + slot]) = (of_key, of_value);
}

/// Many at once, since the processor's own instruction is asked for by each call.
fn to_f16s(out: &mut [u16], x: &[f32]) {
    out.reinterpret_cast_mut::<f16>().convert_from_f32_slice(x);
}

fn to_bf16s(out: &mut [u16], x: &[f32]) {
    out.iter_mut().zip(x).for_each(|(out, x)| *out = to_bf16(*x) as u16);
}

fn to_q8s(out: &mut [i8], x: &[f32], scale: f32) {
    out.iter_mut().zip(x).for_each(|(out, x)| *out = to_q8(*x, scale));
}

/// What the bytes of `x` are multiplied by.
fn scale(x: &[f32]) -> f32 {
    // Magnitudes are ordered as their bits are, and NaN is above them all.
    let most = x.iter().fold(0, |most, x| x.abs().to_bits().max(most));
    if most < f32::INFINITY.to_bits() { f32::from_bits(most) / 127.0 } else { f32::NAN }
}

/// The nearest byte, ties to even. Where the scale is zero or NaN the byte does not matter.
fn to_q8(x: f32, scale: f32) -> i8 {
    ((x / scale).clamp(-127.0, 127.0) + MAGIC).to_bits() as i8
}

impl AttendArgs<'_> {
    /// Page number and slot of a position. Panics where the sequence has no such page.
    pub(super) fn place(&self, seq: u32, pos: usize) -> (u32, usize) {
        (self.pages[self.seqs[seq as usize] as usize + pos / PAGE], pos % PAGE)
    }
}
