//! Floor 3: JSON from files: no key twice, bounded depth and memory. Knows no model.
//!
//! JSON leaves open what a repeated key means (RFC 8259, section 4), so two readers of one file can run two models. It is
//! refused here.

use super::{bad, shown};
use crate::error::Result;
use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::cell::Cell;
use std::fmt;

/// Largest JSON file that is read whole.
pub const MAX_BYTES: u64 = 16 << 20;

/// What a file's values may cost together, in the units of [`VALUE`], [`KEY`] and [`OBJECT`]: some twenty megabytes.
const BUDGET: usize = 1 << 18;
const VALUE: usize = 1;
const KEY: usize = 2;
/// An object of one member takes as much memory as some sixteen values.
const OBJECT: usize = 16;

/// The value of `bytes`, called `file` in messages. Nesting is bounded by the parser (128 levels).
///
/// # Errors
/// `Format` for what is not JSON, a repeated key, or a file of too many values.
pub fn parse(file: &str, bytes: &[u8]) -> Result<Value> {
    if bytes.len() as u64 > MAX_BYTES {
        return Err(bad(file, format!("expected at most {MAX_BYTES} bytes of JSON, found {}", bytes.len())));
    }
    let left = Cell::new(BUDGET);
    let mut parser = serde_json::Deserializer::from_slice(bytes);
    let value = Seed { left: &left }.deserialize(&mut parser).map_err(|e| bad(file, e.to_string()))?;
    parser.end().map_err(|e| bad(file, e.to_string()))?;
    Ok(value)
}

/// A value that is a small part of a file: for types that derive `Deserialize`. Of the rest they keep less.
#[cfg(feature = "tokenizer")]
#[derive(Default)]
pub(crate) struct Small(pub(crate) Value);

#[cfg(feature = "tokenizer")]
impl<'de> serde::Deserialize<'de> for Small {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Seed { left: &Cell::new(BUDGET / 16) }.deserialize(d).map(Small)
    }
}

/// Builds a value within what is left of the budget.
#[derive(Clone, Copy)]
struct Seed<'a> {
    left: &'a Cell<usize>,
}

impl Seed<'_> {
    fn spend<E: serde::de::Error>(self, cost: usize) -> Result<(), E> {
        let left = self.left.get().checked_sub(cost).ok_or_else(|| E::custom("too many values"))?;
        self.left.set(left);
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, d: D) -> Result<Value, D::Error> {
        self.spend(VALUE)?;
        d.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(Value::Bool(v))
    }

    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_f64<E: serde::de::Error>(self, v: f64) -> Result<Value, E> {
        Number::from_f64(v).map(Value::Number).ok_or_else(|| E::custom("a number is not finite"))
    }

    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(Value::String(v.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(value) = seq.next_element_seed(self)? {
            list.push(value);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        self.spend(OBJECT)?;
        let mut object = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            self.spend(KEY)?;
            if object.contains_key(&key) {
                return Err(A::Error::custom(format_args!("key `{}` is given twice", shown(&key))));
            }
            let value = map.next_value_seed(self)?;
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}
