//! Floor 3: the numbers behind positions that are not learned: tables of sines, slopes, ranges of distances. Knows no files.

use crate::arch::{Position, Stack, Table};
use half::bf16;
use kernels::attention::distance_table;

/// A row of a sinusoidal table for each of `rows` positions, `[rows, d]`, rounded from f64.
pub fn sinusoids(table: Table, rows: usize, d: usize) -> Vec<f32> {
    let half = d.div_ceil(2);
    let freq = |i: usize| match table {
        Table::Tensor2Tensor => (-(10_000f64.ln()) * i as f64 / (half.max(2) - 1) as f64).exp(),
        _ => 10_000f64.powf(-2.0 * i as f64 / d as f64),
    };
    let freqs: Vec<f64> = (0..half).map(freq).collect();
    let mut out = Vec::with_capacity(rows * d);
    for position in 0..rows {
        let angle = |i: usize| position as f64 * freqs[i];
        let element = |j: usize| match table {
            Table::Interleaved if j.is_multiple_of(2) => libm::sin(angle(j / 2)),
            Table::Interleaved => libm::cos(angle(j / 2)),
            // An odd width ends with a column of zeros there, and with a sine here.
            Table::Tensor2Tensor if j >= 2 * (d / 2) => 0.0,
            Table::Tensor2Tensor if j < d / 2 => libm::sin(angle(j)),
            Table::Tensor2Tensor => libm::cos(angle(j - d / 2)),
            _ if j < half => libm::sin(angle(j)),
            _ => libm::cos(angle(j - half)),
        };
        out.extend((0..d).map(|j| element(j) as f32));
    }
    out
}

/// The slopes of ALiBi for `heads` heads (Press et al. 2022): a geometric row, and where `heads` is no power of two every
/// other one of the next row for what is left.
pub fn slopes(heads: usize) -> Vec<f32> {
    let closest = if heads.is_power_of_two() { heads } else { heads.next_power_of_two() / 2 };
    let base = |n: usize| 2f64.powf(-8.0 / n as f64);
    let first = (1..=closest).map(|i| base(closest).powi(i as i32) as f32);
    let rest = (0..heads - closest).map(|i| base(2 * closest).powi(2 * i as i32 + 1) as f32);
    first.chain(rest).collect()
}

/// ALiBi as Falcon has it, `[heads, positions]`: slopes, positions and their products are bf16, then multiplied by `scale`.
pub fn coarse_slopes(heads: usize, positions: usize, scale: f32) -> Vec<f32> {
    let round = |x: f32| bf16::from_f32(x).to_f32();
    let slopes = slopes(heads).into_iter().map(round);
    slopes.flat_map(|slope| (0..positions).map(move |at| round(slope * round(at as f32)) * scale)).collect()
}

/// The range of a distance, key position minus query position (Raffel et al. 2020): half of the ranges hold one distance
/// each, the others grow up to `far`. Attention that sees `both` ways splits the ranges between the ways.
pub fn bucket(distance: i64, buckets: usize, far: usize, both: bool) -> usize {
    let (buckets, first) = if both { (buckets / 2, distance > 0) } else { (buckets, false) };
    let first = if first { buckets } else { 0 };
    let away = if both { distance.unsigned_abs() as usize } else { (-distance).max(0) as usize };
    let exact = buckets / 2;
    if away < exact {
        return first + away;
    }
    // Rounded step by step as the f32 tensors of its authors are.
    let share = (away as f32 / exact.max(1) as f32).ln() / (far as f32 / exact.max(1) as f32).ln();
    let more = (share * (buckets - exact) as f32) as usize;
    first + (exact + more).min(buckets - 1)
}

/// The range of each distance from `-far` to `far` in attention of a stack; none where its biases do not go by distance.
pub fn ranges(s: &Stack) -> Vec<usize> {
    let Position::Relative { buckets, far, .. } = s.position else { return Vec::new() };
    let (both, far) = (!s.attention().causal, far as i64);
    (-far..=far).map(|distance| bucket(distance, buckets, far as usize, both)).collect()
}

/// What attention of a stack adds to its scores: biases of ranges `[ranges, heads]` by distance, see
/// [`kernels::attention::Bias::Distance`].
pub fn by_distance(s: &Stack, biases: &[f32]) -> Vec<f32> {
    let (ranges, heads) = (ranges(s), s.n_heads);
    let far = ranges.len() / 2;
    let of = |head: usize, distance: i64| biases[ranges[(distance + far as i64) as usize] * heads + head];
    distance_table(heads, far, of)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slopes_of_eight_heads_halve() {
        assert_eq!(slopes(8), [0.5, 0.25, 0.125, 0.0625, 0.03125, 0.015625, 0.0078125, 0.00390625]);
        assert_eq!(slopes(3), [0.0625, 0.00390625, 0.25]);
    }

    #[test]
    fn distances_fall_into_rising_ranges() {
        for both in [false, true] {
            let at = |d: i64| bucket(d, 32, 128, both);
            assert_eq!(at(0), 0);
            assert_eq!(at(-5), 5);
            assert_eq!(at(5), if both { 21 } else { 0 });
            assert_eq!(at(-128), if both { 15 } else { 31 });
            assert_eq!(at(-100_000), at(-128));
            assert!((-200..0).all(|d| at(d) >= at(d + 1)));
        }
    }

    #[test]
    fn tables_begin_with_position_zero() {
        for table in [Table::Sinusoidal, Table::Tensor2Tensor] {
            let rows = sinusoids(table, 2, 6);
            assert_eq!(rows[..6], [0.0, 0.0, 0.0, 1.0, 1.0, 1.0]);
            assert_eq!(rows[6], 1f64.sin() as f32);
        }
        let rows = sinusoids(Table::Interleaved, 2, 4);
        assert_eq!(rows[..5], [0.0, 1.0, 0.0, 1.0, 1f64.sin() as f32]);
    }
}
