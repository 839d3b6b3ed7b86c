//! Floor 5: biases that learn and nothing else (Ben Zaken et al. 2021, BitFit). Knows no files.
//!
//! A session adds what a bias has become less what it was to the model's own sums, so its answers are those of the learner but
//! for roundings.

use super::adapt::{Additions, values};
use crate::adapter::{Adapter, Biases, Made};
use crate::error::{Error, Result};
use crate::weights::{P, Param, Site, Weights};

/// The biases of linears and norms whose tensors' names contain one of `parts`; without any, all.
///
/// # Errors
/// `Argument` where there are none.
pub(super) fn attach(weights: &Weights, made: &mut Additions, parts: &[String]) -> Result<()> {
    for (_, p) in all(weights) {
        let name = weights.params[p.0 as usize].tensor_name();
        if name.is_some_and(|name| parts.is_empty() || parts.iter().any(|part| name.contains(part.as_str())))
        {
            made.own(p);
        }
    }
    match made.is_empty() {
        false => Ok(()),
        true => {
            let what = format!("expected parts of names of biases, found {parts:?}, which fit none");
            Err(Error::Argument { name: "biases", what })
        }
    }
}

/// The biases of `adapter`, to be learnt on.
pub(super) fn go_on(weights: &mut Weights, made: &mut Additions, adapter: &Adapter) {
    for place in &adapter.places {
        let (p, bias) = (weights.sites.list()[place.site as usize].bias, &adapter.modules[place.module].bias);
        let (Some(p), Some(bias)) = (p, bias) else { continue };
        if let Param::Vector(own) = &mut weights.params[p.0 as usize] {
            own.values = place.rows.rows(place.n).map(|row| bias[row]).collect();
            made.own(p);
        }
    }
}

/// Places that have a bias, and which.
fn all(weights: &Weights) -> impl Iterator<Item = (&Site, P)> {
    weights.sites.list().iter().filter_map(|site| Some((site, site.bias?)))
}

/// What has been learnt, as an adapter says it: all biases that are no longer what they were.
pub(super) fn made<'a>(served: &'a Weights, own: &'a Weights) -> Made<'a> {
    let changed = |(site, p): (&Site, P)| {
        let new = values(own, p);
        (new != values(served, p)).then_some(Biases { role: site.role, w: site.w, values: new })
    };
    Made::Biases(all(served).filter_map(changed).collect())
}
