//! Floor 5: a model with private copies of what learns: batches forward, gradients backward. Knows no losses.

use super::adapt::{self, Form};
use super::before;
use super::dora;
use super::own::{add_value_head, chosen, elements, make_private, own_name, zeros};
use super::seats::Seats;
use super::what::{LearnConfig, Sample};
use crate::adapter::Adapter;
use crate::arch::Arch;
use crate::backward::encoder_learns;
use crate::engine::Charge;
use crate::error::{Error, Result};
use crate::exec::Shape;
use crate::format::tensors::TensorRef;
use crate::learns::Learns;
use crate::model::Model;
use crate::runner::{Parts, Runner};
use crate::weights::{P, Param, Weights};
use kernels::attention::Cache;
use kernels::quant::dequantize_row;
use rayon::ThreadPool;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// A model that learns. Used from one thread at a time; its runs and those of the model's sessions do not wait for each other
/// but share the engine's threads.
pub struct Learner {
    model: Arc<Model>,
    /// The model's, with the temperature.
    arch: Arch,
    weights: Weights,
    runner: Runner,
    seats: Seats,
    /// What is handed over, where an adapter learns.
    form: Option<Form>,
    /// Where magnitudes learn, the threads that lengths are computed on.
    pool: Option<ThreadPool>,
    /// Whether something may have learned that others follow.
    is_behind: bool,
    _charge: Charge,
    shape: Option<Shape>,
}

impl Learner {
    /// A learner, with what `config` says. Keys and values are kept in f32.
    ///
    /// # Errors
    /// `Argument` where the config names no parameter, or is out of range; `Unsupported` for a temperature beside capped logits;
    /// `Budget`; `Memory`.
    pub fn new(model: &Arc<Model>, config: &LearnConfig) -> Result<Learner> {
        let (mut weights, mut arch) = (model.weights().clone(), model.arch().clone());
        temper(model, &mut arch, config.temperature)?;
        let (mut learned, form) =
            match adapt::attach(model.engine(), &mut weights, &arch, &config.what, config.seed)? {
                Some((learned, form)) => (learned, Some(form)),
                None => (chosen(&weights, &arch.head, &config.what)?, None),
            };
        let words: u64 = learned.iter().map(|p| elements(&weights.params[p.0 as usize])).sum();
        let charge = model.engine().charge("parameters that learn", words.saturating_mul(4))?;
        if form.is_none() {
            make_private(&mut weights, model, &learned)?;
        }
        if config.value_head {
            let w = add_value_head(&mut weights, arch.last().state_cols());
            learned.extend([Some(w.w), w.bias].into_iter().flatten());
        }
        weights.retype();
        let mut learns = Learns::new(&weights, |p| learned.contains(&p));
        learns.recompute = config.recompute;
        learns.encoder =
            arch.reads_source() && encoder_learns(&arch, &weights, model.engine().ops(), &learns);
        let runner = Runner::learning(&arch, Cache::F32, learns, model.engine())?;
        let pool = dora::pool(&weights, model.engine())?;
        let (model, seats) = (model.clone(), Seats::default());
        let mut learner = Learner {
            model,
            arch,
            weights,
            runner,
            seats,
            form,
            pool,
            is_behind: true,
            _charge: charge,
            shape: None,
        };
        learner.follow();
        Ok(learner)
    }

    /// The model that is served.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// The value head's parameters, where there is one.
    pub(super) fn value_head(&self) -> Vec<(&'static str, &[f32])> {
        let head = self.weights.value.map(|w| [Some(("weight", w.w)), w.bias.map(|bias| ("bias", bias))]);
        let values = |(name, p)| (name, adapt::values(&self.weights, p));
        head.into_iter().flatten().flatten().map(values).collect()
    }

    pub(super) fn weights(&self) -> &Weights {
        &self.weights
    }

    /// What a run of what it has become needs.
    pub(super) fn parts(&self) -> Parts<'_> {
        parts(&self.model, &self.arch, &self.weights)
    }

    /// What a run of what it was needs: the served weights, at its temperature.
    pub(super) fn served(&self) -> Parts<'_> {
        parts(&self.model, &self.arch, self.model.weights())
    }

    /// Runs a batch; what follows is asked of [`Learner::logprobs`], [`Learner::answer`] and [`Learner::values`]. The bits are
    /// those of inference with the same parameters.
    ///
    /// # Errors
    /// `Argument` for a batch without samples, a sample without tokens, ids beyond the vocabulary, rows beyond the sample,
    /// another number of targets than rows, targets in some samples only, a source where the model reads none, or none where it
    /// does; `ContextFull`, `Budget`, `Memory`, `Cancelled`.
    pub fn forward(&mut self, batch: &[Sample], cancel: &AtomicBool) -> Result<()> {
        self.shape = None;
        self.follow();
        let parts = parts(&self.model, &self.arch, &self.weights);
        self.shape = Some(self.seats.run(&self.model, parts, &mut self.runner, batch, cancel)?);
        Ok(())
    }

    /// Log-probability of each target of the last batch, natural logs, and the log of the sum of its row's exponentials.
    pub fn logprobs(&self) -> &[f32] {
        self.shape.map_or(&[], |shape| self.runner.logprobs(shape))
    }

    /// What the head answered at each row of the last batch, `[rows, n]`.
    pub fn answer(&self) -> &[f32] {
        self.shape.map_or(&[], |shape| self.runner.answer(shape))
    }

    /// What the value head said at each row of the last batch.
    pub fn values(&self) -> &[f32] {
        self.shape.map_or(&[], |shape| self.runner.values(shape))
    }

    /// Adds the gradients of the last batch: of the loss whose derivatives are `seeds`: three for each row, by the
    /// log-probability of its target, by the mean log-probability of all, and by the entropy; or, where there were no targets,
    /// one for each element of the answer. `values`: by what the value head said.
    ///
    /// # Errors
    /// `Argument` for another number of seeds, or where no batch ran; `Cancelled`: clear the gradients then.
    pub fn backward(&mut self, seeds: &[f32], values: &[f32], cancel: &AtomicBool) -> Result<()> {
        let Some(shape) = self.shape else {
            return Err(Error::Argument {
                name: "seeds",
                what: "expected a batch to have run before".to_owned(),
            });
        };
        let parts = parts(&self.model, &self.arch, &self.weights);
        self.runner.run_back(parts, shape, seeds, values, cancel)?;
        let (grads, learns) = self.runner.grads_mut();
        dora::bring_back(&self.weights, grads, learns);
        Ok(())
    }

    /// Brings up to date what follows what learns: after a step, and after numbers were read from a file.
    pub(super) fn follow(&mut self) {
        if std::mem::take(&mut self.is_behind) {
            self.weights.follow(&self.arch);
            if let Some(pool) = &self.pool {
                dora::follow(&mut self.weights, pool);
            }
        }
    }

    /// Positions before each text that are a prompt's or a prefix's.
    pub(super) fn lead(&self) -> usize {
        before::lead(&self.weights)
    }

    /// Bytes of the buffers that batches have taken so far, beside parameters, gradients, keys and values. They only grow.
    pub fn buffer_bytes(&self) -> u64 {
        self.runner.buffer_bytes()
    }

    /// Forgets the gradients.
    pub fn clear(&mut self) {
        self.runner.grads_mut().0.fill(0.0);
    }

    /// The gradient of a whole tensor, under its name and in its order in the model's files; zeros where a part of it does not
    /// learn.
    ///
    /// # Errors
    /// `Tensor` where there is none of that name, or one that kernels do not read.
    pub fn gradient(&mut self, tensor: &str) -> Result<Vec<f32>> {
        let mut whole = zeros(self.stored(tensor)?.elements())?;
        let (grads, learns) = self.runner.grads_mut();
        for (i, param) in
            self.weights.params.iter().enumerate().filter(|(_, param)| param.tensor_name() == Some(tensor))
        {
            if let Some(span) = learns.span(P(i as u32)) {
                param.scatter(&grads[span.at..span.at + span.rows * span.cols], &mut whole);
            }
        }
        Ok(whole)
    }

    /// What has been learnt as an adapter called `name`: what sessions of the model can be given, and files hold.
    ///
    /// # Errors
    /// `Argument` where something else learns; `Budget`.
    pub fn adapter(&self, name: &str) -> Result<Arc<Adapter>> {
        let Some(form) = &self.form else {
            let what = "expected a learner of an adapter".to_owned();
            return Err(Error::Argument { name: "learner", what });
        };
        let weights = [self.model.weights(), &self.weights];
        adapt::finished(self.model.engine(), &self.arch, weights, form, name).map(Arc::new)
    }

    /// Whether what learns is an adapter.
    pub fn is_adapter(&self) -> bool {
        self.form.is_some()
    }

    /// A whole tensor as it has become, as a file has it.
    ///
    /// # Errors
    /// As [`Learner::gradient`].
    pub fn tensor(&self, tensor: &str) -> Result<Vec<f32>> {
        let stored = self.stored(tensor)?;
        let mut whole = zeros(stored.elements())?;
        dequantize_row(stored.dtype(), stored.bytes(), &mut whole);
        let own = self.weights.params.iter().filter(|param| param.tensor_name() == Some(tensor));
        let learned = own.filter(|param| !matches!(param, Param::Matrix(_)));
        learned.for_each(|param| param.put(param, &mut whole));
        Ok(whole)
    }

    fn stored(&self, tensor: &str) -> Result<&TensorRef> {
        let tensors = self.model.tensors();
        let missing = || Error::Tensor {
            file: tensors.file().to_owned(),
            tensor: tensor.to_owned(),
            what: "is no part of this model".to_owned(),
        };
        tensors.get(tensor)?.ok_or_else(missing)
    }

    /// All that learns, in a fixed order.
    pub fn learned(&mut self) -> Vec<Learned<'_>> {
        self.is_behind = true;
        let (grads, learns) = self.runner.grads_mut();
        let grads = &*grads;
        let params = self.weights.params.iter_mut().enumerate();
        let learned = params.filter_map(|(i, param)| {
            let span = learns.span(P(i as u32))?;
            let grads = &grads[span.at..span.at + span.rows * span.cols];
            let name = own_name(param)?;
            let shape = param.shape();
            match param {
                Param::Learned(m) => {
                    Some(Learned { name, shape, values: &mut m.values, grads, is_matrix: true })
                }
                Param::Vector(v) => {
                    let is_matrix = v.rows > 1;
                    Some(Learned { name, shape, values: &mut v.values, grads, is_matrix })
                }
                Param::Matrix(_) => None,
            }
        });
        learned.collect()
    }
}

/// A parameter that learns.
pub struct Learned<'a> {
    /// The name of its tensor, with its first element where it is not the first part of one; of the value head,
    /// `value_head.weight` and `value_head.bias`.
    pub name: String,
    /// Outputs and inputs; of a vector, one row.
    pub shape: [usize; 2],
    /// As kernels read them, a row per output.
    pub values: &'a mut [f32],
    /// The sum of its gradients since they were last forgotten, in the same order.
    pub grads: &'a [f32],
    /// Whether it is a matrix, not a gain or a bias.
    pub is_matrix: bool,
}

fn parts<'a>(model: &'a Model, arch: &'a Arch, weights: &'a Weights) -> Parts<'a> {
    Parts { arch, weights, ..model.parts() }
}

/// Divides the logits of `arch` by `temperature`.
fn temper(model: &Model, arch: &mut Arch, temperature: f32) -> Result<()> {
    if !(temperature > 0.0 && temperature.is_finite()) {
        let what = format!("expected more than 0, found {temperature}");
        return Err(Error::Argument { name: "temperature", what });
    }
    if temperature != 1.0 && arch.head.cap.is_some() {
        let what = "a temperature other than 1 with capped logits".to_owned();
        return Err(Error::Unsupported { file: model.tensors().file().to_owned(), what });
    }
    arch.head.scale /= temperature;
    Ok(())
}
