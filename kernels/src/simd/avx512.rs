//! Floor 0: the lanes as one 512-bit register. `Avx512Bf16` has the instruction for pairs of bf16, `Avx512` does with
//! two fused multiply-adds what it does; `Avx512Vnni` has the instructions for quads of bytes.

use super::ymm::{fold_max, fold_sum, interleaved, sums_of_halves};
use super::{LANES, Simd, apart};
use crate::math::MAGIC;
use std::arch::x86_64::*;

/// AVX-512 F, BW, DQ, VL with FMA and F16C.
#[derive(Clone, Copy, Debug)]
pub struct Avx512(());

/// The same with BF16.
#[derive(Clone, Copy, Debug)]
pub struct Avx512Bf16(Avx512);

impl Avx512 {
    /// The token, where the processor has the instructions.
    #[must_use]
    pub fn new() -> Option<Avx512> {
        let have = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        have.then_some(Avx512(()))
    }

    /// # Safety
    /// The processor has the instructions.
    #[inline(always)]
    pub(crate) unsafe fn proven() -> Avx512 {
        Avx512(())
    }
}

/// The same with VNNI.
#[derive(Clone, Copy, Debug)]
pub struct Avx512Vnni(Avx512);

impl Avx512Vnni {
    /// The token, where the processor has the instructions.
    #[must_use]
    pub fn new() -> Option<Avx512Vnni> {
        Avx512::new().filter(|_| is_x86_feature_detected!("avx512vnni")).map(Avx512Vnni)
    }

    /// # Safety
    /// The processor has the instructions.
    #[inline(always)]
    pub(crate) unsafe fn proven() -> Avx512Vnni {
        Avx512Vnni(Avx512(()))
    }
}

impl Avx512Vnni {
    /// The token of what it adds to.
    #[inline(always)]
    pub(super) fn base(self) -> Avx512 {
        self.0
    }
}

impl Avx512Bf16 {
    /// The token, where the processor has the instructions.
    #[must_use]
    pub fn new() -> Option<Avx512Bf16> {
        Avx512::new().filter(|_| is_x86_feature_detected!("avx512bf16")).map(Avx512Bf16)
    }

    /// # Safety
    /// The processor has the instructions.
    #[inline(always)]
    pub(crate) unsafe fn proven() -> Avx512Bf16 {
        Avx512Bf16(Avx512(()))
    }
}

/// What all sets share; `$pairs`, `$dot` and `$flush` are their own.
macro_rules! avx512 {
    ($token:ty, $features:literal, $pairs_are:literal, |$this:ident, $acc:ident, $a:ident, $b:ident| $dot:expr, |$pairs:ident| $flush:expr) => {
        // SAFETY (all blocks): the token proves the instructions; memory is in slices of sufficient length.
        #[allow(clippy::undocumented_unsafe_blocks)] // one reason for all of them, above
        impl Simd for $token {
            type V = __m512;
            type M = __mmask16;
            const REGISTERS: usize = 32;
            const PAIRS: bool = $pairs_are;

            apart!($token, $features);

            #[inline(always)]
            fn splat(self, x: f32) -> __m512 {
                unsafe { _mm512_set1_ps(x) }
            }
            #[inline(always)]
            fn load(self, x: &[f32]) -> __m512 {
                let x: &[f32; LANES] = x.first_chunk().expect("sixteen elements");
                unsafe { _mm512_loadu_ps(x.as_ptr()) }
            }
            #[inline(always)]
            fn store(self, x: __m512, out: &mut [f32]) {
                let out: &mut [f32; LANES] = out.first_chunk_mut().expect("sixteen elements");
                unsafe { _mm512_storeu_ps(out.as_mut_ptr(), x) }
            }
            #[inline(always)]
            fn load_words(self, x: &[u8; 64]) -> __m512 {
                unsafe { _mm512_loadu_ps(x.as_ptr().cast()) }
            }
            #[inline(always)]
            unsafe fn load_halves(self, at: *const u8, halves: u32) -> __m512 {
                unsafe { _mm512_castsi512_ps(_mm512_maskz_loadu_epi16(halves, at.cast())) }
            }
            #[inline(always)]
            unsafe fn load_some_f16(self, at: *const u8, halves: u16) -> __m512 {
                unsafe { _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(halves, at.cast())) }
            }
            #[inline(always)]
            fn load_f16(self, x: &[u8; 32]) -> __m512 {
                unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(x.as_ptr().cast())) }
            }
            #[inline(always)]
            fn load_bf16(self, x: &[u8; 32]) -> __m512 {
                unsafe {
                    let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(x.as_ptr().cast()));
                    _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
                }
            }
            #[inline(always)]
            fn load_i8(self, x: &[u8; 16]) -> __m512 {
                unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(x.as_ptr().cast()))) }
            }
            #[inline(always)]
            fn add(self, a: __m512, b: __m512) -> __m512 {
                unsafe { _mm512_add_ps(a, b) }
            }
            #[inline(always)]
            fn sub(self, a: __m512, b: __m512) -> __m512 {
                unsafe { _mm512_sub_ps(a, b) }
            }
            #[inline(always)]
            fn mul(self, a: __m512, b: __m512) -> __m512 {
                unsafe { _mm512_mul_ps(a, b) }
            }
            #[inline(always)]
            fn div(self, a: __m512, b: __m512) -> __m512 {
                unsafe { _mm512_div_ps(a, b) }
            }
            #[inline(always)]
            fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
                unsafe { _mm512_fmadd_ps(a, b, c) }
            }
            #[inline(always)]
            fn max(self, a: __m512, b: __m512) -> __m512 {
                unsafe { _mm512_max_ps(a, b) }
            }
            #[inline(always)]
            fn lt(self, a: __m512, b: __m512) -> __mmask16 {
                unsafe { _mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b) }
            }
            #[inline(always)]
            fn select(self, m: __mmask16, a: __m512, b: __m512) -> __m512 {
                unsafe { _mm512_mask_blend_ps(m, b, a) }
            }
            #[inline(always)]
            fn copysign(self, a: __m512, b: __m512) -> __m512 {
                unsafe {
                    let sign = _mm512_set1_ps(-0.0);
                    _mm512_or_ps(_mm512_and_ps(sign, b), _mm512_andnot_ps(sign, a))
                }
            }
            #[inline(always)]
            fn pow2(self, shifted: __m512) -> __m512 {
                unsafe {
                    let n = _mm512_add_epi32(_mm512_castps_si512(shifted), _mm512_set1_epi32(127));
                    _mm512_castsi512_ps(_mm512_slli_epi32::<23>(n))
                }
            }
            #[inline(always)]
            fn times_pow2(self, x: __m512, shifted: __m512) -> __m512 {
                unsafe { _mm512_scalef_ps(x, _mm512_sub_ps(shifted, _mm512_set1_ps(MAGIC))) }
            }
            #[inline(always)]
            fn pair(self, low: __m512, high: __m512) -> __m512 {
                unsafe {
                    let low = _mm512_srli_epi32::<16>(_mm512_castps_si512(low));
                    let low = _mm512_mask_blend_epi16(0xAAAA_AAAA, low, _mm512_castps_si512(high));
                    _mm512_castsi512_ps(low)
                }
            }
            #[inline(always)]
            fn halves(self, pairs: __m512) -> [__m512; 2] {
                unsafe {
                    let words = _mm512_castps_si512(pairs);
                    let high = _mm512_and_si512(words, _mm512_set1_epi32(0xFFFF_0000_u32 as i32));
                    [_mm512_castsi512_ps(_mm512_slli_epi32::<16>(words)), _mm512_castsi512_ps(high)]
                }
            }
            #[inline(always)]
            fn transpose(self, x: [__m512; LANES]) -> [__m512; LANES] {
                unsafe { transpose(x) }
            }
            #[inline(always)]
            fn columns<const R: usize>(self, rows: &[&[f32; 32]; R], out: &mut [f32], stride: usize) {
                unsafe { interleaved(rows, out, stride) }
            }
            #[inline(always)]
            fn low_bytes(self, x: [__m512; 2]) -> ([i8; 32], [i32; 2]) {
                let mut out = [0i8; 32];
                unsafe {
                    let low = _mm512_cvtepi32_epi8(_mm512_castps_si512(x[0]));
                    let high = _mm512_cvtepi32_epi8(_mm512_castps_si512(x[1]));
                    let bytes = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(low), high);
                    _mm256_storeu_si256(out.as_mut_ptr().cast(), bytes);
                    (out, sums_of_halves(bytes))
                }
            }
            #[inline(always)]
            fn quads(self, x: [__m512; 4]) -> __m512 {
                // Where a bit of the first is set the second, elsewhere the third.
                const CHOSEN: i32 = 0xCA;
                unsafe {
                    let mask = |bits| _mm512_set1_epi32(bits);
                    let [a, b, c, d] = x.map(|x| _mm512_castps_si512(x));
                    let (b, c, d) =
                        (_mm512_slli_epi32::<8>(b), _mm512_slli_epi32::<16>(c), _mm512_slli_epi32::<24>(d));
                    let low = _mm512_ternarylogic_epi32::<CHOSEN>(mask(0xFF), a, b);
                    let high = _mm512_ternarylogic_epi32::<CHOSEN>(mask(0xFF_0000), c, d);
                    _mm512_castsi512_ps(_mm512_ternarylogic_epi32::<CHOSEN>(mask(0xFFFF), low, high))
                }
            }
            #[inline(always)]
            fn integers(self, x: __m512) -> __m512 {
                unsafe { _mm512_castsi512_ps(_mm512_cvtps_epi32(x)) }
            }
            #[inline(always)]
            fn round_bf16(self, x: __m512) -> __m512 {
                unsafe { round_bf16(x) }
            }
            #[inline(always)]
            fn high_halves(self, x: [__m512; 2]) -> __m512 {
                unsafe {
                    let [low, high] =
                        x.map(|x| _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(_mm512_castps_si512(x))));
                    _mm512_castsi512_ps(_mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high))
                }
            }
            #[inline(always)]
            fn fold_sum(self, a: __m512) -> f32 {
                unsafe { fold_sum(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps::<1>(a)) }
            }
            #[inline(always)]
            fn fold_max(self, a: __m512) -> f32 {
                unsafe { fold_max(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps::<1>(a)) }
            }
            #[inline(always)]
            fn flush(self, $pairs: __m512) -> __m512 {
                $flush
            }
            #[inline(always)]
            fn dot(self, $acc: __m512, $a: __m512, $b: __m512) -> __m512 {
                let $this = self;
                unsafe { $dot }
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

/// Sets without the instruction for pairs.
macro_rules! by_fmas {
    ($token:ty, $features:literal) => {
        avx512!(
            $token,
            $features,
            false,
            |set, acc, a, b| {
                let ([a0, a1], [b0, b1]) = (set.halves(a), set.halves(b));
                _mm512_fmadd_ps(a0, b0, _mm512_fmadd_ps(a1, b1, acc))
            },
            |pairs| unsafe {
                let words = _mm512_castps_si512(pairs);
                let normal = _mm512_test_epi16_mask(words, _mm512_set1_epi16(0x7F80));
                let sign = _mm512_and_si512(words, _mm512_set1_epi16(i16::MIN));
                _mm512_castsi512_ps(_mm512_mask_blend_epi16(normal, sign, words))
            }
        );
    };
}
by_fmas!(Avx512, "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c");
by_fmas!(Avx512Vnni, "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c");

avx512!(
    Avx512Bf16,
    "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c",
    true,
    |_set, acc, a, b| {
        // Both are 64 bytes without invalid bit patterns.
        let (a, b) = (std::mem::transmute::<__m512, __m512bh>(a), std::mem::transmute::<__m512, __m512bh>(b));
        _mm512_dpbf16_ps(acc, a, b)
    },
    |pairs| pairs
);

/// The nearest bf16 of each lane as f32, ties to even; subnormals become zero, NaN stays NaN.
///
/// # Safety
/// The processor has AVX-512 F and DQ.
#[inline(always)]
unsafe fn round_bf16(x: __m512) -> __m512 {
    // SAFETY: as the function's.
    unsafe {
        let (words, high) = (_mm512_castps_si512(x), _mm512_set1_epi32(0xFFFF_0000_u32.cast_signed()));
        let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(words), _mm512_set1_epi32(1));
        let half = _mm512_add_epi32(_mm512_set1_epi32(0x7FFF), odd);
        let rounded = _mm512_and_si512(_mm512_add_epi32(words, half), high);
        let normal = _mm512_test_epi32_mask(rounded, _mm512_set1_epi32(0x7F80_0000));
        let sign = _mm512_and_si512(rounded, _mm512_set1_epi32(i32::MIN));
        let flushed = _mm512_mask_blend_epi32(normal, sign, rounded);
        let quiet = _mm512_or_si512(_mm512_and_si512(words, high), _mm512_set1_epi32(0x0040_0000));
        let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(x, x);
        _mm512_castsi512_ps(_mm512_mask_blend_epi32(nan, flushed, quiet))
    }
}

/// # Safety
/// The processor has AVX-512 F.
#[inline(always)]
unsafe fn transpose(x: [__m512; LANES]) -> [__m512; LANES] {
    // SAFETY: as the function's.
    unsafe {
        let zero = _mm512_setzero_si512();
        let (mut t, mut r, mut out) = ([zero; LANES], [zero; LANES], x);
        for i in (0..LANES).step_by(2) {
            let (a, b) = (_mm512_castps_si512(x[i]), _mm512_castps_si512(x[i + 1]));
            t[i] = _mm512_unpacklo_epi32(a, b);
            t[i + 1] = _mm512_unpackhi_epi32(a, b);
        }
        for i in (0..LANES).step_by(4) {
            r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
            r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
            r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
            r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
        }
        // r[4g + j] has, in its quarter q, column 4q + j of rows 4g to 4g + 3.
        for j in 0..4 {
            let a = _mm512_shuffle_i32x4::<0x88>(r[j], r[4 + j]);
            let b = _mm512_shuffle_i32x4::<0x88>(r[8 + j], r[12 + j]);
            let c = _mm512_shuffle_i32x4::<0xDD>(r[j], r[4 + j]);
            let d = _mm512_shuffle_i32x4::<0xDD>(r[8 + j], r[12 + j]);
            out[j] = _mm512_castsi512_ps(_mm512_shuffle_i32x4::<0x88>(a, b));
            out[8 + j] = _mm512_castsi512_ps(_mm512_shuffle_i32x4::<0xDD>(a, b));
            out[4 + j] = _mm512_castsi512_ps(_mm512_shuffle_i32x4::<0x88>(c, d));
            out[12 + j] = _mm512_castsi512_ps(_mm512_shuffle_i32x4::<0xDD>(c, d));
        }
        out
    }
}
