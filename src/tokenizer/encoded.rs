//! Floor 5: a text's tokens with where they come from. Knows no model.

use super::{MAX_TEXT, Tokenizer, contain, refuse};
use crate::error::Result;
use tokenizers::tokenizer::{Encoding, Model as _, OffsetType, PreTokenizer as _};

/// Tokens of one text, or of a pair.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Encoded {
    /// The tokens.
    pub ids: Vec<u32>,
    /// Their types: 0, or 1 for those of a pair's second text, as the tokenizer says.
    pub types: Vec<u32>,
    /// First character of each token in its text, and the one after its last; `(0, 0)` for a token that was added.
    pub spans: Vec<(usize, usize)>,
    /// Which text a token comes from, 0 or 1; `None` for one that was added.
    pub texts: Vec<Option<usize>>,
}

impl Tokenizer {
    /// The tokens of `text`, or of the pair of it and `second`, with those that the model wants around them. Names of
    /// special tokens in the texts (a mask, say) are those tokens.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_pair(&self, text: &str, second: Option<&str>) -> Result<Encoded> {
        let length = text.len().saturating_add(second.map_or(0, str::len));
        if length > MAX_TEXT {
            return refuse(format!("expected at most {MAX_TEXT} bytes of text, found {length}"));
        }
        contain("encoding", || {
            let first = self.bare(text, 0)?;
            let second = second.map(|second| self.bare(second, 1)).transpose()?;
            let all = match (self.settings.ends, second) {
                (Some(ends), None) => return Ok(self.with_ends(&first, ends.before, ends.after)),
                (_, second) => self.inner.post_process(first, second, true)?,
            };
            let texts = (0..all.len()).map(|i| {
                let added = all.get_special_tokens_mask().get(i) == Some(&1);
                all.token_to_sequence(i).filter(|_| !added)
            });
            Ok(Encoded {
                ids: all.get_ids().to_vec(),
                types: all.get_type_ids().to_vec(),
                spans: all.get_offsets().to_vec(),
                texts: texts.collect(),
            })
        })
    }

    /// A text's own tokens.
    fn bare(&self, text: &str, kind: u32) -> tokenizers::Result<Encoding> {
        let added = self.inner.get_added_vocabulary();
        let mut split = added.extract_and_normalize(self.inner.get_normalizer(), text);
        if let Some(pre) = self.inner.get_pre_tokenizer() {
            pre.pre_tokenize(&mut split)?;
        }
        self.inner.get_model().tokenize_in_pretokenized(&mut split, None)?;
        let mut encoding = split.into_encoding(None, kind, OffsetType::Char)?;
        encoding.set_sequence_id(kind as usize);
        Ok(encoding)
    }

    fn with_ends(&self, text: &Encoding, before: Option<u32>, after: Option<u32>) -> Encoded {
        let mut out = Encoded::default();
        let mut push = |id: u32, span, text| {
            out.ids.push(id);
            out.types.push(0);
            out.spans.push(span);
            out.texts.push(text);
        };
        before.into_iter().for_each(|id| push(id, (0, 0), None));
        for (id, span) in text.get_ids().iter().zip(text.get_offsets()) {
            push(*id, *span, Some(0));
        }
        after.into_iter().for_each(|id| push(id, (0, 0), None));
        out
    }
}
