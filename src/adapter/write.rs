//! Floor 3: the weights of a model with adapters in them, as a file that others read. Knows no tokenizer.

use super::merge::narrow;
use crate::error::{Error, Result};
use crate::format::files::SINGLE;
use crate::format::source::Reading;
use crate::format::tensors::{TensorRef, Tensors};
use crate::format::write::{Planned, safetensors};
use crate::weights::{P, Param, Role, Weights};
use kernels::quant::dequantize_row;
use std::collections::BTreeMap;
use std::path::Path;

/// What a tensor of the new file is made of: for each part of the old one that changed, where it was and what it is.
type Changes<'a> = BTreeMap<String, Vec<(&'a Param, &'a Param)>>;

/// Writes the tensors of `base`, those that `new` has others for in place of the model's own, to `out`, in the types that they
/// have. True where the head is no longer the table of tokens.
///
/// # Errors
/// `Unsupported` for GGUF files, packed ones, and a bias that the family has no place for; `Io`, `Cancelled`.
pub(crate) fn write(
    base: &Weights,
    new: &Weights,
    tensors: &Tensors,
    out: &Path,
    reading: &mut Reading,
) -> Result<bool> {
    let refuse = |what: String| Error::Unsupported { file: tensors.file().to_owned(), what };
    if tensors.is_gguf() || tensors.iter().any(|(_, tensor)| tensor.is_packed()) {
        let what = "writing merged weights of a GGUF or packed file: convert it to a directory first, and merge that,";
        return Err(refuse(what.to_owned()));
    }
    if let Some((site, _)) = new.sites.list().iter().zip(base.sites.list()).find(|(a, b)| a.bias != b.bias) {
        return Err(refuse(format!(
            "an adapter that gives `{}` a bias, which this family has not,",
            site.module
        )));
    }
    let mut changes = Changes::new();
    for (old, param) in base.params.iter().zip(&new.params) {
        note(&mut changes, old, param);
    }
    let apart = apart(base, new, &mut changes);
    let mut list: Vec<(String, &TensorRef)> = tensors.iter().map(|(name, t)| (name.to_owned(), t)).collect();
    if let Some((name, table)) = &apart
        && !tensors.has(name)
    {
        list.push((name.clone(), table));
    }
    let planned = list.iter().map(|(name, tensor)| Planned::dense(name, tensor.dtype(), tensor.shape()));
    let planned: Vec<Planned> = planned.collect();
    reading.expect(list.iter().map(|(_, tensor)| tensor.bytes().len() as u64).sum())?;
    let path = out.join(SINGLE);
    safetensors(&path, &planned, |i, file| {
        let Some((name, tensor)) = list.get(i) else { return Ok(()) };
        match changes.get(name) {
            None => file.write_all(tensor.bytes()),
            Some(parts) => file.write_all(&changed(tensor, parts)),
        }
        .map_err(Error::io(&path))?;
        reading.advance(tensor.bytes().len() as u64)
    })?;
    Ok(apart.is_some())
}

/// Notes where `new` has another parameter than `old`.
fn note<'a>(changes: &mut Changes<'a>, old: &'a Param, new: &'a Param) {
    let same = match (old, new) {
        (Param::Matrix(a), Param::Matrix(b)) => std::ptr::eq(a.tensor.bytes(), b.tensor.bytes()),
        (Param::Vector(a), Param::Vector(b)) => a.values == b.values,
        _ => true,
    };
    if let (false, Some(name)) = (same, old.tensor_name()) {
        changes.entry(name.to_owned()).or_default().push((old, new));
    }
}

/// Where a table and the head that shared it have become two: the head's tensor by name, and what it is like.
fn apart<'a>(base: &'a Weights, new: &'a Weights, changes: &mut Changes<'a>) -> Option<(String, TensorRef)> {
    let both = base.sites.list().iter().zip(new.sites.list());
    let moved: Vec<_> = both.filter(|(old, new)| old.w != new.w).map(|(old, new)| (old, new.w)).collect();
    let param = |of: &'a Weights, p: P| &of.params[p.0 as usize];
    let w = moved.first()?.0.w;
    let head = base.sites.list().iter().find(|site| site.role == Role::Linear && site.w == w)?;
    let (name, old) = (format!("{}.weight", base.sites.long_name(head)), param(base, w));
    for (site, new_w) in &moved {
        let tensor =
            if site.role == Role::Linear { name.as_str() } else { old.tensor_name().unwrap_or_default() };
        changes.entry(tensor.to_owned()).or_default().push((old, param(new, *new_w)));
    }
    let Param::Matrix(table) = old else { return None };
    // A tensor of this name may hold the same already; then it is written as any other.
    changes.entry(name.clone()).or_insert_with(|| vec![(old, old)]);
    Some((name, table.tensor.clone()))
}

/// The bytes of a tensor with some of its parts replaced.
fn changed(tensor: &TensorRef, parts: &[(&Param, &Param)]) -> Vec<u8> {
    let mut whole = vec![0.0; tensor.elements()];
    dequantize_row(tensor.dtype(), tensor.bytes(), &mut whole);
    parts.iter().for_each(|(old, new)| old.put(new, &mut whole));
    let mut bytes = vec![0; tensor.bytes().len()];
    narrow(tensor.dtype(), &whole, &mut bytes);
    bytes
}
