//! Floor 5: factors that learn of keys, values and what the end of an MLP reads (Liu et al. 2022, IA3). Knows no files.

use super::adapt::{Additions, values};
use crate::adapter::{Adapter, Factors, Made};
use crate::error::{Error, Result};
use crate::weights::{LinearW, P, Param, Role, Site, Weights};
use std::collections::HashMap;

/// Which linears get factors.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ia3Config {
    /// Parts of the names of linears; none: keys, values, and the end of each MLP.
    pub targets: Vec<String>,
    /// Parts of the names of those among them whose inputs are scaled, not their outputs; not looked at without `targets`.
    pub feedforward: Vec<String>,
}

/// What of a linear is scaled.
#[derive(Clone, Copy, PartialEq)]
enum Scaled {
    Inputs,
    Outputs,
}

/// Factors of 1 for the linears that `config` names, so that nothing changes at first.
///
/// # Errors
/// `Argument` for targets that name no linear.
pub(super) fn attach(weights: &mut Weights, made: &mut Additions, config: &Ia3Config) -> Result<()> {
    let by_place = places(weights);
    let params: Vec<Param> = weights.params.clone();
    let scaled = |w: P| {
        if config.targets.is_empty() {
            return by_place.get(&w).copied();
        }
        let Param::Matrix(m) = &params[w.0 as usize] else { return None };
        let named = |parts: &[String]| parts.iter().any(|part| m.name.contains(part.as_str()));
        match (named(&config.targets), named(&config.feedforward)) {
            (false, _) => None,
            (true, true) => Some(Scaled::Inputs),
            (true, false) => Some(Scaled::Outputs),
        }
    };
    scale(weights, made, |w, site, which| {
        (scaled(w) == Some(which)).then(|| vec![1.0; if which == Scaled::Inputs { site.k } else { site.n }])
    });
    if made.is_empty() {
        let what = format!("expected parts of names of linears, found {:?}, which fit none", config.targets);
        return Err(Error::Argument { name: "ia3 targets", what });
    }
    Ok(())
}

/// The factors of `adapter`, to be learnt on.
pub(super) fn go_on(weights: &mut Weights, made: &mut Additions, adapter: &Adapter) {
    let by_site: HashMap<u32, _> = adapter.places.iter().map(|place| (place.site, place)).collect();
    let sites = weights.sites.clone();
    scale(weights, made, |w, _, which| {
        let place = by_site.get(&sites.find(Role::Linear, w)?)?;
        let module = &adapter.modules[place.module];
        match which {
            Scaled::Inputs => module.inputs.clone(),
            Scaled::Outputs => {
                let all = module.outputs.as_ref()?;
                Some(place.rows.rows(place.n).map(|row| all[row]).collect())
            }
        }
    });
}

/// Gives linears the factors that `of` says.
fn scale(weights: &mut Weights, made: &mut Additions, of: impl Fn(P, &Site, Scaled) -> Option<Vec<f32>>) {
    let sites = weights.sites.clone();
    // Linears of one module read the same.
    let mut inputs: HashMap<String, P> = HashMap::new();
    for w in weights.linears_mut() {
        let Some(at) = sites.find(Role::Linear, w.w) else { continue };
        let site = &sites.list()[at as usize];
        let name = |made: &Additions| format!("{}.{}.ia3_l", site.module, made.next().0);
        if let Some(factors) = of(w.w, site, Scaled::Inputs) {
            let known = inputs.entry(site.module.clone());
            w.added.inputs = Some(*known.or_insert_with(|| made.vector(name(made), factors)));
        }
        w.added.outputs = of(w.w, site, Scaled::Outputs).map(|factors| made.vector(name(made), factors));
    }
}

/// Keys, values and the ends of MLPs.
fn places(weights: &Weights) -> HashMap<P, Scaled> {
    let stacks = [&weights.encoder, &weights.decoder].into_iter().flatten();
    let mut out = HashMap::new();
    for layer in stacks.flat_map(|stack| &stack.layers) {
        for attention in [Some(&layer.attn), layer.cross.as_ref()].into_iter().flatten() {
            out.extend([attention.k.w, attention.v.w].map(|w| (w, Scaled::Outputs)));
        }
        out.insert(layer.down.w, Scaled::Inputs);
    }
    out
}

/// What has been learnt, as an adapter says it.
pub(super) fn made(own: &Weights) -> Made<'_> {
    let of = |p: Option<P>| p.map(|p| values(own, p));
    let one = |w: &LinearW| {
        let (inputs, outputs) = (of(w.added.inputs), of(w.added.outputs));
        (inputs.is_some() || outputs.is_some()).then_some(Factors { w: w.w, inputs, outputs })
    };
    Made::Factors(own.linears().filter_map(one).collect())
}
