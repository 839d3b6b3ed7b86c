//! Floor 0: how one head of a page lies in memory, by the type that keys and values are cached in. Knows no sequences.

use super::PAGE;
use crate::simd::Simd;
use std::fmt;

/// What cached keys and values are rounded to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Cache {
    /// IEEE 754 binary32: as they come.
    F32,
    /// IEEE 754 binary16.
    F16,
    /// The upper half of a binary32.
    BF16,
    /// Signed bytes from -127 to 127, and for each position of a head one f32 scale for its key and one for its value.
    Q8,
}

impl Cache {
    /// Every type.
    pub const ALL: [Cache; 4] = [Cache::F32, Cache::F16, Cache::BF16, Cache::Q8];

    /// Name in messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Cache::F32 => "F32",
            Cache::F16 => "F16",
            Cache::BF16 => "BF16",
            Cache::Q8 => "Q8",
        }
    }

    /// Element `i` of keys or values, its scale left out.
    pub(super) fn element(self, bytes: &[u8], i: usize) -> f32 {
        let x = &bytes[i * self.bytes()..];
        match self {
            Cache::F32 => f32::from_ne_bytes([x[0], x[1], x[2], x[3]]),
            Cache::F16 => half::f16::from_bits(u16::from_ne_bytes([x[0], x[1]])).to_f32(),
            Cache::BF16 => half::bf16::from_bits(u16::from_ne_bytes([x[0], x[1]])).to_f32(),
            Cache::Q8 => f32::from(x[0] as i8),
        }
    }

    /// Bytes of an element.
    pub(super) const fn bytes(self) -> usize {
        match self {
            Cache::F32 => 4,
            Cache::F16 | Cache::BF16 => 2,
            Cache::Q8 => 1,
        }
    }
}

impl fmt::Display for Cache {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Words of one key/value head of one layer of a page.
#[must_use]
pub const fn head_words(dim: usize, cache: Cache) -> usize {
    // Two matrices of `PAGE * dim` elements, and `PAGE` is a multiple of the four bytes of a word.
    let scales = if let Cache::Q8 = cache { 2 * PAGE } else { 0 };
    2 * PAGE * dim * cache.bytes() / 4 + scales
}

/// One head of a page: keys `[dim][PAGE]` and values `[PAGE][dim]` as bytes, and for `Cache::Q8` the scale of each
/// position's key and value.
#[derive(Clone, Copy)]
pub struct Head<'a> {
    pub keys: &'a [u8],
    pub values: &'a [u8],
    pub scales: Option<[&'a [f32; PAGE]; 2]>,
}

impl<'a> Head<'a> {
    /// `words` are the [`head_words`] of one head.
    #[inline(always)]
    pub fn of(words: &'a [f32], dim: usize, cache: Cache) -> Head<'a> {
        let half = PAGE * dim * cache.bytes() / 4;
        let (keys, rest) = words.split_at(half);
        let (values, scales) = rest.split_at(half);
        let scales = scales.as_chunks::<PAGE>().0;
        let scales = if let [keys, values] = scales { Some([keys, values]) } else { None };
        Head { keys: bytemuck::cast_slice(keys), values: bytemuck::cast_slice(values), scales }
    }
}

/// A cached element as the tiles read it.
pub trait Elem {
    /// Bytes of one.
    const BYTES: usize;

    /// The first sixteen, as f32. Panics where there are fewer.
    fn load<S: Simd>(s: S, bytes: &[u8]) -> S::V;
}

/// [`Cache::F32`]
pub struct F32;
/// [`Cache::F16`]
pub struct F16;
/// [`Cache::BF16`]
pub struct Bf16;
/// [`Cache::Q8`], its scale left out
pub struct Q8;

macro_rules! elem {
    ($name:ident, $bytes:literal, $load:ident) => {
        impl Elem for $name {
            const BYTES: usize = $bytes;

            #[inline(always)]
            fn load<S: Simd>(s: S, bytes: &[u8]) -> S::V {
                s.$load(bytes.first_chunk().expect("sixteen elements"))
            }
        }
    };
}

elem!(F32, 4, load_words);
elem!(F16, 2, load_f16);
elem!(Bf16, 2, load_bf16);
elem!(Q8, 1, load_i8);
