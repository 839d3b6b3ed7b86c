//! Floor 1: a tensor in a file: where its bytes are, their type and shape. Knows no format and copies nothing.

use crate::error::{Error, Result};
use crate::format::source::Source;
use kernels::DType;
use std::collections::BTreeMap;
use std::ops::Range;

/// How the elements of a tensor are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// A type that kernels read.
    As(DType),
    /// Any other type that the format knows, by its name there.
    Other(&'static str),
}

/// A tensor's place in a file. The bytes are the file's own, little-endian, row after row, possibly unaligned.
#[derive(Clone, Debug)]
pub struct TensorRef {
    stored: Stored,
    shape: Vec<usize>,
    source: Source,
    range: Range<usize>,
}

impl TensorRef {
    /// A tensor of `shape` (slowest dimension first) at `range` of `source`.
    pub(crate) fn new(stored: Stored, shape: Vec<usize>, source: Source, range: Range<usize>) -> TensorRef {
        TensorRef { stored, shape, source, range }
    }

    /// How the elements are stored.
    pub fn stored(&self) -> Stored {
        self.stored
    }

    /// The element type's name.
    pub fn type_name(&self) -> &'static str {
        match self.stored {
            Stored::As(dtype) => dtype.name(),
            Stored::Other(name) => name,
        }
    }

    /// The element type, for kernels. `name` is the tensor's, for the message.
    ///
    /// # Errors
    /// `Tensor` where kernels do not read this type.
    pub fn dtype(&self, name: &str) -> Result<DType> {
        match self.stored {
            Stored::As(dtype) => Ok(dtype),
            Stored::Other(found) => {
                let what = format!("element type {found} is not supported");
                Err(Error::Tensor { file: self.file().to_owned(), tensor: name.to_owned(), what })
            }
        }
    }

    /// Sizes, slowest dimension first. A scalar has none.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// The bytes, in file layout.
    pub fn bytes(&self) -> &[u8] {
        self.source.bytes().get(self.range.clone()).unwrap_or_default()
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

/// The tensors of a model by name, over one or several files.
#[derive(Clone, Debug, Default)]
pub struct Tensors {
    map: BTreeMap<String, TensorRef>,
    sources: Vec<Source>,
}

impl Tensors {
    /// No tensors yet of `source`.
    pub(crate) fn of(source: Source) -> Tensors {
        Tensors { map: BTreeMap::new(), sources: vec![source] }
    }

    /// Adds a tensor; `false` where the name is taken.
    pub(crate) fn insert(&mut self, name: String, tensor: TensorRef) -> bool {
        if self.map.contains_key(&name) {
            return false;
        }
        self.map.insert(name, tensor);
        true
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

    /// The tensor called `name`.
    pub fn get(&self, name: &str) -> Option<&TensorRef> {
        self.map.get(name)
    }

    /// All tensors in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &TensorRef)> {
        self.map.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// The files' names for messages.
    pub fn file(&self) -> &str {
        self.sources.first().map_or("memory", Source::name)
    }

    /// The files.
    pub fn sources(&self) -> &[Source] {
        &self.sources
    }
}
