//! Floor 3: weights in archives: PyTorch's zip checkpoints and NumPy's `.npz`. Knows no families.
//!
//! Elements that lie in the archive as they are (PyTorch never compresses) are read where they lie; others are unpacked or
//! put in order, in memory that the file's length bounds.

mod npy;
mod pickle;

use super::source::Source;
use super::tensors::{Stored, TensorRef, Tensors};
use super::{MAX_TENSORS, bad, shown};
use crate::error::{Error, Result};
use kernels::DType;
use pickle::Stored as Torch;
use std::collections::HashMap;
use std::io::{Cursor, Read};
use std::ops::Range;
use zip::{CompressionMethod, ZipArchive};

/// Largest description of the tensors.
const MAX_PICKLE: u64 = 64 << 20;

/// Memory that archives of any length may take.
const FREE: u64 = 16 << 20;

/// Bytes that a byte of an archive may become: those of weights become two or three.
const MAX_RATIO: u64 = 64;

/// Memory that an archive may yet take.
struct Room {
    /// For what is unpacked.
    packed: u64,
    /// For what is put in order: as much as there is, twice, as tied weights may be.
    ordered: u64,
}

impl Room {
    fn of(bytes: usize) -> Room {
        let bytes = bytes as u64;
        let packed = bytes.saturating_mul(MAX_RATIO).saturating_add(FREE);
        Room { packed, ordered: bytes.saturating_mul(2) }
    }

    fn unpack(&mut self, bytes: u64) -> Result<(), String> {
        let left = self.packed.checked_sub(bytes);
        self.packed = left.ok_or_else(|| {
            format!(
                "expected at most {} more bytes to unpack, found {bytes}: save it uncompressed",
                self.packed
            )
        })?;
        self.ordered = self.ordered.saturating_add(2 * bytes);
        Ok(())
    }

    fn order(&mut self, bytes: usize) -> Result<(), String> {
        let left = self.ordered.checked_sub(bytes as u64);
        self.ordered = left.ok_or("repeats storages more often than models do: save contiguous tensors")?;
        Ok(())
    }
}

/// The tensors of an archive.
///
/// # Errors
/// `Format` and `Tensor` for a file that contradicts its format or itself, or whose pickle does more than describe tensors;
/// `Unsupported` for other archives; `Memory`.
pub fn tensors(source: &Source) -> Result<Tensors> {
    let file = source.name();
    let mut zip =
        ZipArchive::new(Cursor::new(source.bytes())).map_err(|e| bad(file, format!("no archive: {e}")))?;
    if zip.len() > 2 * MAX_TENSORS {
        return Err(bad(file, format!("expected at most {} entries, found {}", 2 * MAX_TENSORS, zip.len())));
    }
    let names = names(file, &zip)?;
    if let Some(pickle) = names.iter().find(|name| name.ends_with("/data.pkl") || *name == "data.pkl") {
        return torch(source, &mut zip, pickle);
    }
    if names.iter().any(|name| name.ends_with(".npy")) {
        return numpy(source, &mut zip);
    }
    let what = "an archive without `data.pkl` (PyTorch) or arrays (NumPy)".to_owned();
    Err(Error::Unsupported { file: file.to_owned(), what })
}

type Zip<'a> = ZipArchive<Cursor<&'a [u8]>>;

fn names(file: &str, zip: &Zip) -> Result<Vec<String>> {
    let unreadable = |e| bad(file, format!("an entry without a name: {e}"));
    zip.file_names().map(|name| name.map(|name| name.into_owned()).map_err(unreadable)).collect()
}

/// An entry of the archive.
enum Entry {
    /// Where its bytes lie.
    Plain(Range<usize>),
    /// Its bytes, unpacked.
    Unpacked(Source),
}

/// The entry `name` of at most `most` bytes.
fn entry(source: &Source, zip: &mut Zip, room: &mut Room, name: &str, most: u64) -> Result<Entry> {
    let file = source.name();
    let wrong = |what: String| bad(file, format!("entry `{}`: {what}", shown(name)));
    let mut found = zip.by_name(name).map_err(|e| wrong(e.to_string()))?;
    if found.size() > most {
        return Err(wrong(format!("expected at most {most} bytes, found {}", found.size())));
    }
    if found.compression() == CompressionMethod::Stored {
        if found.size() != found.compressed_size() {
            return Err(wrong(format!("expected {} bytes, found {}", found.size(), found.compressed_size())));
        }
        let start = found.data_start().ok_or_else(|| wrong("has no data".to_owned()))? as usize;
        let range = start..start.saturating_add(found.size() as usize);
        if source.bytes().get(range.clone()).is_none() {
            return Err(wrong("ends beyond the file".to_owned()));
        }
        return Ok(Entry::Plain(range));
    }
    let size = found.size();
    room.unpack(size).map_err(&wrong)?;
    let mut bytes = Vec::new();
    // One more than there are, so that the end is seen and the checksum compared.
    found.by_ref().take(size + 1).read_to_end(&mut bytes).map_err(|e| wrong(e.to_string()))?;
    if bytes.len() as u64 != size {
        return Err(wrong(format!("expected {size} bytes, unpacked {} or more", bytes.len())));
    }
    Ok(Entry::Unpacked(Source::private(file, bytes)))
}

fn bytes_of<'a>(source: &'a Source, entry: &'a Entry) -> &'a [u8] {
    match entry {
        Entry::Plain(range) => source.bytes().get(range.clone()).unwrap_or_default(),
        Entry::Unpacked(unpacked) => unpacked.bytes(),
    }
}

fn torch(source: &Source, zip: &mut Zip, pickle: &str) -> Result<Tensors> {
    let (file, folder) = (source.name(), pickle.strip_suffix("data.pkl").unwrap_or_default());
    let mut room = Room::of(source.bytes().len());
    if let Ok(order) = entry(source, zip, &mut room, &format!("{folder}byteorder"), 16)
        && bytes_of(source, &order) != b"little"
    {
        return Err(Error::Unsupported {
            file: file.to_owned(),
            what: "numbers in big-endian order".to_owned(),
        });
    }
    let described = entry(source, zip, &mut room, pickle, MAX_PICKLE)?;
    let list = pickle::tensors(bytes_of(source, &described)).map_err(|what| bad(file, what))?;
    if list.len() > MAX_TENSORS {
        return Err(bad(file, format!("expected at most {MAX_TENSORS} tensors, found {}", list.len())));
    }
    let whole = list.iter().all(|(name, _)| name.starts_with("module."));
    let (mut out, mut storages) = (Tensors::of(source.clone(), false), HashMap::new());
    for (name, tensor) in list {
        // What `DataParallel` puts before all names is not the model's.
        let name = if whole { &name["module.".len()..] } else { &*name };
        let found = |what: String| Error::Tensor { file: file.to_owned(), tensor: shown(name), what };
        if !storages.contains_key(&tensor.key) {
            let path = format!("{folder}data/{}", tensor.key);
            let entry = entry(source, zip, &mut room, &path, u64::MAX)?;
            storages.insert(tensor.key.clone(), entry);
        }
        let stored = stored(&tensor.class).ok_or_else(|| found(format!("holds {}", shown(&tensor.class))))?;
        let place =
            place(&tensor, stored.1).ok_or_else(|| found("has sizes that cannot be counted".to_owned()))?;
        add(&mut out, (source, &storages[&tensor.key]), &mut room, name, stored.0, place).map_err(found)?;
    }
    Ok(out)
}

/// Where a tensor lies in its storage.
struct Place {
    shape: Vec<usize>,
    strides: Vec<usize>,
    first: usize,
    /// Bytes of an element.
    size: usize,
}

fn place(tensor: &Torch, size: usize) -> Option<Place> {
    let usizes = |of: &[u64]| of.iter().map(|n| usize::try_from(*n).ok()).collect::<Option<Vec<usize>>>();
    let (shape, strides) = (usizes(&tensor.shape)?, usizes(&tensor.strides)?);
    let first = usize::try_from(tensor.offset).ok()?.checked_mul(size)?;
    (shape.len() == strides.len()).then_some(Place { shape, strides, first, size })
}

/// How the elements of a storage's class are stored, and their bytes.
fn stored(class: &str) -> Option<(Stored, usize)> {
    Some(match class {
        "FloatStorage" => (Stored::As(DType::F32), 4),
        "HalfStorage" => (Stored::As(DType::F16), 2),
        "BFloat16Storage" => (Stored::As(DType::BF16), 2),
        "DoubleStorage" => (Stored::Other("F64"), 8),
        "LongStorage" => (Stored::Other("I64"), 8),
        "IntStorage" => (Stored::Other("I32"), 4),
        "ShortStorage" => (Stored::Other("I16"), 2),
        "CharStorage" => (Stored::Other("I8"), 1),
        "ByteStorage" => (Stored::Other("U8"), 1),
        "BoolStorage" => (Stored::Other("BOOL"), 1),
        _ => return None,
    })
}

/// Adds a tensor of an entry: where it lies, if its elements follow each other there, else put in order.
fn add(
    out: &mut Tensors,
    (source, entry): (&Source, &Entry),
    room: &mut Room,
    name: &str,
    stored: Stored,
    place: Place,
) -> Result<(), String> {
    let bytes = bytes_of(source, entry);
    let count = place.shape.iter().try_fold(1usize, |n, size| n.checked_mul(*size));
    let len = count.and_then(|n| n.checked_mul(place.size)).ok_or("has sizes that cannot be counted")?;
    let end = place.first.checked_add(len).filter(|end| *end <= bytes.len());
    let dense = is_dense(&place);
    if dense && end.is_none() {
        return Err(format!("needs {len} bytes, its storage has {}", bytes.len()));
    }
    if out.has(name) {
        return Err("is listed twice".to_owned());
    }
    let range = place.first..end.unwrap_or_default();
    let name = name.to_owned();
    let free = match (stored, entry) {
        // Bytes that nothing reads need not be put in order.
        (Stored::As(dtype), _) if !dense => {
            room.order(len)?;
            let ordered = Source::private(source.name(), gather(bytes, &place, len)?);
            out.insert_own(name, TensorRef::dense(dtype, &place.shape, ordered, 0..len))
        }
        (Stored::As(dtype), Entry::Unpacked(unpacked)) => {
            out.insert_own(name, TensorRef::dense(dtype, &place.shape, unpacked.clone(), range))
        }
        (stored, Entry::Plain(within)) if dense => {
            out.insert(name, stored, place.shape, within.start + range.start..within.start + range.end)
        }
        (stored, _) => out.insert(name, stored, place.shape, 0..0),
    };
    debug_assert!(free);
    Ok(())
}

/// Whether the elements follow each other, the last index fastest.
fn is_dense(place: &Place) -> bool {
    let mut next = 1usize;
    place.shape.iter().zip(&place.strides).rev().all(|(size, stride)| {
        let fits = *size == 1 || *stride == next;
        next = next.saturating_mul(*size.max(&1));
        fits
    })
}

/// The elements of a tensor whose dimensions lie in another order, one after the other.
fn gather(bytes: &[u8], place: &Place, len: usize) -> Result<Vec<u8>, String> {
    if len > bytes.len() {
        return Err(format!("repeats its storage of {} bytes", bytes.len()));
    }
    let mut out = Vec::new();
    out.try_reserve_exact(len).map_err(|_| format!("needs {len} bytes of memory"))?;
    let mut index = vec![0usize; place.shape.len()];
    while out.len() < len {
        let at = index
            .iter()
            .zip(&place.strides)
            .try_fold(0usize, |sum, (i, stride)| sum.checked_add(i.checked_mul(*stride)?));
        let at = at.and_then(|at| at.checked_mul(place.size)?.checked_add(place.first));
        let element =
            at.and_then(|at| bytes.get(at..at.checked_add(place.size)?)).ok_or("lies beyond its storage")?;
        out.extend_from_slice(element);
        for d in (0..index.len()).rev() {
            index[d] += 1;
            if index[d] < place.shape[d] {
                break;
            }
            index[d] = 0;
        }
    }
    Ok(out)
}

fn numpy(source: &Source, zip: &mut Zip) -> Result<Tensors> {
    let (file, mut out) = (source.name(), Tensors::of(source.clone(), false));
    let mut room = Room::of(source.bytes().len());
    for full in names(file, zip)? {
        let Some(name) = full.strip_suffix(".npy") else { continue };
        let found = |what: String| Error::Tensor { file: file.to_owned(), tensor: shown(name), what };
        let entry = entry(source, zip, &mut room, &full, u64::MAX)?;
        let header = npy::header(bytes_of(source, &entry)).map_err(found)?;
        let (stored, size) = match header.descr.as_str() {
            "<f4" => (Stored::As(DType::F32), 4),
            "<f2" => (Stored::As(DType::F16), 2),
            "<f8" => (Stored::Other("F64"), 8),
            "<i8" => (Stored::Other("I64"), 8),
            "<i4" => (Stored::Other("I32"), 4),
            "|u1" => (Stored::Other("U8"), 1),
            "|b1" => (Stored::Other("BOOL"), 1),
            other => {
                return Err(found(format!(
                    "expected numbers in little-endian order, found {}",
                    shown(other)
                )));
            }
        };
        let mut strides = vec![0; header.shape.len()];
        let mut next = 1usize;
        let order: Vec<usize> =
            if header.fortran { (0..strides.len()).collect() } else { (0..strides.len()).rev().collect() };
        for d in order {
            strides[d] = next;
            next = next.saturating_mul(header.shape[d]);
        }
        let place = Place { shape: header.shape, strides, first: header.data, size };
        add(&mut out, (source, &entry), &mut room, name, stored, place).map_err(found)?;
    }
    Ok(out)
}
