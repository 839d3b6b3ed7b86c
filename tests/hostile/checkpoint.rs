//! Malformed checkpoints of PyTorch: archives that lie, pickles that would run code, tensors that are not there.

use crate::archive::{Entry, archive};
use crate::{Case, case};
use inlaid::Error;
use inlaid::format::checkpoint::tensors;
use inlaid::format::source::Source;

pub fn open(bytes: &[u8]) -> Result<(), Error> {
    let tensors = tensors(&Source::memory("model.bin", std::sync::Arc::new(bytes.to_vec())))?;
    // What was accepted is all there.
    for (_, tensor) in tensors.iter() {
        assert_eq!(Some(tensor.bytes().len()), tensor.dtype().row_bytes(tensor.elements()));
    }
    Ok(())
}

/// A tensor of `storage` and `class`: all but the storage's key is Python's, pickled.
fn tensor(key: &str, class: &str, offset: u8, shape: &[u32], strides: &[u32]) -> Vec<u8> {
    let tuple = |sizes: &[u32]| {
        let sizes = sizes.iter().flat_map(|size| [&b"J"[..], &size.to_le_bytes()].concat());
        [&b"("[..], &sizes.collect::<Vec<u8>>(), b"t"].concat()
    };
    [
        &b"ctorch._utils\n_rebuild_tensor_v2\n("[..],
        &[b"(", &text("storage")[..], b"ctorch\n", class.as_bytes(), b"\n", &text(key)].concat(),
        &[&text("cpu")[..], b"K\x06tQK", &[offset]].concat(),
        &tuple(shape),
        &tuple(strides),
        b"\x89ccollections\nOrderedDict\n)RtR",
    ]
    .concat()
}

fn text(text: &str) -> Vec<u8> {
    [&b"X"[..], &(text.len() as u32).to_le_bytes(), text.as_bytes()].concat()
}

/// The pickle of a dictionary.
fn dict(items: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let items = items.iter().flat_map(|(name, value)| [text(name), value.clone()].concat());
    [&b"\x80\x02}("[..], &items.collect::<Vec<u8>>(), b"u."].concat()
}

/// Six numbers of four bytes.
const STORAGE: [u8; 24] = [1; 24];

/// A checkpoint of one storage.
fn file(pickle: &[u8]) -> Vec<u8> {
    archive(&entries(pickle))
}

fn entries(pickle: &[u8]) -> Vec<Entry> {
    vec![
        Entry::stored("m/data.pkl", pickle),
        Entry::stored("m/byteorder", b"little"),
        Entry::deflated("m/data/0", &STORAGE),
    ]
}

fn good() -> Vec<u8> {
    dict(&[
        ("a", tensor("0", "FloatStorage", 1, &[2, 2], &[2, 1])),
        ("b", tensor("0", "HalfStorage", 0, &[3, 4], &[1, 3])),
    ])
}

pub fn valid() -> Vec<u8> {
    file(&good())
}

fn one(class: &str, offset: u8, shape: &[u32], strides: &[u32]) -> Vec<u8> {
    file(&dict(&[("a", tensor("0", class, offset, shape, strides))]))
}

pub fn cases() -> Vec<Case> {
    [archives(), pickles(), places()].into_iter().flatten().collect()
}

/// A changed entry of a valid file.
fn changed(which: usize, change: impl Fn(&mut Entry)) -> Vec<u8> {
    let mut entries = entries(&good());
    change(&mut entries[which]);
    archive(&entries)
}

fn archives() -> Vec<Case> {
    let mut twice = entries(&good());
    twice.push(Entry::stored("m/data.pkl", b"."));
    vec![
        case("empty", b""),
        case("no entries", archive(&[])),
        case("no pickle", archive(&[Entry::stored("m/data/0", &STORAGE)])),
        case("no storage", archive(&entries(&good())[..2])),
        case("two pickles", archive(&twice)),
        case("big-endian", changed(1, |entry| entry.bytes = b"bigger".to_vec())),
        case("a pickle beyond the file", changed(0, |entry| entry.size = u32::MAX - 1)),
        case("a pickle that is larger", changed(0, |entry| entry.size += 1)),
        case("a pickle that is smaller", changed(0, |entry| entry.size -= 1)),
        case("a storage of 4 GiB", changed(2, |entry| entry.size = u32::MAX - 1)),
        case("a storage that unpacks to more", changed(2, |entry| entry.size -= 4)),
        case("a storage that unpacks to less", changed(2, |entry| entry.size += 4)),
        case("a storage of other bytes", changed(2, |entry| entry.crc ^= 1)),
        case("a storage that is no deflate", changed(2, |entry| entry.bytes[0] = 7)),
        case("an unknown way to pack", changed(2, |entry| entry.method = 99)),
        case("a storage in the pickle's place", changed(2, |entry| entry.at = Some(1))),
        case("a storage beyond the file", changed(2, |entry| entry.at = Some(u32::MAX - 1))),
        case("a storage of zeros, 100 MiB unpacked", changed(2, |entry| *entry = bomb(100 << 20))),
        case("a pickle of zeros, 100 MiB unpacked", {
            changed(0, |entry| *entry = Entry { name: "m/data.pkl".to_owned(), ..bomb(100 << 20) })
        }),
    ]
}

fn bomb(size: usize) -> Entry {
    Entry::bomb("m/data/0", &[], size)
}

fn pickles() -> Vec<Case> {
    let call = |what: &str| [b"c", what.as_bytes(), b"\n", &text("x"), b"\x85R."].concat();
    let good = good();
    let mut out: Vec<Case> =
        ["os\nsystem", "builtins\neval", "torch\nload", "torch._utils\n_rebuild", "numpy\narray"]
            .into_iter()
            .map(|class| case(format!("calls {class:?}"), file(&call(class))))
            .collect();
    // Every instruction that is not read: INST, OBJ, NEWOBJ, EXT1, LONG, GET, PUT, POP, DUP, FROZENSET ...
    out.extend(b"io\x81\x82\x83\x84lLgp02dFISVTU\x8b\x8d\x8e\x8f\x90\x91\x92\x96\x97\x98BC1P\xff".map(
        |op| case(format!("instruction {op:#04x}"), file(&[b"\x80\x02})", &[op][..], b"0\n0\n."].concat())),
    ));
    out.extend((0..good.len()).map(|len| case(format!("a pickle cut at {len}"), file(&good[..len]))));
    let long = text(&"n".repeat(70_000));
    let deep = [&b"(".repeat(50_000)[..], &b"t".repeat(50_000), b"."].concat();
    let holds_itself = [&b"}q\x00("[..], &[&text("a")[..], b"h\x00"].concat().repeat(20_000), b"u."].concat();
    out.extend([
        case("nothing", file(b".")),
        case("a number", file(b"K\x01.")),
        case("no tensors", file(b"}.")),
        case("tuples in tuples", file(&deep)),
        case("marks alone", file(&b"(".repeat(100_000))),
        case("a dictionary that holds itself, often", file(&holds_itself)),
        case("a text beyond the pickle", file(b"X\xff\xff\xff\xffa")),
        case("a text of no characters", file(b"X\x01\x00\x00\x00\xff.")),
        case("a parameter that is a text, often", {
            let again = b"h\x00h\x01\x85R".repeat(5_000);
            file(&[b"ctorch._utils\n_rebuild_parameter\nq\x00", &long[..], b"q\x01", &again, b"."].concat())
        }),
        case("a class without end", file(&[b"c", &b"a".repeat(100_000)[..]].concat())),
        case("a storage without a class", file(b"(K\x01K\x02K\x03tQ.")),
        case("a key of 70000 characters", {
            let storage = [b"(", &text("storage")[..], b"ctorch\nFloatStorage\n", &long, b"tQ."].concat();
            file(&storage)
        }),
        case("several dictionaries", {
            let own = |at: &str| {
                let dict = dict(&[("w", tensor(at, "FloatStorage", 0, &[1], &[1]))]);
                dict[2..dict.len() - 1].to_vec()
            };
            let names: Vec<String> = (0..300).map(|i| format!("{i}\n").repeat(30)).collect();
            file(&dict(&names.iter().map(|name| (&name[..], own("0"))).collect::<Vec<_>>()))
        }),
    ]);
    out
}

fn places() -> Vec<Case> {
    let float = |offset, shape: &[u32], strides: &[u32]| one("FloatStorage", offset, shape, strides);
    let most = i32::MAX as u32;
    let a = || tensor("0", "FloatStorage", 0, &[1], &[1]);
    let again = |n: usize| {
        let transposed = tensor("0", "FloatStorage", 0, &[2, 3], &[1, 2]);
        let names: Vec<String> = (0..n).map(|i| i.to_string()).collect();
        dict(&names.iter().map(|name| (&name[..], transposed.clone())).collect::<Vec<_>>())
    };
    let mut large = entries(&again(40));
    large[2] = Entry::stored("m/data/0", &[0; 24]);
    let wide = tensor("0", "FloatStorage", 0, &[500, 1000], &[1, 500]);
    let names: Vec<String> = (0..60).map(|i| i.to_string()).collect();
    large[0] =
        Entry::stored("m/data.pkl", &dict(&names.iter().map(|n| (&n[..], wide.clone())).collect::<Vec<_>>()));
    large[2] = Entry::stored("m/data/0", &vec![0; 2_000_000]);
    vec![
        case("one number too many", float(0, &[7], &[1])),
        case("begins too late", float(1, &[6], &[1])),
        case("begins beyond", float(200, &[1], &[1])),
        case("ends beyond", float(0, &[2, 3], &[4, 1])),
        case("in another order, ends beyond", float(1, &[2, 3], &[1, 2])),
        case("repeats itself", float(0, &[3, 3], &[0, 1])),
        case("a stride below zero", float(0, &[2], &[u32::MAX])),
        case("a size below zero", float(0, &[u32::MAX], &[1])),
        case("sizes without end", float(0, &[most; 8], &[1; 8])),
        case("strides without end", float(0, &[1, 2, 2], &[1, most, most])),
        case("nine sizes", float(0, &[1; 9], &[1; 9])),
        case("more sizes than strides", float(0, &[1, 1], &[1])),
        case("no class of numbers", one("ComplexFloatStorage", 0, &[1], &[1])),
        case("a class of no numbers", one("Storage", 0, &[1], &[1])),
        case("another storage", file(&dict(&[("a", tensor("1", "FloatStorage", 0, &[1], &[1]))]))),
        case(
            "a storage outside",
            file(&dict(&[("a", tensor("../data.pkl\0", "FloatStorage", 0, &[1], &[1]))])),
        ),
        case("listed twice", file(&dict(&[("a", a()), ("a", a())]))),
        case("a storage turned 60 times", archive(&large)),
    ]
}

/// Sizes of nothing, which cannot be counted one by one.
#[test]
fn tensors_of_no_elements_are_accepted() {
    let most = i32::MAX as u32;
    open(&one("FloatStorage", 0, &[0, most, most, most], &[1, 1, most, 1])).unwrap();
    open(&one("FloatStorage", 0, &[0, most, most, most], &[most, most, most, 1])).unwrap();
}

/// Entries over each other are read where they are said to be: that costs nothing.
#[test]
fn entries_over_each_other_are_read() {
    let mut entries = entries(&dict(&[("a", tensor("0", "FloatStorage", 0, &[6], &[1]))]));
    entries.insert(0, Entry { name: "m/data/1".to_owned(), ..Entry::stored("", &STORAGE) });
    entries[3] = Entry { name: "m/data/0".to_owned(), at: Some(0), ..Entry::stored("", &STORAGE) };
    open(&archive(&entries)).unwrap();
}

/// Where tensors lie in their storage, packed or not, in order or not, is where they are read.
#[test]
fn the_bytes_are_those_of_the_storage() {
    let numbers: Vec<u8> = (0..24).collect();
    let pickle = dict(&[
        ("a", tensor("0", "FloatStorage", 1, &[2, 2], &[2, 1])),
        ("b", tensor("0", "HalfStorage", 2, &[2, 3], &[1, 3])),
    ]);
    for storage in [Entry::stored("m/data/0", &numbers), Entry::deflated("m/data/0", &numbers)] {
        let mut entries = entries(&pickle);
        entries[2] = storage;
        let found = tensors(&Source::private("model.bin", archive(&entries))).unwrap();
        let bytes = |name: &str| found.get(name).unwrap().unwrap().bytes().to_vec();
        assert_eq!(bytes("a"), numbers[4..20]);
        assert_eq!(bytes("b"), [4, 5, 10, 11, 16, 17, 6, 7, 12, 13, 18, 19]);
    }
}
