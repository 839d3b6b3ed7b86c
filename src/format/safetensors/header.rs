//! Floor 3: the JSON header of a safetensors file, with bounded memory and no key twice. Knows no offsets' meaning.

use super::{MAX_TENSORS, element};
use crate::error::{Error, Result};
use crate::format::tensors::Stored;
use crate::format::{bad, shown};
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::hash::{BuildHasher, RandomState};

/// Most dimensions of a tensor. PyTorch allows 64; nothing that is a weight has more than five.
const MAX_RANK: usize = 8;
/// Longest string, in file bytes: unescaping one copies it.
const MAX_STRING: usize = 16 << 20;
/// Longest tensor name.
const MAX_NAME: usize = 1024;
/// Most entries of the free-form metadata.
const MAX_META: usize = 1 << 16;

/// What the header says of a tensor.
pub struct Info {
    pub stored: Stored,
    pub type_name: &'static str,
    pub bits: usize,
    pub shape: Vec<usize>,
    pub begin: usize,
    pub end: usize,
}

/// The key of the free-form metadata that says which tensors are packed panels: JSON, `{name: [type, n, k, crc32]}`.
pub const PACKED: &str = "inlaid.packed";

/// What the metadata says of a packed tensor: type, outputs, inputs, CRC-32 of the bytes.
pub type Packed = (String, usize, usize, u32);

/// Every tensor of the header in file order (a name may still be there twice), and what is said of packed ones.
pub struct Parsed {
    pub list: Vec<(String, Info)>,
    pub packed: BTreeMap<String, Packed>,
}

/// Reads the header.
pub fn parse(file: &str, head: &[u8]) -> Result<Parsed> {
    if head.first() != Some(&b'{') {
        return Err(bad(file, "expected a header that begins with `{`"));
    }
    if longest_string(head) > MAX_STRING {
        return Err(bad(file, format!("expected strings of at most {MAX_STRING} bytes in the header")));
    }
    let Header { list, packed } =
        serde_json::from_slice(head).map_err(|e| bad(file, format!("header: {e}")))?;
    let packed = packed.map_or(Ok(BTreeMap::new()), |text| serde_json::from_str(&text));
    let packed = packed.map_err(|e| bad(file, format!("metadata `{PACKED}`: {e}")))?;
    let list: Result<_> =
        list.into_iter().map(|(name, raw)| Ok((name.clone(), info(file, &name, raw)?))).collect();
    Ok(Parsed { list: list?, packed })
}

fn info(file: &str, name: &str, raw: Raw) -> Result<Info> {
    let Some((type_name, stored, bits)) = element(&raw.dtype.0) else {
        let what = format!("element type `{}` of tensor `{}`", shown(&raw.dtype.0), shown(name));
        return Err(Error::Unsupported { file: file.to_owned(), what });
    };
    // An offset that does not fit an address lies outside every file.
    let [begin, end] = raw.data_offsets.map(|at| usize::try_from(at).unwrap_or(usize::MAX));
    Ok(Info { stored, type_name, bits, shape: raw.shape.0, begin, end })
}

/// Bytes of the longest JSON string, by its quotes.
fn longest_string(head: &[u8]) -> usize {
    let (mut longest, mut start, mut escaped) = (0, None, false);
    for (at, &byte) in head.iter().enumerate() {
        match (start, byte) {
            (Some(_), _) if escaped => escaped = false,
            (Some(_), b'\\') => escaped = true,
            (Some(from), b'"') => {
                longest = longest.max(at - from);
                start = None;
            }
            (None, b'"') => start = Some(at),
            _ => {}
        }
    }
    longest.max(start.map_or(0, |from| head.len() - from))
}

struct Header {
    list: Vec<(String, Raw)>,
    packed: Option<String>,
}

/// A tensor's entry as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    dtype: TypeName,
    shape: Shape,
    data_offsets: [u64; 2],
}

/// An element type's name; none is long.
struct TypeName(String);

struct Shape(Vec<usize>);

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Header;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
                let (mut list, mut meta, mut packed) = (Vec::new(), false, None);
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        if std::mem::replace(&mut meta, true) {
                            return Err(A::Error::custom("`__metadata__` is given twice"));
                        }
                        packed = map.next_value::<Metadata>()?.packed;
                        continue;
                    }
                    if name.len() > MAX_NAME || list.len() == MAX_TENSORS {
                        let what = format_args!(
                            "expected at most {MAX_TENSORS} tensors with names of at most {MAX_NAME} bytes"
                        );
                        return Err(A::Error::custom(what));
                    }
                    list.push((name, map.next_value()?));
                }
                Ok(Header { list, packed })
            }
        }
        d.deserialize_map(Entries)
    }
}

/// The free-form metadata: looked through, and not kept but for what says which tensors are packed.
struct Metadata {
    packed: Option<String>,
}

impl<'de> Deserialize<'de> for Metadata {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Texts;
        impl<'de> Visitor<'de> for Texts {
            type Value = Metadata;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object of strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Metadata, A::Error> {
                // Hashes stand for keys, which may be long; two different keys of one hash do not happen by chance.
                let (hasher, mut seen, mut packed) = (RandomState::new(), HashSet::new(), None);
                while let Some(key) = map.next_key::<String>()? {
                    if !seen.insert(hasher.hash_one(&key)) || seen.len() > MAX_META {
                        let what =
                            format_args!("metadata key `{}` is one too many or given twice", shown(&key));
                        return Err(A::Error::custom(what));
                    }
                    if key == PACKED {
                        packed = Some(map.next_value::<String>()?);
                    } else {
                        map.next_value::<Text>()?;
                    }
                }
                Ok(Metadata { packed })
            }
        }
        d.deserialize_map(Texts)
    }
}

/// A string that is not kept.
struct Text;

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Any;
        impl Visitor<'_> for Any {
            type Value = Text;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_str<E>(self, _: &str) -> Result<Text, E> {
                Ok(Text)
            }
        }
        d.deserialize_str(Any)
    }
}

impl<'de> Deserialize<'de> for TypeName {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Name;
        impl Visitor<'_> for Name {
            type Value = TypeName;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("the name of an element type")
            }

            fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<TypeName, E> {
                if name.len() > 64 {
                    return Err(E::custom("expected the name of an element type"));
                }
                Ok(TypeName(name.to_owned()))
            }
        }
        d.deserialize_str(Name)
    }
}

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Sizes;
        impl<'de> Visitor<'de> for Sizes {
            type Value = Shape;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a list of sizes")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Shape, A::Error> {
                let mut shape = Vec::new();
                while shape.len() < MAX_RANK {
                    let Some(size) = seq.next_element()? else { return Ok(Shape(shape)) };
                    shape.push(size);
                }
                match seq.next_element::<IgnoredAny>()? {
                    None => Ok(Shape(shape)),
                    Some(_) => Err(A::Error::custom(format_args!("expected at most {MAX_RANK} dimensions"))),
                }
            }
        }
        d.deserialize_seq(Sizes)
    }
}
