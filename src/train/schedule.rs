//! Floor 5: how the learning rate goes over the steps of a run. Knows no optimiser.

/// A schedule: what the peak rate is multiplied by. Steps count from 0; a run has `total` of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Schedule {
    /// Always the peak, after a linear warm-up of so many steps.
    Constant {
        /// Steps of the warm-up.
        warmup: u64,
    },
    /// A linear warm-up, then a straight line to zero.
    Linear {
        /// Steps of the warm-up.
        warmup: u64,
    },
    /// A linear warm-up, then half a cosine down to `floor` (Loshchilov and Hutter 2016, without restarts).
    Cosine {
        /// Steps of the warm-up.
        warmup: u64,
        /// What is left at the end, of 1.
        floor: f32,
    },
    /// A linear warm-up, then one over the root of the step (Vaswani et al. 2017, section 5.3); the peak is reached at the
    /// end of the warm-up.
    InverseRoot {
        /// Steps of the warm-up.
        warmup: u64,
    },
    /// Up from 1/25 in half a cosine over `up` of the run, then down to 1/10000 of that (Smith and Topin 2017).
    OneCycle {
        /// Share of the run that goes up.
        up: f32,
    },
    /// Up in a line over `cut` of the run, then down in a line; from and to `1 / ratio` (Howard and Ruder 2018, eq. 3).
    Slanted {
        /// Share of the run that goes up.
        cut: f32,
        /// How much smaller the smallest rate is.
        ratio: f32,
    },
}

impl Schedule {
    /// What the peak rate is multiplied by at `step` of `total`.
    #[must_use]
    pub fn at(self, step: u64, total: u64) -> f32 {
        let (step, total) = (step as f64, total.max(1) as f64);
        let warm = |warmup: u64, then: &dyn Fn(f64) -> f64| {
            let warmup = warmup as f64;
            if step < warmup {
                (step + 1.0) / warmup
            } else {
                then(((step - warmup) / (total - warmup).max(1.0)).min(1.0))
            }
        };
        let half_cosine = |from: f64, to: f64, share: f64| {
            to + (from - to) * 0.5 * (1.0 + (std::f64::consts::PI * share.clamp(0.0, 1.0)).cos())
        };
        let rate = match self {
            Schedule::Constant { warmup } => warm(warmup, &|_| 1.0),
            Schedule::Linear { warmup } => warm(warmup, &|share| 1.0 - share),
            Schedule::Cosine { warmup, floor } => {
                warm(warmup, &|share| half_cosine(1.0, f64::from(floor), share))
            }
            Schedule::InverseRoot { warmup } => {
                let warmup = (warmup as f64).max(1.0);
                ((step + 1.0) / warmup).min((warmup / (step + 1.0)).sqrt())
            }
            Schedule::OneCycle { up } => {
                let (start, peak) = (1.0 / 25.0, (f64::from(up) * total - 1.0).max(1.0));
                let end = start / 1e4;
                if step <= peak {
                    half_cosine(start, 1.0, step / peak)
                } else {
                    half_cosine(1.0, end, (step - peak) / (total - 1.0 - peak).max(1.0))
                }
            }
            Schedule::Slanted { cut, ratio } => {
                let (cut, ratio) = ((total * f64::from(cut)).floor().max(1.0), f64::from(ratio));
                let p = if step < cut { step / cut } else { 1.0 - (step - cut) / (total - cut).max(1.0) };
                (1.0 + p.max(0.0) * (ratio - 1.0)) / ratio
            }
        };
        rate as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: f32, want: f32) {
        assert!((found - want).abs() < 1e-5, "expected {want}, found {found}");
    }

    #[test]
    fn every_schedule_has_its_corners() {
        let constant = Schedule::Constant { warmup: 4 };
        [(0, 0.25), (3, 1.0), (4, 1.0), (99, 1.0)].map(|(step, want)| close(constant.at(step, 100), want));
        let linear = Schedule::Linear { warmup: 0 };
        [(0, 1.0), (50, 0.5), (100, 0.0), (200, 0.0)].map(|(step, want)| close(linear.at(step, 100), want));
        let cosine = Schedule::Cosine { warmup: 20, floor: 0.1 };
        [(19, 1.0), (20, 1.0), (60, 0.55), (100, 0.1)].map(|(step, want)| close(cosine.at(step, 100), want));
        let root = Schedule::InverseRoot { warmup: 16 };
        [(0, 1.0 / 16.0), (15, 1.0), (63, 0.5)].map(|(step, want)| close(root.at(step, 0), want));
        let cycle = Schedule::OneCycle { up: 0.3 };
        [(0, 0.04), (29, 1.0), (99, 0.04 / 1e4)].map(|(step, want)| close(cycle.at(step, 100), want));
        let slanted = Schedule::Slanted { cut: 0.1, ratio: 32.0 };
        [(0, 1.0 / 32.0), (10, 1.0), (100, 1.0 / 32.0)]
            .map(|(step, want)| close(slanted.at(step, 100), want));
    }

    #[test]
    fn no_run_is_too_short() {
        for schedule in [
            Schedule::Constant { warmup: 9 },
            Schedule::Linear { warmup: 9 },
            Schedule::Cosine { warmup: 0, floor: 0.0 },
            Schedule::InverseRoot { warmup: 0 },
            Schedule::OneCycle { up: 0.3 },
            Schedule::Slanted { cut: 0.1, ratio: 32.0 },
        ] {
            for (step, total) in [(0, 0), (0, 1), (1, 1), (5, 2)] {
                assert!((0.0..=1.0).contains(&schedule.at(step, total)), "{schedule:?} at {step} of {total}");
            }
        }
    }
}
