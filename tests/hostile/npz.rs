//! Malformed archives of NumPy's arrays: headers that lie.

use crate::archive::{Entry, archive};
pub use crate::checkpoint::open;
use crate::{Case, case};

fn array(header: &str, data: usize) -> Vec<u8> {
    [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), &vec![0; data]]
        .concat()
}

fn said(descr: &str, fortran: &str, shape: &str) -> String {
    format!("{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}\n")
}

fn file(array: &[u8]) -> Vec<u8> {
    archive(&[Entry::stored("a.npy", array), Entry::deflated("b.npy", array)])
}

pub fn valid() -> Vec<u8> {
    archive(&[
        Entry::stored("a.npy", &array(&said("'<f4'", "False", "(2, 3)"), 24)),
        Entry::deflated("b.npy", &array(&said("'<f2'", "True", "(2, 3)"), 12)),
        Entry::stored("c.npy", &array(&said("'<i8'", "False", "()"), 8)),
    ])
}

pub fn cases() -> Vec<Case> {
    let of = |descr: &str, fortran: &str, shape: &str| file(&array(&said(descr, fortran, shape), 24));
    let version = |at: usize, byte: u8| {
        let mut array = array(&said("'<f4'", "False", "(6,)"), 24);
        array[at] = byte;
        file(&array)
    };
    let many = format!("({})", "1,".repeat(30_000));
    let zeros = array(&said("'<f4'", "False", "(26214400,)"), 0);
    let mut out = vec![
        case("nothing", file(b"")),
        case("a magic alone", file(b"\x93NUMPY")),
        case("another magic", version(0, b'N')),
        case("version 0", version(6, 0)),
        case("version 4", version(6, 4)),
        case("version 2, whose header is longer", version(6, 2)),
        case("a header beyond the array", version(9, 0xff)),
        case("a header that is no text", version(20, 0xff)),
        case("no header", file(&array("", 24))),
        case("an empty header", file(&array("{}", 24))),
        case("30000 sizes", of("'<f4'", "True", &many)),
        case("100 MiB of zeros", archive(&[Entry::bomb("a.npy", &zeros, 100 << 20)])),
        case(
            "a name twice",
            archive(&[
                Entry::stored("a.npy", &array(&said("'<f4'", "False", "(7,)"), 24)),
                Entry::stored("a.npy", &array(&said("'<f4'", "False", "(7,)"), 24)),
            ]),
        ),
    ];
    out.extend(
        ["'>f4'", "'<f16'", "'<c8'", "'|O'", "'<U7'", "[('a', '<f4')]", "''", "<f4", "'<f4"]
            .map(|descr| case(format!("descr {descr}"), of(descr, "False", "(6,)"))),
    );
    let sizes = ["(7,)", "(-1,)", "(x,)", "(1.5,)", "6", "(", "[6]", "((6,),)", "(99999999999999999999,)"];
    let huge =
        ["(18446744073709551615,)", "(4294967296, 4294967296)", "(4611686018427387904, 4)", "(7, 0, 1"];
    for shape in sizes.into_iter().chain(huge) {
        for fortran in ["False", "True"] {
            out.push(case(format!("shape {shape} {fortran}"), of("'<f4'", fortran, shape)));
        }
    }
    out
}
