//! Floor 0: sixteen virtual lanes. A kernel is written once against [`Simd`] and compiled once per instruction set; all
//! instances do the same operations in the same order, so their bits are equal. Knows no kernels.
//!
//! A value of a `Simd` type is a token: it proves that the processor has the instructions, so its methods are safe.
//! They are `inline(always)` and become instructions of their set only within a function that enables it (`per_isa!`).

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod bytes;
mod dots;
mod scalar;
#[cfg(target_arch = "x86_64")]
mod ymm;

#[cfg(target_arch = "x86_64")]
pub use avx2::{Avx2, AvxVnni};
#[cfg(target_arch = "x86_64")]
pub use avx512::{Avx512, Avx512Bf16, Avx512Vnni};
pub use bytes::{Along, Bytes, Pairs};
pub use dots::Dots;
pub use scalar::Scalar;

use std::sync::atomic::{Ordering, compiler_fence};

/// Lanes of a vector.
pub const LANES: usize = 16;

/// Work that is compiled once per instruction set, however many places ask for it through [`apart`](Simd::apart). Its
/// `run` is `inline(always)`, as kernels are.
pub trait Apart<S> {
    /// What comes of it.
    type Out;

    /// Does it.
    fn run(self, s: S) -> Self::Out;
}

/// Implements [`Simd::apart`] with the features of a set.
#[cfg(target_arch = "x86_64")]
macro_rules! apart {
    ($token:ty, $features:literal) => {
        #[inline(always)]
        fn apart<F: $crate::simd::Apart<$token>>(self, work: F) -> F::Out {
            #[inline(never)]
            #[target_feature(enable = $features)]
            fn enabled<F: $crate::simd::Apart<$token>>(s: $token, work: F) -> F::Out {
                work.run(s)
            }
            // SAFETY: the token proves the instructions.
            unsafe { enabled(self, work) }
        }
    };
}
#[cfg(target_arch = "x86_64")]
use apart;

/// An instruction set.
pub trait Simd: Copy + Send + Sync + 'static {
    /// Sixteen f32 lanes.
    type V: Copy;
    /// Sixteen truth values.
    type M: Copy;
    /// Vector registers of the machine: how large a tile may be.
    const REGISTERS: usize;
    /// Whether [`dot`](Simd::dot) is an instruction. Elsewhere kernels widen pairs of bf16 once and multiply f32.
    const PAIRS: bool = false;

    /// Zeros.
    #[inline(always)]
    fn zero(self) -> Self::V {
        self.splat(0.0)
    }
    /// `x` in all lanes.
    fn splat(self, x: f32) -> Self::V;
    /// The first sixteen elements. Panics where there are fewer.
    fn load(self, x: &[f32]) -> Self::V;
    /// Into the first sixteen elements. Panics where there are fewer.
    fn store(self, x: Self::V, out: &mut [f32]);
    /// Sixteen little-endian f32 (or pairs of 16-bit elements), unaligned, bits as they are.
    fn load_words(self, x: &[u8; 64]) -> Self::V;
    /// Sixteen words from `at` on, of which those 16-bit halves are read that `halves` has a bit of; the others are zero.
    ///
    /// # Safety
    /// What is to be read is there.
    #[inline(always)]
    unsafe fn load_halves(self, at: *const u8, halves: u32) -> Self::V {
        // SAFETY: as the caller says.
        self.load_words(&unsafe { some_halves(at, halves) })
    }
    /// Sixteen f16 from `at` on, widened, of which those are read that `halves` has a bit of; the others are zero.
    ///
    /// # Safety
    /// What is to be read is there.
    #[inline(always)]
    unsafe fn load_some_f16(self, at: *const u8, halves: u16) -> Self::V {
        // SAFETY: as the caller says.
        self.load_f16(&unsafe { some_halves(at, halves.into()) })
    }
    /// Sixteen f16, unaligned, widened.
    fn load_f16(self, x: &[u8; 32]) -> Self::V;
    /// Sixteen bf16, unaligned, widened; subnormals stay.
    fn load_bf16(self, x: &[u8; 32]) -> Self::V;
    /// Sixteen signed bytes, unaligned, as f32.
    fn load_i8(self, x: &[u8; 16]) -> Self::V;
    /// a + b
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    /// a - b
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    /// a * b
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    /// a / b
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// a * b + c, rounded once.
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// a > b ? a : b (so b where either is NaN).
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// a < b, false for NaN.
    fn lt(self, a: Self::V, b: Self::V) -> Self::M;
    /// m ? a : b
    fn select(self, m: Self::M, a: Self::V, b: Self::V) -> Self::V;
    /// The magnitude of `a` with the sign of `b`.
    fn copysign(self, a: Self::V, b: Self::V) -> Self::V;
    /// 2^n of `shifted` = n + 1.5 * 2^23, -126 <= n <= 127.
    fn pow2(self, shifted: Self::V) -> Self::V;
    /// x * 2^n of `shifted` = n + 1.5 * 2^23, -125 <= n <= 128, where the product is not subnormal.
    #[inline(always)]
    fn times_pow2(self, x: Self::V, shifted: Self::V) -> Self::V {
        // Halved and doubled: n may be 128.
        self.mul(self.mul(x, self.pow2(self.sub(shifted, self.splat(1.0)))), self.splat(2.0))
    }
    /// Words whose high half is that of `high` and whose low half is the high half of `low`: pairs of bf16.
    fn pair(self, low: Self::V, high: Self::V) -> Self::V;
    /// Pairs of bf16 as f32: the low (even) elements, and the high (odd) ones.
    fn halves(self, pairs: Self::V) -> [Self::V; 2];
    /// Lanes and vectors exchanged: element i of vector j becomes element j of vector i.
    fn transpose(self, x: [Self::V; LANES]) -> [Self::V; LANES];
    /// Sixteen words of `R` rows (8 or 16), `stride` bytes from row to row, with rows and words exchanged: word j of row i
    /// to `out[j * step + i]`. Panics where there are fewer bytes or less room.
    #[inline(always)]
    fn lines<const R: usize>(self, bytes: &[u8], stride: usize, out: &mut [f32], step: usize) {
        let mut x = [self.zero(); LANES];
        for i in 0..R {
            x[i] = self.load_words(bytes[i * stride..].first_chunk().expect("sixteen words"));
        }
        for (j, x) in self.transpose(x).into_iter().enumerate() {
            if R == LANES {
                self.store(x, &mut out[j * step..]);
            } else {
                let mut lanes = [0.0; LANES];
                self.store(x, &mut lanes);
                out[j * step..][..R].copy_from_slice(&lanes[..R]);
            }
        }
    }
    /// 32 words of `R` rows (6 or 8) with rows and words exchanged: word j of row i to `out[j * stride + i]`. Panics where
    /// there is less room.
    #[inline(always)]
    fn columns<const R: usize>(self, rows: &[&[f32; 32]; R], out: &mut [f32], stride: usize) {
        for j in 0..32 {
            let out = &mut out[j * stride..][..R];
            for i in 0..R {
                out[i] = rows[i][j];
            }
        }
    }
    /// Of 32 numbers the low bytes of their bits, and the sums of those of either half.
    #[inline(always)]
    fn low_bytes(self, x: [Self::V; 2]) -> ([i8; 32], [i32; 2]) {
        let (mut words, mut out, mut sums) = ([0.0; 32], [0i8; 32], [0; 2]);
        self.store(x[0], &mut words);
        self.store(x[1], &mut words[LANES..]);
        for i in 0..32 {
            out[i] = words[i].to_bits() as i8;
            sums[i / LANES] += i32::from(out[i]);
        }
        (out, sums)
    }
    /// The low bytes of the words of four vectors, side by side in each lane.
    #[inline(always)]
    fn quads(self, x: [Self::V; 4]) -> Self::V {
        let mut words = [[0.0; LANES]; 4];
        for (words, x) in words.iter_mut().zip(x) {
            self.store(x, words);
        }
        let quad = |i: usize| u32::from_le_bytes([0, 1, 2, 3].map(|j: usize| words[j][i].to_bits() as u8));
        self.load(&std::array::from_fn::<_, LANES, _>(|i| f32::from_bits(quad(i))))
    }
    /// The bits of the nearest integers, ties to even, as i32; of what lies within its range.
    #[inline(always)]
    fn integers(self, x: Self::V) -> Self::V {
        let mut lanes = [0.0; LANES];
        self.store(x, &mut lanes);
        self.load(&lanes.map(|x| f32::from_bits((x.round_ties_even() as i32).cast_unsigned())))
    }
    /// The first eight elements, and zeros: what is done with those lanes alone costs nothing in the others. Panics where
    /// there are fewer.
    #[inline(always)]
    fn load_eight(self, x: &[f32]) -> Self::V {
        let mut lanes = [0.0; LANES];
        lanes[..8].copy_from_slice(&x[..8]);
        self.load(&lanes)
    }
    /// Four words of eight rows, `stride` bytes from row to row, with rows and words exchanged: of vector j the first eight
    /// lanes, as with [`load_eight`](Simd::load_eight). Panics where there are fewer bytes.
    #[inline(always)]
    fn four_of_eight(self, bytes: &[u8], stride: usize) -> [Self::V; 4] {
        let mut out = [[0.0; LANES]; 4];
        for i in 0..8 {
            let words: &[u8; 16] = bytes[i * stride..].first_chunk().expect("four words");
            for (out, word) in out.iter_mut().zip(words.as_chunks().0) {
                out[i] = f32::from_le_bytes(*word);
            }
        }
        out.map(|lanes| self.load(&lanes))
    }
    /// Pairs of f16 as f32: the low (even) elements, and the high (odd) ones.
    #[inline(always)]
    fn f16_halves(self, pairs: Self::V) -> [Self::V; 2] {
        let mut words = [0.0; LANES];
        self.store(pairs, &mut words);
        [0, 16].map(|shift| {
            let mut half = [0; 2 * LANES];
            for (half, word) in half.as_chunks_mut().0.iter_mut().zip(words) {
                *half = ((word.to_bits() >> shift) as u16).to_le_bytes();
            }
            self.load_f16(&half)
        })
    }
    /// Each lane as [`to_bf16`] rounds it, as f32.
    #[inline(always)]
    fn round_bf16(self, x: Self::V) -> Self::V {
        let mut lanes = [0.0; LANES];
        self.store(x, &mut lanes);
        self.load(&lanes.map(|x| f32::from_bits(to_bf16(x) << 16)))
    }
    /// The high halves of the words of two vectors, side by side: of numbers that are bf16, their pairs.
    #[inline(always)]
    fn high_halves(self, x: [Self::V; 2]) -> Self::V {
        let (mut words, mut out) = ([0.0; 2 * LANES], [0.0; LANES]);
        self.store(x[0], &mut words);
        self.store(x[1], &mut words[LANES..]);
        for (out, pair) in out.iter_mut().zip(words.as_chunks::<2>().0) {
            *out = f32::from_bits(pair[0].to_bits() >> 16 | pair[1].to_bits() & 0xFFFF_0000);
        }
        self.load(&out)
    }
    /// Neighbours exchanged: lanes 0 and 1, 2 and 3, and so on.
    #[inline(always)]
    fn exchange(self, x: Self::V) -> Self::V {
        let mut lanes = [0.0; LANES];
        self.store(x, &mut lanes);
        for pair in lanes.as_chunks_mut::<2>().0 {
            pair.swap(0, 1);
        }
        self.load(&lanes)
    }
    /// Pairs of bf16 with subnormals made zero, where `dot` would not ignore them itself.
    fn flush(self, pairs: Self::V) -> Self::V;
    /// acc + odd * odd + even * even of pairs of bf16, the odd (high) ones first, rounded after each, subnormals of
    /// the elements as zero. The elements must have gone through `flush`.
    fn dot(self, acc: Self::V, a: Self::V, b: Self::V) -> Self::V;
    /// Does a piece of work in a function of its own that enables the set: what is long and not called often is not
    /// repeated wherever it is needed.
    fn apart<F: Apart<Self>>(self, work: F) -> F::Out;
    /// Asks for a line of memory to be brought near. Never faults.
    fn prefetch(self, at: *const u8);
    /// Asks for a line of memory to be brought into a first-level cache. Never faults.
    #[inline(always)]
    fn prefetch_first(self, at: *const u8) {
        self.prefetch(at);
    }

    /// Sum of the lanes by the fold tree 8, 4, 2, 1.
    #[inline(always)]
    fn fold_sum(self, a: Self::V) -> f32 {
        let mut x = [0.0; LANES];
        self.store(a, &mut x);
        for half in [8, 4, 2, 1] {
            for j in 0..half {
                x[j] += x[j + half];
            }
        }
        x[0]
    }

    /// Largest lane by the same tree.
    #[inline(always)]
    fn fold_max(self, a: Self::V) -> f32 {
        let mut x = [0.0; LANES];
        self.store(a, &mut x);
        for half in [8, 4, 2, 1] {
            for j in 0..half {
                x[j] = if x[j] > x[j + half] { x[j] } else { x[j + half] };
            }
        }
        x[0]
    }
}

/// Bytes of a line of memory.
pub const LINE: usize = 64;

/// Asks for the next line, and goes on to the one after it.
#[inline(always)]
pub fn ask<S: Simd>(s: S, next: &mut *const u8) {
    s.prefetch_first(*next);
    *next = next.wrapping_add(LINE);
}

/// The same, here and not elsewhere: a processor drops what it is asked for while it waits for a hundred others, and a
/// compiler that puts several together makes it do so.
#[inline(always)]
pub fn ask_here<S: Simd>(s: S, next: &mut *const u8) {
    ask(s, next);
    compiler_fence(Ordering::SeqCst);
}

/// `n`, for a loop over vectors that is to stay a loop where they are no registers: there its code is long.
#[inline(always)]
pub fn times<S: Simd>(n: usize) -> usize {
    if const { S::REGISTERS < 16 } { std::hint::black_box(n).min(n) } else { n }
}

/// Bytes from `at` on, of which those 16-bit halves are read that `halves` has a bit of; the others are zero.
///
/// # Safety
/// What is to be read is there.
#[inline(always)]
unsafe fn some_halves<const N: usize>(at: *const u8, halves: u32) -> [u8; N] {
    let mut bytes = [0; N];
    for (i, half) in bytes.as_chunks_mut::<2>().0.iter_mut().enumerate() {
        if halves >> i & 1 == 1 {
            // SAFETY: the caller says so.
            *half = unsafe { at.wrapping_add(2 * i).cast::<[u8; 2]>().read() };
        }
    }
    bytes
}

/// Asks for a line of memory to be brought near, for what has no set of its own. Never faults.
#[inline(always)]
pub fn near(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: SSE is part of x86-64.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// The nearest bf16, ties to even, as the low half of a word; subnormals become zero, NaN stays NaN.
#[inline(always)]
#[must_use]
pub fn to_bf16(x: f32) -> u32 {
    let bits = x.to_bits();
    let rounded = (bits.wrapping_add(0x7FFF + ((bits >> 16) & 1))) >> 16;
    let rounded = if rounded & 0x7F80 == 0 { rounded & 0x8000 } else { rounded };
    if x.is_nan() { (bits >> 16) | 0x40 } else { rounded }
}
