//! Gradients of what moves rows about: rotations, tables, picks, means, sums; and of log-probabilities.

use crate::{LENGTHS, Numbers, Out, U, bits, close, same_bits, same_bits_of, wide};
use kernels::embed::{accumulate, add, embed_bwd, means_bwd, rows_bwd};
use kernels::rope::turns;
use kernels::{Cut, reference};

#[test]
fn heads_turn_back() {
    for (heads, dim, rot_dim) in [(1, 2, 2), (3, 64, 64), (2, 80, 32), (1, 7, 6), (5, 33, 2)] {
        for (interleaved, scale) in [(false, 1.0), (true, 1.0), (false, 1.19), (true, 0.83f32)] {
            let (positions, n) = ([0u32, 1, 17, 4095], heads * dim);
            let (rows, mut numbers) = (positions.len(), Numbers::new(dim as u64));
            let (dy, freq) = (numbers.vec(rows * n, 1.0), numbers.vec(rot_dim / 2, 1.0));
            let mut table = vec![0.0; rows * rot_dim];
            for (pos, table) in positions.iter().zip(table.chunks_exact_mut(rot_dim)) {
                turns(&freq, *pos, scale, table);
            }
            let got = same_bits(rows, n, Cut::Pieces(n), |ops, out| {
                (ops.back.rope_bwd)(out, &dy, n, dim, rot_dim, interleaved, &table);
            });
            let mut want = Vec::new();
            for (pos, dy) in positions.iter().zip(wide(&dy).chunks_exact(n)) {
                let angles: Vec<f64> = freq.iter().map(|freq| f64::from(*pos as f32 * freq)).collect();
                for dy in dy.chunks_exact(dim) {
                    want.extend(reference::back::rope(dy, &angles, interleaved, f64::from(scale)));
                }
            }
            // Cosine and sine round twice, then products and a sum, of numbers not above 1.
            close(&got, &want, |_| 8.0 * U * f64::from(scale).max(1.0), "rope");
        }
    }
}

#[test]
fn rows_of_a_table_add_up_in_order() {
    for (vocab, n, ids) in
        [(5, 1, vec![4, 4, 0]), (9, 33, vec![8, 0, 8, 3, 8]), (3, 300, vec![]), (1, 64, vec![0])]
    {
        let mut numbers = Numbers::new(n as u64);
        let (start, dy) = (numbers.vec(vocab * n, 1.0), numbers.vec(ids.len() * n, 1.0));
        let out = || Out { rows: vocab, cols: n, cut: Cut::Cols(32), start: start.clone() };
        for scale in [1.0, 0.7] {
            let [got] = same_bits_of([out()], |_, [mut out]| embed_bwd(&mut out, &dy, &ids, scale));
            let mut want = start.clone();
            for (dy, id) in dy.chunks_exact(n).zip(&ids) {
                (0..n).for_each(|i| want[*id as usize * n + i] += scale * dy[i]);
            }
            assert_eq!(bits(&got), bits(&want));
        }
        // The same rows, picked.
        let got = same_bits(vocab, n, Cut::Pieces(n), |_, out| rows_bwd(out, &dy, n, &ids));
        let mut want = vec![0.0; vocab * n];
        for (dy, id) in dy.chunks_exact(n).zip(&ids) {
            (0..n).for_each(|i| want[*id as usize * n + i] += dy[i]);
        }
        assert_eq!(bits(&got), bits(&want));
    }
}

#[test]
fn a_mean_gives_each_row_its_share() {
    let (n, starts) = (7, [1u32, 1, 4, 5]);
    let dy = Numbers::new(1).vec(3 * n, 1.0);
    let got = same_bits(6, n, Cut::Pieces(n), |_, out| means_bwd(out, &dy, n, &starts));
    let share = |r: usize, i: usize| match r {
        1..=3 => dy[n + i] / 3.0,
        4 => dy[2 * n + i],
        _ => 0.0,
    };
    let want: Vec<f32> = (0..6 * n).map(|at| share(at / n, at % n)).collect();
    assert_eq!(bits(&got), bits(&want));
}

#[test]
fn gradients_add() {
    for (rows, n) in [(0, 4), (1, 1), (3, 7), (5, 64), (2, 100)] {
        let mut numbers = Numbers::new(2);
        let (a, b) = (numbers.vec(rows * n, 1.0), numbers.vec(rows * n, 1.0));
        let want: Vec<f32> = a.iter().zip(&b).map(|(a, b)| a + b).collect();
        for cut in [Cut::Pieces(n), Cut::Cols(32)] {
            assert_eq!(bits(&same_bits(rows, n, cut, |_, out| add(out, &a, &b, n))), bits(&want));
            let out = Out { rows, cols: n, cut, start: a.clone() };
            let [got] = same_bits_of([out], |_, [mut out]| accumulate(&mut out, &b, n));
            assert_eq!(bits(&got), bits(&want));
        }
    }
}

/// Weights of the target's log-probability, the mean one, and the entropy.
const SEEDS: [[f32; 3]; 5] =
    [[1.0, 0.0, 0.0], [-0.4, 0.3, 0.0], [0.0; 3], [0.7, 0.0, -0.2], [0.0, -1.0, 1.5]];

#[test]
fn gradients_of_log_probabilities() {
    for vocab in LENGTHS.into_iter().chain([5000]) {
        let rows = SEEDS.len();
        let logits = Numbers::new(vocab as u64).vec(rows * vocab, 20.0);
        let targets: Vec<u32> = (0..rows).map(|r| (r * 31 % vocab) as u32).collect();
        let logprob =
            same_bits(rows, 2, Cut::Pieces(2), |ops, out| (ops.logprob)(out, &logits, vocab, &targets));
        let stats = same_bits(rows, 2, Cut::Pieces(2), |ops, out| {
            (ops.back.logprob_stats)(out, &logits, vocab, &logprob);
        });
        let got = same_bits(rows, vocab, Cut::Pieces(vocab), |ops, out| {
            (ops.back.logprob_bwd)(out, &logits, vocab, &logprob, &targets, SEEDS.as_flattened());
        });
        let sum = (vocab as f64 / 16.0 + 5.0) * U;
        for (r, x) in wide(&logits).chunks_exact(vocab).enumerate() {
            let (lse, seeds) = (reference::lse(x), SEEDS[r].map(f64::from));
            let want = reference::back::logprob_stats(x);
            // Log-probabilities of up to 40 and 20 round three times, once in what they are taken from; exp is within 2
            // ULP. Relative errors of sums beside it.
            let log_off = (40.0 + 2.0 * 60.0 + 4.0) * U + sum;
            let p = |i: usize| (x[i] - lse).exp();
            let entropy_off =
                (0..vocab).map(|i| p(i) * (log_off + (x[i] - lse).abs() * (log_off + sum + 6.0 * U)));
            let entropy_off = entropy_off.sum::<f64>() + U * want[1];
            let off = [log_off + (sum + U) * 60.0, entropy_off];
            close(&stats[2 * r..][..2], &want, |i| off[i], &format!("row {r} of {vocab}"));

            let want = reference::back::logprob(x, targets[r] as usize, seeds);
            let bound = |i: usize| {
                let log = (x[i] - lse).abs();
                let size = seeds[0].abs() + seeds[1].abs() + seeds[2].abs() * (log + stats_size(&stats, r));
                let factor_off = seeds[2].abs() * (log_off + entropy_off) + 4.0 * U * size;
                let each = seeds[1].abs() / vocab as f64;
                p(i) * (factor_off + size * (log_off + 6.0 * U))
                    + 2.0
                        * U
                        * (each
                            + want[i].abs()
                            + 2.0 * seeds[0].abs() * f64::from(u8::from(i == targets[r] as usize)))
                    + size * 2.0 * f64::from(f32::MIN_POSITIVE)
            };
            close(&got[r * vocab..][..vocab], &want, bound, &format!("row {r} of {vocab}"));
        }
    }
}

fn stats_size(stats: &[f32], r: usize) -> f64 {
    f64::from(stats[2 * r + 1]).abs()
}

#[test]
fn rows_without_weights_are_not_read() {
    let (logits, logprob) = ([f32::NAN; 6], [f32::NAN; 4]);
    let got = same_bits(2, 3, Cut::Pieces(3), |ops, out| {
        (ops.back.logprob_bwd)(out, &logits, 3, &logprob, &[9, 9], &[0.0; 6]);
    });
    assert_eq!(got, [0.0; 6]);
}

#[test]
fn forbidden_tokens_get_no_gradient() {
    let logits = [1.0, f32::NEG_INFINITY, 0.5];
    let logprob = same_bits(1, 2, Cut::Pieces(2), |ops, out| (ops.logprob)(out, &logits, 3, &[0]));
    let got = same_bits(1, 3, Cut::Pieces(3), |ops, out| {
        (ops.back.logprob_bwd)(out, &logits, 3, &logprob, &[0], &[1.0, 0.0, 0.5]);
    });
    assert!(got[1] == 0.0 && got[0] > 0.0 && got[2] < 0.0, "{got:?}");
}
