//! Floor 5: small MLPs that learn behind the halves of blocks (Houlsby et al. 2019, Pfeiffer et al. 2020). Knows no files.

use super::adapt::{Additions, values};
use crate::adapter::{self, Adapter, BottleneckConfig, Made, Neck};
use crate::arch::Arch;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::rng::{Stream, normal};
use crate::weights::{NeckW, P, Weights};
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;

/// Standard deviation of matrices at first, as the adapters library has it (`init_weights` = `bert`): nearly nothing is added.
const RANGE: f64 = 0.02;

/// An adapter that has learned nothing yet.
///
/// # Errors
/// `Argument` for a width of 0 or an activation that the adapters library has no word for; `Unsupported` where no half of a block
/// can have an MLP behind it; `Budget`.
pub(super) fn beginning(
    engine: &Arc<Engine>,
    weights: &Weights,
    arch: &Arch,
    config: &BottleneckConfig,
    seed: u64,
) -> Result<Adapter> {
    let mut position = 0;
    let mut random = || {
        position += 1;
        (normal(seed, Stream::Init, position - 1) * RANGE) as f32
    };
    let Some((settings, modules)) = adapter::beginning(arch, weights, *config, &mut random) else {
        let what = format!("expected a width of at least 1, and ReLU, SiLU, GELU or tanh, found {config:?}");
        return Err(Error::Argument { name: "bottleneck", what });
    };
    if modules.is_empty() {
        let what = "bottleneck adapters of a family whose halves of blocks do not end in a sum of their own,"
            .to_owned();
        return Err(Error::Unsupported { file: arch.family.to_owned(), what });
    }
    Adapter::made(engine, weights, "bottleneck", Made::Necks(settings, modules))
}

/// The small MLPs of `adapter`, to be learnt on.
pub(super) fn go_on(weights: &mut Weights, made: &mut Additions, adapter: &Adapter) {
    let mut by_matrix = HashMap::new();
    for place in &adapter.places {
        let (site, module) = (&weights.sites.list()[place.site as usize], &adapter.modules[place.module]);
        if let Some(neck) = &module.neck {
            by_matrix.insert(site.w, (neck, site.after));
        }
    }
    for w in weights.linears_mut() {
        let Some((neck, after)) = by_matrix.get(&w.w) else { continue };
        let Neck { origin, width, act, sum, down, down_bias, up, up_bias, .. } = neck;
        let name = |end: &str| format!("{origin}.{end}");
        w.added.neck = Some(NeckW {
            down: made.matrix(name("adapter_down.0.weight"), down.clone(), [*width, w.n]),
            down_bias: made.vector(name("adapter_down.0.bias"), down_bias.clone()),
            up: made.matrix(name("adapter_up.weight"), up.clone(), [w.n, *width]),
            up_bias: made.vector(name("adapter_up.bias"), up_bias.clone()),
            width: *width,
            act: *act,
            sum: *sum,
            after: *after,
        });
    }
}

/// What has been learnt in the place of what `adapter` has, as an adapter says it.
pub(super) fn made<'a>(own: &'a Weights, served: &Weights, adapter: &Adapter) -> Made<'a> {
    let learned: HashMap<P, NeckW> = own.linears().filter_map(|w| Some((w.w, w.added.neck?))).collect();
    let module = |place: &adapter::Place| {
        let site = &served.sites.list()[place.site as usize];
        let (old, neck) = (adapter.modules[place.module].neck.as_ref()?, learned.get(&site.w)?);
        let [down, down_bias, up, up_bias] =
            [neck.down, neck.down_bias, neck.up, neck.up_bias].map(|p| values(own, p).to_vec());
        let neck = Neck { origin: old.origin.clone(), down, down_bias, up, up_bias, ..*old };
        Some(adapter::Module { neck: Some(neck), ..adapter::Module::new(served.sites.long_name(site), site) })
    };
    let settings = Value::Object(adapter.config().object.clone());
    Made::Necks(settings, adapter.places.iter().filter_map(module).collect())
}
