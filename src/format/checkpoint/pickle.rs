//! Floor 3: the part of Python's pickle language that says which tensors a PyTorch file holds. Knows no archive.
//!
//! A pickle is a program, and running one runs whatever code it names. This reader runs none: it knows the few
//! instructions that build numbers, texts, lists, dictionaries and tensors, keeps the names of classes as names, and
//! refuses every other instruction and every class but those of tensors and their storages. Values live in one arena, at
//! most one for each byte read, and refer to each other by number, texts are shared, and a dictionary is looked into
//! once: neither a pickle that repeats itself nor one that contains itself takes more memory or time than its length.

mod machine;

use crate::format::shown;
use machine::{At, Machine, Value};
use std::collections::{HashSet, VecDeque};
use std::rc::Rc;

/// Deepest nesting of dictionaries that is looked into for tensors.
const DEPTH: usize = 4;

/// Tensors by name, as a dictionary holds them.
pub type Named = Vec<(Rc<str>, Rc<Stored>)>;

/// Where a tensor's elements are.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    /// The archive's entry.
    pub key: Rc<str>,
    /// The storage's class: `FloatStorage`.
    pub class: Rc<str>,
    /// Elements before the first.
    pub offset: u64,
    /// Sizes, slowest dimension first.
    pub shape: Vec<u64>,
    /// Elements from one index to the next, for each dimension.
    pub strides: Vec<u64>,
}

/// The tensors that a pickle's dictionary holds, by name, in its order; of dictionaries within (a training checkpoint's
/// model beside its optimiser, say) those of the only one that holds tensors alone.
///
/// # Errors
/// What is wrong, or what is refused.
pub fn tensors(bytes: &[u8]) -> Result<Named, String> {
    let mut machine = Machine::new(bytes);
    let top = machine.run()?;
    let mut found = machine.dictionaries(top);
    match found.len() {
        1 => Ok(found.remove(0).1),
        0 => Err("expected a dictionary of tensors, found none: save the model's state_dict()".to_owned()),
        _ => {
            let known = ["state_dict", "model_state_dict", "model", "module", "net", "weights"];
            let at = found.iter().position(|(name, _)| known.contains(&&**name));
            let names: Vec<String> = found.iter().take(5).map(|(name, _)| shown(name)).collect();
            let several =
                || format!("several dictionaries of tensors ({}): save one alone", names.join(", "));
            Ok(found.swap_remove(at.ok_or_else(several)?).1)
        }
    }
}

impl Machine<'_> {
    /// The dictionaries that hold tensors, at `top` or below, with their names; below them is not looked.
    fn dictionaries(&self, top: At) -> Vec<(Rc<str>, Named)> {
        let (mut out, mut seen) = (Vec::new(), HashSet::from([top]));
        let mut next = VecDeque::from([(top, Rc::default(), 0)]);
        while let Some((at, name, depth)) = next.pop_front() {
            let Value::Dict(map) = &self.values[at] else { continue };
            let tensor = |(key, value): &(At, At)| match &self.values[*value] {
                Value::Tensor(tensor) => Some((self.text_of(*key).ok()?, tensor.clone())),
                _ => None,
            };
            let own: Named = map.iter().filter_map(tensor).collect();
            if !own.is_empty() {
                out.push((name, own));
                continue;
            }
            for (key, value) in map.iter().filter(|_| depth < DEPTH) {
                if matches!(self.values[*value], Value::Dict(_)) && seen.insert(*value) {
                    next.push_back((*value, self.text_of(*key).unwrap_or_default(), depth + 1));
                }
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_code_is_refused() {
        let run = b"cposix\nsystem\nX\x02\x00\x00\x00ls\x85R.";
        assert!(tensors(run).unwrap_err().contains("posix.system"));
        assert!(tensors(b"\x80\x02i__main__\nX\n.").unwrap_err().contains("refused"));
        let stack_global = b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93\x8c\x01x\x85R.";
        assert!(tensors(stack_global).unwrap_err().contains("builtins.eval"));
    }

    #[test]
    fn nonsense_is_an_error() {
        for bytes in [
            &b""[..],
            b".",
            b"(",
            b")R.",
            b"}s.",
            b"h\x00.",
            b"X\xff\xff\xff\xffa",
            b"\x8a\xff",
            b"]e.",
            b"Q.",
        ] {
            assert!(tensors(bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn a_dictionary_that_holds_itself_ends() {
        // d = {}; d["a"] = d, and again at every level
        let bytes = b"}q\x00X\x01\x00\x00\x00ah\x00sX\x01\x00\x00\x00bh\x00s.";
        assert!(tensors(bytes).unwrap_err().contains("found none"));
    }

    #[test]
    fn tensors_are_found_below_their_names() {
        // {"model": {"w": tensor}, "epoch": 7}
        let storage =
            b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x06tQ";
        let mut bytes =
            b"}(X\x05\x00\x00\x00model}X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n(".to_vec();
        bytes.extend(storage);
        bytes.extend(b"K\x01K\x02K\x03\x86K\x03K\x01\x86\x89ccollections\nOrderedDict\n)RtRs");
        bytes.extend(b"X\x05\x00\x00\x00epochK\x07u.");
        let found = tensors(&bytes).unwrap();
        let want = Stored {
            key: "0".into(),
            class: "FloatStorage".into(),
            offset: 1,
            shape: vec![2, 3],
            strides: vec![3, 1],
        };
        assert_eq!(found, [("w".into(), Rc::new(want))]);
    }
}
