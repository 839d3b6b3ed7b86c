//! Floor 5: low-rank additions that learn (Hu et al. 2021), with magnitudes apart too (DoRA). Knows no files.

use super::adapt::{Additions, values};
use super::dora;
use super::own::zeros;
use crate::adapter::{Adapter, LowRank, Made};
use crate::error::{Error, Result};
use crate::rng::{Stream, uniform};
use crate::weights::{LinearW, LoraW, P, Param, Weights};
use std::collections::HashMap;

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
/// `peft` draws it: uniform within one over the root of the inputs). With `dora`, magnitudes begin as the lengths of the
/// matrices' rows. Returns the new parameters.
///
/// # Errors
/// `Argument` for a rank or alpha out of range, or targets that name no linear; `Memory`.
pub(super) fn attach(
    weights: &mut Weights,
    made: &mut Additions,
    config: &LoraConfig,
    dora: bool,
    seed: u64,
) -> Result<()> {
    let LoraConfig { rank, alpha, ref targets } = *config;
    if rank == 0 || rank > 4096 || !alpha.is_finite() || alpha == 0.0 {
        let what =
            format!("expected a rank from 1 to 4096 and an alpha that is a number, found {rank} and {alpha}");
        return Err(Error::Argument { name: "lora", what });
    }
    let head = weights.logits();
    let known: Vec<Option<(String, [usize; 2])>> =
        weights.params.iter().map(|param| target(param, targets)).collect();
    let params = weights.params.clone();
    let lengths = |p: P| dora::row_lengths(&params[p.0 as usize].matrix());
    let mut position = 0;
    let add = |w: &mut LinearW| -> Result<()> {
        let Some((name, [n, k])) = &known[w.w.0 as usize] else { return Ok(()) };
        let (n, k) = (*n, *k);
        if targets.is_empty() && Some(w.w) == head {
            return Ok(());
        }
        let (mut a, b) = (zeros(rank * k)?, zeros(n * rank)?);
        let bound = 1.0 / (k as f64).sqrt();
        for value in &mut a {
            *value = ((2.0 * uniform(seed, Stream::Init, position) - 1.0) * bound) as f32;
            position += 1;
        }
        let lora = addition(made, name, [a, b], [n, k], alpha / rank as f32);
        // Magnitudes that make the gains 1.
        let dora = dora.then(|| dora::attach(made, name, lengths(w.w), w.bias.is_some()));
        w.added.lora = Some(LoraW { dora, ..lora });
        Ok(())
    };
    weights.linears_mut().try_for_each(add)?;
    if made.is_empty() {
        let what = format!("expected parts of names of linears, found {targets:?}, which fit none");
        return Err(Error::Argument { name: "lora targets", what });
    }
    Ok(())
}

/// Adds what `adapter` adds, to be learnt on. Where several linears are one of its modules, each goes on with an A of its own.
pub(super) fn go_on(weights: &mut Weights, made: &mut Additions, adapter: &Adapter) {
    let mut by_matrix = HashMap::new();
    for place in &adapter.places {
        let (site, module) = (&weights.sites.list()[place.site as usize], &adapter.modules[place.module]);
        by_matrix.insert(site.w, (*place, module));
    }
    for w in weights.linears_mut() {
        let Some((place, module)) = by_matrix.get(&w.w) else { continue };
        let Some(lora) = &module.lora else { continue };
        let rows = || place.rows.rows(place.n);
        let b = rows().flat_map(|row| &lora.b[row * lora.rank..][..lora.rank]).copied().collect();
        let addition = addition(made, &module.path, [lora.a.clone(), b], [place.n, module.k], lora.scale);
        let own = lora.magnitude.as_ref().map(|all| rows().map(|row| all[row]).collect());
        let dora = own.map(|own| dora::attach(made, &module.path, own, w.bias.is_some()));
        w.added.lora = Some(LoraW { dora, ..addition });
    }
}

/// What has been learnt, as an adapter says it.
pub(super) fn made(own: &Weights) -> Made<'_> {
    let one = |w: &LinearW| {
        let lora = w.added.lora?;
        Some(LowRank {
            w: w.w,
            rank: lora.rank,
            scale: lora.scale,
            a: values(own, lora.a),
            b: values(own, lora.b),
            magnitude: lora.dora.map(|dora| values(own, dora.magnitude)),
        })
    };
    Made::LowRank(own.linears().filter_map(one).collect())
}

/// A `[rank, k]` and B `[n, rank]` of the linear called `name`.
fn addition(
    made: &mut Additions,
    name: &str,
    [a, b]: [Vec<f32>; 2],
    [n, k]: [usize; 2],
    scale: f32,
) -> LoraW {
    let rank = a.len() / k.max(1);
    // Several linears may be one module: the number tells them apart.
    let name = format!("{name}.{}", made.next().0);
    let a = made.matrix(format!("{name}.lora_A"), a, [rank, k]);
    LoraW { a, b: made.matrix(format!("{name}.lora_B"), b, [n, rank]), rank, scale, dora: None }
}

/// Name and shape of a matrix that is a target.
fn target(param: &Param, targets: &[String]) -> Option<(String, [usize; 2])> {
    let Param::Matrix(m) = param else { return None };
    let named = targets.is_empty() || targets.iter().any(|part| m.name.contains(part.as_str()));
    named.then(|| (m.name.clone(), param.shape()))
}
