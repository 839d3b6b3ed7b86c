//! Floor 5: tokens to text as they come. Knows the pieces of tokens, not how they were found.

use super::Tokenizer;
use super::pieces::{Piece, Rule};
use crate::utf8::Lossy;

/// Text of tokens that come one by one, in whole characters. What it gives, put together, is
/// [`Tokenizer::decode`] of all of them.
pub struct Decoder<'a> {
    tokenizer: &'a Tokenizer,
    skip_special: bool,
    lossy: Lossy,
    /// Bytes of byte tokens: they are text only if the whole run is, so its end is awaited.
    run: Vec<u8>,
    /// Tokens that count came before.
    begun: bool,
    /// Characters that may still be taken off the start.
    strip: usize,
    /// Tokens that the crate will decode at once, for the rules that need it.
    held: Vec<u32>,
    out: String,
}

impl<'a> Decoder<'a> {
    /// A decoder at the start of a text; special tokens give nothing with `skip_special`.
    pub fn new(tokenizer: &'a Tokenizer, skip_special: bool) -> Decoder<'a> {
        let mut decoder = Decoder {
            tokenizer,
            skip_special,
            lossy: Lossy::default(),
            run: Vec::new(),
            begun: false,
            strip: 0,
            held: Vec::new(),
            out: String::new(),
        };
        decoder.reset();
        decoder
    }

    /// Goes back to the start of a text.
    pub fn reset(&mut self) {
        self.lossy = Lossy::default();
        self.run.clear();
        self.held.clear();
        self.begun = false;
        self.strip = match self.tokenizer.pieces.rule {
            Rule::Text { strip: Some((_, start)) } => start,
            _ => 0,
        };
    }

    /// The text that is certain with this token: often one word, and nothing while a character is unfinished. An id
    /// without a token adds nothing: the rows that pad a model's vocabulary have none.
    pub fn push(&mut self, id: u32) -> &str {
        self.out.clear();
        let tokenizer = self.tokenizer;
        match tokenizer.pieces.get(id) {
            Piece::None => {}
            Piece::Special(_) if self.skip_special => {}
            _ if tokenizer.pieces.whole() => self.held.push(id),
            Piece::Byte(byte) => self.run.push(byte),
            Piece::Plain(bytes) | Piece::Special(bytes) => {
                self.end_run();
                self.append(id, bytes);
                self.begun = true;
            }
        }
        &self.out
    }

    /// The rest of the text: an unfinished character becomes U+FFFD. The decoder is at the start of a text then.
    pub fn flush(&mut self) -> &str {
        self.out.clear();
        self.end_run();
        self.lossy.flush(&mut self.out);
        if !self.held.is_empty() {
            let text = self.tokenizer.decode_whole(&self.held, self.skip_special);
            self.out.push_str(text.as_deref().unwrap_or("\u{FFFD}"));
        }
        self.reset();
        &self.out
    }

    fn append(&mut self, id: u32, bytes: &[u8]) {
        match self.tokenizer.pieces.rule {
            Rule::Words { first: Some(mark) } if !self.begun => {
                // The only token that is looked up by its name.
                let token = self.tokenizer.id_to_token(id).unwrap_or_default();
                self.out.extend(token.chars().filter(|c| *c != mark));
            }
            Rule::Spaced if self.begun => {
                self.out.push(' ');
                self.lossy.push(bytes, &mut self.out);
            }
            Rule::Text { .. } => self.append_stripped(bytes),
            _ => self.lossy.push(bytes, &mut self.out),
        }
    }

    /// Appends text, but for what is taken off the start.
    fn append_stripped(&mut self, bytes: &[u8]) {
        let mut bytes = bytes;
        if let Rule::Text { strip: Some((c, _)) } = self.tokenizer.pieces.rule {
            let mut buffer = [0; 4];
            let c: &[u8] = c.encode_utf8(&mut buffer).as_bytes();
            while self.strip > 0 && !bytes.is_empty() {
                match bytes.strip_prefix(c) {
                    Some(rest) => (bytes, self.strip) = (rest, self.strip - 1),
                    None => self.strip = 0,
                }
            }
        }
        self.lossy.push(bytes, &mut self.out);
    }

    /// Ends a run of byte tokens: text if all of it is, else U+FFFD for every byte.
    fn end_run(&mut self) {
        if self.run.is_empty() {
            return;
        }
        let run = std::mem::take(&mut self.run);
        if std::str::from_utf8(&run).is_ok() {
            self.append_stripped(&run);
        } else {
            run.iter().for_each(|_| self.append_stripped("\u{FFFD}".as_bytes()));
        }
        self.begun = true;
        self.run = run;
        self.run.clear();
    }
}
