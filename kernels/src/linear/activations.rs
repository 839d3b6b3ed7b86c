//! Floor 0: rows of activations as a linear reads them: interleaved by tiles, rounded or quantised to suit the weights.
//! Knows no weights.

use super::tile;
use crate::dtype::DType;
use crate::ops::{Ops, per_isa};
use crate::plan::TileMut;
use crate::simd::{LANES, Simd, to_bf16};

/// How rows are laid out (and rounded) for a linear.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pack {
    /// f32, for f32 and f16 weights.
    F32,
    /// Rounded to bf16, for bf16 weights: in pairs where pairs have an instruction, else as f32, the odd one of a pair
    /// first.
    Bf16,
    /// Signed bytes with a scale for each 32, for quantised weights.
    Bytes,
}

/// Elements of k that share a scale.
pub const BLOCK: usize = 32;

/// Words of a block of [`Pack::Bytes`]: its bytes, the scale, scale times sum of the bytes, and (as i32) the sums of the
/// bytes of its halves.
pub const BLOCK_WORDS: usize = BLOCK / 4 + 4;

impl Pack {
    /// What weights of a type take.
    #[must_use]
    pub fn of(dtype: DType) -> Pack {
        match dtype {
            DType::F32 | DType::F16 => Pack::F32,
            DType::BF16 => Pack::Bf16,
            _ => Pack::Bytes,
        }
    }
}

impl Ops {
    /// Words of a row of k.
    fn row_words(&self, k: usize, pack: Pack) -> usize {
        match pack {
            Pack::F32 => k,
            Pack::Bf16 if self.pairs => k.div_ceil(2),
            Pack::Bf16 => k.next_multiple_of(2),
            Pack::Bytes => k.div_ceil(BLOCK) * BLOCK_WORDS,
        }
    }

    /// Words of `rows` packed rows: pieces of `pack_piece` words, each of which holds as many rows as a tile takes.
    #[must_use]
    pub fn packed_words(&self, rows: usize, k: usize, pack: Pack) -> usize {
        let pieces = if rows <= 1 { rows } else { rows.div_ceil(self.tile_rows) };
        pieces * self.pack_piece(rows, k, pack)
    }

    /// Words of a piece.
    #[must_use]
    pub fn pack_piece(&self, rows: usize, k: usize, pack: Pack) -> usize {
        let rows = if rows <= 1 { 1 } else { self.tile_rows };
        (rows * self.row_words(k, pack)).max(1)
    }
}

per_isa! {
    /// out: packed rows, cut in pieces of [`Ops::pack_piece`]: `[words of k][tile rows]` each, or one plain row. x `[rows, k]`.
    pub fn pack(out: &mut TileMut, x: &[f32], rows: usize, k: usize, pack: Pack) =
        pack_with as pack_isa on scalar avx2 avx512 avx512_bf16;
}

#[inline(always)]
fn pack_with<S: Simd>(s: S, out: &mut TileMut, x: &[f32], rows: usize, k: usize, pack: Pack) {
    let stride = if rows <= 1 { 1 } else { tile::rows::<S>() };
    for piece in out.rows() {
        let (first, out) = (piece * stride, out.row(piece));
        if const { S::REGISTERS >= 16 } && pack == Pack::F32 && stride > 1 && first + stride <= rows {
            let x = &x[first * k..];
            if const { S::REGISTERS >= 32 } {
                interleave::<14>(out, x, k)
            } else {
                interleave::<6>(out, x, k)
            }
            continue;
        }
        for i in 0..stride.min(rows - first) {
            let x = &x[(first + i) * k..][..k];
            let out = out[i..].iter_mut().step_by(stride);
            match pack {
                Pack::F32 => out.zip(x).for_each(|(out, x)| *out = *x),
                Pack::Bf16 => pairs::<S>(out, x),
                Pack::Bytes => bytes(s, out, x),
            }
        }
    }
}

/// `R` rows of `k` as `[k][R]`: in blocks of k, whose ends need not be looked for.
#[inline(always)]
fn interleave<const R: usize>(out: &mut [f32], x: &[f32], k: usize) {
    const STEPS: usize = 8;
    let (out, mut rows) = (out.as_chunks_mut::<R>().0, [&[][..]; R]);
    for (i, row) in rows.iter_mut().enumerate() {
        *row = &x[i * k..][..k];
    }
    let (blocks, rest) = out[..k].as_chunks_mut::<STEPS>();
    for (block, out) in blocks.iter_mut().enumerate() {
        for (i, row) in rows.iter().enumerate() {
            let row: &[f32; STEPS] = row[block * STEPS..].first_chunk().expect("a block of a row");
            for j in 0..STEPS {
                out[j][i] = row[j];
            }
        }
    }
    let done = k - rest.len();
    for (j, out) in rest.iter_mut().enumerate() {
        for (out, row) in out.iter_mut().zip(&rows) {
            *out = row[done + j];
        }
    }
}

/// Pairs of bf16; the second one of the last may be missing.
#[inline(always)]
fn pairs<'a, S: Simd>(mut out: impl Iterator<Item = &'a mut f32>, x: &[f32]) {
    let mut put = |word: u32| {
        if let Some(out) = out.next() {
            *out = f32::from_bits(word);
        }
    };
    for pair in x.chunks(2) {
        let (low, high) = (to_bf16(pair[0]), pair.get(1).map_or(0, |x| to_bf16(*x)));
        if S::PAIRS {
            put(low | high << 16);
        } else {
            put(high << 16);
            put(low << 16);
        }
    }
}

/// Adding it to a number below 2^22 leaves the nearest integer, ties to even, in the low bits.
const MAGIC: f32 = 12_582_912.0;

/// Blocks of signed bytes: the largest magnitude becomes 127. A block with a number that is not finite gets a scale that
/// is NaN.
#[inline(always)]
fn bytes<'a, S: Simd>(s: S, mut out: impl Iterator<Item = &'a mut f32>, x: &[f32]) {
    for x in x.chunks(BLOCK) {
        let mut padded = [0.0; BLOCK];
        padded[..x.len()].copy_from_slice(x);
        let (a, b) = (s.load(&padded), s.load(&padded[LANES..]));
        let (zero, one) = (s.zero(), s.splat(1.0));
        let most = s.fold_max(s.max(s.copysign(a, one), s.copysign(b, one)));
        // Zero times what is not finite is NaN.
        let finite = s.fold_sum(s.fma(a, zero, s.mul(b, zero))) == 0.0;
        let inverse = if finite && most > 0.0 { 127.0 / most } else { 0.0 };
        let scale = if finite { most / 127.0 } else { f32::NAN };
        let (inverse, magic) = (s.splat(if inverse.is_finite() { inverse } else { 0.0 }), s.splat(MAGIC));
        let mut rounded = [0.0; BLOCK];
        if finite {
            s.store(s.fma(a, inverse, magic), &mut rounded);
            s.store(s.fma(b, inverse, magic), &mut rounded[LANES..]);
        } else {
            rounded = [MAGIC; BLOCK];
        }
        let mut q = [0i8; BLOCK];
        for i in 0..BLOCK {
            q[i] = rounded[i].to_bits().wrapping_sub(MAGIC.to_bits()) as i8;
        }
        let sum = |half: &[i8]| half.iter().map(|q| i32::from(*q)).sum::<i32>();
        let sums = [sum(&q[..BLOCK / 2]), sum(&q[BLOCK / 2..])];
        let words =
            q.as_chunks::<4>().0.iter().map(|q| f32::from_bits(u32::from_le_bytes(q.map(i8::cast_unsigned))));
        let tail = [scale, scale * (sums[0] + sums[1]) as f32];
        let tail = tail.into_iter().chain(sums.map(|sum| f32::from_bits(sum.cast_unsigned())));
        for word in words.chain(tail) {
            if let Some(out) = out.next() {
                *out = word;
            }
        }
    }
}
