//! Floor 0: stored rows to f32, for dense and block-quantised types. Knows no matrices and no instruction sets.
//!
//! The block layouts and formulas are ggml's (`ggml-common.h`, `dequantize_row_*` of `ggml-quants.c`), bit for bit: in all
//! of them the product of scale and value is exact in f32, so at most one addition rounds, with or without fused
//! multiply-add.

use crate::DType;

/// Writes the elements of `bytes`, whole blocks of `dtype` in file layout, to `out`. bf16 subnormals are kept.
///
/// # Panics
/// Where `bytes` is not exactly the blocks of `out.len()` elements.
#[inline(never)]
pub fn dequantize_row(dtype: DType, bytes: &[u8], out: &mut [f32]) {
    match dtype {
        DType::F32 => blocks(bytes, out, |b: &[u8; 4], o: &mut [f32; 1]| o[0] = f32::from_le_bytes(*b)),
        DType::F16 => blocks(bytes, out, |b: &[u8; 2], o: &mut [f32; 1]| o[0] = f16(*b)),
        DType::BF16 => blocks(bytes, out, |b: &[u8; 2], o: &mut [f32; 1]| o[0] = bf16(*b)),
        DType::Q8_0 => blocks(bytes, out, q8_0),
        DType::Q4_0 => blocks(bytes, out, q4_0),
        DType::Q4_1 => blocks(bytes, out, q4_1),
        DType::Q5_0 => blocks(bytes, out, q5_0),
        DType::Q5_1 => blocks(bytes, out, q5_1),
        DType::Q4K => blocks(bytes, out, q4_k),
        DType::Q5K => blocks(bytes, out, q5_k),
        DType::Q6K => blocks(bytes, out, q6_k),
        DType::IQ4NL => blocks(bytes, out, iq4_nl),
    }
}

/// Calls `one` on each block of `B` bytes and its `N` elements.
#[inline(always)]
fn blocks<const B: usize, const N: usize>(
    bytes: &[u8],
    out: &mut [f32],
    one: impl Fn(&[u8; B], &mut [f32; N]),
) {
    let ((from, rest), (to, left)) = (bytes.as_chunks::<B>(), out.as_chunks_mut::<N>());
    assert!(
        from.len() == to.len() && rest.is_empty() && left.is_empty(),
        "expected blocks of {B} bytes and {N} elements, as many of each"
    );
    for (block, out) in from.iter().zip(to) {
        one(block, out);
    }
}

/// binary16 to f32, exactly; signalling NaNs become quiet, as in hardware.
#[inline(always)]
pub(crate) fn f16(bytes: [u8; 2]) -> f32 {
    let bits = u32::from(u16::from_le_bytes(bytes));
    let (sign, rest) = ((bits & 0x8000) << 16, (bits & 0x7fff) << 13);
    // The exponent's bias differs by 112: one exact multiplication, right for subnormals too.
    let finite = (f32::from_bits(rest) * f32::from_bits((127 + 112) << 23)).to_bits();
    let quiet = if rest > 0x0f80_0000 { 1 << 22 } else { 0 };
    let special = 0x7f80_0000 | (rest & 0x007f_ffff) | quiet;
    f32::from_bits(sign | if rest < 0x0f80_0000 { finite } else { special })
}

#[inline(always)]
fn bf16(bytes: [u8; 2]) -> f32 {
    f32::from_bits(u32::from(u16::from_le_bytes(bytes)) << 16)
}

/// `{ f16 d; i8 q[32] }`: d * q.
#[inline(always)]
fn q8_0(b: &[u8; 34], out: &mut [f32; 32]) {
    let d = f16([b[0], b[1]]);
    for j in 0..32 {
        out[j] = d * f32::from(b[2 + j].cast_signed());
    }
}

/// `{ f16 d; u8 q[16] }`, low nibbles first: d * (q - 8).
#[inline(always)]
fn q4_0(b: &[u8; 18], out: &mut [f32; 32]) {
    let d = f16([b[0], b[1]]);
    for j in 0..16 {
        let q = i32::from(b[2 + j]);
        out[j] = d * ((q & 15) - 8) as f32;
        out[j + 16] = d * ((q >> 4) - 8) as f32;
    }
}

/// `{ f16 d, m; u8 q[16] }`: d * q + m.
#[inline(always)]
fn q4_1(b: &[u8; 20], out: &mut [f32; 32]) {
    let (d, m) = (f16([b[0], b[1]]), f16([b[2], b[3]]));
    for j in 0..16 {
        let q = i32::from(b[4 + j]);
        out[j] = d * (q & 15) as f32 + m;
        out[j + 16] = d * (q >> 4) as f32 + m;
    }
}

/// The 32 five-bit values of `u8 high[4]; u8 q[16]`, whose fifth bits are in `high`.
#[inline(always)]
fn five_bits(high: [u8; 4], q: &[u8], mut put: impl FnMut(usize, i32)) {
    let high = u32::from_le_bytes(high);
    for j in 0..16 {
        let (q, lo, hi) = (i32::from(q[j]), high >> j & 1, high >> (j + 16) & 1);
        put(j, (q & 15) | (lo as i32) << 4);
        put(j + 16, (q >> 4) | (hi as i32) << 4);
    }
}

/// `{ f16 d; u8 high[4]; u8 q[16] }`: d * (q - 16).
#[inline(always)]
fn q5_0(b: &[u8; 22], out: &mut [f32; 32]) {
    let d = f16([b[0], b[1]]);
    five_bits([b[2], b[3], b[4], b[5]], &b[6..], |j, q| out[j] = d * (q - 16) as f32);
}

/// `{ f16 d, m; u8 high[4]; u8 q[16] }`: d * q + m.
#[inline(always)]
fn q5_1(b: &[u8; 24], out: &mut [f32; 32]) {
    let (d, m) = (f16([b[0], b[1]]), f16([b[2], b[3]]));
    five_bits([b[4], b[5], b[6], b[7]], &b[8..], |j, q| out[j] = d * q as f32 + m);
}

/// Scale and minimum of group `j` of eight: six bits each, packed in twelve bytes.
#[inline(always)]
fn scale_min(j: usize, s: &[u8]) -> (f32, f32) {
    let (scale, min) = if j < 4 {
        (s[j] & 63, s[j + 4] & 63)
    } else {
        ((s[j + 4] & 15) | (s[j - 4] >> 6) << 4, (s[j + 4] >> 4) | (s[j] >> 6) << 4)
    };
    (f32::from(scale), f32::from(min))
}

/// `{ f16 d, m; u8 scales[12]; u8 q[128] }`: per group of 32, d * scale * q - m * min.
#[inline(always)]
fn q4_k(b: &[u8; 144], out: &mut [f32; 256]) {
    let (d, m) = (f16([b[0], b[1]]), f16([b[2], b[3]]));
    let (scales, q) = (&b[4..16], &b[16..]);
    for (group, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (scale, min) = scale_min(group, scales);
        let (scale, min, shift) = (d * scale, m * min, 4 * (group & 1));
        for (out, q) in out.iter_mut().zip(&q[32 * (group / 2)..]) {
            *out = scale * f32::from(q >> shift & 15) - min;
        }
    }
}

/// `{ f16 d, m; u8 scales[12]; u8 high[32]; u8 q[128] }`: as `q4_k` with a fifth bit, group g's in bit g of `high`.
#[inline(always)]
fn q5_k(b: &[u8; 176], out: &mut [f32; 256]) {
    let (d, m) = (f16([b[0], b[1]]), f16([b[2], b[3]]));
    let (scales, high, q) = (&b[4..16], &b[16..48], &b[48..]);
    for (group, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (scale, min) = scale_min(group, scales);
        let (scale, min, shift) = (d * scale, m * min, 4 * (group & 1));
        for ((out, q), high) in out.iter_mut().zip(&q[32 * (group / 2)..]).zip(high) {
            *out = scale * f32::from((q >> shift & 15) | (high >> group & 1) << 4) - min;
        }
    }
}

/// `{ u8 low[128]; u8 high[64]; i8 scales[16]; f16 d }`: per group of 16, d * scale * (q - 32).
#[inline(always)]
fn q6_k(b: &[u8; 210], out: &mut [f32; 256]) {
    let (low, high, scales, d) = (&b[..128], &b[128..192], &b[192..208], f16([b[208], b[209]]));
    // Runs of 32: within each half of the block, four that share the bytes of `high` and pairs that share those of `low`.
    for (run, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (half, quarter) = (run / 4, run % 4);
        let (low, high) = (&low[64 * half + 32 * (quarter & 1)..], &high[32 * half..]);
        let (low_shift, high_shift) = (4 * (quarter / 2), 2 * quarter);
        for (group, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let scale = d * f32::from(scales[2 * run + group].cast_signed());
            for ((out, low), high) in out.iter_mut().zip(&low[16 * group..]).zip(&high[16 * group..]) {
                let q = (low >> low_shift & 15) | (high >> high_shift & 3) << 4;
                *out = scale * (i32::from(q) - 32) as f32;
            }
        }
    }
}

/// What a nibble of `IQ4_NL` stands for: denser around zero, as weights are.
pub(crate) const IQ4_NL: [i8; 16] =
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// `{ f16 d; u8 q[16] }`: `d * table[q]`.
#[inline(always)]
fn iq4_nl(b: &[u8; 18], out: &mut [f32; 32]) {
    let d = f16([b[0], b[1]]);
    for j in 0..16 {
        out[j] = d * f32::from(IQ4_NL[usize::from(b[2 + j] & 15)]);
        out[j + 16] = d * f32::from(IQ4_NL[usize::from(b[2 + j] >> 4)]);
    }
}
