//! Floor 0: new keys and values into the pages of their sequences, rounded to the cache's type.

use super::{AttendArgs, Cache, MAX_DIM, PAGE, Row, head_words};
use crate::math::MAGIC;
use crate::pages::StateMut;
use crate::plan::TileMut;
use crate::simd::to_bf16;
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
    let mut r = 0;
    while r < args.rows.len() {
        let (row, n) = (args.rows[r], args.neighbours(r));
        let (id, slot) = args.place(row.seq, row.pos as usize);
        let page = state.page(id).chunks_exact_mut(head_words(dim, shape.cache));
        for (page, head) in page.zip(heads.clone()) {
            let at = r * cols + head * dim;
            let new = New { k: &k[at..], v: &v[at..], cols, dim, n, slot };
            let mut put = |round| new.put(bytemuck::cast_slice_mut(page), shape.cache.bytes(), &NONE, round);
            match shape.cache {
                Cache::F32 => put(to_f32s),
                Cache::F16 => put(to_f16s),
                Cache::BF16 => put(to_bf16s),
                Cache::Q8 => new.put_q8(page),
            }
        }
        r += n;
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

/// Positions whose keys are interleaved at once: together they fill lines of memory.
const RUN: usize = 16;

/// Keys and values `[n][dim]` of one head, their rows `cols` words apart, of positions that follow each other (one, or
/// [`RUN`]) from `slot` on.
struct New<'a> {
    k: &'a [f32],
    v: &'a [f32],
    cols: usize,
    dim: usize,
    n: usize,
    slot: usize,
}

/// What the bytes of each position's key are multiplied by, and those of its value.
type Scales = [[f32; RUN]; 2];

/// Where there are none.
const NONE: Scales = [[1.0; RUN]; 2];

/// Rounds numbers of one position with its scale, or one of each of several positions, to bytes of a cache's elements.
type Round = fn(&mut [u8], &[f32], &[f32]);

impl New<'_> {
    fn row<'a>(&self, x: &'a [f32], i: usize) -> &'a [f32] {
        &x[i * self.cols..][..self.dim]
    }

    /// Into one head of a page, of elements of so many `bytes`: keys are interleaved, values are not.
    fn put(&self, page: &mut [u8], bytes: usize, [of_keys, of_values]: &Scales, round: Round) {
        let (dim, slot) = (self.dim, self.slot);
        let (keys, values) = page.split_at_mut(dim * PAGE * bytes);
        for i in 0..self.n {
            let values = &mut values[(slot + i) * dim * bytes..][..dim * bytes];
            round(values, self.row(self.v, i), &of_values[i..=i]);
        }
        if self.n < RUN {
            let mut row = [0.0f32; MAX_DIM];
            let row: &mut [u8] = &mut bytemuck::cast_slice_mut(&mut row)[..dim * bytes];
            round(row, self.row(self.k, 0), &of_keys[..1]);
            return match bytes {
                1 => spread::<1>(keys, row, slot),
                2 => spread::<2>(keys, row, slot),
                _ => spread::<4>(keys, row, slot),
            };
        }
        let rows: [_; RUN] = std::array::from_fn(|i| self.row(self.k, i));
        let mut turned = [[0.0; RUN]; RUN];
        for d in 0..dim {
            if d % RUN == 0 {
                turn(&mut turned, &rows, d);
            }
            round(&mut keys[(d * PAGE + slot) * bytes..][..RUN * bytes], &turned[d % RUN], of_keys);
        }
    }

    fn put_q8(&self, page: &mut [f32]) {
        let (bytes, scales) = page.split_at_mut(page.len() - 2 * PAGE);
        let mut of = NONE;
        for ((of, x), scales) in of.iter_mut().zip([self.k, self.v]).zip(scales.chunks_exact_mut(PAGE)) {
            for (i, of) in of.iter_mut().enumerate().take(self.n) {
                *of = scale(self.row(x, i));
            }
            scales[self.slot..][..self.n].copy_from_slice(&of[..self.n]);
        }
        self.put(bytemuck::cast_slice_mut(bytes), 1, &of, to_q8s);
    }
}

/// One key, of elements of `N` bytes, into slot `slot` of all.
fn spread<const N: usize>(keys: &mut [u8], key: &[u8], slot: usize) {
    let keys = keys.as_chunks_mut::<N>().0.iter_mut().skip(slot).step_by(PAGE);
    keys.zip(key.as_chunks::<N>().0).for_each(|(to, x)| *to = *x);
}

/// Elements from `from` on of some rows, those of each beside the others'.
#[inline(never)]
fn turn(out: &mut [[f32; RUN]; RUN], rows: &[&[f32]; RUN], from: usize) {
    for (i, row) in rows.iter().enumerate() {
        for (out, x) in out.iter_mut().zip(&row[from..]) {
            out[i] = *x;
        }
    }
}

fn to_f32s(out: &mut [u8], x: &[f32], _: &[f32]) {
    out.copy_from_slice(bytemuck::cast_slice(x));
}

/// Several at once, since the processor's own instruction is asked for by each call.
fn to_f16s(out: &mut [u8], x: &[f32], _: &[f32]) {
    bytemuck::cast_slice_mut::<u8, u16>(out).reinterpret_cast_mut::<f16>().convert_from_f32_slice(x);
}

fn to_bf16s(out: &mut [u8], x: &[f32], _: &[f32]) {
    let out: &mut [u16] = bytemuck::cast_slice_mut(out);
    out.iter_mut().zip(x).for_each(|(out, x)| *out = to_bf16(*x) as u16);
}

fn to_q8s(out: &mut [u8], x: &[f32], of: &[f32]) {
    let byte = |x: f32, of: f32| to_q8(x, of).cast_unsigned();
    match of {
        [of] => out.iter_mut().zip(x).for_each(|(out, x)| *out = byte(*x, *of)),
        of => out.iter_mut().zip(x).zip(of).for_each(|((out, x), of)| *out = byte(*x, *of)),
    }
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
    /// Rows from row `r` on that are taken together: [`RUN`] where they go to neighbouring slots of one page, else one.
    fn neighbours(&self, r: usize) -> usize {
        let Row { seq, pos } = self.rows[r];
        let whole = self.rows[r..].first_chunk::<RUN>().filter(|_| pos as usize % PAGE + RUN <= PAGE);
        let follow = |rows: &[Row; RUN]| (pos..).zip(rows).all(|(pos, row)| *row == Row { seq, pos });
        if whole.is_some_and(follow) { RUN } else { 1 }
    }

    /// Page number and slot of a position. Panics where the sequence has no such page.
    pub(super) fn place(&self, seq: u32, pos: usize) -> (u32, usize) {
        (self.pages[self.seqs[seq as usize] as usize + pos / PAGE], pos % PAGE)
    }
}
