//! Floor 3: safetensors files, single or in shards. Knows no families.
//!
//! The layout is that of the safetensors project: eight bytes of header length, a JSON header, then the tensors' bytes
//! without gaps. The header is parsed here rather than by that project's crate because the crate keeps the last of two
//! equal keys, where this refuses both, and because its memory is bounded here by what the header may hold.

use super::files::{Files, INDEX, is_plain};
use super::source::{Reading, Source};
use super::tensors::{Stored, Tensors};
use super::{MAX_TENSORS, bad, shown};
use crate::error::{Error, Result};
use crate::order::sorted;
use header::{Info, PACKED, Packed, Parsed};
use kernels::DType;
use kernels::linear::{PANEL, panel_bytes};

pub(super) mod header;
mod index;

/// Largest header, as the format defines it.
const MAX_HEADER: u64 = 100_000_000;

/// The tensors of one safetensors file.
///
/// # Errors
/// `Format` and `Tensor` for a file that contradicts the format or itself, `Unsupported` for unknown element types.
pub fn parse(source: &Source) -> Result<Tensors> {
    let (file, bytes) = (source.name(), source.bytes());
    let Some((len, rest)) = bytes.split_first_chunk::<8>() else {
        return Err(bad(file, format!("expected a header length of 8 bytes, the file has {}", bytes.len())));
    };
    let len = u64::from_le_bytes(*len);
    if len > MAX_HEADER {
        return Err(bad(
            file,
            format!("expected a header of at most {MAX_HEADER} bytes, found length {len}"),
        ));
    }
    let (Some(head), Some(data)) = (rest.get(..len as usize), rest.get(len as usize..)) else {
        return Err(bad(file, format!("the header has {len} bytes, only {} follow", rest.len())));
    };
    let Parsed { list: infos, mut packed } = header::parse(file, head)?;
    let infos = sorted(infos, |(_, a), (_, b)| (a.begin, a.end).cmp(&(b.begin, b.end)));
    let mut tensors = Tensors::of(source.clone(), false);
    let (first, mut at) = (8 + head.len(), 0);
    for (name, info) in infos {
        let found = |what| Error::Tensor { file: file.to_owned(), tensor: shown(&name), what };
        check(&info, at, data.len()).map_err(found)?;
        at = info.end;
        let range = first + info.begin..first + info.end;
        let (stored, shape) = match packed.remove(&name) {
            Some(said) => panels(&info, said).map_err(found)?,
            None => (info.stored, info.shape),
        };
        if !tensors.insert(name.clone(), stored, shape, range) {
            return Err(found("is listed twice".into()));
        }
    }
    if let Some(name) = packed.keys().next() {
        return Err(bad(file, format!("metadata `{PACKED}`: there is no tensor `{}`", shown(name))));
    }
    if at != data.len() {
        return Err(bad(file, format!("the tensors end at byte {at} of the data, which has {}", data.len())));
    }
    Ok(tensors)
}

/// Type and shape of a tensor that the metadata calls packed: its bytes must be the panels of such a matrix.
fn panels(info: &Info, (dtype, n, k, crc): Packed) -> Result<(Stored, Vec<usize>), String> {
    let Some(dtype) = DType::ALL.into_iter().find(|known| known.name() == dtype) else {
        return Err(format!("expected packed panels of a known type, found `{}`", shown(&dtype)));
    };
    let bytes = panel_bytes(dtype, k).and_then(|panel| n.div_ceil(PANEL).checked_mul(panel));
    if info.stored != Stored::Other("U8") || bytes != Some(info.end - info.begin) {
        let (name, found) = (dtype.name(), info.end - info.begin);
        return Err(format!(
            "expected {bytes:?} bytes (U8) as packed panels of {name} [{n}, {k}], found {found} ({})",
            info.type_name
        ));
    }
    Ok((Stored::Panels(dtype, crc), vec![n, k]))
}

/// A tensor must begin where the one before ended, end within the data, and have the bytes that its shape takes.
fn check(info: &Info, at: usize, data: usize) -> Result<(), String> {
    let (begin, end) = (info.begin, info.end);
    if begin != at {
        let kind = if begin < at { "overlaps the one before" } else { "leaves a hole" };
        return Err(format!("{kind}: expected to begin at byte {at} of the data, found {begin}"));
    }
    if end < begin || end > data {
        return Err(format!("expected to end within {begin}..={data}, found {end}"));
    }
    let bits = info.shape.iter().try_fold(info.bits, |bits, &n| bits.checked_mul(n));
    if bits != (end - begin).checked_mul(8) {
        let (shape, found) = (&info.shape, end - begin);
        return Err(format!("shape {shape:?} of {} does not take the {found} bytes given", info.type_name));
    }
    Ok(())
}

/// The name, storage and bits of an element type of the format.
fn element(name: &str) -> Option<(&'static str, Stored, usize)> {
    let dense = |dtype: DType| (dtype.name(), Stored::As(dtype), 8 * dtype.block_bytes());
    let other = |name, bits| (name, Stored::Other(name), bits);
    Some(match name {
        "F32" => dense(DType::F32),
        "F16" => dense(DType::F16),
        "BF16" => dense(DType::BF16),
        "BOOL" => other("BOOL", 8),
        "U8" => other("U8", 8),
        "I8" => other("I8", 8),
        "U16" => other("U16", 16),
        "I16" => other("I16", 16),
        "U32" => other("U32", 32),
        "I32" => other("I32", 32),
        "U64" => other("U64", 64),
        "I64" => other("I64", 64),
        "F64" => other("F64", 64),
        "C64" => other("C64", 64),
        "F4" => other("F4", 4),
        "F6_E2M3" => other("F6_E2M3", 6),
        "F6_E3M2" => other("F6_E3M2", 6),
        "F8_E5M2" => other("F8_E5M2", 8),
        "F8_E4M3" => other("F8_E4M3", 8),
        "F8_E8M0" => other("F8_E8M0", 8),
        "F8_E4M3FNUZ" => other("F8_E4M3FNUZ", 8),
        "F8_E5M2FNUZ" => other("F8_E5M2FNUZ", 8),
        _ => return None,
    })
}

/// The tensors of the shards that a model's index lists.
///
/// # Errors
/// As [`parse`], and for shards that are not what the index says; `Io`, `Memory`, `Cancelled`.
pub fn sharded(files: &Files, reading: &mut Reading) -> Result<Tensors> {
    let label = files.label(INDEX);
    let text = files.small(INDEX, index::MAX_BYTES)?.ok_or_else(|| bad(&label, "is missing"))?;
    let index = index::parse(&label, text.bytes())?;
    let mut total = 0_u64;
    for shard in &index.shards {
        if !is_plain(shard) {
            return Err(bad(&label, format!("expected the plain name of a shard, found `{}`", shown(shard))));
        }
        if !files.has(shard) {
            return Err(bad(&label, format!("shard `{shard}` is not there")));
        }
        total = total.saturating_add(files.len(shard)?);
    }
    reading.expect(total)?;
    let mut all = Tensors::default();
    for (i, shard) in index.shards.iter().enumerate() {
        let tensors = parse(&files.open(shard, reading)?)?;
        for name in tensors.names() {
            let listed = index.map.get(name).map(|&s| index.shards.get(s).map_or("", String::as_str));
            if listed != Some(shard) {
                let what = format!("expected in {}, found here", listed.map_or("no shard", |s| s));
                return Err(Error::Tensor { file: files.label(shard), tensor: shown(name), what });
            }
        }
        if let Some((name, _)) = index.map.iter().find(|(name, s)| **s == i && !tensors.has(name)) {
            let what = format!("is not in the shard that `{INDEX}` names");
            return Err(Error::Tensor { file: files.label(shard), tensor: shown(name), what });
        }
        let twice = |name: String| bad(&label, format!("tensor `{}` is in two shards", shown(&name)));
        all.join(tensors).map_err(twice)?;
    }
    Ok(all)
}
