//! The quantiser of own weights: errors within the formats' bounds on usual and odd rows, importance where it should
//! matter, the same bytes however the weights lie, and refusals that name the place.

use crate::Numbers;
use kernels::linear::{Guide, PANEL, Unrepresentable, embed_row, panel_bytes, quantise_panel, spans};
use kernels::{DType, Matrix, Order};

const OURS: [DType; 3] = [DType::Q8_0, DType::Q6K, DType::Q4K];

fn bytes(w: &[f32]) -> Vec<u8> {
    w.iter().flat_map(|x| x.to_le_bytes()).collect()
}

fn panels(w: &Matrix, to: DType, guide: Option<&Guide>) -> Result<Vec<u8>, Unrepresentable> {
    let size = panel_bytes(to, w.k()).unwrap();
    let mut out = vec![0xa5; w.n().div_ceil(PANEL) * size];
    for (p, out) in out.chunks_exact_mut(size.max(1)).enumerate() {
        quantise_panel(out, to, w, p, guide)?;
    }
    Ok(out)
}

/// What `[n, k]` becomes.
fn back(w: &[f32], n: usize, to: DType, guide: Option<&Guide>) -> Vec<f32> {
    let (bytes, k) = (bytes(w), w.len() / n);
    let w = Matrix::new(&bytes, DType::F32, Order::Nk, n, k, 4 * k).unwrap();
    let packed = panels(&w, to, guide).unwrap();
    let packed = Matrix::new(&packed, to, Order::Panels, n, k, 0).unwrap();
    let mut out = vec![0.0; n * k];
    for (r, out) in out.chunks_exact_mut(k.max(1)).enumerate() {
        embed_row(&packed, r, out);
    }
    out
}

fn error(w: &[f32], got: &[f32], weight: Option<&[f32]>) -> f64 {
    let square = |(i, (a, b)): (usize, (&f32, &f32))| {
        let weight = weight.map_or(1.0, |w| f64::from(w[i % w.len()]));
        weight * (f64::from(*a) - f64::from(*b)).powi(2)
    };
    w.iter().zip(got).enumerate().map(square).sum()
}

/// The sum of squares that uniform steps cost where every block has the best scale for its extremes alone: a step of
/// 1/127 of the largest, or of 1/15 of the range; at most half of it for every weight. The small scales of 4 bits add
/// half a step of 63 to either end.
fn bound(w: &[f32], to: DType, run: f32) -> f64 {
    let half = w.chunks(32).map(|block| {
        let low = block.iter().fold(0.0f32, |a, b| a.min(*b));
        let high = block.iter().fold(0.0f32, |a, b| a.max(*b));
        let most = low.abs().max(high);
        let half = match to {
            DType::Q8_0 => most / 127.0 / 2.0 * 1.13 + 127.0 * 2f32.powi(-25),
            DType::Q6K => most / 31.0 / 2.0 * 1.13 + run / 127.0 + 31.0 * 127.0 * 2f32.powi(-25),
            _ => (high - low) / 30.0 + run / 63.0 + 15.0 * 63.0 * 2f32.powi(-25),
        };
        32.0 * f64::from(half).powi(2)
    });
    half.sum()
}

#[test]
fn every_width_is_within_the_bound() {
    for to in OURS {
        for k in [0, 32, 64, 256, 288, 480, 512, 576] {
            for n in [1, 33] {
                let w: Vec<f32> = Numbers::new(k as u64).vec(n * k);
                let got = back(&w, n, to, None);
                let (error, bound) = (error(&w, &got, None), bound(&w, to, 2.0));
                assert!(error <= bound, "{to:?} {n} x {k}: {error} > {bound}");
                let square: f64 = w.iter().map(|x| f64::from(*x).powi(2)).sum();
                // Of uniform numbers an even grid of 15 or 254 steps leaves this much at best.
                let steps: f64 = match to {
                    DType::Q4K => 15.0,
                    DType::Q6K => 63.0,
                    _ => 254.0,
                };
                let share = 1.2 / steps.powi(2);
                assert!(error <= share * square, "{to:?} {n} x {k}: {} of {square}", error / square);
            }
        }
    }
}

#[test]
fn odd_rows_are_within_the_bound() {
    let mut numbers = Numbers::new(7);
    let mut outlier = numbers.vec(64);
    outlier[40] = 1000.0;
    let negative: Vec<f32> = numbers.vec(64).into_iter().map(|x| -x.abs() - 0.5).collect();
    let positive: Vec<f32> = negative.iter().map(|x| -x).collect();
    let mut sparse = vec![0.0; 64];
    sparse[3] = -0.25;
    let tiny: Vec<f32> = numbers.vec(64).into_iter().map(|x| x * 1e-39).collect();
    let small: Vec<f32> = numbers.vec(64).into_iter().map(|x| x * 1e-6).collect();
    let large: Vec<f32> = numbers.vec(64).into_iter().map(|x| x * 4e6).collect();
    for to in OURS {
        for w in [&outlier, &negative, &positive, &sparse, &tiny, &small, &large] {
            let run = w.iter().fold(0.0f32, |a, b| a.max(b.abs()));
            let (got, bound) = (back(w, 1, to, None), bound(w, to, run));
            assert!(got.iter().all(|x| x.is_finite()));
            let error = error(w, &got, None);
            assert!(error <= bound, "{to:?} of {w:?}: {error} > {bound}: {got:?}");
        }
        for constant in [0.0, 0.1, -0.1, 3e5, -3e5] {
            for got in back(&[constant; 96], 1, to, None) {
                assert!((got - constant).abs() <= constant.abs() / 1000.0, "{to:?}: {got}, not {constant}");
            }
        }
        assert!(back(&tiny, 1, to, None).iter().all(|x| *x == 0.0), "{to:?}: no scale is that small");
    }
}

#[test]
fn importance_moves_the_error_to_where_it_matters_less() {
    let (n, k) = (32, 288);
    let mut numbers = Numbers::new(3);
    let w: Vec<f32> = numbers.vec(n * k).into_iter().map(|x| x * x * x).collect();
    let importance: Vec<f32> = (0..k).map(|i| if i % 7 == 0 { 50.0 } else { 0.5 + (i % 3) as f32 }).collect();
    for to in OURS {
        let (plain, led) = (back(&w, n, to, None), back(&w, n, to, Some(&Guide::from_squares(&importance))));
        let of = |got: &[f32]| error(&w, got, Some(&importance));
        assert!(of(&led) < 0.9 * of(&plain), "{to:?}: {} and {}", of(&led), of(&plain));
        // Only the proportions count, and what is no number counts as never used.
        let scaled: Vec<f32> = importance.iter().map(|x| x * 1024.0).collect();
        assert_eq!(led, back(&w, n, to, Some(&Guide::from_squares(&scaled))));
        for odd in [0.0, f32::NAN, f32::INFINITY, -1.0, 1e-45, f32::MAX] {
            let got = back(&w, n, to, Some(&Guide::from_squares(&vec![odd; k])));
            assert!(error(&w, &got, None) <= bound(&w, to, 2.0), "{to:?}, importance {odd}");
        }
    }
}

#[test]
fn weights_lie_in_any_order_and_type() {
    let (n, k) = (35, 64);
    let w: Vec<f32> = Numbers::new(1).vec(n * k).iter().map(|x| half::f16::from_f32(*x).to_f32()).collect();
    let wide = bytes(&w);
    let halves: Vec<u8> = w.iter().flat_map(|x| half::f16::from_f32(*x).to_le_bytes()).collect();
    let across: Vec<f32> = (0..n * k).map(|i| w[i % n * k + i / n]).collect();
    let across = bytes(&across);
    for to in OURS {
        let from = |bytes: &[u8], dtype: DType, order| {
            let row = if order == Order::Nk { k } else { n };
            let w = Matrix::new(bytes, dtype, order, n, k, row * dtype.block_bytes()).unwrap();
            panels(&w, to, None).unwrap()
        };
        let first = from(&wide, DType::F32, Order::Nk);
        assert_eq!(first, from(&wide, DType::F32, Order::Nk));
        assert_eq!(first, from(&halves, DType::F16, Order::Nk));
        assert_eq!(first, from(&across, DType::F32, Order::Kn));
        let last = Matrix::new(&first, to, Order::Panels, 2 * PANEL, k, 0).unwrap();
        for r in n..2 * PANEL {
            let mut row = vec![1.0; k];
            embed_row(&last, r, &mut row);
            assert_eq!(row, vec![0.0; k], "{to:?}: outputs beyond the last are zeros");
        }
    }
}

/// Sums of products over rows of inputs that move together, as [`Guide::from_moments`] takes them.
fn moments(x: &[f32], k: usize) -> Vec<Vec<f32>> {
    let of = |(first, len): (usize, usize)| {
        let mut sums = vec![0.0; len * len];
        for x in x.chunks_exact(k) {
            for i in 0..len {
                for j in i..len {
                    sums[i * len + j] += x[first + i] * x[first + j];
                }
            }
        }
        sums
    };
    spans(k).map(of).collect()
}

#[test]
fn free_weights_make_good_for_errors() {
    for k in [288, 1056] {
        let (n, rows, mut numbers) = (4, 3 * k, Numbers::new(k as u64));
        let w = numbers.vec(n * k);
        let mut x = numbers.vec(rows * k);
        for row in x.chunks_exact_mut(k) {
            let mut last = 0.0;
            for x in row {
                last = 0.8 * last + *x;
                *x = last;
            }
        }
        let moments = moments(&x, k);
        let squares: Vec<f32> = (0..k).map(|i| x.chunks_exact(k).map(|x| x[i] * x[i]).sum()).collect();
        let outputs = |got: &[f32]| -> f64 {
            let off: Vec<f64> = w.iter().zip(got).map(|(a, b)| f64::from(*a) - f64::from(*b)).collect();
            let of = |x: &[f32], off: &[f64]| x.iter().zip(off).map(|(x, w)| f64::from(*x) * w).sum::<f64>();
            x.chunks_exact(k).flat_map(|x| off.chunks_exact(k).map(move |off| of(x, off).powi(2))).sum()
        };
        let squares = outputs(&back(&w, n, DType::Q4K, Some(&Guide::from_squares(&squares))));
        let moved = outputs(&back(&w, n, DType::Q4K, Some(&Guide::from_moments(k, moments))));
        assert!(moved < 0.7 * squares, "{k}: {moved} and {squares}");
    }
}

#[test]
fn what_are_no_moments_guides_as_far_as_it_can() {
    let (k, w) = (64, Numbers::new(2).vec(2 * 64));
    for odd in [0.0, f32::NAN, f32::INFINITY, -1.0, 1e-45, f32::MAX] {
        let mut moments = vec![vec![odd; k * k]];
        let got = back(&w, 2, DType::Q4K, Some(&Guide::from_moments(k, moments.clone())));
        assert!(error(&w, &got, None) <= bound(&w, DType::Q4K, 2.0), "{odd}");
        // A diagonal that is in order, beside products that no inputs have.
        (0..k).for_each(|i| moments[0][i * k + i] = 1.0);
        let got = back(&w, 2, DType::Q4K, Some(&Guide::from_moments(k, moments)));
        assert!(got.iter().all(|x| x.is_finite()), "{odd}");
    }
}

#[test]
fn spans_are_whole_runs() {
    for k in (32..4096).step_by(32) {
        let mut next = 0;
        for (first, len) in spans(k) {
            assert!(first == next && first % 256 == 0 && len > 0 && len < 768, "{k}: {first}, {len}");
            next += len;
        }
        assert_eq!(next, k);
    }
    assert_eq!(spans(0).len(), 0);
}

/// Weights that are on the grid already come back as they are.
#[test]
fn a_grid_is_found_again() {
    let mut numbers = Numbers::new(5);
    let codes: Vec<f32> =
        (0..256).map(|i| if i % 32 == 0 { -127.0 } else { (numbers.bits() % 255) as f32 - 127.0 }).collect();
    let w: Vec<f32> = codes.iter().map(|x| x * 0.0625).collect();
    assert_eq!(back(&w, 1, DType::Q8_0, None), w);
    let w: Vec<f32> = (0..256).map(|i| ((i * 7 % 32 % 16) as f32 - 8.0) * 0.0625 * 63.0).collect();
    let got = back(&w, 1, DType::Q4K, None);
    assert!(error(&w, &got, None) < 1e-5 * error(&w, &[0.0; 256], None), "{got:?}");
}

#[test]
fn what_no_scale_reaches_is_refused() {
    for to in OURS {
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 9e6, -1e30] {
            let mut w = vec![0.5; 40 * 64];
            w[37 * 64 + 5] = value;
            let bytes = bytes(&w);
            let w = Matrix::new(&bytes, DType::F32, Order::Nk, 40, 64, 256).unwrap();
            let refused = panels(&w, to, None).unwrap_err();
            assert_eq!((refused.row, refused.column), (37, 5));
            assert_eq!(refused.value.to_bits(), value.to_bits());
            assert!(refused.to_string().starts_with("output 37, input 5 is "), "{refused}");
        }
    }
}
