//! Floor 5: adapters that learn: hung on a model's parameters, and handed over as what sessions and files have. Each kind has
//! a file of its own. Knows no losses.

use super::what::What;
use super::{before, bias, ia3, lora, neck};
use crate::adapter::{Adapter, Kind, Module};
use crate::arch::Arch;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::weights::{LearnedParam, P, Param, Role, VectorParam, Weights};
use std::sync::Arc;

/// What an adapter that learns is handed over as.
#[derive(Clone)]
pub(super) enum Form {
    /// Products of low rank.
    LowRank,
    /// Factors.
    Factors,
    /// Biases.
    Biases,
    /// A prompt or a prefix.
    Before,
    /// Small MLPs in the place of those of an adapter.
    Necks(Arc<Adapter>),
}

/// Hangs the adapter that `what` says on `weights`. Returns the parameters that get gradients, and what it will be handed over
/// as; `None` where no adapter learns.
///
/// # Errors
/// `Argument` for settings out of range, or names that fit nothing; `Unsupported` for what this model, or learning, cannot do;
/// `Memory`.
pub(super) fn attach(
    engine: &Arc<Engine>,
    weights: &mut Weights,
    arch: &Arch,
    what: &What,
    seed: u64,
) -> Result<Option<(Vec<P>, Form)>> {
    let mut made = Additions::after(weights);
    let form = match what {
        What::All | What::Named(_) => return Ok(None),
        What::Lora(config) | What::Dora(config) => {
            lora::attach(weights, &mut made, config, matches!(what, What::Dora(_)), seed)?;
            Form::LowRank
        }
        What::Ia3(config) => {
            ia3::attach(weights, &mut made, config)?;
            Form::Factors
        }
        What::Prompt(config) => {
            before::prompt(weights, &mut made, arch, config, seed)?;
            Form::Before
        }
        What::Prefix(tokens) => {
            before::prefix(weights, &mut made, arch, *tokens, seed)?;
            Form::Before
        }
        What::Biases(parts) => {
            bias::attach(weights, &mut made, parts)?;
            Form::Biases
        }
        What::Bottleneck(config) => {
            let adapter = Arc::new(neck::beginning(engine, weights, arch, config, seed)?);
            go_on(weights, &mut made, arch, &adapter)?
        }
        What::Adapter(adapter) => go_on(weights, &mut made, arch, adapter)?,
    };
    Ok(Some((made.join(weights), form)))
}

/// Hangs what `adapter` has on `weights`, to be learnt on.
///
/// # Errors
/// `Argument` for an adapter of another model, `Unsupported` for one that has more than one kind of thing.
fn go_on(weights: &mut Weights, made: &mut Additions, arch: &Arch, adapter: &Arc<Adapter>) -> Result<Form> {
    if adapter.model() != weights.sites.id() {
        let what = format!("expected an adapter of this model, found {}", adapter.name());
        return Err(Error::Argument { name: "adapter", what });
    }
    let form = form(adapter).ok_or_else(|| {
        let what =
            "learning on with an adapter that has whole modules, tables, or several kinds of parameters,";
        Error::Unsupported { file: adapter.name().to_owned(), what: what.to_owned() }
    })?;
    match &form {
        Form::LowRank => lora::go_on(weights, made, adapter),
        Form::Factors => ia3::go_on(weights, made, adapter),
        Form::Before => before::go_on(weights, made, arch, adapter)?,
        Form::Biases => bias::go_on(weights, made, adapter),
        Form::Necks(_) => neck::go_on(weights, made, adapter),
    }
    Ok(form)
}

/// What `adapter` can go on learning as: it has one kind of thing, everywhere.
fn form(adapter: &Arc<Adapter>) -> Option<Form> {
    let all =
        |fits: &dyn Fn(&Module) -> bool| !adapter.modules.is_empty() && adapter.modules.iter().all(fits);
    let has = |m: &Module| {
        let lora = m.role == Role::Linear && m.lora.as_ref().is_some_and(|lora| lora.bias.is_none());
        let factors = m.inputs.is_some() || m.outputs.is_some();
        let other = m.weight.is_some() || m.neck.is_some() || m.lora.is_some() && !lora;
        (lora, factors, m.bias.is_some(), other)
    };
    match adapter.config().kind {
        Kind::Lora if all(&|m| has(m) == (true, false, false, false)) => Some(Form::LowRank),
        Kind::Lora if all(&|m| has(m) == (false, false, true, false)) => Some(Form::Biases),
        Kind::Ia3 if all(&|m| has(m) == (false, true, false, false)) => Some(Form::Factors),
        Kind::PromptTuning | Kind::PrefixTuning if adapter.modules.is_empty() => Some(Form::Before),
        // What is added after a scale would have another one.
        Kind::Bottleneck if all(&|m| m.neck.as_ref().is_some_and(|neck| neck.scale == 1.0)) => {
            Some(Form::Necks(adapter.clone()))
        }
        _ => None,
    }
}

/// What has been learnt, as an adapter of the model whose parameters are `served`.
///
/// # Errors
/// `Budget`.
pub(super) fn finished(
    engine: &Arc<Engine>,
    arch: &Arch,
    [served, own]: [&Weights; 2],
    form: &Form,
    name: &str,
) -> Result<Adapter> {
    let made = match form {
        Form::LowRank => lora::made(own),
        Form::Factors => ia3::made(own),
        Form::Before => before::made(own, arch),
        Form::Biases => bias::made(served, own),
        Form::Necks(adapter) => neck::made(own, served, adapter),
    };
    Adapter::made(engine, served, name, made)
}

/// The numbers of a parameter that learns, or follows one that does; none of another one.
pub(super) fn values(own: &Weights, p: P) -> &[f32] {
    match &own.params[p.0 as usize] {
        Param::Learned(m) => &m.values,
        Param::Vector(v) => &v.values,
        Param::Matrix(_) => &[],
    }
}

/// Parameters that are added to a model's, to learn.
pub(super) struct Additions {
    first: u32,
    params: Vec<Param>,
    /// Those that get gradients.
    learned: Vec<P>,
}

impl Additions {
    fn after(weights: &Weights) -> Additions {
        Additions { first: weights.params.len() as u32, params: Vec::new(), learned: Vec::new() }
    }

    /// The parameter that the next call makes.
    pub fn next(&self) -> P {
        P(self.first + self.params.len() as u32)
    }

    /// Whether nothing learns yet.
    pub fn is_empty(&self) -> bool {
        self.learned.is_empty()
    }

    /// A matrix that learns; decay falls on it.
    pub fn matrix(&mut self, name: String, values: Vec<f32>, shape: [usize; 2]) -> P {
        self.learned.push(self.next());
        self.push(Param::Learned(LearnedParam { name, origin: None, values, shape }))
    }

    /// A vector that learns.
    pub fn vector(&mut self, name: String, values: Vec<f32>) -> P {
        self.learned.push(self.next());
        self.push(Param::Vector(VectorParam::made(name, values)))
    }

    /// A vector that follows what learns, and whose gradient is brought back there.
    pub fn follower(&mut self, values: Vec<f32>) -> P {
        self.learned.push(self.next());
        self.constant(values)
    }

    /// A vector without a gradient.
    pub fn constant(&mut self, values: Vec<f32>) -> P {
        self.push(Param::Vector(VectorParam::computed(values)))
    }

    /// A parameter of the model itself learns.
    pub fn own(&mut self, p: P) {
        self.learned.push(p);
    }

    fn push(&mut self, param: Param) -> P {
        let p = self.next();
        self.params.push(param);
        p
    }

    fn join(self, weights: &mut Weights) -> Vec<P> {
        weights.params.extend(self.params);
        self.learned
    }
}
