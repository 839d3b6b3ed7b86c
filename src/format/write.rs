//! Floor 3: files written whole or not at all, and safetensors files among them. Knows no model.

use super::bad;
use super::safetensors::header::PACKED;
use crate::error::{Error, Result};
use kernels::DType;
use kernels::linear::{PANEL, panel_bytes};
use serde_json::{Map, Value, json};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// A tensor to be written.
#[derive(Clone, Debug)]
pub struct Planned {
    /// Its name.
    pub name: String,
    /// Element type: dense, since the format has no others, but for packed panels.
    pub dtype: DType,
    /// Sizes, slowest dimension first.
    pub shape: Vec<usize>,
    /// Where the bytes are packed panels of this matrix: their CRC-32. The format calls them bytes.
    pub packed: Option<u32>,
}

impl Planned {
    /// A tensor that is not packed.
    pub fn dense(name: &str, dtype: DType, shape: &[usize]) -> Planned {
        Planned { name: name.to_owned(), dtype, shape: shape.to_vec(), packed: None }
    }

    /// The format's name of the element type, and sizes.
    fn element(&self) -> Option<(&'static str, Vec<usize>, usize)> {
        match (self.packed, &self.shape[..]) {
            (None, shape) if self.dtype.block() == 1 => {
                Some((self.dtype.name(), shape.to_vec(), self.dtype.block_bytes()))
            }
            (Some(_), [n, k]) => {
                let bytes = n.div_ceil(PANEL).checked_mul(panel_bytes(self.dtype, *k)?)?;
                Some(("U8", vec![bytes], 1))
            }
            _ => None,
        }
    }
}

/// Writes `path` through a file beside it that takes its name once all is on the disk. Where anything fails, nothing is
/// left and what was at `path` before still is.
///
/// # Errors
/// `Io` (a full disk is one), and whatever `fill` returns.
pub fn whole_file(path: &Path, fill: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    let draft = Draft::new(path)?;
    let mut out = Pieces { file: &draft.file, held: Vec::new() };
    fill(&mut out)?;
    out.flush().and_then(|()| draft.file.sync_all()).map_err(Error::io(path))?;
    draft.publish(path)
}

/// Writes a file in pieces of a huge page, each at a multiple of it: Linux then keeps what was written in such pages, and
/// whoever maps the file reads from them. Only what is flushed is whole.
struct Pieces<'a> {
    file: &'a File,
    held: Vec<u8>,
}

/// Bytes of a huge page.
const PIECE: usize = 2 << 20;

impl Write for Pieces<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let whole = bytes.len() / PIECE * PIECE;
        if self.held.is_empty() && whole > 0 {
            return self.file.write_all(&bytes[..whole]).map(|()| whole);
        }
        let taken = bytes.len().min(PIECE - self.held.len());
        self.held.extend_from_slice(&bytes[..taken]);
        if self.held.len() == PIECE {
            self.file.write_all(&self.held)?;
            self.held.clear();
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_all(&self.held)?;
        self.held.clear();
        Ok(())
    }
}

/// A file without its final name; removed unless published.
struct Draft {
    path: PathBuf,
    file: File,
    published: bool,
}

impl Draft {
    fn new(target: &Path) -> Result<Draft> {
        let Some(name) = target.file_name() else {
            return Err(bad(&target.to_string_lossy(), "expected the name of a file to write"));
        };
        // Two writers of one target, in one process or several, must not share a draft.
        for attempt in 0..100 {
            let mut draft = name.to_owned();
            draft.push(format!(".{}.{attempt}.part", std::process::id()));
            let path = target.with_file_name(draft);
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(file) => return Ok(Draft { path, file, published: false }),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(Error::io(target)(e)),
            }
        }
        Err(bad(
            &target.to_string_lossy(),
            "a hundred unfinished writes lie beside it: remove the .part files",
        ))
    }

    fn publish(mut self, target: &Path) -> Result<()> {
        fs::rename(&self.path, target).map_err(Error::io(target))?;
        self.published = true;
        // The new name ought to reach the disk too. The file is whole either way, and not every system can do it.
        #[cfg(unix)]
        if let Some(dir) = target.parent() {
            let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
            let _ = File::open(dir).and_then(|dir| dir.sync_all());
        }
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.published {
            // Nothing can be done about a draft that will not go away.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A directory without its final name; removed with all in it when it is dropped under that name.
#[cfg(any(feature = "tokenizer", feature = "train"))]
pub(crate) struct DraftDir {
    /// Where it is until then.
    pub path: PathBuf,
}

#[cfg(any(feature = "tokenizer", feature = "train"))]
impl DraftDir {
    /// A new one, beside `target`.
    ///
    /// # Errors
    /// `Io`.
    pub fn new(target: PathBuf) -> Result<DraftDir> {
        let Some(name) = target.file_name() else {
            return Err(Error::io(&target)(io::Error::new(
                io::ErrorKind::InvalidInput,
                "expected the name of a directory",
            )));
        };
        let mut draft = name.to_owned();
        draft.push(format!(".{}.part", std::process::id()));
        let path = target.with_file_name(draft);
        fs::create_dir(&path).map_err(Error::io(&path))?;
        Ok(DraftDir { path })
    }

    /// Gives it its name, which nothing may have yet.
    ///
    /// # Errors
    /// `Io`; the draft is gone then.
    pub fn publish(self, target: &Path) -> Result<()> {
        fs::rename(&self.path, target).map_err(Error::io(target))
    }
}

#[cfg(any(feature = "tokenizer", feature = "train"))]
impl Drop for DraftDir {
    fn drop(&mut self) {
        // Gone already where it took its name; nothing can be done about one that will not go away.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Writes a safetensors file of `tensors` in their order. `fill` is called once for each, with its number, and writes
/// exactly its bytes, little-endian, row after row.
///
/// # Errors
/// As [`whole_file`]; `Argument` for types, sizes or names that the format cannot hold; `Internal` where `fill` wrote
/// another number of bytes than the shape takes.
pub fn safetensors(
    path: &Path,
    tensors: &[Planned],
    mut fill: impl FnMut(usize, &mut dyn Write) -> Result<()>,
) -> Result<()> {
    let (header, ends) = header(tensors)?;
    whole_file(path, |out| {
        let mut out = Counted { out, bytes: 0 };
        let mut put = |bytes: &[u8]| out.write_all(bytes).map_err(Error::io(path));
        put(&(header.len() as u64).to_le_bytes())?;
        put(&header)?;
        out.bytes = 0;
        for (i, (end, tensor)) in ends.iter().zip(tensors).enumerate() {
            fill(i, &mut out)?;
            if out.bytes != *end {
                let what = format!("tensor `{}` ends at byte {}, not {end}", tensor.name, out.bytes);
                return Err(Error::Internal(what));
            }
        }
        Ok(())
    })
}

/// Writes a safetensors file of tensors of f32 in their order: the name, the shape and the numbers of each.
///
/// # Errors
/// As [`safetensors`].
pub fn floats<V: AsRef<[f32]>>(path: &Path, tensors: &[(String, Vec<usize>, V)]) -> Result<()> {
    let planned = tensors.iter().map(|(name, shape, _)| Planned::dense(name, DType::F32, shape));
    let planned: Vec<Planned> = planned.collect();
    safetensors(path, &planned, |i, file| {
        file.write_all(&bytes_of(tensors[i].2.as_ref())).map_err(Error::io(path))
    })
}

/// Numbers as a file has them.
pub fn bytes_of(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// The JSON header, and where each tensor ends.
fn header(tensors: &[Planned]) -> Result<(Vec<u8>, Vec<u64>)> {
    let said = |t: &Planned| match (t.packed, &t.shape[..]) {
        (Some(crc), [n, k]) => Some((t.name.clone(), json!([t.dtype.name(), n, k, crc]))),
        _ => None,
    };
    let packed: Map<String, Value> = tensors.iter().filter_map(said).collect();
    // "pt" is what readers that ask want to see: a row of the file per output, as PyTorch has it.
    let metadata = if packed.is_empty() {
        json!({"format": "pt"})
    } else {
        json!({"format": "inlaid", PACKED: Value::Object(packed).to_string()})
    };
    let mut map = Map::from_iter([("__metadata__".to_owned(), metadata)]);
    let (mut ends, mut begin) = (Vec::new(), 0_u64);
    for tensor in tensors {
        let refuse =
            |what: &str| Error::Argument { name: "tensors", what: format!("`{}` {what}", tensor.name) };
        let Some((dtype, shape, size)) = tensor.element() else {
            return Err(refuse("has a block-quantised type, which safetensors files cannot hold"));
        };
        let bytes = shape.iter().try_fold(size as u64, |bytes, n| bytes.checked_mul(*n as u64));
        let end = bytes.and_then(|bytes| begin.checked_add(bytes)).ok_or_else(|| refuse("is too large"))?;
        let info = json!({"dtype": dtype, "shape": shape, "data_offsets": [begin, end]});
        if map.insert(tensor.name.clone(), info).is_some() {
            return Err(refuse("is given twice, or a reserved name"));
        }
        ends.push(end);
        begin = end;
    }
    let mut text = Value::Object(map).to_string().into_bytes();
    // Spaces up to a cache line, so that the first row starts on one.
    let padded = (8 + text.len()).next_multiple_of(64) - 8;
    text.resize(padded, b' ');
    Ok((text, ends))
}

/// Counts what is written.
struct Counted<'a> {
    out: &'a mut dyn Write,
    bytes: u64,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.out.write(bytes)?;
        self.bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
