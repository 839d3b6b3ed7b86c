//! Floor 5: the alphabet of byte-level tokenizers: every byte is written as one printable character (Radford et al. 2019,
//! GPT-2). Knows nothing else.

/// The character that stands for `byte`.
pub(super) fn to_char(byte: u8) -> char {
    match byte {
        b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => char::from(byte),
        // The others follow from U+0100 on, in order.
        0..=b' ' => above(u32::from(byte)),
        0x7f..=0xa0 => above(u32::from(byte) - 0x7f + 33),
        0xad => above(67),
    }
}

/// The byte for which `c` stands.
pub(super) fn to_byte(c: char) -> Option<u8> {
    let byte = match u32::from(c) {
        n @ (0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff) => n,
        n @ 0x100..=0x120 => n - 0x100,
        n @ 0x121..=0x142 => n - 0x121 + 0x7f,
        0x143 => 0xad,
        _ => return None,
    };
    u8::try_from(byte).ok()
}

fn above(n: u32) -> char {
    char::from_u32(0x100 + n).unwrap_or(char::REPLACEMENT_CHARACTER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_alphabet_is_the_crate_s() {
        let mut ours: Vec<char> = (0..=255).map(to_char).collect();
        assert!((0..=255).all(|byte| to_byte(to_char(byte)) == Some(byte)));
        assert_eq!([to_char(b' '), to_char(b'\n'), to_char(0x7f), to_char(0xad)], ['Ġ', 'Ċ', 'ġ', 'Ń']);
        ours.sort_unstable();
        let mut theirs: Vec<char> =
            tokenizers::pre_tokenizers::byte_level::ByteLevel::alphabet().into_iter().collect();
        theirs.sort_unstable();
        assert_eq!(ours, theirs);
        assert_eq!(to_byte('語'), None);
    }
}
