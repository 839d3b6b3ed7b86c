//! Floor 5: the table of the normalizer `Precompiled`, checked before the `tokenizers` crate walks it without looking where
//! it steps. Knows the layout that SentencePiece writes: the bytes of a double array, the array (one u32 a unit), texts.

/// Largest table in bytes; those of published models have a quarter of a million. The check takes time with its size.
const MOST: usize = 4 << 20;

/// What is wrong with a table in base64, or `None`.
pub(super) fn wrong(base64: &str) -> Option<&'static str> {
    if base64.len() > MOST / 3 * 4 {
        return Some("expected at most four mebibytes");
    }
    let Some(bytes) = decode(base64.as_bytes()) else { return Some("expected base64") };
    let Some((size, rest)) = bytes.split_first_chunk() else { return Some("expected a size") };
    let Some((array, texts)) = rest.split_at_checked(u32::from_le_bytes(*size) as usize / 4 * 4) else {
        return Some("expected an array of the size that it gives");
    };
    let Ok(texts) = std::str::from_utf8(texts) else { return Some("expected texts in UTF-8") };
    let array: Vec<u32> = array.as_chunks().0.iter().map(|unit| u32::from_le_bytes(*unit)).collect();
    if walk(&array, texts).is_none() { Some("the array leads out of itself") } else { None }
}

/// Takes all ways through the array; `None` where one leads out of it, or to no text.
fn walk(array: &[u32], texts: &str) -> Option<()> {
    let root = offset(*array.first()?);
    let mut seen = vec![false; array.len()];
    let mut open = vec![root];
    while let Some(base) = open.pop() {
        if std::mem::replace(seen.get_mut(base)?, true) {
            continue;
        }
        for label in 1..=255 {
            let at = base ^ label as usize;
            let unit = *array.get(at)?;
            if unit & (1 << 31 | 0xff) != label {
                continue;
            }
            let next = at ^ offset(unit);
            let has_leaf = unit >> 8 & 1 == 1;
            if has_leaf && !texts.is_char_boundary((array.get(next)? & 0x7fff_ffff) as usize) {
                return None;
            }
            open.push(next);
        }
    }
    Some(())
}

/// How far a unit's children are, as an exclusive or.
fn offset(unit: u32) -> usize {
    (unit as usize >> 10) << ((unit & 1 << 9) >> 6)
}

/// The bytes of strict base64.
fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let padding = text.iter().rev().take_while(|c| **c == b'=').count();
    let (groups, rest) = text.as_chunks::<4>();
    if !rest.is_empty() || padding > 2 {
        return None;
    }
    let mut out = Vec::with_capacity(groups.len() * 3);
    for (n, group) in groups.iter().enumerate() {
        let padding = if n + 1 == groups.len() { padding } else { 0 };
        let mut bits = 0;
        for (at, c) in group.iter().enumerate() {
            bits = bits << 6 | if at < 4 - padding { value(*c)? } else { 0 };
        }
        let [_, bytes @ ..] = u32::to_be_bytes(bits);
        let (bytes, beyond) = bytes.split_at(3 - padding);
        if beyond.iter().any(|byte| *byte != 0) {
            return None;
        }
        out.extend_from_slice(bytes);
    }
    Some(out)
}

fn value(c: u8) -> Option<u32> {
    let value = match c {
        b'A'..=b'Z' => c - b'A',
        b'a'..=b'z' => c - b'a' + 26,
        b'0'..=b'9' => c - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    };
    Some(value.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_strict() {
        for (text, bytes) in [("", &b""[..]), ("AAEC", b"\0\x01\x02"), ("/+8=", b"\xff\xef"), ("eA==", b"x")]
        {
            assert_eq!(decode(text.as_bytes()).as_deref(), Some(bytes), "{text}");
        }
        for text in ["A", "AA", "AAA", "A===", "====", "AA=A", "AB==", "AAB=", "AA A", "AA\n="] {
            assert_eq!(decode(text.as_bytes()), None, "{text}");
        }
    }

    /// A table that turns `label` into a text.
    fn table(label: u32, value: u32) -> Vec<u32> {
        let mut array = vec![0; 512];
        array[0] = 256 << 10; // children from 256 on
        array[256 ^ label as usize] = label | 1 << 8 | (label ^ 1) << 10; // its children: from 257 on
        array[257] = 1 << 31 | value;
        array
    }

    #[test]
    fn all_ways_end_within_the_array() {
        assert_eq!(walk(&table(b'a'.into(), 2), "\u{e9}\0"), Some(()));
        assert_eq!(walk(&table(b'a'.into(), 1), "\u{e9}\0"), None, "within a character");
        assert_eq!(walk(&table(b'a'.into(), 4), "\u{e9}\0"), None, "beyond the texts");
        assert_eq!(walk(&[], ""), None);
        assert_eq!(walk(&[1 << 31 | 0xffff_fc00], ""), None);
        let mut short = table(b'a'.into(), 0);
        short.truncate(300);
        assert_eq!(walk(&short, ""), None);
    }
}
