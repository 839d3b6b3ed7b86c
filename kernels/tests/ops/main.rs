//! Every kernel but `linear`, on every instruction set this machine has: against the specification within derived
//! bounds, and bit for bit against each other, however the work is cut.

mod act;
mod act_back;
mod attention;
mod attention_back;
mod embed;
mod families;
mod graft;
mod norm;
mod norm_back;
mod optim;
mod rope;
mod rows_back;
mod sample;
mod slopes;
mod softmax;
mod world;

use kernels::ops::Isa;
use kernels::{Cut, Ops, TileMut};

/// Half the distance from 1 to the next f32: the relative error of one rounding.
pub(crate) const U: f64 = f32::EPSILON as f64 / 2.0;

/// Lengths around every boundary: nothing, one, primes, a vector, two, and their neighbours.
pub(crate) const LENGTHS: [usize; 13] = [1, 2, 3, 7, 15, 16, 17, 31, 32, 33, 64, 127, 576];

/// Counter-based numbers, so that a case does not depend on those before it.
pub(crate) struct Numbers(u64);

impl Numbers {
    pub(crate) fn new(seed: u64) -> Numbers {
        Numbers(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// SplitMix64 (Steele et al. 2014).
    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// From -1 to 1.
    pub(crate) fn next(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1u32 << 23) as f32 - 1.0
    }

    pub(crate) fn vec(&mut self, n: usize, scale: f32) -> Vec<f32> {
        (0..n).map(|_| self.next() * scale).collect()
    }
}

pub(crate) fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|x| f64::from(*x)).collect()
}

pub(crate) fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

/// Every table of this machine; instruction sets that it lacks are named once.
pub(crate) fn isas() -> Vec<&'static Ops> {
    static SAY: std::sync::Once = std::sync::Once::new();
    SAY.call_once(|| {
        for isa in [Isa::Scalar, Isa::Avx2, Isa::Avx512] {
            if let Err(why) = Ops::of(isa) {
                eprintln!("skipped: {why}");
            }
        }
    });
    Ops::all()
}

/// What `work` writes into `[rows, cols]` as a whole, after checking that no instruction set and no sharing among
/// workers changes a bit of it.
pub(crate) fn same_bits(rows: usize, cols: usize, cut: Cut, work: impl Fn(&Ops, &mut TileMut)) -> Vec<f32> {
    let out = Out { rows, cols, cut, start: vec![f32::NAN; rows * cols] };
    let [got] = same_bits_of([out], |ops, [mut tile]| work(ops, &mut tile));
    got
}

/// An output `[rows, cols]`, and what is there before.
pub(crate) struct Out {
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) cut: Cut,
    pub(crate) start: Vec<f32>,
}

/// The same of several outputs.
pub(crate) fn same_bits_of<const N: usize>(
    outs: [Out; N],
    work: impl Fn(&Ops, [TileMut; N]),
) -> [Vec<f32>; N] {
    let run = |ops: &Ops, of: usize| {
        let mut mems = outs.each_ref().map(|out| (out.start.clone(), out));
        for worker in 0..of {
            work(
                ops,
                mems.each_mut().map(|(mem, out)| TileMut::part(mem, out.rows, out.cols, out.cut, worker, of)),
            );
        }
        mems.map(|(mem, _)| mem)
    };
    let first = run(isas()[0], 1);
    for ops in isas() {
        for of in [1, 2, 3, 7] {
            for (got, first) in run(ops, of).iter().zip(&first) {
                assert_eq!(bits(got), bits(first), "{}, {of} workers", ops.name());
            }
        }
    }
    first
}

/// Each element within its own bound.
pub(crate) fn close(got: &[f32], want: &[f64], bound: impl Fn(usize) -> f64, what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        let off = (f64::from(*got) - want).abs();
        assert!(
            off <= bound(i),
            "{what}: element {i} is {got}, not {want}: off by {off:e}, bound {:e}",
            bound(i)
        );
    }
}
