//! Floor 3: an array as NumPy writes it. Knows no archive.

use crate::format::shown;

/// Most dimensions of an array.
const MAX_DIMS: usize = 8;

/// What an array's header says.
#[derive(Clone, Debug, PartialEq)]
pub struct Header {
    /// Type of the elements, as NumPy spells it: `<f4`.
    pub descr: String,
    /// Whether the first index changes fastest.
    pub fortran: bool,
    /// Sizes.
    pub shape: Vec<usize>,
    /// Where the elements begin.
    pub data: usize,
}

/// Reads the header of an array.
///
/// # Errors
/// What is wrong.
pub fn header(bytes: &[u8]) -> Result<Header, String> {
    let short = || "the array ends within its header".to_owned();
    if !bytes.starts_with(b"\x93NUMPY") {
        return Err("expected an array of NumPy".to_owned());
    }
    let (len, at) = match bytes.get(6) {
        Some(1) => (bytes.get(8..10).map(|b| u32::from(b[0]) | u32::from(b[1]) << 8), 10),
        Some(2 | 3) => (bytes.get(8..12).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])), 12),
        _ => return Err("expected an array of NumPy, version 1 to 3".to_owned()),
    };
    let data = at + len.ok_or_else(short)? as usize;
    let text = bytes.get(at..data).ok_or_else(short)?;
    let text = std::str::from_utf8(text).map_err(|_| "an array's header is not text".to_owned())?;
    let wrong = || format!("an array's header makes no sense: {}", shown(text.trim_end()));
    let value = |key: &str| {
        let (_, rest) = text.split_once(&format!("'{key}':"))?;
        Some(rest.trim_start())
    };
    let descr =
        value("descr").and_then(|rest| rest.strip_prefix('\'')?.split_once('\'')).ok_or_else(wrong)?.0;
    let fortran = value("fortran_order").ok_or_else(wrong)?.starts_with("True");
    let shape = value("shape").and_then(|rest| rest.strip_prefix('(')?.split_once(')')).ok_or_else(wrong)?.0;
    let sizes = shape.split(',').map(str::trim).filter(|size| !size.is_empty());
    let shape =
        sizes.take(MAX_DIMS + 1).map(str::parse).collect::<Result<Vec<usize>, _>>().map_err(|_| wrong())?;
    if shape.len() > MAX_DIMS {
        return Err(format!("expected at most {MAX_DIMS} dimensions of an array"));
    }
    Ok(Header { descr: descr.to_owned(), fortran, shape, data })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn array(text: &str) -> Vec<u8> {
        let mut out = b"\x93NUMPY\x01\x00".to_vec();
        out.extend((text.len() as u16).to_le_bytes());
        out.extend(text.as_bytes());
        out
    }

    #[test]
    fn headers_are_read() {
        let found =
            header(&array("{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }  \n")).unwrap();
        assert_eq!((found.descr.as_str(), found.fortran, &found.shape[..]), ("<f4", false, &[3, 4][..]));
        assert!(
            header(&array("{'descr': '<f4', 'fortran_order': True, 'shape': (), }"))
                .unwrap()
                .shape
                .is_empty()
        );
        for text in [
            "",
            "{}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (3, x), }",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1,1,1), }",
            "{'descr': [('a', 1)]}",
        ] {
            assert!(header(&array(text)).is_err(), "{text}");
        }
        assert!(header(b"\x93NUMPY\x01\x00\xff\xff").is_err());
        assert!(header(b"PK").is_err());
    }
}
