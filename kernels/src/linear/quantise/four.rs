//! Floor 0: runs of blocks of 32 weights as nibbles with six-bit scales and minima: `w = d sc code - m mn`. Knows no
//! layouts.

use super::super::blocks::{Block, runs};
use super::feedback::{Guide, Shares};
use super::{BLOCK, LANES, Row, Values, fold, half, round, sum, within};
use half::f16;

/// What the largest minimum reaches.
pub const LIMIT: f32 = 65504.0 * 63.0;

/// The largest code, and the largest small scale.
const CODE: f32 = 15.0;
const SMALL: f32 = 63.0;
/// Blocks of the longest run.
const MOST: usize = 15;
/// Steps from a small scale and minimum that are tried, the nearest first.
const AROUND: [[f32; 2]; 9] = [
    [0.0, 0.0],
    [-1.0, 0.0],
    [1.0, 0.0],
    [0.0, -1.0],
    [0.0, 1.0],
    [-1.0, -1.0],
    [-1.0, 1.0],
    [1.0, -1.0],
    [1.0, 1.0],
];
/// Times that the scales of scales are fitted to the codes and the codes to them.
const ROUNDS: usize = 2;

/// Quantises an output run by run. With a guide that says how, the weights `x` that are still free make good for errors.
pub fn row(to: &mut Row, x: &mut [Values], guide: Option<&Guide>) {
    let spreads = guide.is_some_and(Guide::spreads);
    let importance = |b: usize| guide.map(|guide| &guide.importance()[b]);
    let original = if spreads { x.to_vec() } else { Vec::new() };
    for blocks in runs(x.len()) {
        let mut weight = [[0.0; BLOCK]; MOST];
        for (b, weight) in blocks.clone().zip(&mut weight) {
            *weight = weigh(&x[b], importance(b));
        }
        let mut run = scales(&x[blocks.clone()], &weight[..blocks.len()]);
        for (i, b) in blocks.enumerate() {
            match guide.filter(|_| spreads) {
                None => to.put(b, &run.block(i, &x[b])),
                Some(guide) => {
                    let weight = weigh(&x[b], importance(b));
                    run.small[i] = run.near(run.fit(i), &x[b], &weight, &AROUND).1;
                    let (block, x) = x[b..].split_first_mut().expect("a block of the row");
                    to.put(b, &run.block_with(i, block, &original[b], x, guide.shares(b * BLOCK)));
                }
            }
        }
    }
}

/// How much the squared error of each weight counts; where nothing tells, larger ones for more.
fn weigh(x: &Values, importance: Option<&Values>) -> Values {
    let square = sum(|i| x[i] * x[i]) / BLOCK as f32;
    std::array::from_fn(|i| match importance {
        Some(by) => by[i],
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
    xx: f32,
    q: f32,
    qq: f32,
    xq: f32,
}

impl Sums {
    /// With the nearest codes of `fit`.
    fn new(x: &Values, weight: &Values, fit: Fit) -> Sums {
        let inverse = fit.inverse();
        let mut lanes = [[0.0f32; LANES]; 6];
        for at in (0..BLOCK).step_by(LANES) {
            for i in 0..LANES {
                let (x, w) = (x[at + i], weight[at + i]);
                let q = fit.code(x, inverse);
                let wq = w * q;
                lanes[0][i] += w;
                lanes[1][i] += w * x;
                lanes[2][i] += (w * x) * x;
                lanes[3][i] += wq;
                lanes[4][i] += wq * q;
                lanes[5][i] += wq * x;
            }
        }
        let [w, x, xx, q, qq, xq] = lanes.map(fold);
        Sums { w, x, xx, q, qq, xq }
    }

    /// The squared error, weighed, of a fit with these codes.
    fn error(&self, fit: Fit) -> f32 {
        let Fit { scale, min } = fit;
        let cross = scale * (self.xq + min * self.q) - min * self.x;
        (self.xx + scale * scale * self.qq + min * min * self.w) - 2.0 * cross
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
        let sums = Sums::new(x, weight, from);
        let Some(fit) = sums.fit() else { continue };
        let error = sums.error(fit);
        if error < least {
            (best, least) = (fit, error);
        }
    }
    Sums::new(x, weight, best).fit().unwrap_or(best)
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
        for (b, near) in near.iter().enumerate() {
            let (error, small) = run.near(*near, &x[b], &weight[b], &AROUND[..5]);
            run.small[b] = small;
            run.error += error;
        }
        run
    }

    /// The best small scale and minimum of a block, near those that are wished for, and their error.
    fn near(&self, wish: Fit, x: &Values, weight: &Values, steps: &[[f32; 2]]) -> (f32, [f32; 2]) {
        let (d, m) = (self.d.to_f32(), self.m.to_f32());
        let place = |x: f32, unit: f32| if unit > 0.0 { round(within(x / unit, 0.0, SMALL)) } else { 0.0 };
        let middle = [place(wish.scale, d), place(wish.min, m)];
        let (mut least, mut best) = (f32::INFINITY, [0.0; 2]);
        for [sc, mn] in steps {
            let small = [middle[0] + sc, middle[1] + mn];
            if small.iter().any(|x| !(0.0..=SMALL).contains(x)) {
                continue;
            }
            let error = Fit { scale: d * small[0], min: m * small[1] }.error(x, weight);
            if error < least {
                (least, best) = (error, small);
            }
        }
        (least, best)
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

/// Halves and small scales of a run.
fn scales(x: &[Values], weight: &[Values]) -> Run {
    let mut wish = [Fit::default(); MOST];
    for (b, wish) in wish.iter_mut().enumerate().take(x.len()) {
        *wish = alone(&x[b], &weight[b]);
    }
    let wish = &wish[..x.len()];
    let most = |of: fn(&Fit) -> f32| wish.iter().map(of).fold(0.0f32, f32::max) / SMALL;
    // What moved for errors may lie beyond what the limit lets in.
    let most = |of| half(most(of)).unwrap_or(f16::MAX);
    let mut best = Run::new(most(|f| f.scale), most(|f| f.min), wish, x, weight);
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
    best
}

impl Run {
    /// Block `b` with the nearest codes.
    fn block(&self, b: usize, x: &Values) -> Block {
        let (fit, [sc, mn]) = (self.fit(b), self.small[b]);
        let inverse = fit.inverse();
        Block {
            codes: x.map(|x| fit.code(x, inverse) as u8),
            d: self.d.to_bits(),
            m: self.m.to_bits(),
            sc: [sc as u8, 0],
            mn: mn as u8,
        }
    }

    /// Block `b`, element after element: what each errs from `original` moves those after it, in the block and in the
    /// `rest` of the row.
    fn block_with(
        &self,
        b: usize,
        x: &mut Values,
        original: &Values,
        rest: &mut [Values],
        shares: Option<Shares>,
    ) -> Block {
        let Some(shares) = shares else { return self.block(b, x) };
        let (fit, mut errors, mut codes) = (self.fit(b), [0.0; BLOCK], [0; BLOCK]);
        let inverse = fit.inverse();
        for i in 0..BLOCK {
            let code = fit.code(x[i], inverse);
            codes[i] = code as u8;
            errors[i] = original[i] - (fit.scale * code - fit.min);
            shares.within(x, i, errors[i]);
        }
        shares.after(rest.as_flattened_mut(), &errors);
        Block { codes, ..self.block(b, x) }
    }
}
