//! Rotary positions, whole and partial, and the frequencies of each scaling.

use crate::{Numbers, U, bits, close, same_bits, wide};
use kernels::rope::{Rope, Scaling, turns};
use kernels::{Cut, reference};

#[test]
fn heads_turn_whole_or_in_part_by_neighbours_or_halves() {
    for (heads, dim, rot_dim) in [(1, 2, 2), (3, 64, 64), (2, 80, 32), (1, 7, 6), (5, 33, 2), (2, 128, 128)] {
        for interleaved in [false, true] {
            let positions = [0u32, 1, 17, 4095, 100_003];
            let (rows, n) = (positions.len(), heads * dim);
            let rope = Rope { theta: 10_000.0, rot_dim, interleaved, scaling: Scaling::None, scale: 1.0 };
            let (freq, mut table) = (rope.inv_freq(), vec![0.0; rows * rot_dim]);
            for (table, pos) in table.chunks_exact_mut(rot_dim).zip(positions) {
                turns(&freq, pos, 1.0, table);
            }
            let x = Numbers::new(dim as u64).vec(rows * n, 2.0);
            let got = same_bits(rows, n, Cut::Pieces(n), |ops, out| {
                (ops.rope)(out, &x, n, dim, rot_dim, interleaved, &table);
            });

            let mut want = Vec::new();
            for (r, pos) in positions.iter().enumerate() {
                let angles: Vec<f64> = freq.iter().map(|f| f64::from(*pos as f32 * f)).collect();
                for head in wide(&x[r * n..][..n]).chunks_exact(dim) {
                    want.extend(reference::rope(head, &angles, interleaved, 1.0));
                }
            }
            // Cosine, product and difference round once each; sizes are at most 2.
            close(&got, &want, |_| 3.0 * U * 4.0, &format!("{heads} x {dim}, {rot_dim} turned"));
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
