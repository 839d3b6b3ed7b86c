//! Floor 0: what a dense linear multiplies: sixteen words of weights, and words of a row. Knows no matrices.

use crate::simd::{LANES, Simd};

/// A dense element type, as one word a lane: an f32, or a pair of bf16 that follow each other in k.
pub trait Elem {
    /// Elements of k in a word.
    const K: usize;
    /// Bytes of an element in a file.
    const BYTES: usize;

    /// Sixteen words of one row, from their bytes in the file.
    fn words<S: Simd>(s: S, bytes: &[u8]) -> S::V;
    /// Sixteen elements of one row, widened: their words, where a word is one element.
    #[inline(always)]
    fn widen<S: Simd>(s: S, bytes: &[u8]) -> S::V {
        Self::words(s, bytes)
    }
    /// Bytes of one output in a step of a packed panel.
    const PACKED: usize = Self::K * Self::BYTES;
    /// Sixteen words of a packed panel.
    #[inline(always)]
    fn packed<S: Simd>(s: S, bytes: &[u8]) -> S::V {
        Self::words(s, bytes)
    }
    /// Elements in 32 bits of a file's row.
    const LINE: usize = 4 / Self::BYTES;
    /// 32 bits of sixteen rows, as what meets so many words of a row of activations where pairs have no instruction.
    fn open<S: Simd>(s: S, bits: S::V) -> [S::V; 2];
    /// A word of elements that are not sixteen in a row: one, or two of which the second may be missing.
    fn word(low: [u8; 4], high: [u8; 4]) -> f32;
}

/// A dense element type of a file.
pub trait Stored: Elem {
    /// Sixteen words from `at` on, of which those 16-bit halves count that `halves` has a bit of: the others are zero.
    ///
    /// # Safety
    /// What counts is there.
    unsafe fn line<S: Simd>(s: S, at: *const u8, halves: u32) -> S::V;
}

/// f32 weights and activations.
pub struct F32;
/// f16 weights, f32 activations.
pub struct F16;
/// bf16 weights, activations rounded to bf16.
pub struct Bf16;

impl Elem for F32 {
    const K: usize = 1;
    const BYTES: usize = 4;
    #[inline(always)]
    fn words<S: Simd>(s: S, bytes: &[u8]) -> S::V {
        s.load_words(bytes.first_chunk().expect("sixteen words"))
    }
    #[inline(always)]
    fn open<S: Simd>(_: S, bits: S::V) -> [S::V; 2] {
        [bits, bits]
    }
    #[inline(always)]
    fn word(low: [u8; 4], _: [u8; 4]) -> f32 {
        f32::from_le_bytes(low)
    }
}

impl Elem for F16 {
    const K: usize = 1;
    const BYTES: usize = 2;
    #[inline(always)]
    fn words<S: Simd>(s: S, bytes: &[u8]) -> S::V {
        s.load_f16(bytes.first_chunk().expect("sixteen halves"))
    }
    #[inline(always)]
    fn open<S: Simd>(s: S, bits: S::V) -> [S::V; 2] {
        s.f16_halves(bits)
    }
    #[inline(always)]
    fn word(low: [u8; 4], _: [u8; 4]) -> f32 {
        half::f16::from_le_bytes([low[0], low[1]]).to_f32()
    }
}

impl Elem for Bf16 {
    const K: usize = 2;
    const BYTES: usize = 2;
    #[inline(always)]
    fn words<S: Simd>(s: S, bytes: &[u8]) -> S::V {
        s.flush(s.load_words(bytes.first_chunk().expect("sixteen pairs")))
    }
    #[inline(always)]
    fn widen<S: Simd>(s: S, bytes: &[u8]) -> S::V {
        s.load_bf16(bytes.first_chunk().expect("sixteen bf16"))
    }
    #[inline(always)]
    fn packed<S: Simd>(s: S, bytes: &[u8]) -> S::V {
        s.load_words(bytes.first_chunk().expect("sixteen pairs"))
    }
    #[inline(always)]
    fn open<S: Simd>(s: S, bits: S::V) -> [S::V; 2] {
        let [low, high] = s.halves(s.flush(bits));
        [high, low]
    }
    #[inline(always)]
    fn word(low: [u8; 4], high: [u8; 4]) -> f32 {
        let flushed = |x: [u8; 4]| {
            let bits = u16::from_le_bytes([x[0], x[1]]);
            u32::from(if bits & 0x7F80 == 0 { bits & 0x8000 } else { bits })
        };
        f32::from_bits(flushed(low) | (flushed(high) << 16))
    }
}

impl Stored for F32 {
    #[inline(always)]
    unsafe fn line<S: Simd>(s: S, at: *const u8, halves: u32) -> S::V {
        // SAFETY: as the caller says.
        unsafe { s.load_halves(at, halves) }
    }
}

impl Stored for F16 {
    #[inline(always)]
    unsafe fn line<S: Simd>(s: S, at: *const u8, halves: u32) -> S::V {
        // SAFETY: as the caller says.
        unsafe { s.load_some_f16(at, halves as u16) }
    }
}

impl Stored for Bf16 {
    #[inline(always)]
    unsafe fn line<S: Simd>(s: S, at: *const u8, halves: u32) -> S::V {
        // SAFETY: as the caller says.
        unsafe { s.flush(s.load_halves(at, halves)) }
    }
}

/// bf16 weights one by one, widened, for activations that are not rounded.
#[cfg(feature = "train")]
pub struct Wide;

#[cfg(feature = "train")]
impl Elem for Wide {
    const K: usize = 1;
    const BYTES: usize = 2;
    #[inline(always)]
    fn words<S: Simd>(s: S, bytes: &[u8]) -> S::V {
        let x = s.load_bf16(bytes.first_chunk().expect("sixteen bf16"));
        let subnormal = s.lt(s.copysign(x, s.splat(1.0)), s.splat(f32::MIN_POSITIVE));
        s.select(subnormal, s.copysign(s.zero(), x), x)
    }
    #[inline(always)]
    fn open<S: Simd>(s: S, bits: S::V) -> [S::V; 2] {
        s.halves(s.flush(bits))
    }
    #[inline(always)]
    fn word(low: [u8; 4], _: [u8; 4]) -> f32 {
        f32::from_bits(Bf16::word([0; 4], low).to_bits())
    }
}

/// Words of a row of activations for each word of weights: where pairs have no instruction, both halves of a pair are
/// words of their own, the odd one first.
#[inline(always)]
pub const fn parts<S: Simd, E: Elem>() -> usize {
    if E::K == 2 && !S::PAIRS { 2 } else { 1 }
}

/// A word of weights as what meets the words of a row: of [`parts`] there are so many.
#[inline(always)]
pub fn split<S: Simd, E: Elem>(s: S, w: S::V) -> [S::V; 2] {
    if const { parts::<S, E>() == 2 } {
        let [low, high] = s.halves(w);
        return [high, low];
    }
    [w, w]
}

/// acc + weights * x: a step of the chain.
#[inline(always)]
pub fn step<S: Simd, E: Elem>(s: S, acc: S::V, w: S::V, x: S::V) -> S::V {
    if E::K == 2 && S::PAIRS { s.dot(acc, w, x) } else { s.fma(w, x, acc) }
}

/// Word `word` of a row whose last word may be cut off: what is missing counts as zero.
#[inline(always)]
pub fn last_word<E: Elem>(row: &[u8], word: usize) -> f32 {
    let at = |k: usize| {
        let mut bytes = [0; 4];
        if let Some(found) = row.get(k * E::BYTES..(k + 1) * E::BYTES) {
            bytes[..E::BYTES].copy_from_slice(found);
        }
        bytes
    };
    E::word(at(word * E::K), if E::K == 2 { at(word * E::K + 1) } else { [0; 4] })
}

/// Sixteen of these are what `words` reads.
#[inline(always)]
pub fn chunk_bytes<E: Elem>() -> usize {
    LANES * E::K * E::BYTES
}
