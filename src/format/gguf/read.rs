//! Floor 3: the bytes of a GGUF file, checked in one pass: every count against what is left of the file, every tensor
//! against its neighbours. Knows no families.

use super::{Entry, Gguf, Info, Kind};
use crate::error::{Error, Result};
use crate::format::source::Source;
use crate::format::tensors::Stored;
use crate::format::{MAX_TENSORS, bad, shown};
use crate::order::sorted;
use kernels::DType;
use std::ops::Range;

/// Most metadata keys; files have some fifty.
const MAX_KEYS: usize = 1 << 16;
/// Longest key, as the format defines it.
const MAX_KEY: usize = (1 << 16) - 1;
/// Longest tensor name. (ggml itself stops at 64.)
const MAX_NAME: usize = 1024;
/// Most dimensions, as the format defines it.
const MAX_RANK: usize = 4;
/// Where the file does not say.
const ALIGNMENT: usize = 32;

/// Reads a GGUF file's metadata and list of tensors.
///
/// # Errors
/// `Format` and `Tensor` for a file that contradicts the format or itself, `Unsupported` for other versions, big-endian
/// files and element types that nothing here reads.
pub fn parse(source: Source) -> Result<Gguf> {
    let mut cursor = Cursor { file: source.name(), bytes: source.bytes(), at: 0 };
    let (version, tensors, keys) = head(&mut cursor)?;
    let meta = metadata(&mut cursor, keys)?;
    let raw = infos(&mut cursor, tensors)?;
    let after = cursor.at;
    let len = source.bytes().len();
    let mut gguf = Gguf { source, version, meta, infos: Vec::new() };
    let alignment = gguf.usize("general.alignment")?.unwrap_or(ALIGNMENT);
    if !alignment.is_power_of_two() || alignment > 1 << 20 {
        return Err(bad(
            gguf.file(),
            format!("general.alignment: expected a power of two, found {alignment}"),
        ));
    }
    if let Some(splits) = gguf.usize("split.count")?.filter(|n| *n > 1) {
        let what = format!("a GGUF file split in {splits}");
        return Err(Error::Unsupported { file: gguf.file().to_owned(), what });
    }
    let first = after.checked_next_multiple_of(alignment).unwrap_or(len);
    // A file without tensors need not be padded.
    if first > len && !raw.is_empty() {
        return Err(bad(gguf.file(), format!("expected tensor data at byte {first}, the file has {len}")));
    }
    gguf.infos = place(gguf.file(), raw, first, len, alignment)?;
    Ok(gguf)
}

fn head(cursor: &mut Cursor) -> Result<(u32, usize, usize)> {
    let magic = cursor.take(4)?;
    if magic != b"GGUF" {
        return Err(cursor.bad(format!("expected `GGUF` at its start, found {magic:?}")));
    }
    let version = cursor.u32()?;
    if !matches!(version, 2 | 3) {
        let swapped = if matches!(version.swap_bytes(), 1..=3) { ", big-endian" } else { "" };
        let what = format!("GGUF version {version}{swapped} (known: 2 and 3, little-endian)");
        return Err(Error::Unsupported { file: cursor.file.to_owned(), what });
    }
    // The least that a tensor takes is name length, rank, type and offset; a key: length, type and a byte.
    let tensors = cursor.count("tensors", 24, MAX_TENSORS)?;
    let keys = cursor.count("metadata keys", 13, MAX_KEYS)?;
    Ok((version, tensors, keys))
}

fn metadata(cursor: &mut Cursor, keys: usize) -> Result<Vec<Entry>> {
    let mut meta = Vec::new();
    for _ in 0..keys {
        let key = cursor.text(MAX_KEY)?;
        let name = cursor.name(&key)?;
        let kind = cursor.kind(name)?;
        let from = cursor.at;
        cursor.skip(name, kind)?;
        meta.push(Entry { key, kind, value: from..cursor.at });
    }
    let bytes = |entry: &Entry| cursor.bytes.get(entry.key.clone()).unwrap_or_default();
    let meta = sorted(meta, |a, b| bytes(a).cmp(bytes(b)));
    match meta.windows(2).find(|pair| matches!(pair, [a, b] if bytes(a) == bytes(b))) {
        Some([twice, _]) => {
            Err(cursor.bad(format!("key `{}` is given twice", shown(&String::from_utf8_lossy(bytes(twice))))))
        }
        _ => Ok(meta),
    }
}

/// A tensor's entry before its place is checked.
struct Raw {
    name: String,
    stored: Stored,
    shape: Vec<usize>,
    /// From the start of the tensor data.
    offset: u64,
    bytes: usize,
}

fn infos(cursor: &mut Cursor, tensors: usize) -> Result<Vec<Raw>> {
    let mut list = Vec::new();
    for _ in 0..tensors {
        let range = cursor.text(MAX_NAME)?;
        let name = cursor.name(&range)?.to_owned();
        let rank = cursor.u32()? as usize;
        if rank > MAX_RANK {
            let what =
                format!("tensor `{}`: expected at most {MAX_RANK} dimensions, found {rank}", shown(&name));
            return Err(cursor.bad(what));
        }
        let mut shape = Vec::with_capacity(rank);
        for _ in 0..rank {
            shape.push(usize::try_from(cursor.u64()?).unwrap_or(usize::MAX));
        }
        // The file lists the fastest dimension first.
        shape.reverse();
        let (stored, block, block_bytes) = cursor.element(&name)?;
        let offset = cursor.u64()?;
        let k = shape.last().copied().unwrap_or(1);
        let rows = shape.iter().rev().skip(1).try_fold(1_usize, |rows, n| rows.checked_mul(*n));
        let row = if k.is_multiple_of(block) { (k / block).checked_mul(block_bytes) } else { None };
        let Some(bytes) = rows.zip(row).and_then(|(rows, row)| rows.checked_mul(row)) else {
            let what = format!("shape {shape:?} is too large or not whole blocks of {block}");
            return Err(Error::Tensor { file: cursor.file.to_owned(), tensor: shown(&name), what });
        };
        list.push(Raw { name, stored, shape, offset, bytes });
    }
    Ok(list)
}

/// Tensors follow each other, each padded to the alignment; nothing but padding lies between or behind.
fn place(file: &str, raw: Vec<Raw>, first: usize, len: usize, alignment: usize) -> Result<Vec<Info>> {
    let raw = sorted(raw, |a, b| (a.offset, a.bytes).cmp(&(b.offset, b.bytes)));
    let mut infos = Vec::with_capacity(raw.len());
    let mut at = first;
    for Raw { name, stored, shape, offset, bytes } in raw {
        let wrong = |what| Error::Tensor { file: file.to_owned(), tensor: shown(&name), what };
        let begin = usize::try_from(offset).ok().and_then(|offset| first.checked_add(offset));
        if begin != Some(at) {
            let what =
                format!("expected its bytes at {} of the data, found {offset}", at.saturating_sub(first));
            return Err(wrong(what));
        }
        let Some(end) = at.checked_add(bytes).filter(|end| *end <= len) else {
            return Err(wrong(format!("expected {bytes} bytes at byte {at} of the file, which has {len}")));
        };
        infos.push(Info { name, stored, shape, range: at..end });
        at = end.checked_next_multiple_of(alignment).unwrap_or(len);
    }
    if at < len {
        return Err(bad(file, format!("expected the file to end at byte {at}, it has {len}")));
    }
    let infos = sorted(infos, |a, b| a.name.cmp(&b.name));
    match infos.windows(2).find(|pair| matches!(pair, [a, b] if a.name == b.name)) {
        Some([twice, _]) => Err(bad(file, format!("tensor `{}` is listed twice", shown(&twice.name)))),
        _ => Ok(infos),
    }
}

/// A place in the file, always within it.
struct Cursor<'a> {
    file: &'a str,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn bad(&self, what: impl Into<String>) -> Error {
        bad(self.file, what)
    }

    fn left(&self) -> usize {
        self.bytes.len().saturating_sub(self.at)
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8]> {
        let taken = self.at.checked_add(n).and_then(|end| self.bytes.get(self.at..end));
        let (at, left) = (self.at, self.left());
        let taken =
            taken.ok_or_else(|| self.bad(format!("expected {n} bytes at byte {at}, {left} are left")))?;
        self.at += n;
        Ok(taken)
    }

    fn number<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.number()?))
    }

    fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.number()?))
    }

    /// A number of things that take at least `each` bytes of what is left.
    fn count(&mut self, what: &str, each: usize, most: usize) -> Result<usize> {
        let found = self.u64()?;
        let most = most.min(self.left() / each);
        let refuse = || self.bad(format!("expected at most {most} {what}, found {found}"));
        usize::try_from(found).ok().filter(|n| *n <= most).ok_or_else(refuse)
    }

    /// The place of a text of at most `most` bytes.
    fn text(&mut self, most: usize) -> Result<Range<usize>> {
        let len = self.u64()?;
        let at = self.at;
        let Some(len) = usize::try_from(len).ok().filter(|len| *len <= most) else {
            return Err(
                self.bad(format!("expected a name of at most {most} bytes at byte {at}, found {len}"))
            );
        };
        self.take(len)?;
        Ok(at..self.at)
    }

    /// The text at `range`.
    fn name(&self, range: &Range<usize>) -> Result<&'a str> {
        let bytes = self.bytes.get(range.clone()).unwrap_or_default();
        std::str::from_utf8(bytes)
            .map_err(|_| self.bad(format!("the name at byte {} is not UTF-8", range.start)))
    }

    fn kind(&mut self, key: &str) -> Result<Kind> {
        let number = self.u32()?;
        Kind::of(number).ok_or_else(|| self.bad(format!("{}: unknown value type {number}", shown(key))))
    }

    /// Walks over a value, checking what it claims.
    fn skip(&mut self, key: &str, kind: Kind) -> Result<()> {
        match (kind, kind.size()) {
            (Kind::Bool, _) => self.switches(key, 1),
            (_, Some(size)) => self.take(size).map(drop),
            (Kind::Text, None) => self.text(usize::MAX).map(drop),
            (_, None) => {
                let kind = self.kind(key)?;
                let len = self.count("list values", kind.size().unwrap_or(8), usize::MAX)?;
                match (kind, kind.size()) {
                    (Kind::Bool, _) => self.switches(key, len),
                    (_, Some(size)) => self.take(len.saturating_mul(size)).map(drop),
                    (Kind::Text, None) => (0..len).try_for_each(|_| self.text(usize::MAX).map(drop)),
                    (_, None) => Err(self.bad(format!("{}: lists of lists are not supported", shown(key)))),
                }
            }
        }
    }

    fn switches(&mut self, key: &str, len: usize) -> Result<()> {
        match self.take(len)?.iter().find(|byte| **byte > 1) {
            None => Ok(()),
            Some(found) => Err(self.bad(format!("{}: expected 0 or 1, found {found}", shown(key)))),
        }
    }

    /// Storage, elements of a block and bytes of a block.
    fn element(&mut self, tensor: &str) -> Result<(Stored, usize, usize)> {
        let number = self.u32()?;
        let other = |name, bytes| Ok((Stored::Other(name), 1, bytes));
        let dtype = match number {
            0 => DType::F32,
            1 => DType::F16,
            2 => DType::Q4_0,
            3 => DType::Q4_1,
            6 => DType::Q5_0,
            7 => DType::Q5_1,
            8 => DType::Q8_0,
            12 => DType::Q4K,
            13 => DType::Q5K,
            14 => DType::Q6K,
            20 => DType::IQ4NL,
            30 => DType::BF16,
            24 => return other("I8", 1),
            25 => return other("I16", 2),
            26 => return other("I32", 4),
            27 => return other("I64", 8),
            28 => return other("F64", 8),
            _ => {
                let what = format!("element type {} of tensor `{}`", type_name(number), shown(tensor));
                return Err(Error::Unsupported { file: self.file.to_owned(), what });
            }
        };
        Ok((Stored::As(dtype), dtype.block(), dtype.block_bytes()))
    }
}

/// What ggml calls an element type that nothing here reads.
fn type_name(number: u32) -> String {
    let name = match number {
        9 => "Q8_1",
        10 => "Q2_K",
        11 => "Q3_K",
        15 => "Q8_K",
        16 => "IQ2_XXS",
        17 => "IQ2_XS",
        18 => "IQ3_XXS",
        19 => "IQ1_S",
        21 => "IQ3_S",
        22 => "IQ2_S",
        23 => "IQ4_XS",
        29 => "IQ1_M",
        34 => "TQ1_0",
        35 => "TQ2_0",
        39 => "MXFP4",
        40 => "NVFP4",
        41 => "Q1_0",
        _ => return format!("number {number}"),
    };
    name.to_owned()
}
