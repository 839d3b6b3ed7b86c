//! Floor 3: `model.safetensors.index.json`: which shard holds which tensor. Opens nothing.

use crate::error::Result;
use crate::format::{MAX_TENSORS, bad, shown};
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use std::collections::BTreeMap;
use std::fmt;

/// Largest index: a hundred bytes for every tensor that a model may have.
pub const MAX_BYTES: u64 = 16 << 20;
/// Most shards of a model.
const MAX_SHARDS: usize = 4096;

/// Shards by number, and each tensor's.
#[derive(Default)]
pub struct Index {
    pub shards: Vec<String>,
    pub map: BTreeMap<String, usize>,
}

pub fn parse(file: &str, text: &[u8]) -> Result<Index> {
    let whole: Whole = serde_json::from_slice(text).map_err(|e| bad(file, e.to_string()))?;
    Ok(whole.weight_map)
}

/// The file's object. A field given twice is refused by the derived code.
#[derive(Deserialize)]
struct Whole {
    #[serde(rename = "metadata")]
    _metadata: Option<IgnoredAny>,
    weight_map: Index,
}

impl<'de> Deserialize<'de> for Index {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Index;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object from tensor to shard")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Index, A::Error> {
                let (mut index, mut numbers) = (Index::default(), BTreeMap::new());
                while let Some((tensor, shard)) = map.next_entry::<String, String>()? {
                    let next = numbers.len();
                    let number = *numbers.entry(shard).or_insert(next);
                    if index.map.len() == MAX_TENSORS || number == MAX_SHARDS {
                        let what =
                            format_args!("expected at most {MAX_TENSORS} tensors in {MAX_SHARDS} shards");
                        return Err(A::Error::custom(what));
                    }
                    if index.map.contains_key(&tensor) {
                        let what = format_args!("tensor `{}` is given twice", shown(&tensor));
                        return Err(A::Error::custom(what));
                    }
                    index.map.insert(tensor, number);
                }
                index.shards = vec![String::new(); numbers.len()];
                for (name, number) in numbers {
                    index.shards[number] = name;
                }
                Ok(index)
            }
        }
        d.deserialize_map(Entries)
    }
}
