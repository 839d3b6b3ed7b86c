//! Floor 0: the lanes as two 256-bit registers. `AvxVnni` has the instruction for quads of bytes.

use super::ymm::{
    columns, flush, fold_max, fold_sum, interleaved, low_as_high, pair, pow2, round_bf16, sums_of_halves,
    transpose, widen_f16,
};
use super::{LANES, Simd, apart};
use std::arch::x86_64::*;

/// AVX2 with FMA and F16C.
#[derive(Clone, Copy, Debug)]
pub struct Avx2(());

impl Avx2 {
    /// The token, where the processor has the instructions.
    #[must_use]
    pub fn new() -> Option<Avx2> {
        let have = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        have.then_some(Avx2(()))
    }

    /// # Safety
    /// The processor has the instructions.
    #[inline(always)]
    pub(crate) unsafe fn proven() -> Avx2 {
        Avx2(())
    }
}

/// The same with AVX-VNNI.
#[derive(Clone, Copy, Debug)]
pub struct AvxVnni(Avx2);

impl AvxVnni {
    /// The token, where the processor has the instructions.
    #[must_use]
    pub fn new() -> Option<AvxVnni> {
        Avx2::new().filter(|_| is_x86_feature_detected!("avxvnni")).map(AvxVnni)
    }

    /// # Safety
    /// The processor has the instructions.
    #[inline(always)]
    pub(crate) unsafe fn proven() -> AvxVnni {
        AvxVnni(Avx2(()))
    }

    /// The token of what it adds to.
    #[inline(always)]
    pub(super) fn base(self) -> Avx2 {
        self.0
    }
}

/// Lanes 0 to 7, and 8 to 15.
type V = [__m256; 2];

macro_rules! both {
    ($f:ident $(::<$n:tt>)?, $($x:expr),+) => {
        // SAFETY: the token proves the instructions.
        unsafe { [$f$(::<$n>)?($($x[0]),+), $f$(::<$n>)?($($x[1]),+)] }
    };
}

/// What both sets share: all that is f32.
macro_rules! avx2 {
    ($token:ty, $features:literal) => {
        // SAFETY (all blocks): the token proves the instructions; memory is in slices of sufficient length.
        #[allow(clippy::undocumented_unsafe_blocks)] // one reason for all of them, above
        impl Simd for $token {
            type V = V;
            type M = V;
            const REGISTERS: usize = 16;

            apart!($token, $features);

            #[inline(always)]
            fn splat(self, x: f32) -> V {
                unsafe { [_mm256_set1_ps(x); 2] }
            }
            #[inline(always)]
            fn load(self, x: &[f32]) -> V {
                let x: &[f32; LANES] = x.first_chunk().expect("sixteen elements");
                unsafe { [_mm256_loadu_ps(x.as_ptr()), _mm256_loadu_ps(x.as_ptr().add(8))] }
            }
            #[inline(always)]
            fn store(self, x: V, out: &mut [f32]) {
                let out: &mut [f32; LANES] = out.first_chunk_mut().expect("sixteen elements");
                unsafe {
                    _mm256_storeu_ps(out.as_mut_ptr(), x[0]);
                    _mm256_storeu_ps(out.as_mut_ptr().add(8), x[1]);
                }
            }
            #[inline(always)]
            fn load_words(self, x: &[u8; 64]) -> V {
                let at = x.as_ptr().cast::<f32>();
                unsafe { [_mm256_loadu_ps(at), _mm256_loadu_ps(at.add(8))] }
            }
            #[inline(always)]
            fn load_f16(self, x: &[u8; 32]) -> V {
                let at = x.as_ptr().cast::<__m128i>();
                unsafe { [_mm256_cvtph_ps(_mm_loadu_si128(at)), _mm256_cvtph_ps(_mm_loadu_si128(at.add(1)))] }
            }
            #[inline(always)]
            fn load_bf16(self, x: &[u8; 32]) -> V {
                let at = x.as_ptr().cast::<__m128i>();
                unsafe {
                    let wide = [
                        _mm256_cvtepu16_epi32(_mm_loadu_si128(at)),
                        _mm256_cvtepu16_epi32(_mm_loadu_si128(at.add(1))),
                    ];
                    [low_as_high(_mm256_castsi256_ps(wide[0])), low_as_high(_mm256_castsi256_ps(wide[1]))]
                }
            }
            #[inline(always)]
            fn load_i8(self, x: &[u8; 16]) -> V {
                let at = x.as_ptr();
                unsafe {
                    let wide = [
                        _mm256_cvtepi8_epi32(_mm_loadl_epi64(at.cast())),
                        _mm256_cvtepi8_epi32(_mm_loadl_epi64(at.add(8).cast())),
                    ];
                    [_mm256_cvtepi32_ps(wide[0]), _mm256_cvtepi32_ps(wide[1])]
                }
            }
            #[inline(always)]
            fn add(self, a: V, b: V) -> V {
                both!(_mm256_add_ps, a, b)
            }
            #[inline(always)]
            fn sub(self, a: V, b: V) -> V {
                both!(_mm256_sub_ps, a, b)
            }
            #[inline(always)]
            fn mul(self, a: V, b: V) -> V {
                both!(_mm256_mul_ps, a, b)
            }
            #[inline(always)]
            fn div(self, a: V, b: V) -> V {
                both!(_mm256_div_ps, a, b)
            }
            #[inline(always)]
            fn fma(self, a: V, b: V, c: V) -> V {
                both!(_mm256_fmadd_ps, a, b, c)
            }
            #[inline(always)]
            fn max(self, a: V, b: V) -> V {
                both!(_mm256_max_ps, a, b)
            }
            #[inline(always)]
            fn lt(self, a: V, b: V) -> V {
                both!(_mm256_cmp_ps::<_CMP_LT_OQ>, a, b)
            }
            #[inline(always)]
            fn select(self, m: V, a: V, b: V) -> V {
                both!(_mm256_blendv_ps, b, a, m)
            }
            #[inline(always)]
            fn copysign(self, a: V, b: V) -> V {
                let sign = self.splat(-0.0);
                let (b, a) = (both!(_mm256_and_ps, sign, b), both!(_mm256_andnot_ps, sign, a));
                both!(_mm256_or_ps, a, b)
            }
            #[inline(always)]
            fn pow2(self, shifted: V) -> V {
                both!(pow2, shifted)
            }
            #[inline(always)]
            fn pair(self, low: V, high: V) -> V {
                both!(pair, low, high)
            }
            #[inline(always)]
            fn halves(self, pairs: V) -> [V; 2] {
                let high = unsafe { [_mm256_castsi256_ps(_mm256_set1_epi32(0xFFFF_0000_u32 as i32)); 2] };
                [both!(low_as_high, pairs), both!(_mm256_and_ps, pairs, high)]
            }
            #[inline(always)]
            fn transpose(self, x: [V; LANES]) -> [V; LANES] {
                let mut out = [self.zero(); LANES];
                for (half, lanes) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                    // Vectors `8 half..` and lanes `8 lanes..` of x become lanes `8 half..` of vectors `8 lanes..`.
                    let mut block = [x[0][0]; 8];
                    for i in 0..8 {
                        block[i] = x[8 * half + i][lanes];
                    }
                    let block = unsafe { transpose(block) };
                    for i in 0..8 {
                        out[8 * lanes + i][half] = block[i];
                    }
                }
                out
            }
            #[inline(always)]
            fn lines<const R: usize>(self, bytes: &[u8], stride: usize, out: &mut [f32], step: usize) {
                let fits = |all: usize, stride: usize, n: usize, len: usize| {
                    stride.checked_mul(n - 1).and_then(|at| at.checked_add(len)).is_some_and(|end| end <= all)
                };
                assert!(fits(bytes.len(), stride, R, 4 * LANES) && fits(out.len(), step, LANES, R), "lines");
                // Eight rows at a time, so that whole lines are read while a cache holds them, however far rows are apart.
                for eight in (0..R).step_by(8) {
                    for word in (0..LANES).step_by(4) {
                        // SAFETY: lines and words of them are among those that were checked.
                        unsafe {
                            let from = bytes.as_ptr().add(eight * stride + 4 * word).cast::<f32>();
                            let to = out.as_mut_ptr().add(word * step + eight);
                            for (j, x) in columns(from, stride).into_iter().enumerate() {
                                _mm256_storeu_ps(to.add(j * step), x);
                            }
                        }
                    }
                }
            }
            #[inline(always)]
            fn columns<const R: usize>(self, rows: &[&[f32; 32]; R], out: &mut [f32], stride: usize) {
                unsafe { interleaved(rows, out, stride) }
            }
            #[inline(always)]
            fn low_bytes(self, x: [V; 2]) -> ([i8; 32], [i32; 2]) {
                let mut out = [0i8; 32];
                unsafe {
                    // Bytes with their sign as words, which packing leaves as they are.
                    let mut w = [_mm256_setzero_si256(); 4];
                    for i in 0..4 {
                        let bits = _mm256_castps_si256(x[i / 2][i % 2]);
                        w[i] = _mm256_srai_epi32::<24>(_mm256_slli_epi32::<24>(bits));
                    }
                    let halves = [_mm256_packs_epi32(w[0], w[1]), _mm256_packs_epi32(w[2], w[3])];
                    let bytes = _mm256_packs_epi16(halves[0], halves[1]);
                    let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
                    let bytes = _mm256_permutevar8x32_epi32(bytes, order);
                    _mm256_storeu_si256(out.as_mut_ptr().cast(), bytes);
                    (out, sums_of_halves(bytes))
                }
            }
            #[inline(always)]
            fn fold_sum(self, a: V) -> f32 {
                unsafe { fold_sum(a[0], a[1]) }
            }
            #[inline(always)]
            fn fold_max(self, a: V) -> f32 {
                unsafe { fold_max(a[0], a[1]) }
            }
            #[inline(always)]
            fn load_eight(self, x: &[f32]) -> V {
                let x: &[f32; 8] = x.first_chunk().expect("eight elements");
                unsafe { [_mm256_loadu_ps(x.as_ptr()), _mm256_setzero_ps()] }
            }
            #[inline(always)]
            fn four_of_eight(self, bytes: &[u8], stride: usize) -> [V; 4] {
                let last = stride.checked_mul(7).and_then(|at| at.checked_add(16));
                assert!(last.is_some_and(|end| end <= bytes.len()), "four words");
                // SAFETY: four words of each of eight rows were checked.
                let words = unsafe { columns(bytes.as_ptr().cast(), stride) };
                words.map(|x| [x, unsafe { _mm256_setzero_ps() }])
            }
            #[inline(always)]
            fn f16_halves(self, pairs: V) -> [V; 2] {
                let pairs = unsafe { [_mm256_castps_si256(pairs[0]), _mm256_castps_si256(pairs[1])] };
                let low = unsafe { _mm256_set1_epi32(0xFFFF) };
                unsafe {
                    [
                        widen_f16(_mm256_and_si256(pairs[0], low), _mm256_and_si256(pairs[1], low)),
                        widen_f16(_mm256_srli_epi32::<16>(pairs[0]), _mm256_srli_epi32::<16>(pairs[1])),
                    ]
                }
            }
            #[inline(always)]
            fn round_bf16(self, x: V) -> V {
                both!(round_bf16, x)
            }
            #[inline(always)]
            fn exchange(self, x: V) -> V {
                both!(_mm256_permute_ps::<0xB1>, x)
            }
            #[inline(always)]
            fn flush(self, pairs: V) -> V {
                both!(flush, pairs)
            }
            #[inline(always)]
            fn dot(self, acc: V, a: V, b: V) -> V {
                let ([a0, a1], [b0, b1]) = (self.halves(a), self.halves(b));
                self.fma(a0, b0, self.fma(a1, b1, acc))
            }
            #[inline(always)]
            fn prefetch(self, at: *const u8) {
                unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) }
            }
            #[inline(always)]
            fn prefetch_first(self, at: *const u8) {
                unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
            }
        }
    };
}
avx2!(Avx2, "avx2,fma,f16c");
avx2!(AvxVnni, "avx2,avxvnni,fma,f16c");
