//! Floor 5: what was learnt, as files: a model that opens like any other, and the state that a run goes on from. Every file
//! and directory is there whole or not at all. Knows no losses.

use super::learner::{Learned, Learner};
use super::optim::{Moments, Optimizer};
use crate::error::{Error, Result};
use crate::format::convert::{configs, of_type, texts};
use crate::format::files::{Files, Load, SINGLE};
use crate::format::tensors::Tensors;
use crate::format::write::{DraftDir, Planned, bytes_of, floats, safetensors, whole_file};
use crate::weights::{Param, Weights};
use kernels::DType;
use kernels::quant::dequantize_row;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Parameters and the optimiser's memory, of a checkpoint.
const STATE: &str = "state.safetensors";
/// How far a run has come, and what it is.
const RUN: &str = "run.json";

/// Writes what `learner` has become to the directory `out`, which must not be there. An adapter: in the form of peft. Else the
/// model: what has learned in f32, everything else as it was, with config and tokenizer. `files` are those that the learner's
/// model was opened from. A value head goes to `value_head.safetensors` beside the weights.
///
/// # Errors
/// `Unsupported` where the model's files are in GGUF or packed (convert them first); `Io`, `Memory`. Nothing is left then.
pub fn model(learner: &mut Learner, files: &Files, out: &Path) -> Result<()> {
    if learner.is_adapter() {
        return adapter(learner, out);
    }
    let draft = DraftDir::new(out.to_owned())?;
    weights(learner, &draft.path)?;
    value_head(learner, &draft.path)?;
    texts(files, &draft.path)?;
    configs(files, of_type(files.config()?.object_itself().clone(), "float32"), &draft.path)?;
    draft.publish(out)
}

/// Writes the adapter that `learner` has become to the directory `out`, which must not be there.
///
/// # Errors
/// `Argument` where something else learns; `Io`, `Budget`. Nothing is left then.
pub fn adapter(learner: &mut Learner, out: &Path) -> Result<()> {
    let draft = DraftDir::new(out.to_owned())?;
    learner.adapter(&out.to_string_lossy())?.save(&draft.path)?;
    value_head(learner, &draft.path)?;
    draft.publish(out)
}

fn weights(learner: &mut Learner, out: &Path) -> Result<()> {
    let model = learner.model().clone();
    let tensors = model.tensors();
    let refuse = |what: &str| Error::Unsupported { file: tensors.file().to_owned(), what: what.to_owned() };
    if tensors.is_gguf() {
        return Err(refuse(
            "saving what was learnt over a GGUF file: convert it to a directory first, and train that",
        ));
    }
    let learned = learned(learner.weights());
    let twins = twins(learner.weights(), tensors, &learned)?;
    let learned_as = |name: &str| -> Option<String> {
        twins.get(name).cloned().or_else(|| learned.contains(name).then(|| name.to_owned()))
    };
    let mut planned = Vec::new();
    for (name, tensor) in tensors.iter() {
        if tensor.is_packed() {
            return Err(refuse(
                "saving what was learnt over packed weights: train the model that they were made of",
            ));
        }
        let dtype = if learned_as(name).is_some() { DType::F32 } else { tensor.dtype() };
        planned.push(Planned::dense(name, dtype, tensor.shape()));
    }
    let path = out.join(SINGLE);
    safetensors(&path, &planned, |i, file| {
        let name = &planned[i].name;
        let Some(tensor) = tensors.get(name)? else { return Ok(()) };
        let Some(of) = learned_as(name) else {
            return file.write_all(tensor.bytes()).map_err(Error::io(&path));
        };
        let whole = learner.tensor(&of)?;
        file.write_all(&bytes_of(&whole)).map_err(Error::io(&path))
    })?;
    Ok(())
}

/// Writes the value head, where there is one.
fn value_head(learner: &Learner, out: &Path) -> Result<()> {
    let head = learner.value_head().into_iter();
    let head: Vec<_> = head.map(|(name, values)| (name.to_owned(), vec![values.len()], values)).collect();
    if head.is_empty() { Ok(()) } else { floats(&out.join("value_head.safetensors"), &head) }
}

/// The names of the tensors of which a part has learned.
fn learned(weights: &Weights) -> BTreeSet<&str> {
    let learned = weights.params.iter().filter(|param| !matches!(param, Param::Matrix(_)));
    learned.filter_map(Param::tensor_name).collect()
}

/// Tensors that no part of the model is read from, because they are copies of one that has learned (a tied head, a shared
/// table): the copies go where it goes.
fn twins(weights: &Weights, tensors: &Tensors, learned: &BTreeSet<&str>) -> Result<BTreeMap<String, String>> {
    let read: BTreeSet<&str> = weights.params.iter().filter_map(Param::tensor_name).collect();
    let mut twins = BTreeMap::new();
    for (name, tensor) in tensors.iter().filter(|(name, _)| !read.contains(name)) {
        for of in learned {
            let Some(other) = tensors.get(of)? else { continue };
            let alike = (tensor.dtype(), tensor.shape()) == (other.dtype(), other.shape());
            if alike && tensor.shape().len() > 1 && tensor.bytes() == other.bytes() {
                twins.insert(name.to_owned(), (*of).to_owned());
            }
        }
    }
    Ok(twins)
}

/// Writes a checkpoint: the directory `dir/step-N`, with what has learned, what the optimiser remembers and `run`, which says
/// what run it is. Older checkpoints are removed once the new one is whole.
///
/// # Errors
/// `Io`; the older ones are still there then.
pub fn checkpoint(learner: &mut Learner, optimizer: &Optimizer, dir: &Path, run: &Value) -> Result<()> {
    fs::create_dir_all(dir).map_err(Error::io(dir))?;
    let (moments, steps) = optimizer.state();
    let target = dir.join(format!("step-{steps}"));
    if target.exists() {
        return Ok(()); // written by the run that this one goes on from
    }
    let draft = DraftDir::new(target.clone())?;
    let learned = learner.learned();
    let mut tensors = Vec::new();
    for (i, one) in learned.iter().enumerate() {
        tensors.push((format!("value/{}", one.name), one.shape.to_vec(), &*one.values));
        if let Some(moments) = moments.get(i) {
            for (kind, values) in [("first", &moments.first), ("second", &moments.second)] {
                if !values.is_empty() {
                    tensors.push((format!("{kind}/{}", one.name), one.shape.to_vec(), &values[..]));
                }
            }
        }
    }
    floats(&draft.path.join(STATE), &tensors)?;
    let path = draft.path.join(RUN);
    whole_file(&path, |out| writeln!(out, "{run:#}").map_err(Error::io(&path)))?;
    draft.publish(&target)?;
    for (step, path) in checkpoints(dir)? {
        if step != steps {
            // One that will not go away does no harm: the newest counts.
            let _ = fs::remove_dir_all(path);
        }
    }
    Ok(())
}

/// The checkpoints in `dir`, by their steps; none where there is no such directory.
fn checkpoints(dir: &Path) -> Result<BTreeMap<u64, PathBuf>> {
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        entries => entries.map_err(Error::io(dir))?,
    };
    let step = |path: &Path| path.file_name()?.to_str()?.strip_prefix("step-")?.parse().ok();
    let paths = entries.flatten().map(|entry| entry.path());
    Ok(paths.filter_map(|path| Some((step(&path)?, path))).collect())
}

/// What the newest checkpoint in `dir` says of its run, and where it is.
///
/// # Errors
/// `Io`; `Format` where it is not what a run writes.
pub fn newest(dir: &Path) -> Result<Option<(Value, PathBuf)>> {
    let Some((_, at)) = checkpoints(dir)?.pop_last() else { return Ok(None) };
    let path = at.join(RUN);
    let text = fs::read(&path).map_err(Error::io(&path))?;
    let run = serde_json::from_slice(&text).map_err(|e| Error::Format {
        file: path.to_string_lossy().into_owned(),
        what: format!("expected what a run writes: {e}"),
    })?;
    Ok(Some((run, at)))
}

/// Brings a learner and its optimiser, both as new, to where the checkpoint `at` was written, after `steps` steps.
///
/// # Errors
/// `Io`, `Format`; `Tensor` for one that is missing or has another shape: then a checkpoint of another run.
pub fn restore(learner: &mut Learner, optimizer: &mut Optimizer, at: &Path, steps: u64) -> Result<()> {
    let path = at.join(STATE);
    let tensors = Files::at(&path)?.tensors(Load::Map, &mut None)?;
    let read = |name: String, shape: [usize; 2]| -> Result<Option<Vec<f32>>> {
        let Some(tensor) = tensors.get(&name)? else { return Ok(None) };
        if tensor.shape() != shape || tensor.dtype() != DType::F32 {
            let what =
                format!("expected f32 {shape:?}, found {} {:?}", tensor.dtype().name(), tensor.shape());
            return Err(Error::Tensor { file: tensors.file().to_owned(), tensor: name, what });
        }
        let mut values = vec![0.0; tensor.elements()];
        dequantize_row(DType::F32, tensor.bytes(), &mut values);
        Ok(Some(values))
    };
    let mut moments = Vec::new();
    for one in learner.learned() {
        let Learned { name, shape, values, .. } = one;
        let tensor = format!("value/{name}");
        let missing = || Error::Tensor {
            file: tensors.file().to_owned(),
            tensor: tensor.clone(),
            what: "is missing: this checkpoint is of another run".to_owned(),
        };
        values.copy_from_slice(&read(tensor.clone(), shape)?.ok_or_else(missing)?);
        let [first, second] = ["first", "second"].map(|kind| read(format!("{kind}/{name}"), shape));
        moments.push(Moments { first: first?.unwrap_or_default(), second: second?.unwrap_or_default() });
    }
    learner.follow();
    optimizer.restore(moments, steps);
    Ok(())
}
