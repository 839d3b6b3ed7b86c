//! Floor 0: blocks of 32 outputs as codes and scales that can be multiplied: from a file's rows, or from a packed panel.
//! Knows no activations.

use super::form::{Block, Form, Scales};
use super::spread::{Small, sixteen};
use super::tile::{self, QUAD};
use super::{BLOCK, Matrix, PANEL, Scratch, Unpacked};
use crate::quant::{IQ4_NL, f16};
use crate::simd::{Bytes, LANES, Simd};
use std::ops::Range;

/// Bytes of the codes of a block.
const CODES: usize = PANEL * BLOCK;

/// The scales of the halves of a block (equal, where there is one scale), and what is added: each exact in f32.
#[inline(always)]
pub fn scales(form: &Form, b: &Block) -> ([f32; 2], f32) {
    let (d, m) = (f16(b.d.to_le_bytes()), f16(b.m.to_le_bytes()));
    match form.scales {
        Scales::Half => ([d; 2], if form.nibbles { d * -f32::from(form.offset) } else { 0.0 }),
        Scales::HalfMin => ([d; 2], m),
        Scales::Six => ([d * f32::from(b.sc[0]); 2], -(m * f32::from(b.mn))),
        Scales::Eight => (b.sc.map(|sc| d * f32::from(sc.cast_signed())), 0.0),
    }
}

/// Codes as signed bytes, unless they are multiplied as they are.
#[inline(always)]
pub fn signed(form: &Form, codes: &mut [u8]) {
    if form.table {
        for code in codes {
            *code = IQ4_NL[usize::from(*code & 15)].cast_unsigned();
        }
    } else if !form.nibbles && form.offset != 0 {
        for code in codes {
            *code = code.wrapping_sub(form.offset.cast_unsigned());
        }
    }
}

/// The elements that a block stands for.
pub fn values(form: &Form, mut b: Block, out: &mut [f32; BLOCK]) {
    let (scales, min) = scales(form, &b);
    signed(form, &mut b.codes);
    // A file's format subtracts from the code what the kernels add as a minimum: the zeros have other signs.
    let (offset, own_min) = if form.nibbles { (form.offset, form.offset == 0) } else { (0, form.has_min()) };
    for (k, (out, code)) in out.iter_mut().zip(b.codes).enumerate() {
        let value = scales[2 * k / BLOCK] * f32::from(code.cast_signed() - offset);
        *out = if own_min { value + min } else { value };
    }
}

/// Blocks `some` of outputs `first..first + 32` of a matrix in file layout; outputs that do not exist are zero.
#[inline(always)]
pub fn rows<'a, S: Bytes>(
    s: S,
    form: &Form,
    w: &Matrix,
    first: usize,
    some: Range<usize>,
    scratch: &'a mut Scratch,
) -> Unpacked<'a> {
    let (groups, mut small) = (BLOCK / form.group, Small::new());
    let quads: &mut [f32] = bytemuck::cast_slice_mut(scratch.codes);
    for half in [0, LANES] {
        let offset = if form.nibbles { 0 } else { form.offset.cast_unsigned() };
        sixteen(s, w, first + half, some.clone(), offset, scratch.pairs, &mut small);
        // Two blocks are as many words as outputs.
        for (pair, quads) in
            scratch.pairs.iter().zip(quads.chunks_mut(LANES * PANEL)).take(some.len().div_ceil(2))
        {
            s.lines::<LANES>(pair.as_flattened().as_flattened(), 2 * BLOCK, &mut quads[half..], PANEL);
        }
        for b in 0..some.len() {
            let (scales, min) = small.scales(s, form, b);
            for g in 0..groups {
                s.store(scales[g], &mut scratch.scales[b * groups + g][half..]);
            }
            s.store(min, &mut scratch.mins[b][half..]);
        }
    }
    for i in w.n().saturating_sub(first).min(PANEL)..PANEL {
        scratch.scales.iter_mut().chain(&mut *scratch.mins).for_each(|x| x[i] = 0.0);
    }
    Unpacked {
        codes: &scratch.codes[..some.len() * CODES],
        stride: CODES,
        scales: scratch.scales,
        mins: form.has_min().then_some(&*scratch.mins),
    }
}

/// A block of a packed panel: its codes (as they lie, but for those that `widen` has to spread), scales and minima.
#[inline(always)]
pub fn one<'a, S: Bytes>(
    s: S,
    form: &Form,
    panel: &'a [u8],
    [b, blocks]: [usize; 2],
    scale: &mut [[f32; PANEL]],
    min: &mut [f32; PANEL],
) -> &'a [u8] {
    let (head, at) = form.place(b, blocks);
    let (small, packed) = panel[at..][..form.block_bytes()].split_at(form.scale_bytes());
    let six = if form.scales == Scales::Six { six(s, small) } else { [[0; PANEL]; 2] };
    for half in [0, LANES] {
        match form.scales {
            Scales::Half => {
                let d = halves(s, small, half);
                s.store(d, &mut scale[0][half..]);
                if form.nibbles {
                    s.store(s.mul(d, s.splat(-f32::from(form.offset))), &mut min[half..]);
                }
            }
            Scales::HalfMin => {
                s.store(halves(s, small, half), &mut scale[0][half..]);
                s.store(halves(s, &small[2 * PANEL..], half), &mut min[half..]);
            }
            Scales::Six => {
                let (d, m) = (halves(s, &panel[head..], half), halves(s, &panel[head + 2 * PANEL..], half));
                let [sc, mn] = six.each_ref().map(|six| six[half..].first_chunk().expect("sixteen bytes"));
                s.store(s.mul(d, s.load_i8(sc)), &mut scale[0][half..]);
                s.store(s.mul(s.mul(m, s.load_i8(mn)), s.splat(-1.0)), &mut min[half..]);
            }
            Scales::Eight => {
                let d = halves(s, &panel[head..], half);
                for (g, scale) in scale.iter_mut().enumerate().take(2) {
                    let sc = small[g * PANEL + half..].first_chunk().expect("sixteen scales");
                    s.store(s.mul(d, s.load_i8(sc)), &mut scale[half..]);
                }
            }
        }
    }
    packed
}

/// Blocks `some` of the packed panel that begins with output `first`.
#[inline(always)]
pub fn panel<'a, S: Bytes>(
    s: S,
    form: &Form,
    w: &Matrix<'a>,
    first: usize,
    some: Range<usize>,
    scratch: &'a mut Scratch,
) -> Unpacked<'a> {
    let Scratch { codes, scales: scale, mins: min, .. } = scratch;
    let (panel, blocks, groups) = (w.panel(first / PANEL), w.k() / BLOCK, BLOCK / form.group);
    for (i, b) in some.clone().enumerate() {
        let packed = one(s, form, panel, [b, blocks], &mut scale[i * groups..], &mut min[i]);
        if form.bits < 8 {
            widen(s, form, packed, &mut codes[i * CODES..][..CODES]);
        }
    }
    let mins = form.has_min().then_some(&**min);
    if form.bits == 8 {
        let (bytes, at) = (form.block_bytes(), form.place(some.start, blocks).1);
        let codes = &panel[at..][..some.len() * bytes][form.scale_bytes()..];
        return Unpacked { codes, stride: bytes, scales: scale, mins };
    }
    Unpacked { codes: &codes[..some.len() * CODES], stride: CODES, scales: scale, mins }
}

/// The codes widened: of each quad first the first and the third, then the others.
#[inline(always)]
pub fn double<'a>(unpacked: Unpacked<'a>, wide: &'a mut [u8]) -> Unpacked<'a> {
    let blocks = unpacked.codes.chunks(unpacked.stride);
    let count = blocks.len();
    for (codes, out) in blocks.zip(wide.as_chunks_mut::<{ 2 * CODES }>().0) {
        let (even, odd) = out.split_at_mut(CODES);
        let (even, odd) = (even.as_chunks_mut::<2>().0, odd.as_chunks_mut::<2>().0);
        for ((codes, even), odd) in codes[..CODES].as_chunks::<2>().0.iter().zip(even).zip(odd) {
            let both = i16::from_le_bytes(*codes);
            (*even, *odd) = ((both << 8 >> 8).to_le_bytes(), (both >> 8).to_le_bytes());
        }
    }
    Unpacked { codes: &wide[..count * 2 * CODES], stride: 2 * CODES, ..unpacked }
}

/// Sixteen halves.
#[inline(always)]
fn halves<S: Simd>(s: S, bytes: &[u8], from: usize) -> S::V {
    s.load_f16(bytes[2 * from..].first_chunk().expect("sixteen halves"))
}

/// Six-bit scales and minima of 32 outputs: low nibbles, then the upper pairs of bits.
#[inline(always)]
fn six<S: Bytes>(s: S, small: &[u8]) -> [[u8; PANEL]; 2] {
    let low = s.load_b(small.first_chunk().expect("32 bytes"));
    let high = s.nibble_halves(small[PANEL..].first_chunk().expect("sixteen bytes"));
    let mut out = [[0; PANEL]; 2];
    s.store_b(s.above(s.field(low, 0, 15), s.field(high, 0, 3)), &mut out[0]);
    s.store_b(s.above(s.field(low, 4, 15), s.field(high, 2, 3)), &mut out[1]);
    out
}

/// Nibbles, and the bits above them, as bytes `[quads][32][4]`.
#[inline(always)]
pub fn widen<S: Bytes>(s: S, form: &Form, packed: &[u8], codes: &mut [u8]) {
    match form.bits {
        5 => spread::<S, 5>(s, form, packed, codes),
        6 => spread::<S, 6>(s, form, packed, codes),
        _ => spread::<S, 4>(s, form, packed, codes),
    }
}

/// The same, where codes have `BITS` bits.
#[inline(always)]
fn spread<S: Bytes, const BITS: usize>(s: S, form: &Form, packed: &[u8], codes: &mut [u8]) {
    let offset = if form.nibbles { 0 } else { form.offset.cast_unsigned() };
    for (q, codes) in codes.as_chunks_mut::<QUAD>().0.iter_mut().enumerate() {
        for (v, codes) in codes.as_chunks_mut().0.iter_mut().enumerate() {
            s.store_i(tile::spread::<S, BITS>(s, form, offset, packed, [q, v * 4 * LANES]), codes);
        }
    }
}
