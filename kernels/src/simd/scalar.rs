//! Floor 0: the lanes in plain Rust, for machines without a set of our own and as the reference of the others.

use super::{LANES, Simd};

/// Plain Rust. Needs nothing of the processor.
#[derive(Clone, Copy, Debug)]
pub struct Scalar;

type V = [f32; LANES];

#[inline(always)]
fn zip(a: V, b: V, f: impl Fn(f32, f32) -> f32) -> V {
    let mut out = a;
    for i in 0..LANES {
        out[i] = f(a[i], b[i]);
    }
    out
}

/// a * b + c, rounded once. Without the instruction, the product is exact in f64, the sum is rounded to odd there, and
/// that makes the last rounding right (Boldo and Melquiond 2008); the C library's function is far slower.
#[inline(always)]
pub(crate) fn fma(a: f32, b: f32, c: f32) -> f32 {
    if cfg!(any(target_feature = "fma", target_arch = "aarch64")) {
        return a.mul_add(b, c);
    }
    let (p, c) = (f64::from(a) * f64::from(b), f64::from(c));
    let sum = p + c;
    // Knuth's two-sum: what `sum` lost. Infinities and NaN make it NaN, which is neither above nor below zero.
    let back = sum - p;
    let lost = (p - (sum - back)) + (c - back);
    // A sum that lost something and ends in 0 was rounded to even: one step towards what it lost makes it odd. No
    // branches, so that lanes become vectors.
    let towards = lost * sum;
    let step = i64::from(towards > 0.0) - i64::from(towards < 0.0);
    let bits = sum.to_bits().cast_signed();
    f64::from_bits(bits.wrapping_add(step & ((bits & 1) - 1)).cast_unsigned()) as f32
}

/// a * b + c in every lane. A function of its own: the emulation is long, and tiles unroll it many times.
#[inline(never)]
fn fma_lanes(a: &V, b: &V, c: &V) -> V {
    let mut out = *c;
    for i in 0..LANES {
        out[i] = fma(a[i], b[i], c[i]);
    }
    out
}

/// The first element of a pair of bf16.
#[inline(always)]
fn low(word: f32) -> f32 {
    f32::from_bits(word.to_bits() << 16)
}

/// The second one.
#[inline(always)]
fn high(word: f32) -> f32 {
    f32::from_bits(word.to_bits() & 0xFFFF_0000)
}

impl Simd for Scalar {
    type V = V;
    type M = [bool; LANES];
    const REGISTERS: usize = 8; // whatever it is: one row at a time, since speed is not what this set is for

    #[inline(always)]
    fn splat(self, x: f32) -> V {
        [x; LANES]
    }
    #[inline(always)]
    fn load(self, x: &[f32]) -> V {
        *x.first_chunk().expect("sixteen elements")
    }
    #[inline(always)]
    fn store(self, x: V, out: &mut [f32]) {
        *out.first_chunk_mut().expect("sixteen elements") = x;
    }
    #[inline(always)]
    fn load_words(self, x: &[u8; 64]) -> V {
        std::array::from_fn(|i| f32::from_le_bytes([x[4 * i], x[4 * i + 1], x[4 * i + 2], x[4 * i + 3]]))
    }
    #[inline(always)]
    fn load_f16(self, x: &[u8; 32]) -> V {
        std::array::from_fn(|i| half::f16::from_le_bytes([x[2 * i], x[2 * i + 1]]).to_f32())
    }
    #[inline(always)]
    fn load_bf16(self, x: &[u8; 32]) -> V {
        std::array::from_fn(|i| f32::from_le_bytes([0, 0, x[2 * i], x[2 * i + 1]]))
    }
    #[inline(always)]
    fn load_i8(self, x: &[u8; 16]) -> V {
        x.map(|x| f32::from(x as i8))
    }
    #[inline(always)]
    fn add(self, a: V, b: V) -> V {
        zip(a, b, |a, b| a + b)
    }
    #[inline(always)]
    fn sub(self, a: V, b: V) -> V {
        zip(a, b, |a, b| a - b)
    }
    #[inline(always)]
    fn mul(self, a: V, b: V) -> V {
        zip(a, b, |a, b| a * b)
    }
    #[inline(always)]
    fn div(self, a: V, b: V) -> V {
        zip(a, b, |a, b| a / b)
    }
    #[inline(always)]
    fn fma(self, a: V, b: V, c: V) -> V {
        fma_lanes(&a, &b, &c)
    }
    #[inline(always)]
    fn max(self, a: V, b: V) -> V {
        zip(a, b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    fn lt(self, a: V, b: V) -> [bool; LANES] {
        std::array::from_fn(|i| a[i] < b[i])
    }
    #[inline(always)]
    fn select(self, m: [bool; LANES], a: V, b: V) -> V {
        let mut out = b;
        for i in 0..LANES {
            out[i] = if m[i] { a[i] } else { b[i] };
        }
        out
    }
    #[inline(always)]
    fn copysign(self, a: V, b: V) -> V {
        zip(a, b, f32::copysign)
    }
    #[inline(always)]
    fn pow2(self, shifted: V) -> V {
        shifted.map(|x| f32::from_bits(x.to_bits().wrapping_add(127) << 23))
    }
    #[inline(always)]
    fn pair(self, low: V, high: V) -> V {
        zip(low, high, |low, high| f32::from_bits((low.to_bits() >> 16) | (high.to_bits() & 0xFFFF_0000)))
    }
    #[inline(always)]
    fn halves(self, pairs: V) -> [V; 2] {
        [pairs.map(low), pairs.map(high)]
    }
    #[inline(always)]
    fn transpose(self, x: [V; LANES]) -> [V; LANES] {
        let mut out = [[0.0; LANES]; LANES];
        for i in 0..LANES {
            for j in 0..LANES {
                out[i][j] = x[j][i];
            }
        }
        out
    }
    #[inline(always)]
    fn flush(self, pairs: V) -> V {
        pairs.map(|word| {
            let bits = word.to_bits();
            let low = if bits & 0x0000_7F80 == 0 { 0x8000 } else { 0xFFFF };
            let high = if bits & 0x7F80_0000 == 0 { 0x8000_0000 } else { 0xFFFF_0000 };
            f32::from_bits(bits & (low | high))
        })
    }
    #[inline(always)]
    fn dot(self, acc: V, a: V, b: V) -> V {
        fma_lanes(&a.map(low), &b.map(low), &fma_lanes(&a.map(high), &b.map(high), &acc))
    }
    #[inline(always)]
    fn prefetch(self, _: *const u8) {}
}

#[cfg(test)]
mod tests {
    use super::fma;

    #[test]
    fn the_emulated_fma_is_the_real_one() {
        let mut state = 1u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 32) as u32
        };
        let close = |bits: u32| f32::from_bits((bits & 0x807F_FFFF) | ((118 + bits % 19) << 23));
        for i in 0..4_000_000 {
            let x = [next(), next(), next()];
            let [a, b, mut c] = if i % 2 == 0 { x.map(f32::from_bits) } else { x.map(close) };
            if i % 16 == 1 {
                c = -(a * b); // what is left is the product's rounding error
            }
            let (got, want) = (fma(a, b, c), a.mul_add(b, c));
            assert!(
                got.to_bits() == want.to_bits() || (got.is_nan() && want.is_nan()),
                "{a:e} {b:e} {c:e}: {got:e}"
            );
        }
    }
}
