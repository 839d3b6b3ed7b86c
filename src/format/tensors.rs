//! Floor 3: the tensors of a model's files: where their bytes are, their types and shapes. Knows no format and copies
//! nothing.

use super::source::Source;
use crate::error::{Error, Result};
use kernels::DType;
use std::collections::BTreeMap;
use std::ops::Range;

/// How the elements of a tensor are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// A type that kernels read, in file layout.
    As(DType),
    /// A type that kernels read, in packed panels of 32 outputs, with the CRC-32 of its bytes.
    Panels(DType, u32),
    /// Any other type that the format knows, by its name there.
    Other(&'static str),
}

/// A tensor's place in a file. The bytes are the file's own, little-endian, row after row, possibly unaligned.
#[derive(Clone, Debug)]
pub struct TensorRef {
    dtype: DType,
    shape: Vec<usize>,
    source: Source,
    range: Range<usize>,
    /// Whether the bytes are packed panels; else they are in file layout.
    packed: bool,
    crc: Option<u32>,
}

impl TensorRef {
    /// A matrix `[n, k]` in packed panels at `range` of memory that is nobody's file.
    pub(crate) fn panels(dtype: DType, shape: [usize; 2], source: Source, range: Range<usize>) -> TensorRef {
        TensorRef { dtype, shape: shape.to_vec(), source, range, packed: true, crc: None }
    }

    /// A tensor in file layout at `range` of memory that is nobody's file.
    pub(crate) fn dense(dtype: DType, shape: &[usize], source: Source, range: Range<usize>) -> TensorRef {
        TensorRef { dtype, shape: shape.to_vec(), source, range, packed: false, crc: None }
    }

    /// Whether the bytes are packed panels; else they are in file layout.
    pub fn is_packed(&self) -> bool {
        self.packed
    }

    /// Whether packed panels still have the bytes that were written; true of what has no checksum.
    pub fn is_intact(&self) -> bool {
        self.crc.is_none_or(|crc| crc32fast::hash(self.bytes()) == crc)
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Sizes, slowest dimension first. A scalar has none.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Elements.
    pub fn elements(&self) -> usize {
        // Without any there are no bytes either, which bound the sizes of all others.
        if self.shape.contains(&0) { 0 } else { self.shape.iter().product() }
    }

    /// The bytes, in file layout.
    pub fn bytes(&self) -> &[u8] {
        self.source.bytes().get(self.range.clone()).unwrap_or_default()
    }

    /// Gives back the memory of the bytes, where they are a mapped file's: nobody will read them soon.
    pub fn release(&self) {
        self.source.release(self.range.clone());
    }

    /// What holds the bytes.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// The file's name for messages.
    pub fn file(&self) -> &str {
        self.source.name()
    }
}

/// A tensor's entry: where it can be read, or the name of a type that no kernel reads.
#[derive(Clone, Debug)]
enum Entry {
    Readable(TensorRef),
    Other(&'static str),
}

/// The tensors of a model by name, over one or several files.
#[derive(Clone, Debug, Default)]
pub struct Tensors {
    map: BTreeMap<String, Entry>,
    sources: Vec<Source>,
    gguf: bool,
}

impl Tensors {
    /// No tensors yet of `source`, which is a GGUF file or not.
    pub(crate) fn of(source: Source, gguf: bool) -> Tensors {
        Tensors { map: BTreeMap::new(), sources: vec![source], gguf }
    }

    /// Adds a tensor at `range` of the one source, its sizes checked to be those bytes; `false` where the name is taken.
    pub(crate) fn insert(
        &mut self,
        name: String,
        stored: Stored,
        shape: Vec<usize>,
        range: Range<usize>,
    ) -> bool {
        let Some(source) = self.sources.first().filter(|_| !self.map.contains_key(&name)) else {
            return false;
        };
        let entry = match stored {
            Stored::As(dtype) => Entry::Readable(TensorRef {
                dtype,
                shape,
                source: source.clone(),
                range,
                packed: false,
                crc: None,
            }),
            Stored::Panels(dtype, crc) => Entry::Readable(TensorRef {
                dtype,
                shape,
                source: source.clone(),
                range,
                packed: true,
                crc: Some(crc),
            }),
            Stored::Other(kind) => Entry::Other(kind),
        };
        self.map.insert(name, entry);
        true
    }

    /// Adds a tensor that lies elsewhere; `false` where the name is taken.
    #[cfg(feature = "checkpoints")]
    pub(crate) fn insert_own(&mut self, name: String, tensor: TensorRef) -> bool {
        let free = !self.map.contains_key(&name);
        if free {
            self.map.insert(name, Entry::Readable(tensor));
        }
        free
    }

    /// Adds all of another file's tensors, or gives back the first name that is in both.
    pub(crate) fn join(&mut self, other: Tensors) -> Result<(), String> {
        self.sources.extend(other.sources);
        for (name, tensor) in other.map {
            if self.map.contains_key(&name) {
                return Err(name);
            }
            self.map.insert(name, tensor);
        }
        Ok(())
    }

    /// The tensor called `name`, if there is one.
    ///
    /// # Errors
    /// `Tensor` where it is of a type that kernels do not read.
    pub fn get(&self, name: &str) -> Result<Option<&TensorRef>> {
        match self.map.get(name) {
            None => Ok(None),
            Some(Entry::Readable(tensor)) => Ok(Some(tensor)),
            Some(Entry::Other(kind)) => {
                let what = format!("expected a float or quantised type, found {kind}");
                Err(Error::Tensor { file: self.file().to_owned(), tensor: name.to_owned(), what })
            }
        }
    }

    /// Whether there is a tensor called `name`, of whatever type.
    pub fn has(&self, name: &str) -> bool {
        self.map.contains_key(name)
    }

    /// All names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.map.keys().map(String::as_str)
    }

    /// All tensors that kernels read, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &TensorRef)> {
        self.map.iter().filter_map(|(name, entry)| match entry {
            Entry::Readable(tensor) => Some((name.as_str(), tensor)),
            Entry::Other(_) => None,
        })
    }

    /// Reads all packed panels, to find out whether they still have the bytes that were written.
    ///
    /// # Errors
    /// `Tensor` for the first that does not.
    pub fn verify(&self) -> Result<()> {
        match self.iter().find(|(_, tensor)| !tensor.is_intact()) {
            None => Ok(()),
            Some((name, tensor)) => {
                let what = "its bytes are not those that were written (CRC-32): convert the model again";
                let (file, tensor) = (tensor.file().to_owned(), name.to_owned());
                Err(Error::Tensor { file, tensor, what: what.to_owned() })
            }
        }
    }

    /// Elements of all tensors that kernels read.
    pub fn elements(&self) -> u64 {
        self.iter().map(|(_, tensor)| tensor.elements() as u64).fold(0, u64::saturating_add)
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.sources.iter().map(|source| source.bytes().len() as u64).sum()
    }

    /// Whether they come from a GGUF file, which stores every matrix with a row per output.
    pub fn is_gguf(&self) -> bool {
        self.gguf
    }

    /// The files' name for messages: the first one's.
    pub fn file(&self) -> &str {
        self.sources.first().map_or("memory", Source::name)
    }

    /// The files.
    pub fn sources(&self) -> &[Source] {
        &self.sources
    }
}
