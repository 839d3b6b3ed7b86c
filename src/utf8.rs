//! Floor 1: bytes that should be UTF-8, whole or as they come. Knows nothing of tokens.

use crate::error::{Error, Result};

/// The text of `bytes`, which the caller gave as the argument `name`.
///
/// # Errors
/// `Argument` naming the first byte that is not part of a character.
pub fn checked<'a>(name: &'static str, bytes: &'a [u8]) -> Result<&'a str> {
    std::str::from_utf8(bytes).map_err(|e| {
        let at = e.valid_up_to();
        let what = match (e.error_len(), bytes.get(at)) {
            (Some(_), Some(byte)) => format!("expected UTF-8, found byte 0x{byte:02x} at offset {at}"),
            _ => format!("expected UTF-8, found an unfinished character at offset {at}"),
        };
        Error::Argument { name, what }
    })
}

/// Text that comes in pieces of bytes. What it gives, put together, is what [`String::from_utf8_lossy`] makes of all
/// bytes put together.
#[derive(Clone, Debug, Default)]
pub struct Lossy {
    /// The beginning of an unfinished character: at most three bytes between two calls.
    rest: Vec<u8>,
}

impl Lossy {
    /// Appends to `out` the characters that `bytes` complete.
    pub fn push(&mut self, bytes: &[u8], out: &mut String) {
        self.rest.extend_from_slice(bytes);
        let mut left = self.rest.as_slice();
        loop {
            match std::str::from_utf8(left) {
                Ok(text) => {
                    out.push_str(text);
                    left = &[];
                    break;
                }
                Err(e) => {
                    let (text, bad) = left.split_at(e.valid_up_to());
                    out.push_str(std::str::from_utf8(text).unwrap_or_default());
                    left = bad;
                    let Some(skip) = e.error_len() else { break };
                    out.push(char::REPLACEMENT_CHARACTER);
                    left = &left[skip..];
                }
            }
        }
        let done = self.rest.len() - left.len();
        self.rest.drain(..done);
    }

    /// Ends the text: an unfinished character becomes U+FFFD.
    pub fn flush(&mut self, out: &mut String) {
        if !self.rest.is_empty() {
            out.push(char::REPLACEMENT_CHARACTER);
            self.rest.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_offset_of_a_bad_byte_is_named() {
        assert_eq!(checked("text", "né".as_bytes()).unwrap(), "né");
        let said = |bytes| checked("text", bytes).unwrap_err().to_string();
        assert_eq!(said(b"ab\xffc"), "text: expected UTF-8, found byte 0xff at offset 2");
        assert_eq!(said(b"ab\xe2\x82"), "text: expected UTF-8, found an unfinished character at offset 2");
        assert_eq!(said(b"\xed\xa0\x80"), "text: expected UTF-8, found byte 0xed at offset 0");
    }

    /// All texts of up to four bytes from an alphabet that has every kind of byte, cut in every way.
    #[test]
    fn pieces_give_the_text_of_the_whole() {
        const KINDS: [u8; 12] = [b'a', 0x80, 0x9f, 0xa0, 0xbf, 0xc1, 0xc3, 0xe0, 0xed, 0xf0, 0xf4, 0xff];
        let mut bytes = [0; 4];
        for n in 0..KINDS.len().pow(4) {
            bytes
                .iter_mut()
                .enumerate()
                .for_each(|(i, byte)| *byte = KINDS[n / KINDS.len().pow(i as u32) % 12]);
            for cut in 0..8 {
                let (mut lossy, mut out, mut at) = (Lossy::default(), String::new(), 0);
                for end in (1..=4).filter(|end| *end == 4 || cut >> (end - 1) & 1 == 1) {
                    lossy.push(&bytes[at..end], &mut out);
                    at = end;
                }
                lossy.flush(&mut out);
                assert_eq!(out, String::from_utf8_lossy(&bytes), "{bytes:x?} cut {cut:b}");
            }
        }
    }
}
