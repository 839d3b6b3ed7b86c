//! Floor 3: a model's weights and configs written as a Hugging Face directory, in one dense type. Knows how GGUF files
//! store what, and no tokenizer: who converts a whole model writes that beside.

use super::files::{Files, INDEX, Load, SINGLE};
#[cfg(any(feature = "tokenizer", feature = "train"))]
use super::files::{MAX_TEXT, TEXT};
use super::gguf::{Rows, rows};
use super::source::Progress;
use super::tensors::TensorRef;
use super::write::{Planned, safetensors, whole_file};
use super::{bad, task};
use crate::error::{Error, Result};
use half::{bf16, f16};
use kernels::DType;
use kernels::quant::dequantize_row;
use serde_json::{Map, Value, json};
use std::io::Write;
use std::ops::{ControlFlow, Range};
use std::path::Path;

/// Most bytes of tensors in one file of weights, unless a single tensor has more.
pub const SHARD: u64 = 4 << 30;

/// Writes `config.json`, `generation_config.json` and the weights of the model in `files` to the directory `out`, with all
/// weights as `to`: f32, f16 or bf16, rounded to nearest even; in one file up to [`SHARD`] bytes, else in several with
/// their index. Tensors that no kernel reads are left out.
///
/// # Errors
/// As [`Files::config`] and [`Files::tensors`]; `Tensor` for a value that is finite in the source and not in `to`; `Io`,
/// `Memory`, `Cancelled`. Each file is written whole or not at all.
pub fn convert(files: &Files, out: &Path, to: DType, progress: &mut Option<Progress>) -> Result<()> {
    convert_in_shards(files, out, to, SHARD, progress)
}

/// The same with files of at most `shard` bytes of tensors.
///
/// # Errors
/// As [`convert`].
pub fn convert_in_shards(
    files: &Files,
    out: &Path,
    to: DType,
    shard: u64,
    progress: &mut Option<Progress>,
) -> Result<()> {
    let torch = match to {
        DType::F32 => "float32",
        DType::F16 => "float16",
        DType::BF16 => "bfloat16",
        other => {
            let what = format!("expected f32, f16 or bf16, found {}", other.name());
            return Err(Error::Argument { name: "to", what });
        }
    };
    let (config, tensors) = (files.config()?, files.tensors(Load::Map, &mut None)?);
    let architecture = files.gguf()?.map(|gguf| gguf.architecture()).transpose()?;
    let head = config.usize_or("head_dim", 0)?;
    let mut list = Vec::new();
    for (name, tensor) in tensors.iter() {
        let rows = architecture.map_or(Rows::Same, |architecture| rows(architecture, name, head));
        let whole = Whole { name, tensor, rows, to };
        list.push((Planned::dense(name, to, &whole.shape()?), whole));
    }
    std::fs::create_dir_all(out).map_err(Error::io(out))?;
    write_weights(out, list, shard, progress)?;

    let mut map = config.object_itself().clone();
    // Rows are back in the order that needs no such key.
    map.remove("rope_interleaved");
    configs(files, of_type(map, torch), out)
}

/// The settings `map` of a model whose weights are in the type that PyTorch calls `torch`.
pub fn of_type(mut map: Map<String, Value>, torch: &str) -> Map<String, Value> {
    map.remove("dtype");
    map.insert("torch_dtype".into(), torch.into());
    map
}

/// Writes the tokenizer's files, as they are.
///
/// # Errors
/// As [`Files::small`]; `Io`.
#[cfg(any(feature = "tokenizer", feature = "train"))]
pub fn texts(files: &Files, out: &Path) -> Result<()> {
    TEXT.iter().try_for_each(|name| copy(files, name, MAX_TEXT, out))
}

/// Writes the small file `name` as it is, where there is one.
fn copy(files: &Files, name: &str, most: u64, out: &Path) -> Result<()> {
    let Some(file) = files.small(name, most)? else { return Ok(()) };
    let path = out.join(name);
    path.parent().map_or(Ok(()), std::fs::create_dir_all).map_err(Error::io(&path))?;
    whole_file(&path, |to| to.write_all(file.bytes()).map_err(Error::io(&path)))
}

/// Writes `config.json`, which is `map`, `generation_config.json`, and what says how texts become vectors.
///
/// # Errors
/// As [`Files::config`] and [`task::names`]; `Io`.
pub fn configs(files: &Files, map: Map<String, Value>, out: &Path) -> Result<()> {
    let ids = ["bos_token_id", "eos_token_id", "pad_token_id"];
    let generation = match files.generation()? {
        Some(own) => own.object_itself().clone(),
        None => ids.into_iter().filter_map(|id| Some((id.to_owned(), map.get(id)?.clone()))).collect(),
    };
    write_json(&out.join("config.json"), map)?;
    write_json(&out.join("generation_config.json"), generation)?;
    task::names(files)?.iter().try_for_each(|name| copy(files, name, super::json::MAX_BYTES, out))
}

/// Writes tensors in their order, to one file or to several and their index.
fn write_weights(
    out: &Path,
    list: Vec<(Planned, Whole)>,
    shard: u64,
    progress: &mut Option<Progress>,
) -> Result<()> {
    let (planned, wholes): (Vec<Planned>, Vec<Whole>) = list.into_iter().unzip();
    let (mut done, total) = (0, wholes.iter().map(|whole| whole.tensor.bytes().len() as u64).sum());
    let parts = shards(&wholes, shard);
    let (mut map, mut bytes) = (Map::new(), 0);
    for (i, part) in parts.iter().enumerate() {
        let name = match parts.len() {
            1 => SINGLE.to_owned(),
            of => format!("model-{:05}-of-{of:05}.safetensors", i + 1),
        };
        let path = out.join(&name);
        let (planned, wholes) = (&planned[part.clone()], &wholes[part.clone()]);
        safetensors(&path, planned, |i, file| {
            let Some(whole) = wholes.get(i) else { return Ok(()) };
            whole.write(&path, file)?;
            done += whole.tensor.bytes().len() as u64;
            match progress.as_mut().map(|tell| tell(done, total)) {
                Some(ControlFlow::Break(())) => Err(Error::Cancelled),
                _ => Ok(()),
            }
        })?;
        bytes += wholes.iter().map(Whole::bytes).sum::<u64>();
        map.extend(planned.iter().map(|tensor| (tensor.name.clone(), name.clone().into())));
    }
    if parts.len() == 1 {
        return Ok(());
    }
    let index = json!({"metadata": {"total_size": bytes}, "weight_map": map});
    write_json(&out.join(INDEX), index.as_object().cloned().unwrap_or_default())
}

/// Cuts a list of tensors where a file would hold more than `most` bytes: at least one part, none empty but of an empty
/// list.
fn shards(wholes: &[Whole], most: u64) -> Vec<Range<usize>> {
    let (mut parts, mut first, mut bytes) = (Vec::new(), 0, 0_u64);
    for (i, whole) in wholes.iter().enumerate() {
        if i > first && bytes.saturating_add(whole.bytes()) > most {
            parts.push(first..i);
            (first, bytes) = (i, 0);
        }
        bytes = bytes.saturating_add(whole.bytes());
    }
    parts.push(first..wholes.len());
    parts
}

fn write_json(path: &Path, map: Map<String, Value>) -> Result<()> {
    whole_file(path, |out| writeln!(out, "{:#}", Value::Object(map)).map_err(Error::io(path)))
}

/// A tensor on its way.
struct Whole<'a> {
    name: &'a str,
    tensor: &'a TensorRef,
    rows: Rows,
    to: DType,
}

impl Whole<'_> {
    /// Bytes in the new file.
    fn bytes(&self) -> u64 {
        (self.tensor.elements() as u64).saturating_mul(self.to.block_bytes() as u64)
    }

    /// Its shape in the new file.
    fn shape(&self) -> Result<Vec<usize>> {
        let shape = self.tensor.shape();
        match (self.rows, shape) {
            (Rows::Transposed, [n, k]) => Ok(vec![*k, *n]),
            (Rows::Transposed, _) => Err(self.wrong(format!("expected a matrix, found shape {shape:?}"))),
            (Rows::Paired(head), [n, ..])
                if head >= 2 && head.is_multiple_of(2) && n.is_multiple_of(head) =>
            {
                Ok(shape.to_vec())
            }
            (Rows::Paired(head), _) => {
                Err(self.wrong(format!("expected rows of whole heads of {head}, found shape {shape:?}")))
            }
            (Rows::Same, _) => Ok(shape.to_vec()),
        }
    }

    fn wrong(&self, what: String) -> Error {
        Error::Tensor { file: self.tensor.file().to_owned(), tensor: self.name.to_owned(), what }
    }

    fn write(&self, path: &Path, out: &mut dyn Write) -> Result<()> {
        let (dtype, shape) = (self.tensor.dtype(), self.tensor.shape());
        // A vector is a column here: its elements are what rows are of a matrix.
        let k = if shape.len() < 2 { 1 } else { shape.last().copied().unwrap_or(1) };
        let n = self.tensor.elements().checked_div(k).unwrap_or(0);
        let row = dtype.row_bytes(k).ok_or_else(|| self.wrong("is not whole blocks".into()))?;
        let mut values = floats(if self.rows == Rows::Transposed { n * k } else { k })?;
        let mut bytes = Vec::new();
        if self.rows == Rows::Transposed {
            dequantize_row(dtype, self.tensor.bytes(), &mut values);
            let mut column = floats(n)?;
            for i in 0..k {
                column.iter_mut().zip(values.iter().skip(i).step_by(k)).for_each(|(to, from)| *to = *from);
                self.narrow(&column, &mut bytes)?;
                out.write_all(&bytes).map_err(Error::io(path))?;
            }
            return Ok(());
        }
        for i in 0..n {
            let from = self.rows.source(i) * row;
            let stored = self.tensor.bytes().get(from..from + row);
            let stored =
                stored.ok_or_else(|| bad(self.tensor.file(), "the file changed while it was read"))?;
            dequantize_row(dtype, stored, &mut values);
            self.narrow(&values, &mut bytes)?;
            out.write_all(&bytes).map_err(Error::io(path))?;
        }
        Ok(())
    }

    /// `values` as the new type, to nearest even, in place of what `bytes` held.
    fn narrow(&self, values: &[f32], bytes: &mut Vec<u8>) -> Result<()> {
        bytes.clear();
        let largest = match self.to {
            DType::F16 => f16::MAX.to_f32(),
            DType::BF16 => bf16::MAX.to_f32(),
            _ => f32::MAX,
        };
        for &value in values {
            let rounded = match self.to {
                DType::F16 => {
                    let half = f16::from_f32(value);
                    bytes.extend(half.to_le_bytes());
                    half.to_f32()
                }
                DType::BF16 => {
                    let half = bf16::from_f32(value);
                    bytes.extend(half.to_le_bytes());
                    half.to_f32()
                }
                _ => {
                    bytes.extend(value.to_le_bytes());
                    value
                }
            };
            if value.is_finite() && !rounded.is_finite() {
                let name = self.to.name();
                return Err(self.wrong(format!("holds {value}, beyond {largest}, the largest of {name}")));
            }
        }
        Ok(())
    }
}

fn floats(n: usize) -> Result<Vec<f32>> {
    let mut values = Vec::new();
    let short = |_| Error::Memory { what: "a tensor to convert", bytes: 4 * n as u64 };
    values.try_reserve_exact(n).map_err(short)?;
    values.resize(n, 0.0);
    Ok(values)
}
