//! Floor 3: the instructions of a pickle that build values. Knows no dictionary of tensors.

use super::Stored;
use crate::format::{MAX_TENSORS, shown};
use std::collections::HashMap;
use std::rc::Rc;

/// A value's number.
pub(super) type At = usize;

/// Longest name of a tensor.
const MAX_NAME: usize = 1024;

/// Most values of a pickle: a tensor takes some twenty.
const MAX_VALUES: usize = 32 * MAX_TENSORS;

#[derive(Clone, Debug)]
pub(super) enum Value {
    None,
    Bool,
    Int(i64),
    Float,
    Text(Rc<str>),
    Tuple(Vec<At>),
    List(Vec<At>),
    Dict(Vec<(At, At)>),
    /// A class that may be named.
    Class(Class),
    Storage {
        key: Rc<str>,
        class: Rc<str>,
    },
    Tensor(Rc<Stored>),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Class {
    Dict,
    RebuildTensor,
    RebuildParameter,
    /// Of a module `torch`: the number of its name among the texts.
    Storage(At),
}

/// What an unfinished pickle has made so far.
pub(super) struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    pub values: Vec<Value>,
    stack: Vec<At>,
    marks: Vec<usize>,
    memo: HashMap<u32, At>,
}

impl<'a> Machine<'a> {
    /// Before the first instruction of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Machine<'a> {
        Machine {
            bytes,
            at: 0,
            values: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
        }
    }

    /// Runs all instructions. Returns what they have made.
    ///
    /// # Errors
    /// What is wrong, or what is refused.
    pub fn run(&mut self) -> Result<At, String> {
        loop {
            let [op] = self.take::<1>()?;
            match op {
                0x80 => drop(self.take::<1>()?), // PROTO
                0x95 => drop(self.take::<8>()?), // FRAME
                b'.' => return self.pop(),
                b'(' => self.marks.push(self.stack.len()),
                b'N' => self.push(Value::None)?,
                0x88 | 0x89 => self.push(Value::Bool)?,
                b'J' | b'K' | b'M' | 0x8a | b'G' => self.number(op)?,
                b'X' | 0x8c | b'c' | 0x93 => self.text(op)?,
                b')' | b't' | 0x85..=0x87 => self.tuple(op)?,
                b'}' => self.push(Value::Dict(Vec::new()))?,
                b']' => self.push(Value::List(Vec::new()))?,
                b's' | b'u' => self.set_items(op)?,
                b'a' | b'e' => self.append(op)?,
                b'q' | b'r' | 0x94 | b'h' | b'j' => self.remember(op)?,
                b'Q' => self.persistent()?,
                b'R' => self.call()?,
                // An attribute of a dictionary (its metadata) is no tensor; nothing else has any.
                b'b' => drop(self.pop()?),
                other => return Err(format!("instruction {other:#04x} of the pickle is refused")),
            }
        }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let found = self.bytes.get(self.at..).and_then(<[u8]>::first_chunk);
        self.at += N;
        found.copied().ok_or_else(|| "the pickle ends early".to_owned())
    }

    fn value(&mut self, value: Value) -> Result<At, String> {
        if self.values.len() == MAX_VALUES {
            return Err(format!("expected at most {MAX_VALUES} values in the pickle"));
        }
        self.values.push(value);
        Ok(self.values.len() - 1)
    }

    fn push(&mut self, value: Value) -> Result<(), String> {
        let at = self.value(value)?;
        self.stack.push(at);
        Ok(())
    }

    fn pop(&mut self) -> Result<At, String> {
        let least = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() <= least {
            return Err("the pickle takes what it did not put".to_owned());
        }
        Ok(self.stack[self.stack.len() - 1]).inspect(|_| self.stack.truncate(self.stack.len() - 1))
    }

    /// What lies above the last mark.
    fn since_mark(&mut self) -> Result<Vec<At>, String> {
        let mark = self.marks.pop().ok_or("the pickle has no mark")?;
        Ok(self.stack.split_off(mark))
    }

    fn number(&mut self, op: u8) -> Result<(), String> {
        let value = match op {
            b'J' => Value::Int(i32::from_le_bytes(self.take()?).into()),
            b'K' => Value::Int(self.take::<1>()?[0].into()),
            b'M' => Value::Int(u16::from_le_bytes(self.take()?).into()),
            b'G' => {
                self.take::<8>()?;
                Value::Float
            }
            _ => {
                let [len] = self.take::<1>()?;
                let mut bytes = [0; 8];
                for i in 0..usize::from(len) {
                    let [byte] = self.take::<1>()?;
                    *bytes.get_mut(i).ok_or("a number of the pickle is too large")? = byte;
                }
                let unused = 64 - 8 * u32::from(len);
                let value = i64::from_le_bytes(bytes);
                Value::Int(if len == 0 { 0 } else { value << unused >> unused })
            }
        };
        self.push(value)
    }

    fn bytes_of(&mut self, len: usize) -> Result<Rc<str>, String> {
        let bytes =
            self.bytes.get(self.at..).and_then(|rest| rest.get(..len)).ok_or("the pickle ends early")?;
        self.at += len;
        std::str::from_utf8(bytes).map(Rc::from).map_err(|_| "a text of the pickle is not UTF-8".to_owned())
    }

    fn line(&mut self) -> Result<Rc<str>, String> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let len = rest
            .iter()
            .take(MAX_NAME)
            .position(|byte| *byte == b'\n')
            .ok_or("a name of the pickle is too long")?;
        let line = self.bytes_of(len)?;
        self.at += 1;
        Ok(line)
    }

    fn text(&mut self, op: u8) -> Result<(), String> {
        let (module, name) = match op {
            b'X' | 0x8c => {
                let len = if op == b'X' {
                    u32::from_le_bytes(self.take()?) as usize
                } else {
                    self.take::<1>()?[0].into()
                };
                let text = self.bytes_of(len)?;
                return self.push(Value::Text(text));
            }
            b'c' => (self.line()?, self.line()?),
            _ => {
                let (name, module) = (self.pop()?, self.pop()?);
                (self.text_of(module)?, self.text_of(name)?)
            }
        };
        let class = match (&*module, &*name) {
            ("collections", "OrderedDict") => Class::Dict,
            ("torch._utils", "_rebuild_tensor_v2") => Class::RebuildTensor,
            ("torch._utils", "_rebuild_parameter") => Class::RebuildParameter,
            ("torch", storage) if storage.ends_with("Storage") => {
                Class::Storage(self.value(Value::Text(name))?)
            }
            _ => {
                let shown = shown(&format!("{module}.{name}"));
                return Err(format!(
                    "class {shown} of the pickle is refused: only tensors and dictionaries are read"
                ));
            }
        };
        self.push(Value::Class(class))
    }

    fn tuple(&mut self, op: u8) -> Result<(), String> {
        let items = match op {
            b')' => Vec::new(),
            b't' => self.since_mark()?,
            n => {
                let mut items: Vec<At> = (0x85..=n).map(|_| self.pop()).collect::<Result<_, _>>()?;
                items.reverse();
                items
            }
        };
        self.push(Value::Tuple(items))
    }

    fn set_items(&mut self, op: u8) -> Result<(), String> {
        let items = if op == b'u' {
            self.since_mark()?
        } else {
            let (value, key) = (self.pop()?, self.pop()?);
            vec![key, value]
        };
        let dict = *self.stack.last().ok_or("the pickle has no dictionary")?;
        let Value::Dict(map) = &mut self.values[dict] else { return Err("expected a dictionary".to_owned()) };
        map.extend(items.as_chunks::<2>().0.iter().map(|[key, value]| (*key, *value)));
        Ok(())
    }

    fn append(&mut self, op: u8) -> Result<(), String> {
        let items = if op == b'e' { self.since_mark()? } else { vec![self.pop()?] };
        let list = *self.stack.last().ok_or("the pickle has no list")?;
        let Value::List(all) = &mut self.values[list] else { return Err("expected a list".to_owned()) };
        all.extend(items);
        Ok(())
    }

    fn remember(&mut self, op: u8) -> Result<(), String> {
        let slot = match op {
            b'q' | b'h' => self.take::<1>()?[0].into(),
            b'r' | b'j' => u32::from_le_bytes(self.take()?),
            _ => self.memo.len() as u32,
        };
        if matches!(op, b'h' | b'j') {
            let known = self.memo.get(&slot).ok_or("the pickle remembers what it did not put")?;
            self.stack.push(*known);
        } else {
            self.memo.insert(slot, *self.stack.last().ok_or("the pickle has nothing to remember")?);
        }
        Ok(())
    }

    /// `("storage", class, key, device, elements)`.
    fn persistent(&mut self) -> Result<(), String> {
        let id = self.pop()?;
        let Value::Tuple(id) = &self.values[id] else { return Err("expected a storage".to_owned()) };
        let [kind, class, key, ..] = id[..] else { return Err("expected a storage".to_owned()) };
        let Value::Class(Class::Storage(class)) = self.values[class] else {
            return Err("expected a storage's class".to_owned());
        };
        if &*self.text_of(kind)? != "storage" {
            return Err("expected a storage".to_owned());
        }
        let (key, class) = (self.text_of(key)?, self.text_of(class)?);
        self.push(Value::Storage { key, class })
    }

    fn call(&mut self) -> Result<(), String> {
        let (args, class) = (self.pop()?, self.pop()?);
        let Value::Tuple(args) = &self.values[args] else { return Err("expected arguments".to_owned()) };
        let Value::Class(class) = &self.values[class] else {
            return Err("expected a class to call".to_owned());
        };
        let value = match (class, &args[..]) {
            (Class::Dict, []) => Value::Dict(Vec::new()),
            (Class::RebuildTensor, [storage, offset, shape, strides, ..]) => {
                let Value::Storage { key, class } = &self.values[*storage] else {
                    return Err("expected a tensor's storage".to_owned());
                };
                let (key, class) = (key.clone(), class.clone());
                let (shape, strides) = (self.sizes(*shape)?, self.sizes(*strides)?);
                Value::Tensor(Rc::new(Stored { key, class, offset: self.size(*offset)?, shape, strides }))
            }
            (Class::RebuildParameter, [data, ..]) => match &self.values[*data] {
                Value::Tensor(tensor) => Value::Tensor(tensor.clone()),
                _ => return Err("expected a parameter's tensor".to_owned()),
            },
            _ => return Err("a call of the pickle is refused".to_owned()),
        };
        self.push(value)
    }

    /// The text that a value is.
    pub fn text_of(&self, at: At) -> Result<Rc<str>, String> {
        match &self.values[at] {
            Value::Text(text) if text.len() <= MAX_NAME => Ok(text.clone()),
            _ => Err("expected a text of the pickle".to_owned()),
        }
    }

    fn size(&self, at: At) -> Result<u64, String> {
        match self.values[at] {
            Value::Int(n) => u64::try_from(n).map_err(|_| format!("expected a size, found {n}")),
            _ => Err("expected a size".to_owned()),
        }
    }

    fn sizes(&self, at: At) -> Result<Vec<u64>, String> {
        match &self.values[at] {
            Value::Tuple(sizes) if sizes.len() <= 8 => sizes.iter().map(|size| self.size(*size)).collect(),
            _ => Err("expected at most 8 sizes".to_owned()),
        }
    }
}
