//! Floor 1: random numbers by counter: (seed, stream, position) names a number, whatever was drawn before. Knows nothing
//! of what they are for.

/// What random numbers are used for: one stream each, so that no two uses share a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Stream {
    /// Choosing tokens; the position is the number of tokens before.
    Sample = 0,
    /// The order of examples; the position has the epoch in its upper half.
    Shuffle = 1,
    /// Parameters before anything is learnt; the position is the element's, of all that are made.
    Init = 2,
    /// What is hidden of texts; the position has the number of texts seen before in its upper part.
    Mask = 3,
}

/// A number in [0, 1), a multiple of 2^-53.
pub fn uniform(seed: u64, stream: Stream, position: u64) -> f64 {
    const UNIT: f64 = 1.0 / (1u64 << 53) as f64;
    let [lo, hi, ..] = philox(words(seed), words_pair(position, stream as u64));
    ((u64::from(hi) << 32 | u64::from(lo)) >> 11) as f64 * UNIT
}

/// A number from the normal distribution, by Box and Muller (1958): two uniform ones make it.
pub fn normal(seed: u64, stream: Stream, position: u64) -> f64 {
    let [radius, angle] = [0, 1].map(|i| uniform(seed, stream, position.wrapping_mul(2).wrapping_add(i)));
    libm::sqrt(-2.0 * libm::log1p(-radius)) * libm::cos(2.0 * std::f64::consts::PI * angle)
}

fn words(x: u64) -> [u32; 2] {
    [x as u32, (x >> 32) as u32]
}

fn words_pair(a: u64, b: u64) -> [u32; 4] {
    let ([a0, a1], [b0, b1]) = (words(a), words(b));
    [a0, a1, b0, b1]
}

/// Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"): integers only, so the bits are the
/// same on every machine.
fn philox([mut k0, mut k1]: [u32; 2], mut x: [u32; 4]) -> [u32; 4] {
    for _ in 0..10 {
        let a = u64::from(x[0]) * 0xD251_1F53;
        let b = u64::from(x[2]) * 0xCD9E_8D57;
        x = [(b >> 32) as u32 ^ x[1] ^ k0, b as u32, (a >> 32) as u32 ^ x[3] ^ k1, a as u32];
        k0 = k0.wrapping_add(0x9E37_79B9);
        k1 = k1.wrapping_add(0xBB67_AE85);
    }
    x
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known answers that the authors publish with Random123.
    #[test]
    fn philox_gives_the_published_numbers() {
        assert_eq!(philox([0; 2], [0; 4]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        let ones = philox([u32::MAX; 2], [u32::MAX; 4]);
        assert_eq!(ones, [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        let pi = philox([0xa409_3822, 0x299f_31d0], [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344]);
        assert_eq!(pi, [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]);
    }

    #[test]
    fn normal_numbers_have_mean_0_and_variance_1() {
        let n = 20_000;
        let all: Vec<f64> = (0..n).map(|at| normal(3, Stream::Init, at)).collect();
        let mean = all.iter().sum::<f64>() / n as f64;
        let variance = all.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n as f64;
        assert!(mean.abs() < 0.03 && (variance - 1.0).abs() < 0.03, "{mean} and {variance}");
        assert!(all.iter().all(|x| x.is_finite()));
    }

    #[test]
    fn uniform_is_pinned() {
        // 0xe169c58d_6627e8d5 >> 11, in units of 2^-53.
        assert_eq!(uniform(0, Stream::Sample, 0), 0x1C_2D38_B1AC_C4FD_u64 as f64 / 2f64.powi(53));
        assert!((0..1000).all(|at| (0.0..1.0).contains(&uniform(7, Stream::Sample, at))));
    }
}
