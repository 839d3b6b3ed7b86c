//! Floor 5: a whole model, tokenizer and all, as a new Hugging Face directory. Knows file names and no formats.
//!
//! A new directory is made under another name and takes its own when it is complete. Files move into a directory that is
//! there already one by one.

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::format::convert::{configs, convert as weights, texts};
use crate::format::files::{Files, INDEX, Load, SINGLE, TEXT};
use crate::format::source::{Progress, Reading};
use crate::format::write::{DraftDir, whole_file};
use crate::model::{Model, ModelConfig};
use crate::pack::{self, Hold, Importance};
use crate::tokenizer::{self, gguf::from_gguf};
use kernels::DType;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Arc;

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Converted {
    /// Names, in order.
    pub files: Vec<String>,
    /// Bytes of all.
    pub bytes: u64,
}

/// What the weights become.
#[derive(Clone, Copy)]
pub enum Target<'a> {
    /// All of one type, row after row as others write them: f32, f16 or bf16.
    Dense(DType),
    /// The same in packed panels.
    PackedDense(DType),
    /// In packed panels, in the types they have ([`Hold::Packed`]) or quantised; with the importance of inputs, if it was
    /// measured.
    Packed(Hold, Option<&'a Importance>),
}

/// Writes the model in `files` to the directory `out`, with all weights as `to`, on `threads` threads where they are
/// packed. Where `out` has files already that is an error, unless `force`: then those of a model are replaced, and others
/// stay.
///
/// # Errors
/// As [`crate::format::convert::convert`], [`pack::write`] and `Tokenizer::open`; `Io` of kind `AlreadyExists`. Nothing is
/// left then.
pub fn convert(
    files: &Files,
    out: &Path,
    to: Target,
    threads: usize,
    force: bool,
    mut progress: Option<Progress>,
) -> Result<Converted> {
    write(files, out, force, |draft| {
        match to {
            Target::Dense(dtype) => weights(files, draft, dtype, &mut progress)?,
            Target::Packed(hold, importance) => {
                pack::write(files, draft, hold, threads, importance, &mut progress)?;
            }
            Target::PackedDense(dtype) => {
                let dense = draft.join("dense");
                weights(files, &dense, dtype, &mut progress)?;
                let dense_files = Files::at(&dense)?;
                pack::write(&dense_files, draft, Hold::Packed, threads, None, &mut progress)?;
                fs::remove_dir_all(&dense).map_err(Error::io(&dense))?;
            }
        }
        Ok(())
    })
}

/// Writes the model in `files`, with adapters in its weights (each with how much it counts), to the directory `out`, as
/// [`convert`] does; in the types that the weights have.
///
/// # Errors
/// As [`Model::open`], [`Model::adapter`] and [`Model::merge`]; `Unsupported` for GGUF and packed files; as [`convert`].
pub fn merge(
    engine: &Arc<Engine>,
    files: &Files,
    adapters: &[(Files, f32)],
    out: &Path,
    force: bool,
    mut progress: Option<Progress>,
) -> Result<Converted> {
    let config = ModelConfig { weights: Hold::Mapped, no_tokenizer: true, ..ModelConfig::default() };
    let model = Model::open(engine, files, config)?;
    let open = |(files, weight): &(Files, f32)| Ok((model.adapter(files)?, *weight));
    let list = adapters.iter().map(open).collect::<Result<Vec<_>>>()?;
    write(files, out, force, |draft| {
        let apart = model.write_merged(&list, draft, &mut Reading::new(Load::Map, &mut progress))?;
        let mut map = files.config()?.object_itself().clone();
        if apart {
            map.insert("tie_word_embeddings".into(), false.into());
        }
        configs(files, map, draft)
    })
}

/// Writes a directory of `files`' text and what `fill` adds.
fn write(
    files: &Files,
    out: &Path,
    force: bool,
    fill: impl FnOnce(&Path) -> Result<()>,
) -> Result<Converted> {
    let exists = out.is_dir();
    if exists && !force && fs::read_dir(out).map_err(Error::io(out))?.next().is_some() {
        let what = "the directory is not empty, and force was not asked for";
        return Err(Error::io(out)(io::Error::new(ErrorKind::AlreadyExists, what)));
    }
    // Within the directory or beside it: a rename must not cross to another file system.
    let draft = DraftDir::new(if exists { out.join("model") } else { out.to_owned() })?;
    text(files, &draft.path)?;
    fill(&draft.path)?;
    let written = written(&draft.path)?;
    if exists {
        replace(&draft.path, out, &written.files)?;
    } else {
        draft.publish(out)?;
    }
    Ok(written)
}

/// Writes what belongs to the tokenizer.
fn text(files: &Files, to: &Path) -> Result<()> {
    let Some(gguf) = files.gguf()? else { return texts(files, to) };
    let Some(made) = from_gguf(gguf)? else { return Ok(()) };
    for (name, text) in [(tokenizer::FILE, &made.tokenizer), (tokenizer::CONFIG, &made.config)] {
        let path = to.join(name);
        whole_file(&path, |out| out.write_all(text.as_bytes()).map_err(Error::io(&path)))?;
    }
    Ok(())
}

/// The files in `dir`.
fn written(dir: &Path) -> Result<Converted> {
    let mut out = Converted { files: Vec::new(), bytes: 0 };
    for entry in fs::read_dir(dir).map_err(Error::io(dir))? {
        let entry = entry.map_err(Error::io(dir))?;
        out.bytes += entry.metadata().map_err(Error::io(dir))?.len();
        out.files.push(entry.file_name().to_string_lossy().into_owned());
    }
    out.files.sort();
    Ok(out)
}

/// Moves the files called `names` from one directory to another, which loses what it had of another model.
fn replace(from: &Path, to: &Path, names: &[String]) -> Result<()> {
    for entry in fs::read_dir(to).map_err(Error::io(to))?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if is_of_model(&name) && !names.contains(&name) {
            fs::remove_file(entry.path()).map_err(Error::io(entry.path()))?;
        }
    }
    for name in names {
        let path = to.join(name);
        fs::rename(from.join(name), &path).map_err(Error::io(&path))?;
    }
    Ok(())
}

/// Whether a file of this name would be read with a model, or is a part of its weights.
fn is_of_model(name: &str) -> bool {
    let shard = name.starts_with("model-") && name.ends_with(".safetensors");
    shard || name == SINGLE || name == INDEX || name == "generation_config.json" || TEXT.contains(&name)
}
