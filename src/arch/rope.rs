//! Floor 3: rotary positions as configs write them. Knows no family.

use crate::error::{Error, Result};
use crate::format::config::Config;
use kernels::rope::{Rope, Scaling};

/// `rope_theta`, `rope_scaling` and the rotated share, at the top or, in newer files, within `rope_parameters`. The share
/// is `partial_rotary_factor`, or `share` where that is absent.
pub fn rope(c: &Config, head_dim: usize, share: f32) -> Result<Rope> {
    rope_or(c, head_dim, 10_000.0, share)
}

/// As `rope`, with `theta` where `rope_theta` is absent.
pub fn rope_or(c: &Config, head_dim: usize, theta: f32, share: f32) -> Result<Rope> {
    let nested = c.object("rope_parameters")?;
    let scaling = match &nested {
        Some(parameters) => Some(parameters.clone()),
        None => c.object("rope_scaling")?,
    };
    let given = |key: &str, default: f32| match &nested {
        Some(parameters) if parameters.raw(key).is_some() => parameters.f32_or(key, default),
        _ => c.f32_or(key, default),
    };
    let (theta, share) = (given("rope_theta", theta)?, given("partial_rotary_factor", share)?);
    let rot_dim = (head_dim as f32 * share) as usize;
    let mut rope = plain(c, theta, head_dim, rot_dim)?;
    if let Some(scaling) = scaling {
        (rope.scaling, rope.scale) = scaling_of(c, &scaling)?;
        if let Scaling::Factors(factors) = &rope.scaling
            && factors.len() != rot_dim / 2
        {
            let what = format!("rope factors: expected {}, found {}", rot_dim / 2, factors.len());
            return Err(c.bad(&what));
        }
    }
    Ok(rope)
}

/// Rotation of the first `rot_dim` dimensions of a head with nothing stretched.
pub fn plain(c: &Config, theta: f32, head_dim: usize, rot_dim: usize) -> Result<Rope> {
    if !rot_dim.is_multiple_of(2) || rot_dim > head_dim || rot_dim == 0 {
        let what = format!("rotated dimensions: expected an even number up to {head_dim}, found {rot_dim}");
        return Err(c.bad(&what));
    }
    if !(theta.is_finite() && theta > 0.0) {
        return Err(c.bad(&format!("rope_theta: expected a positive number, found {theta}")));
    }
    // Written by us for GGUF files alone, whose Llama queries and keys are stored for this form.
    let interleaved = c.bool_or("rope_interleaved", false)?;
    Ok(Rope { theta, rot_dim, interleaved, scaling: Scaling::None, scale: 1.0 })
}

/// The longest text that the frequencies are right for, where that is less than `max_position_embeddings`: longrope has a
/// second set of factors for longer ones, which would change what is cached already.
pub fn reach(c: &Config) -> Result<Option<usize>> {
    for key in ["rope_parameters", "rope_scaling"] {
        if let Some(s) = c.object(key)?
            && is_long(&s)?
        {
            return original(c, &s).map(Some);
        }
    }
    Ok(None)
}

fn kind(s: &Config) -> Result<&str> {
    match s.raw("rope_type") {
        Some(_) => s.str("rope_type"),
        None => s.str_or("type", "default"),
    }
}

/// Whether scaling is LongRoPE's; Phi-3 once called it su or yarn.
fn is_long(s: &Config) -> Result<bool> {
    let kind = kind(s)?;
    Ok(kind == "longrope" || kind == "su" || (kind == "yarn" && s.raw("short_factor").is_some()))
}

/// The context that the frequencies were made for; where both say one, the top of the file is right.
fn original(c: &Config, s: &Config) -> Result<usize> {
    let key = "original_max_position_embeddings";
    let found = match (c.maybe_usize(key)?, s.maybe_usize(key)?) {
        (Some(found), _) | (None, Some(found)) => found,
        (None, None) => c.usize("max_position_embeddings")?,
    };
    if found < 2 {
        return Err(c.bad(&format!("{key}: expected at least 2, found {found}")));
    }
    Ok(found)
}

/// The scaling and the factor of cosines and sines.
fn scaling_of(c: &Config, s: &Config) -> Result<(Scaling, f32)> {
    for read in ["type", "rope_theta", "partial_rotary_factor"] {
        let _ = s.raw(read);
    }
    let kind = kind(s)?;
    let scaling = match kind {
        // Dynamic scaling begins beyond the positions that the model was made for, where no session gets.
        "default" | "dynamic" => (Scaling::None, 1.0),
        "linear" => (Scaling::Linear { factor: positive(s, "factor")? }, 1.0),
        "llama3" => (
            Scaling::Llama3 {
                factor: positive(s, "factor")?,
                low_freq: positive(s, "low_freq_factor")?,
                high_freq: positive(s, "high_freq_factor")?,
                original: original(c, s)? as f32,
            },
            1.0,
        ),
        _ if is_long(s)? => longrope(c, s)?,
        "yarn" => yarn(c, s)?,
        other => {
            let known = "default, linear, dynamic, llama3, yarn, longrope";
            let what = format!("rope_scaling of type `{other}` (known: {known})");
            return Err(Error::Unsupported { file: s.file().to_owned(), what });
        }
    };
    s.finish(&["original_max_position_embeddings", "factor"])?;
    Ok(scaling)
}

/// YaRN (Peng et al. 2023, sections 3.2 and 3.4).
fn yarn(c: &Config, s: &Config) -> Result<(Scaling, f32)> {
    let factor = positive(s, "factor")?;
    let scaling = Scaling::Yarn {
        factor,
        original: original(c, s)? as f32,
        beta_fast: s.f32_or("beta_fast", 32.0)?,
        beta_slow: s.f32_or("beta_slow", 1.0)?,
        truncate: s.bool_or("truncate", true)?,
    };
    let mscale = |by: f32| if factor <= 1.0 { 1.0 } else { 0.1f32.mul_add(by * factor.ln(), 1.0) };
    let both = (s.maybe_f32("mscale")?, s.maybe_f32("mscale_all_dim")?);
    let scale = match (s.maybe_f32("attention_factor")?, both) {
        (Some(given), _) => given,
        (None, (Some(a), Some(b))) if a != 0.0 && b != 0.0 => mscale(a) / mscale(b),
        _ => mscale(1.0),
    };
    Ok((scaling, scale))
}

/// LongRoPE (Ding et al. 2024): the factors of texts up to the original context.
fn longrope(c: &Config, s: &Config) -> Result<(Scaling, f32)> {
    let original = original(c, s)? as f32;
    let factor = match s.maybe_f32("factor")? {
        Some(factor) => factor,
        None => c.usize("max_position_embeddings")? as f32 / original,
    };
    let _ = s.raw("long_factor");
    let factors = s.f32s("short_factor")?;
    let scale = match s.maybe_f32("attention_factor")? {
        Some(given) => given,
        None if factor <= 1.0 => 1.0,
        None => (1.0 + factor.ln() / original.ln()).sqrt(),
    };
    Ok((Scaling::Factors(factors), scale))
}

fn positive(s: &Config, key: &str) -> Result<f32> {
    let found = s.f32(key)?;
    if found.is_finite() && found > 0.0 {
        return Ok(found);
    }
    Err(s.bad(&format!("{key}: expected a positive number, found {found}")))
}
