//! Floor 0: what this machine can do at best, so that a speed can be given as a share of it. Knows no kernels' work.

use crate::linear::Pack;
use crate::ops::{Ops, per_isa};
use crate::simd::{Dots, LANES, Simd, times};
use crate::team::Team;
use crate::words::Words;
use std::time::{Duration, Instant};

/// Independent chains: more than latency times throughput of every fused multiply-add unit known to us (Zen 4 needs 8
/// vectors of 256 bits, or 12 for pairs of bf16).
const CHAINS: usize = 12;

/// Steps of each chain between two looks at the clock: some hundreds of microseconds.
const STEPS: usize = 1 << 16;

/// The most operations per second that the team reaches on chains of multiply-adds as `pack` needs them (f32, pairs of
/// bf16, or quads of signed bytes) that never leave the registers, within `ms` milliseconds. A multiply-add counts as two.
#[must_use]
pub fn peak_flops(team: &Team, pack: Pack, ms: u64) -> f64 {
    let ops = Ops::best();
    let seconds = fastest(team, ms, &|_| {
        let mut out = [0.0; LANES];
        ops.spin_once(&mut out, STEPS, pack);
        std::hint::black_box(out);
    });
    (STEPS * CHAINS * LANES * per_lane(pack) * team.size()) as f64 / seconds
}

/// Operations of a step of a chain for each lane.
fn per_lane(pack: Pack) -> usize {
    match pack {
        Pack::F32 => 2,
        Pack::Bf16 => 4,
        Pack::Bytes | Pack::Shorts => 8,
    }
}

impl Ops {
    fn spin_once(&self, out: &mut [f32], steps: usize, pack: Pack) {
        if matches!(pack, Pack::Bytes | Pack::Shorts) {
            (self.spin_bytes)(out, steps);
        } else {
            (self.spin)(out, steps, pack);
        }
    }

    /// Operations per second on this thread, the most of some short tries: `steps` of each chain, some microseconds.
    pub(crate) fn glance(&self, pack: Pack, steps: usize) -> f64 {
        let mut least = Duration::MAX;
        for _ in 0..8 {
            let (start, mut out) = (Instant::now(), [0.0; LANES]);
            self.spin_once(&mut out, steps, pack);
            std::hint::black_box(out);
            least = least.min(start.elapsed());
        }
        (steps * per_lane(pack)) as f64 / least.as_secs_f64()
    }
}

/// The most bytes per second that the team reads from memory, each worker one sequential stream of its share of `bytes`
/// (take more than all caches hold), within `ms` milliseconds. Zero where there is no memory for them.
#[must_use]
pub fn read_bandwidth(team: &Team, bytes: usize, ms: u64) -> f64 {
    let Some(mut words) = Words::zeroed(bytes.div_ceil(4).next_multiple_of(CHAINS * LANES)) else {
        return 0.0;
    };
    // Pages that nobody wrote are all one page of zeros, which caches hold.
    words.fill(1.0);
    let (words, read, workers) = (&words[..], Ops::best().read, team.size());
    let seconds = fastest(team, ms, &|worker| {
        let blocks = words.len() / (CHAINS * LANES);
        let share =
            blocks * worker / workers * CHAINS * LANES..blocks * (worker + 1) / workers * CHAINS * LANES;
        let mut out = [0.0; LANES];
        read(&mut out, &words[share]);
        std::hint::black_box(out);
    });
    (words.len() * 4) as f64 / seconds
}

/// Seconds of the fastest of the passes that `ms` milliseconds have time for: whatever else runs on the machine only
/// takes time away.
fn fastest(team: &Team, ms: u64, pass: &(dyn Fn(usize) + Sync)) -> f64 {
    let (begin, mut least) = (Instant::now(), Duration::MAX);
    while least == Duration::MAX || begin.elapsed() < Duration::from_millis(ms) {
        let start = Instant::now();
        if team.each(pass).is_err() {
            return f64::INFINITY;
        }
        least = least.min(start.elapsed());
    }
    least.as_secs_f64()
}

per_isa! {
    /// `CHAINS` chains of `steps` multiply-adds, or as many in fewer chains; out `[16]`: their sum, each of fewer counted so often.
    pub fn spin(out: &mut [f32], steps: usize, kind: Pack) = spin_with as spin_isa on scalar avx2 avx512 avx512_bf16;
}

#[inline(always)]
fn spin_with<S: Simd>(s: S, out: &mut [f32], steps: usize, kind: Pack) {
    // Values that the compiler cannot know, and that neither grow nor become subnormal.
    let (a, b) = (s.splat(std::hint::black_box(0.75)), s.splat(std::hint::black_box(0.5)));
    let mut acc = [b; CHAINS];
    // A chain that left its register would wait for memory: where a vector is two of sixteen registers, half as many
    // chains go twice as far.
    let (chains, rounds) = if const { S::REGISTERS == 16 } { (CHAINS / 2, 2) } else { (CHAINS, 1) };
    for _ in 0..steps * rounds {
        for acc in &mut acc[..times::<S>(chains)] {
            *acc = if kind == Pack::Bf16 { s.dot(*acc, a, b) } else { s.fma(*acc, a, b) };
        }
    }
    let sum = acc.into_iter().take(chains).reduce(|a, b| s.add(a, b)).unwrap_or(a);
    s.store(s.mul(sum, s.splat(rounds as f32)), out);
}

per_isa! {
    /// [`spin`](spin_isa) over quads of signed bytes: two instructions or one, as the set has it.
    pub fn spin_bytes(out: &mut [f32], steps: usize) =
        spin_bytes_with as spin_bytes_isa on scalar avx2 avx_vnni avx512 avx512_vnni;
}

#[inline(always)]
fn spin_bytes_with<S: Dots>(s: S, out: &mut [f32], steps: usize) {
    let one = s.splat_i(f32::from_bits(std::hint::black_box(0x0101_0101)));
    let (mut acc, ready) = ([s.begin(0.0); CHAINS], [s.ready(one, 0), s.ready(one, S::PARTS - 1)]);
    let all = [one; CHAINS];
    // Sixteen registers hold six sums of two each: see above.
    let (chains, rounds) = if const { S::REGISTERS == 16 } { (CHAINS / 2, 2) } else { (CHAINS, 1) };
    for _ in 0..steps * rounds {
        // Products of what never changes would be computed once, and only added here.
        let all = std::hint::black_box(&all);
        for (acc, x) in acc.iter_mut().zip(all).take(times::<S>(chains)) {
            for ready in &ready[..times::<S>(S::PARTS)] {
                *acc = s.bytes(*acc, *ready, *x);
            }
        }
    }
    let sum = acc.into_iter().take(chains).map(|acc| s.to_f32(acc)).reduce(|a, b| s.add(a, b));
    s.store(s.mul(sum.unwrap_or(s.zero()), s.splat(rounds as f32)), out);
}

per_isa! {
    /// out `[16]`: sums over x, which is read once, in order.
    pub fn read(out: &mut [f32], x: &[f32]) = read_with as read_isa;
}

#[inline(always)]
fn read_with<S: Simd>(s: S, out: &mut [f32], x: &[f32]) {
    let mut acc = [s.zero(); CHAINS];
    for x in x.as_chunks::<{ CHAINS * LANES }>().0 {
        for i in 0..times::<S>(CHAINS) {
            acc[i] = s.add(acc[i], s.load(&x[i * LANES..]));
        }
    }
    s.store(acc.into_iter().reduce(|a, b| s.add(a, b)).unwrap_or(s.zero()), out);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_chain_is_run_and_every_word_read() {
        for ops in Ops::all() {
            let x = vec![1.0; 3 * CHAINS * LANES];
            let mut out = [0.0; LANES];
            (ops.read)(&mut out, &x);
            assert_eq!(out, [3.0 * CHAINS as f32; LANES], "{}", ops.name());
            // The fixed point of x -> 0.75 x + 0.5.
            (ops.spin)(&mut out, 200, Pack::F32);
            assert!(out.iter().all(|x| (x / CHAINS as f32 - 2.0).abs() < 1e-5), "{}", ops.name());
        }
    }

    #[test]
    fn speeds_are_positive_and_finite() {
        let team = Team::new(2).unwrap();
        for speed in [
            peak_flops(&team, Pack::F32, 1),
            peak_flops(&team, Pack::Bf16, 1),
            peak_flops(&team, Pack::Bytes, 1),
            read_bandwidth(&team, 1 << 20, 1),
        ] {
            assert!(speed.is_finite() && speed > 0.0, "{speed}");
        }
    }
}
