//! Floor 0: rows of activations as a linear reads them: interleaved by tiles, rounded or quantised to suit the weights,
//! from rows or straight from the sums of the linear before. Knows no weights.

use super::{PANEL, tile::MOST};
use crate::dtype::DType;
use crate::math::MAGIC;
use crate::ops::{Ops, per_isa};
use crate::plan::TileMut;
use crate::simd::{Apart, LANES, Simd};

/// How rows are laid out (and rounded) for a linear.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pack {
    /// f32, for f32 and f16 weights.
    F32,
    /// Rounded to bf16, for bf16 weights: in pairs where pairs have an instruction, else as f32, the odd one of a pair
    /// first.
    Bf16,
    /// Signed bytes with a scale for each 32, for quantised weights of four bits that are multiplied as they are.
    Bytes,
    /// The same for other quantised weights: where bytes of both signs have no instruction of their own, the bytes are
    /// widened to sixteen bits.
    Shorts,
}

/// Elements of k that share a scale, and that are laid out at once: as many as a panel has outputs, so that a panel of sums
/// is a block of what the next linear reads.
pub const BLOCK: usize = 32;
const _: () = assert!(BLOCK == PANEL);

/// Words of a block of [`Pack::Bytes`]: its bytes, the scale, scale times sum of the bytes, and (as i32) -128 times the sum of
/// the bytes, and of those of the first half: what products begin with where 128 is added to weights.
pub const BLOCK_WORDS: usize = BLOCK / 4 + 4;

/// Words of a block of [`Pack::Shorts`] where it is widened: of each quad of bytes the first and the third, side by side;
/// then of each the second and the fourth; then as above.
pub const WIDE_WORDS: usize = BLOCK / 2 + 4;

impl Pack {
    /// What weights of a type take.
    #[must_use]
    pub fn of(dtype: DType) -> Pack {
        match dtype {
            DType::F32 | DType::F16 => Pack::F32,
            DType::BF16 => Pack::Bf16,
            DType::Q4_0 | DType::Q4_1 | DType::Q4K => Pack::Bytes,
            _ => Pack::Shorts,
        }
    }
}

/// What a set makes of a [`Pack`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Laid {
    F32,
    /// Rounded, the odd one of a pair first.
    Rounded,
    /// Pairs of bf16.
    Pairs,
    Bytes,
    Shorts,
}

impl Laid {
    /// Words of a row of k.
    fn words(self, k: usize) -> usize {
        match self {
            Laid::F32 => k,
            Laid::Rounded => k.next_multiple_of(2),
            Laid::Pairs => k.div_ceil(2),
            Laid::Bytes => k.div_ceil(BLOCK) * BLOCK_WORDS,
            Laid::Shorts => k.div_ceil(BLOCK) * WIDE_WORDS,
        }
    }
}

impl Ops {
    pub(super) fn laid(&self, pack: Pack) -> Laid {
        match pack {
            Pack::F32 => Laid::F32,
            Pack::Bf16 if self.pairs => Laid::Pairs,
            Pack::Bf16 => Laid::Rounded,
            Pack::Shorts if self.wide => Laid::Shorts,
            Pack::Bytes | Pack::Shorts => Laid::Bytes,
        }
    }

    /// Rows of a piece.
    pub(super) fn piece_rows(&self, rows: usize) -> usize {
        if rows <= 1 { 1 } else { self.tile_rows }
    }

    /// Words of `rows` packed rows: pieces of `pack_piece` words, each of which holds as many rows as a tile takes.
    #[must_use]
    pub fn packed_words(&self, rows: usize, k: usize, pack: Pack) -> usize {
        rows.div_ceil(self.piece_rows(rows)) * self.pack_piece(rows, k, pack)
    }

    /// Words of a piece.
    #[must_use]
    pub fn pack_piece(&self, rows: usize, k: usize, pack: Pack) -> usize {
        (self.piece_rows(rows) * self.laid(pack).words(k)).max(1)
    }

    /// Words of [`PANEL`] elements of k of a piece: where a linear's results are packed as they come, workers share them so.
    #[must_use]
    pub fn pack_panel_words(&self, rows: usize, pack: Pack) -> usize {
        self.pack_piece(rows, PANEL, pack)
    }

    /// out: packed rows, cut in pieces of [`Ops::pack_piece`]: `[words of k][tile rows]` each, or one plain row. x `[rows, k]`.
    pub fn pack(&self, out: &mut TileMut, x: &[f32], rows: usize, k: usize, pack: Pack) {
        let (stride, laid) = (self.piece_rows(rows), self.laid(pack));
        let (unit, whole) = (stride * laid.words(BLOCK), k / BLOCK);
        for piece in out.rows() {
            let (first, out) = (piece * stride, out.row(piece));
            let m = stride.min(rows - first);
            let mut block = [&[0.0; BLOCK]; MOST];
            for b in 0..whole {
                for (i, block) in block.iter_mut().enumerate().take(m) {
                    *block = x[(first + i) * k + b * BLOCK..].first_chunk().expect("a block of a row");
                }
                (self.pack_block)(&mut out[b * unit..][..unit], &block[..m], 0, stride, laid);
            }
            let left = k - whole * BLOCK;
            for i in 0..if left > 0 { m } else { 0 } {
                let (mut last, mut words) = ([0.0; BLOCK], [0.0; BLOCK]);
                last[..left].copy_from_slice(&x[(first + i) * k + whole * BLOCK..][..left]);
                (self.pack_block)(&mut words[..laid.words(BLOCK)], &[&last], 0, 1, laid);
                let out = out[whole * unit + i..].iter_mut().step_by(stride);
                out.zip(&words[..laid.words(left)]).for_each(|(out, word)| *out = *word);
            }
        }
    }
}

per_isa! {
    /// out `[words of a block][stride]`: 32 elements of some rows, the first of which is row `first` of its piece.
    pub fn block(out: &mut [f32], rows: &[&[f32; BLOCK]], first: usize, stride: usize, laid: Laid) =
        block_with as pack_isa on scalar avx2 avx512;
}

#[inline(always)]
fn block_with<S: Simd>(
    s: S,
    out: &mut [f32],
    rows: &[&[f32; BLOCK]],
    first: usize,
    stride: usize,
    laid: Laid,
) {
    match laid {
        Laid::F32 => interleave(s, out, rows, first, stride),
        // Eight rows at a time, and then six: what is interleaved at once.
        Laid::Rounded => {
            for (first, rows) in (first..).step_by(8).zip(rows.chunks(8)) {
                let mut rounded = [[0.0; BLOCK]; 8];
                for (out, row) in rounded.iter_mut().zip(rows) {
                    for half in [0, LANES] {
                        s.store(s.exchange(s.round_bf16(s.load(&row[half..]))), &mut out[half..]);
                    }
                }
                interleave(s, out, &rounded.each_ref()[..rows.len()], first, stride);
            }
        }
        Laid::Pairs => {
            let mut words = [s.zero(); LANES];
            for (words, row) in words.iter_mut().zip(rows) {
                *words = s.high_halves([s.round_bf16(s.load(*row)), s.round_bf16(s.load(&row[LANES..]))]);
            }
            columns::<S, LANES>(s, out, words, rows.len(), first, stride);
        }
        Laid::Bytes if const { S::REGISTERS >= 32 } && rows.len() > 1 => {
            put_columns(s, out, all_quantised(s, rows), rows.len(), first, stride);
        }
        Laid::Bytes | Laid::Shorts => {
            for (i, row) in rows.iter().enumerate() {
                quantised(s, &mut out[first + i..], row, stride, laid == Laid::Shorts);
            }
        }
    }
}

/// 32 elements of some rows, side by side.
#[inline(always)]
fn interleave<S: Simd>(s: S, out: &mut [f32], rows: &[&[f32; BLOCK]], first: usize, stride: usize) {
    s.apart(Interleave { out, rows, first, stride });
}

/// [`interleave`], compiled once for a set.
struct Interleave<'a, 'x> {
    out: &'a mut [f32],
    rows: &'a [&'x [f32; BLOCK]],
    first: usize,
    stride: usize,
}

impl<S: Simd> Apart<S> for Interleave<'_, '_> {
    type Out = ();

    #[inline(always)]
    fn run(self, s: S) {
        let (Interleave { out, rows, first, stride }, mut i) = (self, 0);
        if stride == 1 {
            out[..BLOCK].copy_from_slice(rows[0]);
            return;
        }
        while let Some(some) = rows[i..].first_chunk() {
            s.columns::<8>(some, &mut out[first + i..], stride);
            i += 8;
        }
        if let Some(some) = rows[i..].first_chunk() {
            s.columns::<6>(some, &mut out[first + i..], stride);
            i += 6;
        }
        for (i, row) in rows.iter().enumerate().skip(i) {
            for (j, x) in row.iter().enumerate() {
                out[j * stride + first + i] = *x;
            }
        }
    }
}

/// The first `W` words of each of `n` rows, every `stride` words, from row `first` on.
#[inline(always)]
fn columns<S: Simd, const W: usize>(
    s: S,
    out: &mut [f32],
    words: [S::V; LANES],
    n: usize,
    first: usize,
    stride: usize,
) {
    if stride == 1 {
        s.store(words[0], out);
        return;
    }
    let turned = s.transpose(words);
    put_columns::<S, W>(s, out, *turned.first_chunk().expect("as many words"), n, first, stride);
}

/// Words of a block, each of `n` rows side by side, every `stride` words, from row `first` on.
#[inline(always)]
fn put_columns<S: Simd, const W: usize>(
    s: S,
    out: &mut [f32],
    words: [S::V; W],
    n: usize,
    first: usize,
    stride: usize,
) {
    for (j, x) in words.into_iter().enumerate() {
        let to = &mut out[j * stride..];
        // What is written beyond a whole piece is the beginning of the next word, which comes next.
        if first == 0 && n == stride && to.len() >= LANES {
            s.store(x, to);
        } else {
            let mut lanes = [0.0; LANES];
            s.store(x, &mut lanes);
            to[first..first + n].copy_from_slice(&lanes[..n]);
        }
    }
}

/// A block of signed bytes, every `stride` words: the largest magnitude becomes 127. A block with a number that is not finite
/// gets a scale that is NaN.
#[inline(always)]
fn quantised<S: Simd>(s: S, out: &mut [f32], x: &[f32; BLOCK], stride: usize, wide: bool) {
    let (a, b) = (s.load(x), s.load(&x[LANES..]));
    let (zero, one) = (s.zero(), s.splat(1.0));
    let most = s.fold_max(s.max(s.copysign(a, one), s.copysign(b, one)));
    // Zero times what is not finite is NaN.
    let finite = s.fold_sum(s.fma(a, zero, s.mul(b, zero))) == 0.0;
    let inverse = if finite && most > 0.0 { 127.0 / most } else { 0.0 };
    let scale = if finite { most / 127.0 } else { f32::NAN };
    let (inverse, magic) = (s.splat(if inverse.is_finite() { inverse } else { 0.0 }), s.splat(MAGIC));
    let rounded = if finite { [s.fma(a, inverse, magic), s.fma(b, inverse, magic)] } else { [magic; 2] };
    let (q, sums) = s.low_bytes(rounded);
    let sum = sums[0] + sums[1];
    let tail = [scale, scale * sum as f32, word(-128 * sum), word(-128 * sums[0])];
    let at = if wide {
        let mut halves = [[0i16; BLOCK / 2]; 2];
        for (j, q) in q.as_chunks::<2>().0.iter().enumerate() {
            let both = i16::from_le_bytes(q.map(i8::cast_unsigned));
            (halves[0][j], halves[1][j]) = (both << 8 >> 8, both >> 8);
        }
        let words: &[f32; BLOCK / 2] = bytemuck::cast_ref(&halves);
        for (j, x) in words.iter().enumerate() {
            out[j * stride] = *x;
        }
        BLOCK / 2
    } else {
        for (j, q) in q.as_chunks::<4>().0.iter().enumerate() {
            out[j * stride] = word(i32::from_le_bytes(q.map(i8::cast_unsigned)));
        }
        BLOCK / 4
    };
    for (j, x) in tail.into_iter().enumerate() {
        out[(at + j) * stride] = x;
    }
}

/// The same of up to sixteen rows, a row a lane: nothing is summed or compared across lanes.
#[inline(always)]
fn all_quantised<S: Simd>(s: S, rows: &[&[f32; BLOCK]]) -> [S::V; BLOCK_WORDS] {
    let (zero, one, magic) = (s.zero(), s.splat(1.0), s.splat(MAGIC));
    let mut halves = [[zero; LANES]; 2];
    for (i, row) in rows.iter().enumerate() {
        (halves[0][i], halves[1][i]) = (s.load(*row), s.load(&row[LANES..]));
    }
    let halves = [s.transpose(halves[0]), s.transpose(halves[1])];
    // Four of each, since every step waits for the one before.
    let [mut most, mut rest] = [[zero; 4]; 2];
    for i in 0..BLOCK / 4 {
        for c in 0..4 {
            let x = halves[4 * i / LANES][(4 * i + c) % LANES];
            most[c] = s.max(most[c], s.copysign(x, one));
            rest[c] = s.fma(x, zero, rest[c]); // zero times what is not finite is NaN
        }
    }
    let most = s.max(s.max(most[0], most[1]), s.max(most[2], most[3]));
    let rest = s.add(s.add(rest[0], rest[1]), s.add(rest[2], rest[3]));
    let finite = |a: S::V, b: S::V| s.select(s.lt(rest, one), a, b);
    let inverse = s.div(s.splat(127.0), most);
    let inverse = s.select(s.lt(inverse, s.splat(f32::INFINITY)), inverse, zero);
    let scale = finite(s.div(most, s.splat(127.0)), s.splat(f32::NAN));
    let (mut words, mut sums) = ([zero; BLOCK_WORDS], [zero; 2]);
    for j in 0..BLOCK / 4 {
        let mut quad = [zero; 4];
        for i in 0..4 {
            let at = 4 * j + i;
            quad[i] = finite(s.fma(halves[at / LANES][at % LANES], inverse, magic), magic);
            sums[at / LANES] = s.add(sums[at / LANES], s.sub(quad[i], magic));
        }
        words[j] = s.quads(quad);
    }
    let (sum, begin) = (s.add(sums[0], sums[1]), s.splat(-128.0));
    let tail = [scale, s.mul(scale, sum), s.integers(s.mul(sum, begin)), s.integers(s.mul(sums[0], begin))];
    words[BLOCK / 4..].copy_from_slice(&tail);
    words
}

#[inline(always)]
fn word(x: i32) -> f32 {
    f32::from_bits(x.cast_unsigned())
}

/// Widened words of a block of one row as bytes again.
#[inline(always)]
pub fn narrowed(wide: &[f32; BLOCK / 2]) -> [u8; BLOCK] {
    let mut out = [0; BLOCK];
    for (j, out) in out.as_chunks_mut::<4>().0.iter_mut().enumerate() {
        let (first, second) = (wide[j].to_bits(), wide[j + BLOCK / 4].to_bits());
        *out = (first & 0x00FF_00FF | (second & 0x00FF_00FF) << 8).to_le_bytes();
    }
    out
}
