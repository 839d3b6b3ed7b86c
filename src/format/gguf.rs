//! Floor 3: GGUF files, versions 2 and 3: typed metadata and tensors. Knows the families' names through `gguf::config` and
//! `gguf::names` alone, which say in Hugging Face's words what the file says in ggml's.
//!
//! The layout is that of ggml's `docs/gguf.md`. Metadata is checked once and then read in place: lists of tokens and merges
//! stay the file's bytes.

use super::source::Source;
use super::{bad, shown};
use crate::error::{Error, Result};
use std::ops::Range;

mod config;
mod names;
mod read;

pub use config::to_config;
pub use names::{Rows, rows, tensors};
pub use read::parse;

/// A GGUF file: its metadata, and where its tensors are.
#[derive(Debug)]
pub struct Gguf {
    source: Source,
    version: u32,
    /// Sorted by key.
    meta: Vec<Entry>,
    infos: Vec<Info>,
}

/// Where a key and its value are in the file.
#[derive(Debug)]
struct Entry {
    key: Range<usize>,
    kind: Kind,
    value: Range<usize>,
}

/// A tensor as the file names it.
#[derive(Debug)]
struct Info {
    name: String,
    stored: super::tensors::Stored,
    shape: Vec<usize>,
    range: Range<usize>,
}

/// Types of metadata values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    Text,
    List,
    U64,
    I64,
    F64,
}

impl Kind {
    /// In the order of their numbers in the file.
    const ALL: [Kind; 13] = [
        Kind::U8,
        Kind::I8,
        Kind::U16,
        Kind::I16,
        Kind::U32,
        Kind::I32,
        Kind::F32,
        Kind::Bool,
        Kind::Text,
        Kind::List,
        Kind::U64,
        Kind::I64,
        Kind::F64,
    ];

    fn of(number: u32) -> Option<Kind> {
        Kind::ALL.get(number as usize).copied()
    }

    /// Bytes of a value, where all have the same.
    fn size(self) -> Option<usize> {
        match self {
            Kind::U8 | Kind::I8 | Kind::Bool => Some(1),
            Kind::U16 | Kind::I16 => Some(2),
            Kind::U32 | Kind::I32 | Kind::F32 => Some(4),
            Kind::U64 | Kind::I64 | Kind::F64 => Some(8),
            Kind::Text | Kind::List => None,
        }
    }
}

/// A metadata value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// Any whole number; every GGUF integer fits.
    Integer(i128),
    /// An f32 or f64.
    Float(f64),
    /// A switch.
    Bool(bool),
    /// Text, which ought to be UTF-8.
    Text(&'a [u8]),
    /// A list of values of one type.
    List(List<'a>),
}

/// A list in the file. Lists of lists are refused when the file is read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct List<'a> {
    kind: Kind,
    len: usize,
    bytes: &'a [u8],
}

impl<'a> List<'a> {
    /// Values.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The values, decoded one by one.
    pub fn iter(&self) -> impl Iterator<Item = Value<'a>> + use<'a> {
        let (kind, mut rest) = (self.kind, self.bytes);
        (0..self.len).map_while(move |_| {
            let (value, tail) = value(kind, rest)?;
            rest = tail;
            Some(value)
        })
    }

    /// The values as text, `None` where one is not; the text may not be UTF-8.
    pub fn texts(&self) -> impl Iterator<Item = Option<&'a [u8]>> + use<'a> {
        self.iter().map(|value| match value {
            Value::Text(text) => Some(text),
            _ => None,
        })
    }
}

/// The value at the head of `bytes`, and what follows it.
fn value(kind: Kind, bytes: &[u8]) -> Option<(Value<'_>, &[u8])> {
    if kind == Kind::Text {
        let (len, rest) = bytes.split_first_chunk::<8>()?;
        let (text, rest) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*len)).ok()?)?;
        return Some((Value::Text(text), rest));
    }
    let (own, rest) = bytes.split_at_checked(kind.size()?)?;
    // Little-endian, so a short number is the low bytes of a long one.
    let mut wide = [0; 8];
    wide.iter_mut().zip(own).for_each(|(to, from)| *to = *from);
    let bits = u64::from_le_bytes(wide);
    let value = match kind {
        Kind::Bool => Value::Bool(bits != 0),
        Kind::F32 => Value::Float(f64::from(f32::from_bits(bits as u32))),
        Kind::F64 => Value::Float(f64::from_bits(bits)),
        Kind::I8 => Value::Integer((bits as i8).into()),
        Kind::I16 => Value::Integer((bits as i16).into()),
        Kind::I32 => Value::Integer((bits as i32).into()),
        Kind::I64 => Value::Integer(bits.cast_signed().into()),
        Kind::U8 | Kind::U16 | Kind::U32 | Kind::U64 => Value::Integer(bits.into()),
        Kind::Text | Kind::List => return None,
    };
    Some((value, rest))
}

impl Gguf {
    /// The file's name for messages.
    pub fn file(&self) -> &str {
        self.source.name()
    }

    /// The version of the format.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The metadata keys, in order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.meta.iter().map(|entry| self.key(entry))
    }

    fn key(&self, entry: &Entry) -> &str {
        let bytes = self.source.bytes().get(entry.key.clone()).unwrap_or_default();
        std::str::from_utf8(bytes).unwrap_or_default()
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<Value<'_>> {
        let at = self.meta.binary_search_by(|entry| self.key(entry).cmp(key)).ok()?;
        let entry = self.meta.get(at)?;
        let bytes = self.source.bytes().get(entry.value.clone())?;
        if entry.kind != Kind::List {
            return value(entry.kind, bytes).map(|(value, _)| value);
        }
        let (kind, rest) = bytes.split_first_chunk::<4>()?;
        let (len, bytes) = rest.split_first_chunk::<8>()?;
        let len = usize::try_from(u64::from_le_bytes(*len)).ok()?;
        Some(Value::List(List { kind: Kind::of(u32::from_le_bytes(*kind))?, len, bytes }))
    }

    fn wrong(&self, key: &str, expected: &str, found: Value) -> Error {
        let found = match found {
            Value::Integer(n) => n.to_string(),
            Value::Float(x) => x.to_string(),
            Value::Bool(b) => b.to_string(),
            Value::Text(text) => format!("\"{}\"", shown(&String::from_utf8_lossy(text))),
            Value::List(list) => format!("a list of {}", list.len),
        };
        bad(self.file(), format!("{key}: expected {expected}, found {found}"))
    }

    fn typed<T>(&self, key: &str, expected: &str, read: impl Fn(Value) -> Option<T>) -> Result<Option<T>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        read(value).map(Some).ok_or_else(|| self.wrong(key, expected, value))
    }

    /// A count or an id, `None` where absent.
    ///
    /// # Errors
    /// `Format` where it is not a whole number that fits.
    pub fn usize(&self, key: &str) -> Result<Option<usize>> {
        self.typed(key, "a whole number", |value| match value {
            Value::Integer(n) => usize::try_from(n).ok(),
            _ => None,
        })
    }

    /// A token id, `None` where absent.
    ///
    /// # Errors
    /// `Format` where it is not a whole number that fits.
    pub fn id(&self, key: &str) -> Result<Option<u32>> {
        self.typed(key, "a token id", |value| match value {
            Value::Integer(n) => u32::try_from(n).ok(),
            _ => None,
        })
    }

    /// A number, `None` where absent.
    ///
    /// # Errors
    /// `Format` where it is not a number or not finite in f32.
    pub fn f32(&self, key: &str) -> Result<Option<f32>> {
        self.typed(key, "a finite number", |value| match value {
            Value::Float(x) => Some(x as f32).filter(|x| x.is_finite()),
            Value::Integer(n) => Some(n as f32),
            _ => None,
        })
    }

    /// A switch, `None` where absent.
    ///
    /// # Errors
    /// `Format` where it is none.
    pub fn bool(&self, key: &str) -> Result<Option<bool>> {
        self.typed(key, "true or false", |value| match value {
            Value::Bool(on) => Some(on),
            _ => None,
        })
    }

    /// A text, `None` where absent.
    ///
    /// # Errors
    /// `Format` where it is none or not UTF-8.
    pub fn str(&self, key: &str) -> Result<Option<&str>> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => match value {
                Value::Text(text) => Some(std::str::from_utf8(text).ok()),
                _ => None,
            }
            .flatten()
            .map(Some)
            .ok_or_else(|| self.wrong(key, "UTF-8 text", value)),
        }
    }

    /// A list, `None` where absent.
    ///
    /// # Errors
    /// `Format` where it is none.
    pub fn list(&self, key: &str) -> Result<Option<List<'_>>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::List(list)) => Ok(Some(list)),
            Some(value) => Err(self.wrong(key, "a list", value)),
        }
    }

    /// The family, as `general.architecture` names it.
    ///
    /// # Errors
    /// `Format` where the file does not say.
    pub fn architecture(&self) -> Result<&str> {
        let missing = || bad(self.file(), "general.architecture is missing");
        self.str("general.architecture")?.ok_or_else(missing)
    }

    /// Name and shape (slowest dimension first) of every tensor, as the file names them.
    pub fn shapes(&self) -> impl Iterator<Item = (&str, &[usize])> {
        self.infos.iter().map(|info| (info.name.as_str(), info.shape.as_slice()))
    }

    fn info(&self, name: &str) -> Option<&Info> {
        self.infos.iter().find(|info| info.name == name)
    }
}
