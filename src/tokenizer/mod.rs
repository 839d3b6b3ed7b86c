//! Floor 5: text to tokens and back, as `tokenizer.json` says. Knows no tensors and no model.
//!
//! The work is done by the `tokenizers` crate. Here are its limits, what `tokenizer_config.json` adds to it, and
//! decoding, which must stream.

mod bytes;
mod charsmap;
mod check;
mod decoder;
mod encoded;
pub mod gguf;
mod pieces;
mod settings;
mod wordpiece;

pub use decoder::Decoder;
pub use encoded::Encoded;

use crate::error::{Error, Result};
use crate::format::files::Files;
use pieces::Pieces;
use settings::Settings;
use std::panic::{AssertUnwindSafe, catch_unwind};
use tokenizers::tokenizer::{
    AddedVocabulary, Encoding, Model as _, OffsetType, PreTokenizer as _, Tokenizer as Crate,
};

/// Where a model's tokens are.
pub const FILE: &str = "tokenizer.json";
/// Special tokens, and whether they are added.
pub const CONFIG: &str = "tokenizer_config.json";

/// Families whose `vocab.txt` is a list of words and pieces of words.
const WORDPIECES: &[&str] = &["bert", "distilbert", "electra"];

/// Largest `tokenizer.json`.
const MAX_FILE: u64 = 64 << 20;
/// Largest text of one call, in bytes. The crate takes some thirty times as much.
const MAX_TEXT: usize = 16 << 20;
/// More tokens than any model has; tables are as long as the highest id.
const MAX_VOCAB: usize = 1 << 22;

/// A model's tokenizer. Immutable; may be used from many threads at once.
pub struct Tokenizer {
    inner: Crate,
    /// The added tokens of `inner`, with special tokens read as plain text.
    plain: AddedVocabulary,
    settings: Settings,
    pieces: Pieces,
}

impl Tokenizer {
    /// The tokenizer in `files`; `None` where there is none.
    ///
    /// # Errors
    /// `Tokenizer` and `Format` for files that are not a tokenizer; `Io`.
    pub fn open(files: &Files) -> Result<Option<Tokenizer>> {
        if let Some(gguf) = files.gguf()? {
            let Some(files) = gguf::from_gguf(gguf)? else { return Ok(None) };
            return Tokenizer::from_bytes(files.tokenizer.as_bytes(), Some(files.config.as_bytes()))
                .map(Some);
        }
        let config = files.small(CONFIG, crate::format::json::MAX_BYTES)?;
        let config = config.as_ref().map(|file| file.bytes());
        if let Some(json) = files.small(FILE, MAX_FILE)? {
            return Tokenizer::from_bytes(json.bytes(), config).map(Some);
        }
        let Some(words) = files.small(wordpiece::FILE, MAX_FILE)? else { return Ok(None) };
        if !WORDPIECES.contains(&files.config()?.str_or("model_type", "")?) {
            return Ok(None);
        }
        Tokenizer::from_bytes(wordpiece::tokenizer(words.bytes(), config)?.as_bytes(), config).map(Some)
    }

    /// The tokenizer that `tokenizer.json` holds, with what `tokenizer_config.json` says of its special tokens.
    ///
    /// # Errors
    /// `Tokenizer` for JSON that is not a tokenizer or has absurd sizes; `Format` for a config that is not JSON or has
    /// values of the wrong type.
    pub fn from_bytes(json: &[u8], config: Option<&[u8]>) -> Result<Tokenizer> {
        if json.len() as u64 > MAX_FILE {
            return refuse(format!("{FILE}: expected at most {MAX_FILE} bytes, found {}", json.len()));
        }
        check::check(json)?;
        let mut settings = config.map(Settings::parse).transpose()?.unwrap_or_default();
        contain("reading it", || {
            let mut inner = Crate::from_bytes(json)?;
            // Fixed lengths are for training: they would cut prompts, or fill them up.
            inner.with_truncation(None)?;
            inner.with_padding(None);
            settings.apply(&mut inner)?;
            let pieces = Pieces::new(&inner, MAX_VOCAB)?;
            let mut plain = inner.get_added_vocabulary().clone();
            plain.set_encode_special_tokens(true);
            Ok(Tokenizer { inner, plain, settings, pieces })
        })
    }

    /// The tokens of `text`. With `add_special`, those that the model wants around a text (its BOS, say) are added, but no
    /// second BOS where the text starts with one. With `parse_special`, the names of special tokens in the text are those
    /// tokens; without, they are plain text, as what a user typed should be.
    ///
    /// # Errors
    /// `Tokenizer` for a text beyond 16 MiB, or one that the vocabulary cannot say.
    pub fn encode(&self, text: &str, add_special: bool, parse_special: bool) -> Result<Vec<u32>> {
        if text.len() > MAX_TEXT {
            return refuse(format!("expected at most {MAX_TEXT} bytes of text, found {}", text.len()));
        }
        contain("encoding", || {
            let added = if parse_special { self.inner.get_added_vocabulary() } else { &self.plain };
            let mut split = added.extract_and_normalize(self.inner.get_normalizer(), text);
            if let Some(pre) = self.inner.get_pre_tokenizer() {
                pre.pre_tokenize(&mut split)?;
            }
            self.inner.get_model().tokenize_in_pretokenized(&mut split, None)?;
            let encoding = split.into_encoding(None, 0, OffsetType::None)?;
            if add_special { self.surround(encoding) } else { Ok(encoding.get_ids().to_vec()) }
        })
    }

    /// Adds the tokens that the model wants around a text.
    fn surround(&self, encoding: Encoding) -> tokenizers::Result<Vec<u32>> {
        let (own, first) = (encoding.len(), encoding.get_ids().first().copied());
        let mut ids = match self.settings.ends {
            Some(ends) => {
                let text = encoding.get_ids().iter().copied();
                ends.before.into_iter().chain(text).chain(ends.after).collect()
            }
            None => self.inner.post_process(encoding, None, true)?.get_ids().to_vec(),
        };
        let bos = self.settings.bos.as_ref().map(|bos| bos.id);
        if ids.len() > own
            && bos.is_some()
            && first == bos
            && ids.get(1).copied() == bos
            && ids.first() == ids.get(1)
        {
            ids.remove(0);
        }
        Ok(ids)
    }

    /// The text of `ids`; special tokens are left out with `skip_special`. Bytes that are not UTF-8 become U+FFFD.
    ///
    /// # Errors
    /// `Tokenizer` for an id without a token.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        if let Some(id) = ids.iter().find(|id| !self.pieces.has(**id)) {
            return refuse(format!("expected ids of the {} tokens, found {id}", self.vocab_size()));
        }
        if self.pieces.whole() && !ids.is_empty() {
            return self.decode_whole(ids, skip_special);
        }
        let (mut decoder, mut out) = (Decoder::new(self, skip_special), String::new());
        ids.iter().for_each(|id| out.push_str(decoder.push(*id)));
        out.push_str(decoder.flush());
        Ok(out)
    }

    /// Decoding by the crate, for the rules that need all tokens at once.
    fn decode_whole(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        if skip_special && ids.iter().all(|id| self.is_special(*id)) {
            return Ok(String::new()); // some decoders count the tokens from their last one
        }
        contain("decoding", || self.inner.decode(ids, skip_special))
    }

    /// What token `id` is called in the vocabulary.
    pub fn id_to_token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The id of the token of this name.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Tokens, added ones included. A model's logits may have more, which mean nothing.
    pub fn vocab_size(&self) -> usize {
        self.pieces.tokens()
    }

    /// Whether token `id` is special: control of the model rather than text.
    pub fn is_special(&self, id: u32) -> bool {
        self.pieces.is_special(id)
    }

    /// The token that begins a text.
    pub fn bos(&self) -> Option<u32> {
        self.settings.bos.as_ref().map(|token| token.id)
    }

    /// The token that ends a text.
    pub fn eos(&self) -> Option<u32> {
        self.settings.eos.as_ref().map(|token| token.id)
    }

    /// The token that stands for one that is hidden, of a masked language model.
    pub fn mask(&self) -> Option<u32> {
        self.settings.mask.as_ref().map(|token| token.id)
    }

    /// What the token that begins a text is called; templates write it.
    pub fn bos_token(&self) -> Option<&str> {
        self.settings.bos.as_ref().map(|token| token.content.as_str())
    }

    /// What the token that ends a text is called; templates write it.
    pub fn eos_token(&self) -> Option<&str> {
        self.settings.eos.as_ref().map(|token| token.content.as_str())
    }
}

fn refuse<T>(what: String) -> Result<T> {
    Err(Error::Tokenizer(what))
}

/// Calls into the crate, which may panic on input that it did not foresee.
fn contain<T>(what: &str, call: impl FnOnce() -> tokenizers::Result<T>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(done) => done.map_err(|e| match e.downcast::<Error>() {
            Ok(own) => *own,
            Err(e) => Error::Tokenizer(format!("{what}: {}", crate::format::shown(&e.to_string()))),
        }),
        Err(_) => refuse(format!("{what}: the tokenizer makes no sense")),
    }
}
