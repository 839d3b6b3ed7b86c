//! Floor 5: low-rank additions that learn (Hu et al. 2021). Knows no files.

use crate::error::{Error, Result};
use crate::rng::{Stream, uniform};
use crate::train::learner::zeros;
use crate::weights::{LearnedParam, LinearW, LoraW, P, Param, Weights};

/// Which linears get an addition, and of what rank.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraConfig {
    /// Inner width of an addition.
    pub rank: usize,
    /// An addition is multiplied by `alpha / rank`.
    pub alpha: f32,
    /// Parts of the names of linears; none: every linear but the head.
    pub targets: Vec<String>,
}

/// Adds `B A x` to the linears that `config` names, A random and B zero, so that nothing changes at first (section 4.1; A as
/// `peft` draws it: uniform within one over the root of the inputs). Returns the new parameters.
///
/// # Errors
/// `Argument` for a rank or alpha out of range, or targets that name no linear; `Memory`.
pub fn attach(weights: &mut Weights, config: &LoraConfig, seed: u64) -> Result<Vec<P>> {
    let LoraConfig { rank, alpha, ref targets } = *config;
    if rank == 0 || rank > 4096 || !alpha.is_finite() || alpha == 0.0 {
        let what =
            format!("expected a rank from 1 to 4096 and an alpha that is a number, found {rank} and {alpha}");
        return Err(Error::Argument { name: "lora", what });
    }
    let head = weights.logits();
    let shapes: Vec<Option<[usize; 2]>> = weights.params.iter().map(|param| target(param, targets)).collect();
    let (mut next, mut position, mut made) = (weights.params.len() as u32, 0, Vec::new());
    let mut add = |w: &mut LinearW| -> Result<()> {
        let Some([n, k]) = shapes[w.w.0 as usize].filter(|_| !(targets.is_empty() && Some(w.w) == head))
        else {
            return Ok(());
        };
        let (mut a, b) = (zeros(rank * k)?, zeros(n * rank)?);
        let bound = 1.0 / (k as f64).sqrt();
        for value in &mut a {
            *value = ((2.0 * uniform(seed, Stream::Init, position) - 1.0) * bound) as f32;
            position += 1;
        }
        made.push(LearnedParam { origin: None, values: a, shape: [rank, k] });
        made.push(LearnedParam { origin: None, values: b, shape: [n, rank] });
        w.lora = Some(LoraW { a: P(next), b: P(next + 1), rank, scale: alpha / rank as f32 });
        next += 2;
        Ok(())
    };
    weights.linears_mut().try_for_each(&mut add)?;
    if made.is_empty() {
        let what = format!("expected parts of names of linears, found {targets:?}, which fit none");
        return Err(Error::Argument { name: "lora targets", what });
    }
    let first = weights.params.len() as u32;
    weights.params.extend(made.into_iter().map(Param::Learned));
    Ok((first..weights.params.len() as u32).map(P).collect())
}

/// The shape of a matrix that is a target.
fn target(param: &Param, targets: &[String]) -> Option<[usize; 2]> {
    let Param::Matrix(m) = param else { return None };
    let named = targets.is_empty() || targets.iter().any(|part| m.name.contains(part.as_str()));
    named.then(|| param.shape())
}
