//! Floor 0: runs of blocks of 32 weights as nibbles with six-bit scales and minima: `w = d sc code - m mn`. Knows no
//! layouts.

use super::super::blocks::{Block, runs};
use super::{BLOCK, Row, Values, fold, round, sum, within};
use half::f16;

/// What the largest minimum reaches.
pub const LIMIT: f32 = 65504.0 * 63.0;

/// The largest code, and the largest small scale.
const CODE: f32 = 15.0;
const SMALL: f32 = 63.0;
/// Blocks of the longest run.
const MOST: usize = 15;
/// Times that the scales of scales are fitted to the codes and the codes to them.
const ROUNDS: usize = 2;

/// Quantises an output run by run.
pub fn row(to: &mut Row, x: &[Values], importance: Option<&[Values]>) {
    for run in runs(x.len()) {
        let mut weight = [[0.0; BLOCK]; MOST];
        for (b, weight) in run.clone().zip(&mut weight) {
            *weight = weigh(&x[b], importance.map(|all| &all[b]));
        }
        let (x, first) = (&x[run.clone()], run.start);
        for (b, block) in quantise(x, &weight[..x.len()]).into_iter().enumerate().take(x.len()) {
            to.put(first + b, &block);
        }
    }
}

/// How much the squared error of each weight counts: larger weights err for more, as what they belong to is used more.
fn weigh(x: &Values, importance: Option<&Values>) -> Values {
    let square = sum(|i| x[i] * x[i]) / BLOCK as f32;
    std::array::from_fn(|i| match importance {
        Some(by) => by[i] * (square + x[i] * x[i]).sqrt(),
        None => square.sqrt() + x[i].abs(),
    })
}

/// A scale and a minimum: `w = scale code - min`, both at least zero.
#[derive(Clone, Copy, Default)]
struct Fit {
    scale: f32,
    min: f32,
}

impl Fit {
    /// The inverse of the scale, or zero, with which every code is zero.
    #[inline(always)]
    fn inverse(self) -> f32 {
        if self.scale > 0.0 { 1.0 / self.scale } else { 0.0 }
    }

    /// The nearest code.
    #[inline(always)]
    fn code(self, x: f32, inverse: f32) -> f32 {
        round(within((x + self.min) * inverse, 0.0, CODE))
    }

    /// The squared error, weighed, with the nearest codes.
    fn error(self, x: &Values, weight: &Values) -> f32 {
        let inverse = self.inverse();
        sum(|i| {
            let e = (self.scale * self.code(x[i], inverse) - self.min) - x[i];
            weight[i] * (e * e)
        })
    }
}

/// Sums that a least-squares fit of scale and minimum to codes takes.
struct Sums {
    w: f32,
    x: f32,
    q: f32,
    qq: f32,
    xq: f32,
}

impl Sums {
    /// With the nearest codes of `fit`.
    fn new(x: &Values, weight: &Values, fit: Fit) -> Sums {
        let inverse = fit.inverse();
        let mut lanes = [[0.0f32; 8]; 5];
        for at in (0..BLOCK).step_by(8) {
            for i in 0..8 {
                let (x, w) = (x[at + i], weight[at + i]);
                let q = fit.code(x, inverse);
                let wq = w * q;
                lanes[0][i] += w;
                lanes[1][i] += w * x;
                lanes[2][i] += wq;
                lanes[3][i] += wq * q;
                lanes[4][i] += wq * x;
            }
        }
        let [w, x, q, qq, xq] = lanes.map(fold);
        Sums { w, x, q, qq, xq }
    }

    /// The best scale and minimum for these codes.
    fn fit(&self) -> Option<Fit> {
        let det = self.w * self.qq - self.q * self.q;
        if det > 0.0 {
            let scale = (self.w * self.xq - self.x * self.q) / det;
            let min = (self.q * self.xq - self.qq * self.x) / det;
            if scale > 0.0 && min >= 0.0 {
                return Some(Fit { scale, min });
            }
        }
        // Without a minimum.
        let scale = self.xq / self.qq;
        (scale > 0.0 && scale.is_finite()).then_some(Fit { scale, min: 0.0 })
    }
}

/// The best scale and minimum of a block alone: from several steps between the least and the largest weight, each fitted
/// to the codes that it gives.
fn alone(x: &Values, weight: &Values) -> Fit {
    let low = x.iter().fold(0.0f32, |low, x| if *x < low { *x } else { low });
    let high = x.iter().fold(f32::NEG_INFINITY, |high, x| if *x > high { *x } else { high });
    if high <= low {
        return Fit { scale: 0.0, min: -low };
    }
    let (mut best, mut least) = (Fit { scale: (high - low) / CODE, min: -low }, f32::INFINITY);
    for step in 0..14 {
        let codes = 13.6 + 0.2 * step as f32;
        let from = Fit { scale: (high - low) / codes, min: -low };
        let Some(mut fit) = Sums::new(x, weight, from).fit() else { continue };
        if let Some(again) = Sums::new(x, weight, fit).fit() {
            fit = again;
        }
        let error = fit.error(x, weight);
        if error < least {
            (best, least) = (fit, error);
        }
    }
    best
}

/// A half of at least zero that is nearest.
fn half(x: f32) -> Option<f16> {
    let half = f16::from_f32(x);
    (half.is_finite() && x >= 0.0).then_some(half)
}

/// A run under its two halves.
#[derive(Clone, Copy)]
struct Run {
    d: f16,
    m: f16,
    small: [[f32; 2]; MOST],
    error: f32,
}

impl Run {
    fn fit(&self, b: usize) -> Fit {
        let [sc, mn] = self.small[b];
        Fit { scale: self.d.to_f32() * sc, min: self.m.to_f32() * mn }
    }

    /// The best small scales and minima under two halves, near those that are wished for.
    fn new(d: f16, m: f16, near: &[Fit], x: &[Values], weight: &[Values]) -> Run {
        let mut run = Run { d, m, small: [[0.0; 2]; MOST], error: 0.0 };
        let (d, m) = (d.to_f32(), m.to_f32());
        for (b, near) in near.iter().enumerate() {
            let place =
                |x: f32, unit: f32| if unit > 0.0 { round(within(x / unit, 0.0, SMALL)) } else { 0.0 };
            let middle = [place(near.scale, d), place(near.min, m)];
            let mut least = f32::INFINITY;
            for sc in [0.0, -1.0, 1.0] {
                for mn in [0.0, -1.0, 1.0] {
                    let small = [middle[0] + sc, middle[1] + mn];
                    if small.iter().any(|x| !(0.0..=SMALL).contains(x)) {
                        continue;
                    }
                    let error = Fit { scale: d * small[0], min: m * small[1] }.error(&x[b], &weight[b]);
                    if error < least {
                        (least, run.small[b]) = (error, small);
                    }
                }
            }
            run.error += least;
        }
        run
    }

    /// The best halves for the codes and small scales that are there.
    fn halves(&self, x: &[Values], weight: &[Values]) -> Option<(f16, f16)> {
        let (mut aa, mut ab, mut bb, mut ax, mut bx) = (0.0, 0.0, 0.0, 0.0, 0.0);
        for b in 0..x.len() {
            let s = Sums::new(&x[b], &weight[b], self.fit(b));
            let [sc, mn] = self.small[b];
            aa += sc * sc * s.qq;
            ab += sc * mn * s.q;
            bb += mn * mn * s.w;
            ax += sc * s.xq;
            bx += mn * s.x;
        }
        let det = aa * bb - ab * ab;
        if det > 0.0 {
            return Some((half((ax * bb - bx * ab) / det)?, half((ax * ab - bx * aa) / det)?));
        }
        Some((
            if aa > 0.0 { half(ax / aa)? } else { self.d },
            if bb > 0.0 { half(-bx / bb)? } else { self.m },
        ))
    }
}

/// A run of blocks; those beyond the run are of no meaning.
fn quantise(x: &[Values], weight: &[Values]) -> [Block; MOST] {
    let mut wish = [Fit::default(); MOST];
    for (b, wish) in wish.iter_mut().enumerate().take(x.len()) {
        *wish = alone(&x[b], &weight[b]);
    }
    let wish = &wish[..x.len()];
    let most = |of: fn(&Fit) -> f32| wish.iter().map(of).fold(0.0f32, f32::max) / SMALL;
    let up = |x: f32| f16::from_f32(x);
    let mut best = Run::new(up(most(|f| f.scale)), up(most(|f| f.min)), wish, x, weight);
    for _ in 0..ROUNDS {
        let Some((d, m)) = best.halves(x, weight) else { break };
        let mut near = [Fit::default(); MOST];
        for b in 0..x.len() {
            near[b] = Fit { scale: d.to_f32() * best.small[b][0], min: m.to_f32() * best.small[b][1] };
        }
        let next = Run::new(d, m, &near[..x.len()], x, weight);
        if next.error >= best.error {
            break;
        }
        best = next;
    }
    let mut out = [Block::default(); MOST];
    for b in 0..x.len() {
        let (fit, [sc, mn]) = (best.fit(b), best.small[b]);
        let inverse = fit.inverse();
        let block =
            Block { d: best.d.to_bits(), m: best.m.to_bits(), sc: [sc as u8, 0], mn: mn as u8, ..out[b] };
        out[b] = Block { codes: x[b].map(|x| fit.code(x, inverse) as u8), ..block };
    }
    out
}
