//! Rotary positions, whole and partial, and the frequencies of each scaling.

use crate::{Numbers, U, bits, close, same_bits, wide};
use kernels::rope::{Rope, Scaling, turns};
use kernels::{Cut, reference};

#[test]
fn heads_turn_whole_or_in_part_by_neighbours_or_halves() {
    for (heads, dim, rot_dim) in [(1, 2, 2), (3, 64, 64), (2, 80, 32), (1, 7, 6), (5, 33, 2), (2, 128, 128)] {
        for (interleaved, scale) in [(false, 1.0), (true, 1.0), (false, 1.19), (true, 0.83f32)] {
            let positions = [0u32, 1, 17, 4095, 100_003];
            let (rows, n) = (positions.len(), heads * dim);
            let rope = Rope { theta: 10_000.0, rot_dim, interleaved, scaling: Scaling::None, scale };
            let (freq, mut table) = (rope.inv_freq(), vec![0.0; rows * rot_dim]);
            for (table, pos) in table.chunks_exact_mut(rot_dim).zip(positions) {
                turns(&freq, pos, rope.scale, table);
            }
            let x = Numbers::new(dim as u64).vec(rows * n, 2.0);
            let got = same_bits(rows, n, Cut::Pieces(n), |ops, out| {
                (ops.rope)(out, &x, n, dim, rot_dim, interleaved, &table);
            });

            let mut want = Vec::new();
            for (r, pos) in positions.iter().enumerate() {
                let angles: Vec<f64> = freq.iter().map(|f| f64::from(*pos as f32 * f)).collect();
                for head in wide(&x[r * n..][..n]).chunks_exact(dim) {
                    want.extend(reference::rope(head, &angles, interleaved, f64::from(scale)));
                }
            }
            // Cosine, its scale, product and difference round once each; sizes are at most 2 times the scale.
            close(
                &got,
                &want,
                |_| 4.0 * U * 4.0 * f64::from(scale),
                &format!("{heads} x {dim}, {rot_dim} turned"),
            );
            let rest =
                |x: &[f32]| -> Vec<u32> { bits(x).chunks(dim).flat_map(|h| h[rot_dim..].to_vec()).collect() };
            assert_eq!(rest(&got), rest(&x), "what lies behind the rotated part is copied");
        }
    }
}

#[test]
fn position_zero_changes_nothing() {
    let mut table = [0.0; 8];
    turns(&[1.0, 0.1, 0.01, 0.001], 0, 1.0, &mut table);
    assert_eq!(table, [1., 1., 1., 1., 0., 0., 0., 0.]);
    turns(&[1.0, 0.1, 0.01, 0.001], 0, 1.25, &mut table);
    assert_eq!(table, [1.25, 1.25, 1.25, 1.25, 0., 0., 0., 0.], "but for the scale");
}

fn rope(scaling: Scaling) -> Rope {
    Rope { theta: 500_000.0, rot_dim: 64, interleaved: false, scaling, scale: 1.0 }
}

#[test]
fn linear_scaling_divides() {
    let (plain, scaled) = (rope(Scaling::None).inv_freq(), rope(Scaling::Linear { factor: 4.0 }).inv_freq());
    assert!(plain.iter().zip(&scaled).all(|(a, b)| a / 4.0 == *b));
}

#[test]
fn llama3_scaling_keeps_high_frequencies_and_stretches_low_ones() {
    let plain = rope(Scaling::None).inv_freq();
    let llama3 = Scaling::Llama3 { factor: 32.0, low_freq: 1.0, high_freq: 4.0, original: 8192.0 };
    for (a, b) in plain.iter().zip(rope(llama3).inv_freq()) {
        let wave = std::f64::consts::TAU / f64::from(*a);
        let smooth = ((8192.0 / wave - 1.0) / 3.0).clamp(0.0, 1.0);
        let want = f64::from(*a) * (smooth + (1.0 - smooth) / 32.0);
        // Five roundings on the way to `smooth`, whose weight in the result is at most 1 - 1/32; four after it.
        let bound = 5.0 * U * (smooth + 0.34) * f64::from(*a) + 4.0 * U * want;
        assert!((f64::from(b) - want).abs() <= bound, "{a} became {b}, not {want}");
        assert!((1.0..4.0).contains(&(8192.0 / wave)) || b == *a || b == a / 32.0);
    }
}

fn yarn(rot_dim: usize, factor: f32, betas: [f32; 2], truncate: bool) -> Rope {
    let [beta_fast, beta_slow] = betas;
    let scaling = Scaling::Yarn { factor, original: 2048.0, beta_fast, beta_slow, truncate };
    Rope { theta: 10_000.0, rot_dim, interleaved: false, scaling, scale: 1.0 }
}

#[test]
fn yarn_stretches_along_the_pairs() {
    for rot_dim in [2, 16, 64, 128] {
        for (factor, betas) in [(4.0, [32.0, 1.0]), (40.0, [32.0, 1.0]), (1.5, [4.0, 3.0]), (2.0, [5.0, 5.0])]
        {
            for truncate in [true, false] {
                let got = yarn(rot_dim, factor, betas, truncate).inv_freq();
                let [fast, slow] = betas.map(f64::from);
                let want =
                    reference::yarn(10_000.0, rot_dim, f64::from(factor), 2048.0, [fast, slow], truncate);
                let plain = Rope { scaling: Scaling::None, ..yarn(rot_dim, 1.0, betas, truncate) }.inv_freq();
                // The exponent's rounding counts ln(10,000) times. A place on the line rounds where the line begins and
                // in a difference, each a share of its length, and in the quotient. A line of no length has 0.001.
                let pair = |turns: f64| {
                    rot_dim as f64 * (2048.0 / turns / std::f64::consts::TAU).ln() / (2.0 * 10_000f64.ln())
                };
                let (low, high) = (pair(fast), pair(slow));
                let (low, high) = if truncate { (low.floor(), high.ceil()) } else { (low, high) };
                let (low, high) = (low.max(0.0), high.min(rot_dim as f64 - 1.0));
                let length = if low == high { 0.001 } else { (high - low).abs() };
                let place = 4.0 * U * (1.0 + (low.abs() + rot_dim as f64) / length);
                let bound = |i: usize| 14.0 * U * want[i].abs() + (place + 3.0 * U) * f64::from(plain[i]);
                close(&got, &want, bound, &format!("{rot_dim} by {factor}, {betas:?}, {truncate}"));
            }
        }
    }
}

#[test]
fn yarn_is_that_of_the_transformers_library() {
    // 5.x, `_compute_yarn_parameters` with head_dim 16.
    let first = [1.0, 0.316_227_76, 0.1];
    let cases = [
        ([32.0, 1.0], true, [0.025_693_506, 0.006_249_999_6, 0.001_383_496_6]),
        ([32.0, 1.0], false, [0.023_870_196, 0.005_056_971_7, 0.000_811_290_46]),
        ([4.0, 3.0], true, [0.031_622_78, 0.006_249_999_6, 0.000_790_569_47]),
    ];
    for (betas, truncate, middle) in cases {
        let want = [&first[..], &middle, &[0.000_25, 7.905_695e-5]].concat();
        let got = yarn(16, 4.0, betas, truncate).inv_freq();
        // Its powers are within an ULP or two, and ours are.
        close(&got, &wide(&want), |i| 8.0 * U * f64::from(want[i]), &format!("{betas:?} {truncate}"));
    }
}

#[test]
fn own_factors_divide_each_frequency() {
    let factors = [1.0, 1.1, 1.3, 1.7, 2.0, 2.5, 3.0, 5.5];
    let rope = |scaling| Rope { scaling, ..yarn(16, 1.0, [1.0, 1.0], true) };
    let (plain, got) = (rope(Scaling::None).inv_freq(), rope(Scaling::Factors(factors.to_vec())).inv_freq());
    let want: Vec<f64> =
        plain.iter().zip(factors).map(|(freq, by)| f64::from(*freq) / f64::from(by)).collect();
    // A product and a reciprocal; the plain one is a rounded reciprocal too.
    close(&got, &want, |i| 3.0 * U * want[i], "factors");
}
