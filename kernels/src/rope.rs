//! Floor 0: rotary positions (Su et al. 2021), whole or partial, of neighbours or of halves, and the frequencies they
//! turn with. Knows nothing of sequences; rows come with the turns of their positions.
//!
//! Products and sums are rounded one by one: that is what the models were trained with, and plain operations have the
//! same bits on every machine.

use crate::ops::per_isa;
use crate::plan::TileMut;
use crate::simd::{Apart, Simd};

/// Which angles a family turns its queries and keys by.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Base of the geometric row of frequencies.
    pub theta: f32,
    /// Dimensions of a head that turn, an even number; the others stay as they are.
    pub rot_dim: usize,
    /// Whether neighbours turn together (the paper, GGUF's Llama), or element `i` with `i + rot_dim / 2` (Hugging Face).
    pub interleaved: bool,
    /// How the frequencies were stretched for longer contexts.
    pub scaling: Scaling,
    /// What cosines and sines are multiplied by (an attention factor, Peng et al. 2023); 1 in most families.
    pub scale: f32,
}

/// How rotary frequencies are stretched for longer contexts.
#[derive(Clone, Debug, PartialEq)]
pub enum Scaling {
    /// Not at all.
    None,
    /// All by one factor (Chen et al. 2023).
    Linear {
        /// New context over old.
        factor: f32,
    },
    /// Low frequencies by the factor, high ones not, those between in proportion (Llama 3.1).
    Llama3 {
        /// New context over old.
        factor: f32,
        /// Waves longer than `original / low_freq` positions are stretched in full.
        low_freq: f32,
        /// Waves shorter than `original / high_freq` positions are not.
        high_freq: f32,
        /// The old context.
        original: f32,
    },
    /// Low frequencies by the factor, high ones not, those between along a line over the pairs (YaRN, Peng et al. 2023).
    Yarn {
        /// New context over old.
        factor: f32,
        /// The old context.
        original: f32,
        /// Pairs that turn more often than this within the old context are not stretched.
        beta_fast: f32,
        /// Pairs that turn less often than this are stretched in full.
        beta_slow: f32,
        /// Whether the line begins and ends at whole pairs.
        truncate: bool,
    },
    /// Each by a factor of its own, `[rot_dim / 2]` (LongRoPE, Ding et al. 2024).
    Factors(Vec<f32>),
}

impl Rope {
    /// Radians a position turns each pair by, `[rot_dim / 2]`: rounded where the transformers library rounds.
    ///
    /// Panics where `Factors` are fewer than pairs.
    #[must_use]
    pub fn inv_freq(&self) -> Vec<f32> {
        let power = |i: usize| {
            let exponent = (2 * i) as f32 / self.rot_dim as f32;
            libm::pow(f64::from(self.theta), f64::from(exponent)) as f32
        };
        (0..self.rot_dim / 2).map(|i| self.stretch(i, power(i))).collect()
    }

    /// The frequency of pair `i`, one over `power` before it is stretched.
    fn stretch(&self, i: usize, power: f32) -> f32 {
        let freq = power.recip();
        match self.scaling {
            Scaling::None => freq,
            Scaling::Factors(ref factors) => (factors[i] * power).recip(),
            Scaling::Yarn { factor, original, beta_fast, beta_slow, truncate } => {
                let [low, high] = self.line(original, [beta_fast, beta_slow], truncate);
                let keep = 1.0 - ((i as f32 - low as f32) / (high - low) as f32).clamp(0.0, 1.0);
                (factor * power).recip() * (1.0 - keep) + freq * keep
            }
            Scaling::Linear { factor } => freq / factor,
            Scaling::Llama3 { factor, low_freq, high_freq, original } => {
                // A number over a tensor is the tensor's reciprocal times the number there, with two roundings.
                let wave = freq.recip() * std::f32::consts::TAU;
                if wave > original / low_freq {
                    return freq / factor;
                }
                if wave < original / high_freq {
                    return freq;
                }
                let smooth = (wave.recip() * original - low_freq) / (high_freq - low_freq);
                (1.0 - smooth) * freq / factor + smooth * freq
            }
        }
    }

    /// The pairs that turn so often within `original` positions: where YaRN's line begins and ends.
    fn line(&self, original: f32, turns: [f32; 2], truncate: bool) -> [f64; 2] {
        let dim = self.rot_dim as f64;
        let [low, high] = turns.map(|turns| {
            let share = f64::from(original) / (f64::from(turns) * std::f64::consts::TAU);
            dim * libm::log(share) / (2.0 * libm::log(f64::from(self.theta)))
        });
        let [low, high] = if truncate { [low.floor(), high.ceil()] } else { [low, high] };
        let (low, high) = (low.max(0.0), high.min(dim - 1.0));
        // No line has no length.
        [low, if low == high { high + 0.001 } else { high }]
    }
}

/// Writes the turns of position `pos`: the cosines of all pairs, then their sines: `out [2, rot_dim / 2]`, each times
/// `scale`.
///
/// The angle is rounded to f32 before its cosine is taken, as everyone who trained with f32 tables did.
pub fn turns(inv_freq: &[f32], pos: u32, scale: f32, out: &mut [f32]) {
    let (cos, sin) = out.split_at_mut(out.len() / 2);
    for ((cos, sin), freq) in cos.iter_mut().zip(sin).zip(inv_freq) {
        let angle = f64::from(pos as f32 * freq);
        (*cos, *sin) = (libm::cos(angle) as f32 * scale, libm::sin(angle) as f32 * scale);
    }
}

per_isa! {
    /// out `[rows, n]`, cut in rows: the heads `[n / dim, dim]` of each row of x turned by the row's turns,
    /// `[rows, 2, rot_dim / 2]` (see [`turns`]); what lies behind `rot_dim` is copied.
    pub fn rope(out: &mut TileMut, x: &[f32], n: usize, dim: usize, rot_dim: usize, interleaved: bool, turns: &[f32]) = rope_with as rope_isa on scalar avx2;
}

#[cfg(feature = "train")]
per_isa! {
    /// The gradient of [`rope`](rope_isa): dx `[rows, n]`, cut in rows, of dy `[rows, n]`, turned back by the same turns.
    pub fn rope_bwd(dx: &mut TileMut, dy: &[f32], n: usize, dim: usize, rot_dim: usize, interleaved: bool, turns: &[f32]) = rope_bwd_with as rope_bwd_isa on scalar avx2;
}

#[inline(always)]
fn rope_with<S: Simd>(
    s: S,
    out: &mut TileMut,
    x: &[f32],
    n: usize,
    dim: usize,
    rot_dim: usize,
    interleaved: bool,
    turns: &[f32],
) {
    s.apart(Turn { out, x, n, dim, rot_dim, interleaved, turns, sign: 1.0 });
}

#[cfg(feature = "train")]
#[inline(always)]
fn rope_bwd_with<S: Simd>(
    s: S,
    dx: &mut TileMut,
    dy: &[f32],
    n: usize,
    dim: usize,
    rot_dim: usize,
    interleaved: bool,
    turns: &[f32],
) {
    s.apart(Turn { out: dx, x: dy, n, dim, rot_dim, interleaved, turns, sign: -1.0 });
}

/// Heads turned by sines times `sign`, which turns them forth or back. Compiled once for a set.
struct Turn<'a, 'o> {
    out: &'a mut TileMut<'o>,
    x: &'a [f32],
    n: usize,
    dim: usize,
    rot_dim: usize,
    interleaved: bool,
    turns: &'a [f32],
    sign: f32,
}

impl<S: Simd> Apart<S> for Turn<'_, '_> {
    type Out = ();

    #[inline(always)]
    fn run(self, _: S) {
        let Turn { out, x, n, dim, rot_dim, interleaved, turns, sign } = self;
        for r in out.rows() {
            let x = &x[r * n..][..n];
            let (cos, sin) = turns[r * rot_dim..][..rot_dim].split_at(rot_dim / 2);
            for (out, x) in out.row(r).chunks_exact_mut(dim).zip(x.chunks_exact(dim)) {
                let ((out, rest), (x, same)) = (out.split_at_mut(rot_dim), x.split_at(rot_dim));
                rest.copy_from_slice(same);
                if interleaved {
                    neighbours(out, x, cos, sin, sign);
                } else {
                    halves(out, x, cos, sin, sign);
                }
            }
        }
    }
}

#[inline(always)]
fn halves(out: &mut [f32], x: &[f32], cos: &[f32], sin: &[f32], sign: f32) {
    let half = cos.len();
    let ((out_a, out_b), (a, b)) = (out.split_at_mut(half), x.split_at(half));
    let (out_a, out_b, a, b) = (&mut out_a[..half], &mut out_b[..half], &a[..half], &b[..half]);
    let sin = &sin[..half];
    for i in 0..half {
        let sin = sin[i] * sign;
        out_a[i] = a[i] * cos[i] - b[i] * sin;
        out_b[i] = b[i] * cos[i] + a[i] * sin;
    }
}

#[inline(always)]
fn neighbours(out: &mut [f32], x: &[f32], cos: &[f32], sin: &[f32], sign: f32) {
    let (out, x) = (out.as_chunks_mut::<2>().0, x.as_chunks::<2>().0);
    for (((out, x), cos), sin) in out.iter_mut().zip(x).zip(cos).zip(sin) {
        let sin = sin * sign;
        *out = [x[0] * cos - x[1] * sin, x[1] * cos + x[0] * sin];
    }
}
