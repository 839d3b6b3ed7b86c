//! Floor 0: sums of products of bytes, four to a lane. They are exact, so every set may go its own way. Knows no formats.

#[cfg(target_arch = "x86_64")]
use super::{Avx2, Avx512, Avx512Vnni, AvxVnni};
use super::{Scalar, Simd};
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

/// Sixteen lanes of four bytes, or of one i32.
pub trait Dots: Simd {
    /// Bytes or sums.
    type I: Copy;
    /// Sums of products of nibbles, until [`long`](Dots::long).
    type Short: Copy;
    /// Signed weights, made ready for [`bytes`](Dots::bytes).
    type Ready: Copy;
    /// Steps in which a quad of signed bytes is multiplied: in two where both sides are widened, the first and the third byte,
    /// then the others.
    const PARTS: usize = 1;
    /// The set without instructions of its own for sums: what needs none is compiled for that one.
    type Plain: Simd;

    /// Its token.
    fn plain(self) -> Self::Plain;

    /// Sixteen little-endian words, unaligned.
    fn load_i(self, x: &[u8; 64]) -> Self::I;
    /// Into sixteen little-endian words, unaligned.
    fn store_i(self, x: Self::I, out: &mut [u8; 64]);
    /// The bits of `x` in all lanes.
    fn splat_i(self, x: f32) -> Self::I;
    /// Each lane as the nearest f32.
    fn to_f32(self, x: Self::I) -> Self::V;

    /// The low nibble of each byte.
    fn low(self, x: Self::I) -> Self::I;
    /// The high nibble of each byte.
    fn high(self, x: Self::I) -> Self::I;
    /// The bits of each byte moved up by so many (down, where `up` is below zero), those of the mask.
    fn moved(self, x: Self::I, up: i32, mask: u8) -> Self::I;
    /// a | b
    fn with(self, a: Self::I, b: Self::I) -> Self::I;
    /// x - y of each byte, x in 0..=127.
    fn less(self, x: Self::I, y: u8) -> Self::I;
    /// What the table has at each byte, all in 0..=15.
    fn look_up_i(self, x: Self::I, table: &[i8; 16]) -> Self::I;
    /// No products yet.
    fn short(self) -> Self::Short;
    /// acc + the four products of each lane: w in 0..=15, x signed. Eight times at most from [`short`](Dots::short).
    fn nibbles(self, acc: Self::Short, w: Self::I, x: Self::I) -> Self::Short;
    /// The sums.
    fn long(self, acc: Self::Short) -> Self::I;

    /// Signed weights, made ready for a step.
    fn ready(self, w: Self::I, part: usize) -> Self::Ready;
    /// The same of weights that are widened already, where there are two steps.
    #[inline(always)]
    fn widened(self, w: Self::I) -> Self::Ready {
        self.ready(w, 0)
    }
    /// What a sum begins with, where the bits of `begin` are -128 times the sum of all x it will meet.
    fn begin(self, begin: f32) -> Self::I;
    /// acc + the products of each lane in a step: w and x in -127..=127, x quads, or where there are two steps the pair of each
    /// quad, widened.
    fn bytes(self, acc: Self::I, w: Self::Ready, x: Self::I) -> Self::I;
}

impl Dots for Scalar {
    type I = [i32; 16];
    type Short = [i32; 16];
    type Ready = [i32; 16];
    type Plain = Scalar;

    #[inline(always)]
    fn plain(self) -> Scalar {
        self
    }

    #[inline(always)]
    fn load_i(self, x: &[u8; 64]) -> [i32; 16] {
        std::array::from_fn(|i| i32::from_le_bytes([x[4 * i], x[4 * i + 1], x[4 * i + 2], x[4 * i + 3]]))
    }
    #[inline(always)]
    fn store_i(self, x: [i32; 16], out: &mut [u8; 64]) {
        out.as_chunks_mut().0.iter_mut().zip(x).for_each(|(out, x)| *out = x.to_le_bytes());
    }
    #[inline(always)]
    fn splat_i(self, x: f32) -> [i32; 16] {
        [x.to_bits().cast_signed(); 16]
    }
    #[inline(always)]
    fn to_f32(self, x: [i32; 16]) -> [f32; 16] {
        x.map(|x| x as f32)
    }
    #[inline(always)]
    fn low(self, x: [i32; 16]) -> [i32; 16] {
        x.map(|x| x & 0x0F0F_0F0F)
    }
    #[inline(always)]
    fn high(self, x: [i32; 16]) -> [i32; 16] {
        x.map(|x| x >> 4 & 0x0F0F_0F0F)
    }
    #[inline(always)]
    fn moved(self, x: [i32; 16], up: i32, mask: u8) -> [i32; 16] {
        let mask = i32::from_ne_bytes([mask; 4]);
        x.map(|x| if up < 0 { x >> -up } else { x << up } & mask)
    }
    #[inline(always)]
    fn with(self, a: [i32; 16], b: [i32; 16]) -> [i32; 16] {
        std::array::from_fn(|i| a[i] | b[i])
    }
    #[inline(always)]
    fn less(self, x: [i32; 16], y: u8) -> [i32; 16] {
        x.map(|x| i32::from_ne_bytes(x.to_ne_bytes().map(|x| x.wrapping_sub(y))))
    }
    #[inline(always)]
    fn look_up_i(self, x: [i32; 16], table: &[i8; 16]) -> [i32; 16] {
        x.map(|x| i32::from_ne_bytes(x.to_ne_bytes().map(|x| table[usize::from(x & 15)].cast_unsigned())))
    }
    #[inline(always)]
    fn short(self) -> [i32; 16] {
        [0; 16]
    }
    #[inline(always)]
    fn nibbles(self, acc: [i32; 16], w: [i32; 16], x: [i32; 16]) -> [i32; 16] {
        self.bytes(acc, w, x)
    }
    #[inline(always)]
    fn long(self, acc: [i32; 16]) -> [i32; 16] {
        acc
    }
    #[inline(always)]
    fn ready(self, w: [i32; 16], _: usize) -> [i32; 16] {
        w
    }
    #[inline(always)]
    fn begin(self, _: f32) -> [i32; 16] {
        [0; 16]
    }
    #[inline(always)]
    fn bytes(self, acc: [i32; 16], w: [i32; 16], x: [i32; 16]) -> [i32; 16] {
        products(&acc, &w, &x)
    }
}

/// acc + the four products of each lane. A function of its own: without an instruction for it, it is long.
#[inline(never)]
fn products(acc: &[i32; 16], w: &[i32; 16], x: &[i32; 16]) -> [i32; 16] {
    let mut out = *acc;
    for i in 0..16 {
        for (w, x) in w[i].to_le_bytes().into_iter().zip(x[i].to_le_bytes()) {
            out[i] += i32::from(w.cast_signed()) * i32::from(x.cast_signed());
        }
    }
    out
}

// SAFETY (all blocks below): the token proves the instructions; memory is in arrays of sufficient length.

/// What the 256-bit sets share.
#[cfg(target_arch = "x86_64")]
macro_rules! ymm {
    () => {
        type I = [__m256i; 2];

        #[inline(always)]
        fn load_i(self, x: &[u8; 64]) -> [__m256i; 2] {
            let at = x.as_ptr().cast::<__m256i>();
            unsafe { [_mm256_loadu_si256(at), _mm256_loadu_si256(at.add(1))] }
        }
        #[inline(always)]
        fn store_i(self, x: [__m256i; 2], out: &mut [u8; 64]) {
            let at = out.as_mut_ptr().cast::<__m256i>();
            unsafe {
                _mm256_storeu_si256(at, x[0]);
                _mm256_storeu_si256(at.add(1), x[1]);
            }
        }
        #[inline(always)]
        fn splat_i(self, x: f32) -> [__m256i; 2] {
            unsafe { [_mm256_castps_si256(_mm256_set1_ps(x)); 2] }
        }
        #[inline(always)]
        fn to_f32(self, x: [__m256i; 2]) -> [__m256; 2] {
            unsafe { [_mm256_cvtepi32_ps(x[0]), _mm256_cvtepi32_ps(x[1])] }
        }
        #[inline(always)]
        fn low(self, x: [__m256i; 2]) -> [__m256i; 2] {
            unsafe {
                let mask = _mm256_set1_epi8(15);
                [_mm256_and_si256(x[0], mask), _mm256_and_si256(x[1], mask)]
            }
        }
        #[inline(always)]
        fn high(self, x: [__m256i; 2]) -> [__m256i; 2] {
            unsafe { self.low([_mm256_srli_epi16::<4>(x[0]), _mm256_srli_epi16::<4>(x[1])]) }
        }
        #[inline(always)]
        fn moved(self, x: [__m256i; 2], up: i32, mask: u8) -> [__m256i; 2] {
            unsafe {
                let (up, down) = (_mm_cvtsi32_si128(up.max(0)), _mm_cvtsi32_si128((-up).max(0)));
                let mut out = x;
                for x in &mut out {
                    let moved = _mm256_srl_epi16(_mm256_sll_epi16(*x, up), down);
                    *x = _mm256_and_si256(moved, _mm256_set1_epi8(mask.cast_signed()));
                }
                out
            }
        }
        #[inline(always)]
        fn with(self, a: [__m256i; 2], b: [__m256i; 2]) -> [__m256i; 2] {
            unsafe { [_mm256_or_si256(a[0], b[0]), _mm256_or_si256(a[1], b[1])] }
        }
        #[inline(always)]
        fn less(self, x: [__m256i; 2], y: u8) -> [__m256i; 2] {
            unsafe {
                let y = _mm256_set1_epi8(y.cast_signed());
                [_mm256_sub_epi8(x[0], y), _mm256_sub_epi8(x[1], y)]
            }
        }
        #[inline(always)]
        fn look_up_i(self, x: [__m256i; 2], table: &[i8; 16]) -> [__m256i; 2] {
            unsafe {
                let table = _mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().cast()));
                [_mm256_shuffle_epi8(table, x[0]), _mm256_shuffle_epi8(table, x[1])]
            }
        }
        #[inline(always)]
        fn short(self) -> [__m256i; 2] {
            unsafe { [_mm256_setzero_si256(); 2] }
        }
    };
}

#[cfg(target_arch = "x86_64")]
#[allow(clippy::undocumented_unsafe_blocks)] // one reason for all of them, above
impl Dots for Avx2 {
    ymm!();
    /// Sixteen-bit sums of two products: eight of at most 2 * 15 * 127 fit.
    type Short = [__m256i; 2];
    /// Pairs of weights, widened.
    type Ready = [__m256i; 2];
    type Plain = Avx2;
    const PARTS: usize = 2;

    #[inline(always)]
    fn plain(self) -> Avx2 {
        self
    }

    #[inline(always)]
    fn nibbles(self, acc: [__m256i; 2], w: [__m256i; 2], x: [__m256i; 2]) -> [__m256i; 2] {
        unsafe {
            [
                _mm256_add_epi16(acc[0], _mm256_maddubs_epi16(w[0], x[0])),
                _mm256_add_epi16(acc[1], _mm256_maddubs_epi16(w[1], x[1])),
            ]
        }
    }
    #[inline(always)]
    fn long(self, acc: [__m256i; 2]) -> [__m256i; 2] {
        unsafe {
            let ones = _mm256_set1_epi16(1);
            [_mm256_madd_epi16(acc[0], ones), _mm256_madd_epi16(acc[1], ones)]
        }
    }
    #[inline(always)]
    fn ready(self, w: [__m256i; 2], part: usize) -> [__m256i; 2] {
        unsafe {
            if part == 0 {
                let high = [_mm256_slli_epi16::<8>(w[0]), _mm256_slli_epi16::<8>(w[1])];
                [_mm256_srai_epi16::<8>(high[0]), _mm256_srai_epi16::<8>(high[1])]
            } else {
                [_mm256_srai_epi16::<8>(w[0]), _mm256_srai_epi16::<8>(w[1])]
            }
        }
    }
    #[inline(always)]
    fn widened(self, w: [__m256i; 2]) -> [__m256i; 2] {
        w
    }
    #[inline(always)]
    fn begin(self, _: f32) -> [__m256i; 2] {
        self.short()
    }
    #[inline(always)]
    fn bytes(self, acc: [__m256i; 2], w: [__m256i; 2], x: [__m256i; 2]) -> [__m256i; 2] {
        unsafe {
            [
                _mm256_add_epi32(acc[0], _mm256_madd_epi16(w[0], x[0])),
                _mm256_add_epi32(acc[1], _mm256_madd_epi16(w[1], x[1])),
            ]
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[allow(clippy::undocumented_unsafe_blocks)] // one reason for all of them, above
impl Dots for AvxVnni {
    ymm!();
    type Short = [__m256i; 2];
    /// The weights plus 128.
    type Ready = [__m256i; 2];
    type Plain = Avx2;

    #[inline(always)]
    fn plain(self) -> Avx2 {
        self.base()
    }

    #[inline(always)]
    fn nibbles(self, acc: [__m256i; 2], w: [__m256i; 2], x: [__m256i; 2]) -> [__m256i; 2] {
        unsafe { [_mm256_dpbusd_avx_epi32(acc[0], w[0], x[0]), _mm256_dpbusd_avx_epi32(acc[1], w[1], x[1])] }
    }
    #[inline(always)]
    fn long(self, acc: [__m256i; 2]) -> [__m256i; 2] {
        acc
    }
    #[inline(always)]
    fn ready(self, w: [__m256i; 2], _: usize) -> [__m256i; 2] {
        unsafe {
            let sign = _mm256_set1_epi8(i8::MIN);
            [_mm256_xor_si256(w[0], sign), _mm256_xor_si256(w[1], sign)]
        }
    }
    #[inline(always)]
    fn begin(self, begin: f32) -> [__m256i; 2] {
        self.splat_i(begin)
    }
    #[inline(always)]
    fn bytes(self, acc: [__m256i; 2], w: [__m256i; 2], x: [__m256i; 2]) -> [__m256i; 2] {
        self.nibbles(acc, w, x)
    }
}

/// What the 512-bit sets share.
#[cfg(target_arch = "x86_64")]
macro_rules! wide {
    () => {
        type I = __m512i;
        type Short = __m512i;

        #[inline(always)]
        fn load_i(self, x: &[u8; 64]) -> __m512i {
            unsafe { _mm512_loadu_si512(x.as_ptr().cast()) }
        }
        #[inline(always)]
        fn store_i(self, x: __m512i, out: &mut [u8; 64]) {
            unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), x) }
        }
        #[inline(always)]
        fn splat_i(self, x: f32) -> __m512i {
            unsafe { _mm512_set1_epi32(x.to_bits().cast_signed()) }
        }
        #[inline(always)]
        fn to_f32(self, x: __m512i) -> __m512 {
            unsafe { _mm512_cvtepi32_ps(x) }
        }
        #[inline(always)]
        fn low(self, x: __m512i) -> __m512i {
            unsafe { _mm512_and_si512(x, _mm512_set1_epi8(15)) }
        }
        #[inline(always)]
        fn high(self, x: __m512i) -> __m512i {
            self.low(unsafe { _mm512_srli_epi16::<4>(x) })
        }
        #[inline(always)]
        fn moved(self, x: __m512i, up: i32, mask: u8) -> __m512i {
            unsafe {
                let (up, down) = (_mm_cvtsi32_si128(up.max(0)), _mm_cvtsi32_si128((-up).max(0)));
                let moved = _mm512_srl_epi16(_mm512_sll_epi16(x, up), down);
                _mm512_and_si512(moved, _mm512_set1_epi8(mask.cast_signed()))
            }
        }
        #[inline(always)]
        fn with(self, a: __m512i, b: __m512i) -> __m512i {
            unsafe { _mm512_or_si512(a, b) }
        }
        #[inline(always)]
        fn less(self, x: __m512i, y: u8) -> __m512i {
            unsafe { _mm512_sub_epi8(x, _mm512_set1_epi8(y.cast_signed())) }
        }
        #[inline(always)]
        fn look_up_i(self, x: __m512i, table: &[i8; 16]) -> __m512i {
            unsafe {
                let table = _mm512_broadcast_i32x4(_mm_loadu_si128(table.as_ptr().cast()));
                _mm512_shuffle_epi8(table, x)
            }
        }
        #[inline(always)]
        fn short(self) -> __m512i {
            unsafe { _mm512_setzero_si512() }
        }
    };
}

#[cfg(target_arch = "x86_64")]
#[allow(clippy::undocumented_unsafe_blocks)] // one reason for all of them, above
impl Dots for Avx512 {
    wide!();
    /// Where the weights are negative, and their magnitudes.
    type Ready = (__mmask64, __m512i);
    type Plain = Avx512;

    #[inline(always)]
    fn plain(self) -> Avx512 {
        self
    }

    #[inline(always)]
    fn nibbles(self, acc: __m512i, w: __m512i, x: __m512i) -> __m512i {
        unsafe { _mm512_add_epi16(acc, _mm512_maddubs_epi16(w, x)) }
    }
    #[inline(always)]
    fn long(self, acc: __m512i) -> __m512i {
        unsafe { _mm512_madd_epi16(acc, _mm512_set1_epi16(1)) }
    }
    #[inline(always)]
    fn ready(self, w: __m512i, _: usize) -> (__mmask64, __m512i) {
        unsafe { (_mm512_movepi8_mask(w), _mm512_abs_epi8(w)) }
    }
    #[inline(always)]
    fn begin(self, _: f32) -> __m512i {
        self.short()
    }
    #[inline(always)]
    fn bytes(self, acc: __m512i, (negative, w): (__mmask64, __m512i), x: __m512i) -> __m512i {
        unsafe {
            let x = _mm512_mask_sub_epi8(x, negative, _mm512_setzero_si512(), x);
            _mm512_add_epi32(acc, _mm512_madd_epi16(_mm512_maddubs_epi16(w, x), _mm512_set1_epi16(1)))
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[allow(clippy::undocumented_unsafe_blocks)] // one reason for all of them, above
impl Dots for Avx512Vnni {
    wide!();
    /// The weights plus 128.
    type Ready = __m512i;
    type Plain = Avx512;

    #[inline(always)]
    fn plain(self) -> Avx512 {
        self.base()
    }

    #[inline(always)]
    fn nibbles(self, acc: __m512i, w: __m512i, x: __m512i) -> __m512i {
        unsafe { _mm512_dpbusd_epi32(acc, w, x) }
    }
    #[inline(always)]
    fn long(self, acc: __m512i) -> __m512i {
        acc
    }
    #[inline(always)]
    fn ready(self, w: __m512i, _: usize) -> __m512i {
        unsafe { _mm512_xor_si512(w, _mm512_set1_epi8(i8::MIN)) }
    }
    #[inline(always)]
    fn begin(self, begin: f32) -> __m512i {
        self.splat_i(begin)
    }
    #[inline(always)]
    fn bytes(self, acc: __m512i, w: __m512i, x: __m512i) -> __m512i {
        unsafe { _mm512_dpbusd_epi32(acc, w, x) }
    }
}
