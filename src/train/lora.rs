//! Floor 5: low-rank additions that learn (Hu et al. 2021). Knows no files.

use crate::adapter::{Adapter, Kind, LowRank};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::rng::{Stream, uniform};
use crate::train::learner::zeros;
use crate::weights::{LearnedParam, LinearW, LoraW, P, Param, Weights};
use std::collections::HashMap;
use std::sync::Arc;

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
    let known: Vec<Option<(String, [usize; 2])>> =
        weights.params.iter().map(|param| target(param, targets)).collect();
    let (mut position, mut made) = (0, Additions::after(weights));
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
        w.lora = Some(made.add(name, [a, b], [n, k], alpha / rank as f32));
        Ok(())
    };
    weights.linears_mut().try_for_each(add)?;
    if made.params.is_empty() {
        let what = format!("expected parts of names of linears, found {targets:?}, which fit none");
        return Err(Error::Argument { name: "lora targets", what });
    }
    Ok(made.join(weights))
}

/// Adds what `adapter` adds, to be learnt on. Where several linears are one of its modules, each goes on with an A of its own.
/// Returns the new parameters.
///
/// # Errors
/// `Argument` for an adapter of another model, `Unsupported` for one that is more than products of low rank; `Memory`.
pub fn go_on(weights: &mut Weights, adapter: &Adapter) -> Result<Vec<P>> {
    if adapter.model() != weights.sites.id() {
        let what = format!("expected an adapter of this model, found {}", adapter.name());
        return Err(Error::Argument { name: "adapter", what });
    }
    let other = |m: &crate::adapter::Module| {
        let more = [&m.outputs, &m.inputs, &m.weight, &m.bias].into_iter().any(Option::is_some);
        more || m.lora.as_ref().is_none_or(|lora| lora.bias.is_some() || lora.magnitude.is_some())
    };
    if adapter.config().kind != Kind::Lora || adapter.modules.iter().any(other) {
        let what = "learning on with an adapter that is more than products of low rank (LoRA without bias and magnitudes)";
        return Err(Error::Unsupported { file: adapter.name().to_owned(), what: what.to_owned() });
    }
    let mut by_matrix = HashMap::new();
    for place in &adapter.places {
        let (site, module) = (&weights.sites.list()[place.site as usize], &adapter.modules[place.module]);
        by_matrix.insert(site.w, (*place, module));
    }
    let mut made = Additions::after(weights);
    for w in weights.linears_mut() {
        let Some((place, module)) = by_matrix.get(&w.w) else { continue };
        let Some(lora) = &module.lora else { continue };
        let rows = place.rows.rows(place.n).flat_map(|row| &lora.b[row * lora.rank..][..lora.rank]);
        let halves = [lora.a.clone(), rows.copied().collect()];
        w.lora = Some(made.add(&module.path, halves, [place.n, module.k], lora.scale));
    }
    Ok(made.join(weights))
}

/// What has been learnt, as an adapter of the model whose parameters are `served`.
///
/// # Errors
/// `Argument` where there are no additions; `Budget`.
pub fn finished(engine: &Arc<Engine>, served: &Weights, own: &mut Weights, name: &str) -> Result<Adapter> {
    let additions: Vec<(P, LoraW)> = own.linears_mut().filter_map(|w| Some((w.w, w.lora?))).collect();
    let values = |p: P| match &own.params[p.0 as usize] {
        Param::Learned(m) => &m.values[..],
        _ => &[],
    };
    let one = |(w, lora): &(P, LoraW)| LowRank {
        w: *w,
        rank: lora.rank,
        scale: lora.scale,
        a: values(lora.a),
        b: values(lora.b),
    };
    let list: Vec<LowRank> = additions.iter().map(one).collect();
    if list.is_empty() {
        let what = "expected a learner of low-rank additions".to_owned();
        return Err(Error::Argument { name: "learner", what });
    }
    Adapter::low_rank(engine, served, name, &list)
}

/// Matrices that are added to a model's parameters.
struct Additions {
    next: u32,
    params: Vec<LearnedParam>,
}

impl Additions {
    fn after(weights: &Weights) -> Additions {
        Additions { next: weights.params.len() as u32, params: Vec::new() }
    }

    /// A `[rank, k]` and B `[n, rank]` of the linear called `name`.
    fn add(&mut self, name: &str, [a, b]: [Vec<f32>; 2], [n, k]: [usize; 2], scale: f32) -> LoraW {
        let (rank, first) = (a.len() / k.max(1), self.next + self.params.len() as u32);
        for (half, values, shape) in [("lora_A", a, [rank, k]), ("lora_B", b, [n, rank])] {
            // Several linears may be one module: the number tells them apart.
            let name = format!("{name}.{first}.{half}");
            self.params.push(LearnedParam { name, origin: None, values, shape });
        }
        LoraW { a: P(first), b: P(first + 1), rank, scale }
    }

    fn join(self, weights: &mut Weights) -> Vec<P> {
        let first = weights.params.len() as u32;
        weights.params.extend(self.params.into_iter().map(Param::Learned));
        (first..weights.params.len() as u32).map(P).collect()
    }
}

/// Name and shape of a matrix that is a target.
fn target(param: &Param, targets: &[String]) -> Option<(String, [usize; 2])> {
    let Param::Matrix(m) = param else { return None };
    let named = targets.is_empty() || targets.iter().any(|part| m.name.contains(part.as_str()));
    named.then(|| (m.name.clone(), param.shape()))
}
