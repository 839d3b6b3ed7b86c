//! Floor 0: the lanes in plain Rust, for machines without a set of our own and as the reference of the others.

use super::{Apart, LANES, Simd};

/// Plain Rust. Needs nothing of the processor.
#[derive(Clone, Copy, Debug)]
pub struct Scalar;

type V = [f32; LANES];

/// A truth value of a lane: all bits, or none, so that choices are not branches.
type M = [u32; LANES];

/// Functions of lanes, each compiled once: as code, sixteen lanes are long, and kernels ask for them everywhere.
macro_rules! lanes {
    ($($name:ident |$($x:ident),+| $value:expr;)*) => {$(
        #[inline(never)]
        fn $name($($x: &V),+) -> V {
            let mut out = [0.0; LANES];
            for i in 0..LANES {
                $(let $x = $x[i];)+
                out[i] = $value;
            }
            out
        }
    )*};
}

lanes! {
    add |a, b| a + b;
    sub |a, b| a - b;
    mul |a, b| a * b;
    div |a, b| a / b;
    fma_lanes |a, b, c| fma(a, b, c);
    max |a, b| if a > b { a } else { b };
    copysign |a, b| a.copysign(b);
    pow2 |x| f32::from_bits(x.to_bits().wrapping_add(127) << 23);
    pair |low, high| f32::from_bits((low.to_bits() >> 16) | (high.to_bits() & 0xFFFF_0000));
    low |pair| f32::from_bits(pair.to_bits() << 16);
    high |pair| f32::from_bits(pair.to_bits() & 0xFFFF_0000);
    flush |pair| flushed(pair);
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

/// Sixteen f16, widened. A function of its own: the conversion is long.
#[inline(never)]
fn halves(x: &[u8; 32]) -> V {
    let mut out = [0.0; LANES];
    for (out, x) in out.iter_mut().zip(x.as_chunks().0) {
        *out = half::f16::from_le_bytes(*x).to_f32();
    }
    out
}

/// Lanes and vectors exchanged.
#[inline(never)]
fn transposed(x: &[V; LANES]) -> [V; LANES] {
    let mut out = [[0.0; LANES]; LANES];
    for i in 0..LANES {
        for j in 0..LANES {
            out[i][j] = x[j][i];
        }
    }
    out
}

/// Sixteen bf16, widened.
#[inline(never)]
fn bf16(x: &[u8; 32]) -> V {
    std::array::from_fn(|i| f32::from_le_bytes([0, 0, x[2 * i], x[2 * i + 1]]))
}

/// Sixteen bytes, widened.
#[inline(never)]
fn bytes(x: &[u8; 16]) -> V {
    x.map(|x| f32::from(x as i8))
}

/// m ? a : b
#[inline(never)]
fn select(m: &M, a: &V, b: &V) -> V {
    std::array::from_fn(|i| f32::from_bits((a[i].to_bits() & m[i]) | (b[i].to_bits() & !m[i])))
}

/// a < b
#[inline(never)]
fn lt(a: &V, b: &V) -> M {
    std::array::from_fn(|i| if a[i] < b[i] { u32::MAX } else { 0 })
}

/// A pair of bf16 with subnormals made zero.
#[inline(always)]
fn flushed(pair: f32) -> f32 {
    let bits = pair.to_bits();
    let low = if bits & 0x0000_7F80 == 0 { 0x8000 } else { 0xFFFF };
    let high = if bits & 0x7F80_0000 == 0 { 0x8000_0000 } else { 0xFFFF_0000 };
    f32::from_bits(bits & (low | high))
}

impl Simd for Scalar {
    type V = V;
    type M = M;
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
        halves(x)
    }
    #[inline(always)]
    fn load_bf16(self, x: &[u8; 32]) -> V {
        bf16(x)
    }
    #[inline(always)]
    fn load_i8(self, x: &[u8; 16]) -> V {
        bytes(x)
    }
    #[inline(always)]
    fn add(self, a: V, b: V) -> V {
        add(&a, &b)
    }
    #[inline(always)]
    fn sub(self, a: V, b: V) -> V {
        sub(&a, &b)
    }
    #[inline(always)]
    fn mul(self, a: V, b: V) -> V {
        mul(&a, &b)
    }
    #[inline(always)]
    fn div(self, a: V, b: V) -> V {
        div(&a, &b)
    }
    #[inline(always)]
    fn fma(self, a: V, b: V, c: V) -> V {
        fma_lanes(&a, &b, &c)
    }
    #[inline(always)]
    fn max(self, a: V, b: V) -> V {
        max(&a, &b)
    }
    #[inline(always)]
    fn lt(self, a: V, b: V) -> M {
        lt(&a, &b)
    }
    #[inline(always)]
    fn select(self, m: M, a: V, b: V) -> V {
        select(&m, &a, &b)
    }
    #[inline(always)]
    fn copysign(self, a: V, b: V) -> V {
        copysign(&a, &b)
    }
    #[inline(always)]
    fn pow2(self, shifted: V) -> V {
        pow2(&shifted)
    }
    #[inline(always)]
    fn pair(self, low: V, high: V) -> V {
        pair(&low, &high)
    }
    #[inline(always)]
    fn halves(self, pairs: V) -> [V; 2] {
        [low(&pairs), high(&pairs)]
    }
    #[inline(always)]
    fn transpose(self, x: [V; LANES]) -> [V; LANES] {
        transposed(&x)
    }
    #[inline(always)]
    fn flush(self, pairs: V) -> V {
        flush(&pairs)
    }
    #[inline(always)]
    fn dot(self, acc: V, a: V, b: V) -> V {
        fma_lanes(&low(&a), &low(&b), &fma_lanes(&high(&a), &high(&b), &acc))
    }
    #[inline(always)]
    fn apart<F: Apart<Scalar>>(self, work: F) -> F::Out {
        #[inline(never)]
        fn own<F: Apart<Scalar>>(work: F) -> F::Out {
            work.run(Scalar)
        }
        own(work)
    }
    #[inline(always)]
    fn prefetch(self, _: *const u8) {}
}

#[cfg(test)]
mod tests {
    use super::{Scalar, fma};
    use crate::simd::{LANES, Simd};

    /// What does not count does not have to be there.
    #[test]
    fn only_those_halves_are_read_that_count() {
        fn loaded<S: Simd>(s: S, at: *const u8) -> [[f32; LANES]; 2] {
            let mut out = [[0.0; LANES]; 2];
            // SAFETY: 30 halves are there from the third one on.
            let both = unsafe { [s.load_halves(at, 0xFFFF_FFFC), s.load_some_f16(at, 0xFFF4)] };
            for (out, x) in out.iter_mut().zip(both) {
                s.store(x, out);
            }
            out
        }
        let f16: Vec<_> = (1..=30u8).flat_map(|i| half::f16::from(i).to_le_bytes()).collect();
        let at = f16.as_ptr().wrapping_sub(4);
        let [words, some] = loaded(Scalar, at);
        assert_eq!(words.map(f32::to_bits)[..2], [0, 0x4000_3C00]);
        assert_eq!(some[..6], [0.0, 0.0, 1.0, 0.0, 3.0, 4.0]);
        #[cfg(target_arch = "x86_64")]
        if let Some(s) = crate::simd::Avx512::new() {
            assert_eq!(loaded(s, at), [words, some]);
        }
    }

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
