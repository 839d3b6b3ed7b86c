//! Floor 5: a model before anything is learnt: its tensors by the family's names, random, as a Hugging Face directory that
//! opens like any other. Knows no losses.

use crate::arch::{Arch, Stack};
use crate::error::{Error, Result};
use crate::format::convert::{configs, of_type, texts};
use crate::format::files::{Files, SINGLE};
use crate::format::write::{DraftDir, Planned, safetensors};
use crate::rng::{Stream, normal};
use crate::weights::{Fill, Weights, Wish};
use kernels::DType;
use std::path::Path;

/// Standard deviation of random parameters where the config has no `initializer_range`.
const RANGE: f64 = 0.02;

/// Writes a new model to the directory `out`, which must not be there: `config.json` and the tokenizer's files as `files` has
/// them, and random weights in f32: normal with the config's `initializer_range`, divided by the root of the number of
/// residual additions in what ends one (Radford et al. 2019); gains 1, biases 0.
///
/// # Errors
/// `Unsupported` and `Format` as opening such a model; `Memory`; `Io`. Nothing is left then.
pub fn write(files: &Files, out: &Path, seed: u64) -> Result<()> {
    let config = files.config()?;
    let arch = Arch::read(&config)?;
    let range = config.object_itself().get("initializer_range").and_then(serde_json::Value::as_f64);
    let wishes = Weights::wishes(&arch)?;
    let draft = DraftDir::new(out.to_owned())?;
    weights(&draft.path.join(SINGLE), &arch, &wishes, range.unwrap_or(RANGE), seed)?;
    texts(files, &draft.path)?;
    configs(files, of_type(config.object_itself().clone(), "float32"), &draft.path)?;
    draft.publish(out)
}

fn weights(path: &Path, arch: &Arch, wishes: &[Wish], range: f64, seed: u64) -> Result<()> {
    let planned = wishes.iter().map(|wish| Planned::dense(&wish.name, DType::F32, &wish.shape));
    let planned: Vec<Planned> = planned.collect();
    let mut position = 0_u64;
    safetensors(path, &planned, |i, file| {
        let Some(wish) = wishes.get(i) else { return Ok(()) };
        let n = wish.shape.iter().product::<usize>();
        let std = range * share(arch, &wish.name);
        let mut bytes = Vec::with_capacity(1 << 16);
        for _ in 0..n {
            let value = match wish.fill {
                Fill::All(value) => value,
                Fill::Random => (normal(seed, Stream::Init, position) * std) as f32,
            };
            position += 1;
            bytes.extend(value.to_le_bytes());
            if bytes.len() == bytes.capacity() {
                file.write_all(&bytes).map_err(Error::io(path))?;
                bytes.clear();
            }
        }
        file.write_all(&bytes).map_err(Error::io(path))
    })
}

/// What the range of a matrix is multiplied by: less than 1 where a half of a block ends.
fn share(arch: &Arch, name: &str) -> f64 {
    let ends = |stack: &&Stack| {
        let [o, down, cross] = [stack.names.o.name, stack.names.down.name, stack.names.cross_qkvo[3].name];
        [o, down, cross].iter().any(|end| !end.is_empty() && name.ends_with(&format!("{end}.weight")))
    };
    let stack = [&arch.encoder, &arch.decoder].into_iter().flatten().find(ends);
    stack.map_or(1.0, |stack| 1.0 / ((2 * stack.n_layers) as f64).sqrt())
}
