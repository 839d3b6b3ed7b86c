//! Floor 0: what takes more than one instruction of 256-bit registers. Knows no lanes beyond eight.

use std::arch::x86_64::*;

// Functions and not closures: a closure that is not inlined would lose the instruction set.

/// The low halves of the words as f32.
///
/// # Safety
/// The processor has AVX2.
#[inline(always)]
pub(super) unsafe fn low_as_high(x: __m256) -> __m256 {
    // SAFETY: as the function's.
    unsafe { _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_castps_si256(x))) }
}

/// # Safety
/// The processor has AVX2.
#[inline(always)]
pub(super) unsafe fn pow2(shifted: __m256) -> __m256 {
    // SAFETY: as the function's.
    unsafe {
        let n = _mm256_add_epi32(_mm256_castps_si256(shifted), _mm256_set1_epi32(127));
        _mm256_castsi256_ps(_mm256_slli_epi32::<23>(n))
    }
}

/// # Safety
/// The processor has AVX2.
#[inline(always)]
pub(super) unsafe fn pair(low: __m256, high: __m256) -> __m256 {
    // SAFETY: as the function's.
    unsafe {
        let low = _mm256_srli_epi32::<16>(_mm256_castps_si256(low));
        _mm256_castsi256_ps(_mm256_blend_epi16::<0xAA>(low, _mm256_castps_si256(high)))
    }
}

/// # Safety
/// The processor has AVX2.
#[inline(always)]
pub(super) unsafe fn flush(pairs: __m256) -> __m256 {
    // SAFETY: as the function's.
    unsafe {
        let words = _mm256_castps_si256(pairs);
        let exponent = _mm256_and_si256(words, _mm256_set1_epi16(0x7F80));
        let subnormal = _mm256_cmpeq_epi16(exponent, _mm256_setzero_si256());
        let magnitude = _mm256_and_si256(subnormal, _mm256_set1_epi16(0x7FFF));
        _mm256_castsi256_ps(_mm256_andnot_si256(magnitude, words))
    }
}

/// The nearest bf16 of each lane as f32, ties to even; subnormals become zero, NaN stays NaN.
///
/// # Safety
/// The processor has AVX2.
#[inline(always)]
pub(super) unsafe fn round_bf16(x: __m256) -> __m256 {
    // SAFETY: as the function's.
    unsafe {
        let (words, high) = (_mm256_castps_si256(x), _mm256_set1_epi32(0xFFFF_0000_u32.cast_signed()));
        let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(words), _mm256_set1_epi32(1));
        let half = _mm256_add_epi32(_mm256_set1_epi32(0x7FFF), odd);
        let rounded = flush(_mm256_castsi256_ps(_mm256_and_si256(_mm256_add_epi32(words, half), high)));
        let quiet = _mm256_or_si256(_mm256_and_si256(words, high), _mm256_set1_epi32(0x0040_0000));
        _mm256_blendv_ps(rounded, _mm256_castsi256_ps(quiet), _mm256_cmp_ps::<_CMP_UNORD_Q>(x, x))
    }
}

/// The sum of sixteen lanes by the tree of [`Simd::fold_sum`](super::Simd::fold_sum).
///
/// # Safety
/// The processor has AVX.
#[inline(always)]
pub(super) unsafe fn fold_sum(low: __m256, high: __m256) -> f32 {
    // SAFETY: as the function's.
    unsafe {
        let eight = _mm256_add_ps(low, high);
        let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
        let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
    }
}

/// The largest of sixteen lanes by the same tree.
///
/// # Safety
/// The processor has AVX.
#[inline(always)]
pub(super) unsafe fn fold_max(low: __m256, high: __m256) -> f32 {
    // SAFETY: as the function's.
    unsafe {
        let eight = _mm256_max_ps(low, high);
        let four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
        let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
    }
}

/// f16 in the low halves of words, as f32.
///
/// # Safety
/// The processor has AVX2 and F16C.
#[inline(always)]
pub(super) unsafe fn widen_f16(a: __m256i, b: __m256i) -> [__m256; 2] {
    // SAFETY: as the function's.
    unsafe {
        let halves = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packus_epi32(a, b));
        let high = _mm256_extracti128_si256::<1>(halves);
        [_mm256_cvtph_ps(_mm256_castsi256_si128(halves)), _mm256_cvtph_ps(high)]
    }
}

/// Four words of eight rows, `stride` bytes apart: word j of all rows in vector j.
///
/// # Safety
/// The processor has AVX; the sixteen bytes at `from` and at the seven rows behind it can be read.
#[inline(always)]
pub(super) unsafe fn columns(from: *const f32, stride: usize) -> [__m256; 4] {
    // SAFETY: as the function's.
    unsafe {
        let mut at = [from; 8];
        for i in 0..8 {
            at[i] = from.byte_add(i * stride);
        }
        exchanged(at)
    }
}

/// The four words at each of eight places: word j of all in vector j.
///
/// # Safety
/// The processor has AVX; the sixteen bytes at each place can be read.
#[inline(always)]
unsafe fn exchanged(at: [*const f32; 8]) -> [__m256; 4] {
    // SAFETY: as the function's.
    unsafe {
        // Inserting what memory has costs no shuffle.
        let mut x = [_mm256_setzero_ps(); 4];
        for i in 0..4 {
            let (a, b) = (_mm_loadu_ps(at[i]), _mm_loadu_ps(at[i + 4]));
            x[i] = _mm256_insertf128_ps::<1>(_mm256_castps128_ps256(a), b);
        }
        let (a, b) = (_mm256_unpacklo_ps(x[0], x[1]), _mm256_unpackhi_ps(x[0], x[1]));
        let (c, d) = (_mm256_unpacklo_ps(x[2], x[3]), _mm256_unpackhi_ps(x[2], x[3]));
        [
            _mm256_shuffle_ps::<0x44>(a, c),
            _mm256_shuffle_ps::<0xEE>(a, c),
            _mm256_shuffle_ps::<0x44>(b, d),
            _mm256_shuffle_ps::<0xEE>(b, d),
        ]
    }
}

/// What [`Simd::columns`](super::Simd::columns) says.
///
/// # Safety
/// The processor has AVX.
#[inline(always)]
pub(super) unsafe fn interleaved<const R: usize>(rows: &[&[f32; 32]; R], out: &mut [f32], stride: usize) {
    assert!(
        (R == 6 || R == 8) && stride.checked_mul(31).is_some_and(|at| out.len() >= at.saturating_add(R)),
        "columns"
    );
    for word in (0..32).step_by(4) {
        // SAFETY: four words of rows of 32; of `out` the words that were checked.
        unsafe {
            let mut at = [rows[0].as_ptr().add(word); 8];
            for i in 0..8 {
                at[i] = rows[i.min(R - 1)].as_ptr().add(word);
            }
            for (j, x) in exchanged(at).into_iter().enumerate() {
                let to = out.as_mut_ptr().add((word + j) * stride);
                if R == 8 {
                    _mm256_storeu_ps(to, x);
                } else {
                    _mm_storeu_ps(to, _mm256_castps256_ps128(x));
                    let rest = _mm_castps_pd(_mm256_extractf128_ps::<1>(x));
                    _mm_store_sd(to.add(4).cast(), rest);
                }
            }
        }
    }
}

/// The sums of the signed bytes of either half.
///
/// # Safety
/// The processor has AVX2.
#[inline(always)]
pub(super) unsafe fn sums_of_halves(bytes: __m256i) -> [i32; 2] {
    // SAFETY: as the function's.
    unsafe {
        let pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), bytes);
        let quads = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
        let two = _mm256_hadd_epi32(quads, quads);
        let one = _mm256_hadd_epi32(two, two);
        [_mm256_extract_epi32::<0>(one), _mm256_extract_epi32::<4>(one)]
    }
}

/// # Safety
/// The processor has AVX.
#[inline(always)]
pub(super) unsafe fn transpose(x: [__m256; 8]) -> [__m256; 8] {
    // SAFETY: as the function's.
    unsafe {
        let mut t = x;
        for i in (0..8).step_by(2) {
            t[i] = _mm256_unpacklo_ps(x[i], x[i + 1]);
            t[i + 1] = _mm256_unpackhi_ps(x[i], x[i + 1]);
        }
        let mut r = x;
        for i in (0..8).step_by(4) {
            r[i] = _mm256_shuffle_ps::<0x44>(t[i], t[i + 2]);
            r[i + 1] = _mm256_shuffle_ps::<0xEE>(t[i], t[i + 2]);
            r[i + 2] = _mm256_shuffle_ps::<0x44>(t[i + 1], t[i + 3]);
            r[i + 3] = _mm256_shuffle_ps::<0xEE>(t[i + 1], t[i + 3]);
        }
        let mut out = x;
        for i in 0..4 {
            out[i] = _mm256_permute2f128_ps::<0x20>(r[i], r[i + 4]);
            out[i + 4] = _mm256_permute2f128_ps::<0x31>(r[i], r[i + 4]);
        }
        out
    }
}
