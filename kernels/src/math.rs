//! Floor 0: exp, tanh and erf with a pinned order of operations: the same bits on every instruction set. Knows no
//! kernels.

use crate::simd::{Apart, LANES, Scalar, Simd, times};

/// Adding it to a number within 2^22 of zero leaves the nearest integer, ties to even, in the low bits: its last place is one.
pub(crate) const MAGIC: f32 = 12_582_912.0;

/// A function of a vector. Where a vector is no register of the machine its code is long, and it is compiled once.
macro_rules! function {
    ($(#[$doc:meta])* $name:ident by $with:ident as $work:ident) => {
        struct $work<S: Simd>(S::V);

        impl<S: Simd> Apart<S> for $work<S> {
            type Out = S::V;

            #[inline(always)]
            fn run(self, s: S) -> S::V {
                $with(s, self.0)
            }
        }

        $(#[$doc])*
        #[inline(always)]
        pub fn $name<S: Simd>(s: S, x: S::V) -> S::V {
            if const { S::REGISTERS < 16 } { s.apart($work::<S>(x)) } else { $with(s, x) }
        }
    };
}

function! {
    /// e^x within 2 ULP where the result is normal, exactly 1 at 0; 0 below -86.6, infinity above 88.72; NaN of NaN.
    exp by exp_with as Exp
}

#[inline(always)]
fn exp_with<S: Simd>(s: S, x: S::V) -> S::V {
    let (least, most) = (s.splat(-86.6), s.splat(88.722_83));
    let (low, high) = (s.lt(x, least), s.lt(most, x));
    let x = s.select(low, least, s.select(high, most, x));
    // x = n ln 2 + r with n rounded to nearest, ln 2 in two parts.
    let shift = s.splat(MAGIC);
    let shifted = s.fma(x, s.splat(std::f32::consts::LOG2_E), shift);
    let n = s.sub(shifted, shift);
    let r = s.fma(n, s.splat(-0.693_145_75), x);
    let r = s.fma(n, s.splat(-1.428_606_8e-6), r);
    let mut p = s.splat(1.987_569_1e-4); // the polynomial of Moshier's Cephes
    for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = s.fma(p, r, s.splat(c));
    }
    let y = s.add(s.fma(s.mul(p, r), r, r), s.splat(1.0));
    let y = s.times_pow2(y, shifted);
    s.select(low, s.zero(), s.select(high, s.splat(f32::INFINITY), y))
}

function! {
    /// [`exp`] of what is not above 0 (or NaN), in fewer steps: the same bits.
    exp_below by exp_below_with as ExpBelow
}

#[inline(always)]
fn exp_below_with<S: Simd>(s: S, x: S::V) -> S::V {
    let mut x = [x];
    exp_below_in_step(s, &mut x);
    x[0]
}

/// [`exp_below`] of some vectors, step by step of all where registers are many: each step waits for the one before, and
/// processors do not look far enough ahead to go on with the next vector.
#[inline(always)]
pub fn exp_below_all<S: Simd, const N: usize>(s: S, x: &mut [S::V; N]) {
    if const { S::REGISTERS >= 32 } {
        exp_below_in_step(s, x);
    } else {
        for z in 0..times::<S>(N) {
            x[z] = exp_below(s, x[z]);
        }
    }
}

#[inline(always)]
fn exp_below_in_step<S: Simd, const N: usize>(s: S, x: &mut [S::V; N]) {
    let (least, shift) = (s.splat(-86.6), s.splat(MAGIC));
    let (given, mut shifted, mut p) = (*x, *x, [s.splat(1.987_569_1e-4); N]);
    macro_rules! each {
        (|$z:ident| $step:expr) => {
            for $z in 0..N {
                $step;
            }
        };
    }
    each!(|z| x[z] = s.max(least, x[z])); // NaN stays
    each!(|z| shifted[z] = s.fma(x[z], s.splat(std::f32::consts::LOG2_E), shift));
    for ln_2 in [0.693_145_75, 1.428_606_8e-6] {
        each!(|z| x[z] = s.fma(s.sub(shifted[z], shift), s.splat(-ln_2), x[z]));
    }
    for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        each!(|z| p[z] = s.fma(p[z], x[z], s.splat(c)));
    }
    each!(|z| p[z] = s.mul(p[z], x[z]));
    each!(|z| p[z] = s.add(s.fma(p[z], x[z], x[z]), s.splat(1.0)));
    each!(|z| p[z] = s.mul(p[z], s.pow2(shifted[z])));
    each!(|z| x[z] = s.select(s.lt(given[z], least), s.zero(), p[z]));
}

function! {
    /// tanh(x) within 3 ULP, odd; NaN of NaN.
    tanh by tanh_with as Tanh
}

#[inline(always)]
fn tanh_with<S: Simd>(s: S, x: S::V) -> S::V {
    let size = s.copysign(x, s.splat(1.0));
    let z = s.mul(x, x);
    let mut p = s.splat(-5.704_988_7e-3); // the polynomial of Moshier's Cephes
    for c in [2.063_909e-2, -5.373_971_6e-2, 1.333_144_2e-1, -3.333_328e-1] {
        p = s.fma(p, z, s.splat(c));
    }
    let near = s.fma(s.mul(p, z), x, x);
    // Beyond 9, tanh rounds to 1, and exp stays finite. The minimum keeps NaN: `lt` is false for it.
    let bounded = s.select(s.lt(s.splat(9.5), size), s.splat(9.5), size);
    let e = exp(s, s.add(bounded, bounded));
    let far = s.sub(s.splat(1.0), s.div(s.splat(2.0), s.add(e, s.splat(1.0))));
    s.select(s.lt(size, s.splat(0.625)), near, s.copysign(far, x))
}

function! {
    /// erf(x) within 2 ULP, odd; NaN of NaN. Two minimax polynomials after N. Juffa.
    erf by erf_with as Erf
}

#[inline(always)]
fn erf_with<S: Simd>(s: S, x: S::V) -> S::V {
    let (t, z) = (s.copysign(x, s.splat(1.0)), s.mul(x, x));
    let mut near = s.splat(-5.967_617e-4);
    for c in [4.991_194e-3, -2.676_813_5e-2, 1.128_199_3e-1, -3.761_253_4e-1, 1.283_791_7e-1] {
        near = s.fma(near, z, s.splat(c));
    }
    let near = s.fma(near, x, x);
    let t = s.select(s.lt(s.splat(4.0), t), s.splat(4.0), t);
    let z = s.mul(t, t);
    let r = s.fma(s.splat(-1.728_534_7e-5), t, s.splat(3.831_971_3e-4));
    let u = s.fma(s.splat(-3.883_964_4e-3), t, s.splat(2.425_462_2e-2));
    let mut far = s.fma(r, z, u);
    for c in [-1.067_778_8e-1, -6.348_468_7e-1, -1.287_175_1e-1] {
        far = s.fma(far, t, s.splat(c));
    }
    // The polynomial is below 1 wherever this is chosen: what it gives is not above 0.
    let far = s.sub(s.splat(1.0), exp_below(s, s.fma(far, t, s.sub(s.zero(), t))));
    s.select(s.lt(s.splat(0.921_875), t), s.copysign(far, x), near)
}

/// [`exp`] of one number: the bits that every kernel computes.
#[must_use]
pub fn exp1(x: f32) -> f32 {
    let y: [f32; LANES] = exp(Scalar, [x; LANES]);
    y[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Largest error in units of the last place of the exact value.
    fn ulps(name: &str, f: impl Fn(f32) -> f32, exact: impl Fn(f64) -> f64, most: f64) {
        let mut worst = (0.0, 0.0);
        for bits in (0..u32::MAX).step_by(4099) {
            let x = f32::from_bits(bits);
            let want = exact(f64::from(x));
            if !x.is_finite() || want.abs() < f64::from(f32::MIN_POSITIVE) || want.abs() > f64::from(f32::MAX)
            {
                continue;
            }
            let ulp = f64::from(f32::EPSILON) * 2f64.powi(want.abs().log2().floor() as i32);
            let error = (f64::from(f(x)) - want).abs() / ulp;
            if error > worst.0 {
                worst = (error, x);
            }
        }
        println!("{name}: {:.2} ULP at {}", worst.0, worst.1);
        assert!(worst.0 <= most, "{name}: {} ULP at {}", worst.0, worst.1);
    }

    fn one(f: impl Fn(Scalar, [f32; LANES]) -> [f32; LANES]) -> impl Fn(f32) -> f32 {
        move |x| f(Scalar, [x; LANES])[0]
    }

    #[test]
    fn errors_are_as_stated() {
        // Below -86.6 exp is zero by definition.
        let exp_or_zero = |x: f32| if x < -86.6 { (f64::from(x)).exp() as f32 } else { exp1(x) };
        ulps("exp", exp_or_zero, f64::exp, 2.0);
        ulps("tanh", one(tanh), libm::tanh, 3.0);
        ulps("erf", one(erf), libm::erf, 2.0);
    }

    #[test]
    fn the_short_exponential_has_the_bits_of_the_long_one() {
        let below = one(exp_below);
        for x in (0..f32::INFINITY.to_bits()).step_by(1021).map(|bits| -f32::from_bits(bits)) {
            assert_eq!(below(x).to_bits(), exp1(x).to_bits(), "{x}");
        }
        assert_eq!((below(f32::NEG_INFINITY), below(0.0), below(-86.6)), (0.0, 1.0, exp1(-86.6)));
        assert!(below(f32::NAN).is_nan());
    }

    #[test]
    fn the_ends_are_right() {
        assert_eq!(exp1(0.0).to_bits(), 1f32.to_bits());
        assert_eq!((exp1(f32::NEG_INFINITY), exp1(-86.61)), (0.0, 0.0));
        assert_eq!((exp1(f32::INFINITY), exp1(89.0)), (f32::INFINITY, f32::INFINITY));
        for f in [&one(tanh) as &dyn Fn(f32) -> f32, &one(erf)] {
            assert_eq!((f(f32::INFINITY), f(f32::NEG_INFINITY), f(0.0)), (1.0, -1.0, 0.0));
            assert!(f(f32::NAN).is_nan());
        }
        assert!(exp1(f32::NAN).is_nan());
    }
}
