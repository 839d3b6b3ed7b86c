//! Floor 0: 32 bytes at a time: what spreading the codes of a block takes, and sums of products of whole blocks. Exact, so
//! every set may go its own way. Knows no formats.

#[cfg(target_arch = "x86_64")]
use super::{Avx2, Avx512, Avx512Vnni};
use super::{Dots, LANES, Scalar};
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

/// Bytes of a block.
const BLOCK: usize = 32;

/// Two blocks of each of sixteen outputs: a block of activations meets the first or the second.
pub type Pairs = [[[u8; BLOCK]; 2]; LANES];

/// Thirty-two bytes.
pub trait Bytes: Dots {
    /// The bytes.
    type B: Copy;

    /// From memory, unaligned.
    fn load_b(self, x: &[u8; BLOCK]) -> Self::B;
    /// To memory, unaligned.
    fn store_b(self, x: Self::B, out: &mut [u8; BLOCK]);
    /// The low nibbles of sixteen bytes, then the high ones.
    fn nibble_halves(self, x: &[u8; BLOCK / 2]) -> Self::B;
    /// (x >> shift) & mask of each byte, shift + the bits of the mask at most 8.
    fn field(self, x: Self::B, shift: usize, mask: u8) -> Self::B;
    /// low | high << 4, high in 0..=15.
    fn above(self, low: Self::B, high: Self::B) -> Self::B;
    /// Bit i of `x` as byte i: 0 or 1.
    fn bits(self, x: u32) -> Self::B;
    /// x - y of each byte, wrapping.
    fn minus(self, x: Self::B, y: u8) -> Self::B;
    /// What the table has at each byte, all in 0..=15.
    fn look_up(self, x: Self::B, table: &[i8; 16]) -> Self::B;
}

/// Sums along k, for one row of activations.
pub trait Along: Bytes {
    /// `begin` + the products of 32 bytes of `x` with block `which` of each output, or of its two halves. Signed: both in
    /// -128..=127 and -127..=127; else the weights are in 0..=31.
    fn sums<const SIGNED: bool, const GROUPS: usize>(
        self,
        w: &Pairs,
        which: usize,
        x: Self::B,
        begin: i32,
    ) -> [Self::I; GROUPS];
}

// Plain Rust is short rather than fast: what is long is called.
impl Bytes for Scalar {
    type B = [u8; BLOCK];

    #[inline(always)]
    fn load_b(self, x: &[u8; BLOCK]) -> [u8; BLOCK] {
        *x
    }
    #[inline(always)]
    fn store_b(self, x: [u8; BLOCK], out: &mut [u8; BLOCK]) {
        *out = x;
    }
    #[inline(never)]
    fn nibble_halves(self, x: &[u8; BLOCK / 2]) -> [u8; BLOCK] {
        std::array::from_fn(|i| x[i % 16] >> (i / 16 * 4) & 15)
    }
    #[inline(never)]
    fn field(self, x: [u8; BLOCK], shift: usize, mask: u8) -> [u8; BLOCK] {
        x.map(|x| x >> shift & mask)
    }
    #[inline(never)]
    fn above(self, low: [u8; BLOCK], high: [u8; BLOCK]) -> [u8; BLOCK] {
        std::array::from_fn(|i| low[i] | high[i] << 4)
    }
    #[inline(never)]
    fn bits(self, x: u32) -> [u8; BLOCK] {
        std::array::from_fn(|i| (x >> i & 1) as u8)
    }
    #[inline(never)]
    fn minus(self, x: [u8; BLOCK], y: u8) -> [u8; BLOCK] {
        x.map(|x| x.wrapping_sub(y))
    }
    #[inline(never)]
    fn look_up(self, x: [u8; BLOCK], table: &[i8; 16]) -> [u8; BLOCK] {
        x.map(|x| table[usize::from(x & 15)].cast_unsigned())
    }
}

impl Along for Scalar {
    #[inline(always)]
    fn sums<const SIGNED: bool, const GROUPS: usize>(
        self,
        w: &Pairs,
        which: usize,
        x: [u8; BLOCK],
        begin: i32,
    ) -> [[i32; LANES]; GROUPS] {
        let mut out = [[begin; LANES]; GROUPS];
        for i in 0..LANES {
            for k in 0..BLOCK {
                let product = i32::from(w[i][which][k].cast_signed()) * i32::from(x[k].cast_signed());
                out[k * GROUPS / BLOCK][i] += product;
            }
        }
        out
    }
}

// SAFETY (all blocks below): the token proves the instructions; memory is in arrays of sufficient length.

/// 256-bit registers, which every set but the plain one has.
#[cfg(target_arch = "x86_64")]
macro_rules! registers {
    ($($token:ty)*) => {$(
        #[allow(clippy::undocumented_unsafe_blocks)] // one reason for all of them, above
        impl Bytes for $token {
            type B = __m256i;

            #[inline(always)]
            fn load_b(self, x: &[u8; BLOCK]) -> __m256i {
                unsafe { _mm256_loadu_si256(x.as_ptr().cast()) }
            }
            #[inline(always)]
            fn store_b(self, x: __m256i, out: &mut [u8; BLOCK]) {
                unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), x) }
            }
            #[inline(always)]
            fn nibble_halves(self, x: &[u8; BLOCK / 2]) -> __m256i {
                unsafe {
                    let both = _mm256_broadcastsi128_si256(_mm_loadu_si128(x.as_ptr().cast()));
                    let shifted = _mm256_srlv_epi32(both, _mm256_set_epi32(4, 4, 4, 4, 0, 0, 0, 0));
                    _mm256_and_si256(shifted, _mm256_set1_epi8(15))
                }
            }
            #[inline(always)]
            fn field(self, x: __m256i, shift: usize, mask: u8) -> __m256i {
                unsafe {
                    let shifted = _mm256_srl_epi16(x, _mm_cvtsi32_si128(shift as i32));
                    _mm256_and_si256(shifted, _mm256_set1_epi8(mask.cast_signed()))
                }
            }
            #[inline(always)]
            fn above(self, low: __m256i, high: __m256i) -> __m256i {
                unsafe { _mm256_or_si256(low, _mm256_slli_epi16::<4>(high)) }
            }
            #[inline(always)]
            fn bits(self, x: u32) -> __m256i {
                unsafe {
                    let one = 0x0101_0101_0101_0101;
                    let place = _mm256_set_epi64x(one * 3, one * 2, one, 0);
                    let bytes = _mm256_shuffle_epi8(_mm256_set1_epi32(x.cast_signed()), place);
                    let bit = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64.cast_signed());
                    let clear = _mm256_cmpeq_epi8(_mm256_and_si256(bytes, bit), _mm256_setzero_si256());
                    _mm256_add_epi8(clear, _mm256_set1_epi8(1))
                }
            }
            #[inline(always)]
            fn minus(self, x: __m256i, y: u8) -> __m256i {
                unsafe { _mm256_sub_epi8(x, _mm256_set1_epi8(y.cast_signed())) }
            }
            #[inline(always)]
            fn look_up(self, x: __m256i, table: &[i8; 16]) -> __m256i {
                unsafe {
                    let table = _mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().cast()));
                    _mm256_shuffle_epi8(table, x)
                }
            }
        }
    )*};
}
#[cfg(target_arch = "x86_64")]
registers!(Avx2 Avx512 Avx512Vnni);

#[cfg(target_arch = "x86_64")]
#[allow(clippy::undocumented_unsafe_blocks)] // one reason for all of them, above
impl Along for Avx2 {
    #[inline(always)]
    fn sums<const SIGNED: bool, const GROUPS: usize>(
        self,
        w: &Pairs,
        which: usize,
        x: __m256i,
        begin: i32,
    ) -> [[__m256i; 2]; GROUPS] {
        let mut out = [[unsafe { _mm256_set1_epi32(begin) }; 2]; GROUPS];
        for (eight, w) in w.as_chunks::<8>().0.iter().enumerate() {
            let [a, b, c, d, e, f, g, h] = w;
            let low = unsafe { four::<SIGNED>([&a[which], &b[which], &c[which], &d[which]], x) };
            let high = unsafe { four::<SIGNED>([&e[which], &f[which], &g[which], &h[which]], x) };
            let halves = unsafe {
                [_mm256_permute2x128_si256::<0x20>(low, high), _mm256_permute2x128_si256::<0x31>(low, high)]
            };
            for (i, half) in halves.into_iter().enumerate() {
                let out = &mut out[i * GROUPS / 2][eight];
                *out = unsafe { _mm256_add_epi32(*out, half) };
            }
        }
        out
    }
}

/// Products of four blocks with one: the sums over the first halves of all four, then over the second ones.
///
/// # Safety
/// The processor has AVX2.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn four<const SIGNED: bool>(w: [&[u8; BLOCK]; 4], x: __m256i) -> __m256i {
    // SAFETY: as the function's; memory is in arrays of sufficient length.
    unsafe {
        let ones = _mm256_set1_epi16(1);
        let mut p = [x; 4];
        for i in 0..4 {
            let w = _mm256_loadu_si256(w[i].as_ptr().cast());
            p[i] = if SIGNED {
                // |w| * (x with the sign of w): two products of at most 128 * 127 do not saturate.
                let short = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w));
                _mm256_madd_epi16(short, ones)
            } else {
                _mm256_maddubs_epi16(w, x)
            };
        }
        if SIGNED {
            return _mm256_hadd_epi32(_mm256_hadd_epi32(p[0], p[1]), _mm256_hadd_epi32(p[2], p[3]));
        }
        // Sixteen bits hold eight products of at most 31 * 127.
        let sums = _mm256_hadd_epi16(_mm256_hadd_epi16(p[0], p[1]), _mm256_hadd_epi16(p[2], p[3]));
        _mm256_madd_epi16(sums, ones)
    }
}
