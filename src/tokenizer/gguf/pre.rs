//! Floor 5: how byte-level vocabularies cut text into words before merging, by llama.cpp's names for it. Knows no files.

use crate::error::{Error, Result};
use crate::format::gguf::Gguf;
use crate::format::shown;
use serde_json::{Value as Json, json};

/// Letters and digits as Llama 3 and Qwen 2 cut them; `{digits}` is how many digits stay together.
const CONTRACTIONS: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{digits}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Words of Mistral's Tekken: a change of case ends them.
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// A way to cut text.
pub(super) struct PreTokenizer {
    /// `normalizer` of `tokenizer.json`.
    pub normalizer: Json,
    /// The steps before the byte alphabet.
    pub split: Option<Json>,
    /// Cut by GPT-2's rule as well.
    pub regex: bool,
    /// A word that is a token is that token, whatever the merges say.
    pub ignore_merges: bool,
    /// Whether texts begin with the BOS where the file does not say.
    pub add_bos: bool,
}

impl PreTokenizer {
    /// The way of this name.
    ///
    /// # Errors
    /// `Unsupported` for a name that is not known, or none: cut in another way, text has other tokens than those the
    /// model was trained with.
    pub fn of(gguf: &Gguf, name: Option<&str>) -> Result<PreTokenizer> {
        let isolated = |pattern: &str| {
            let pattern = json!({"Regex": pattern});
            Some(json!({"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": false}))
        };
        let plain = |split: Option<Json>, regex: bool| PreTokenizer {
            normalizer: Json::Null,
            split,
            regex,
            ignore_merges: false,
            add_bos: false,
        };
        let qwen = || plain(isolated(&CONTRACTIONS.replace("{digits}", "")), false);
        let gpt2 = || plain(None, true);
        Ok(match name {
            Some("gpt-2" | "default") => gpt2(),
            // Files from before the key was there: GPT-2 has no other way.
            None if gguf.architecture()? == "gpt2" => gpt2(),
            Some("smollm" | "starcoder" | "refact" | "codeshell") => {
                plain(Some(json!({"type": "Digits", "individual_digits": true})), true)
            }
            Some("llama-bpe" | "llama3" | "llama-v3" | "falcon3") => PreTokenizer {
                ignore_merges: true,
                add_bos: true,
                ..plain(isolated(&CONTRACTIONS.replace("{digits}", "{1,3}")), false)
            },
            Some("qwen2") => PreTokenizer { normalizer: json!({"type": "NFC"}), ..qwen() },
            Some("deepseek-r1-qwen") => qwen(),
            Some("tekken") => {
                PreTokenizer { ignore_merges: true, add_bos: true, ..plain(isolated(TEKKEN), false) }
            }
            other => {
                let other = other.map_or_else(|| "none".to_owned(), |name| format!("`{}`", shown(name)));
                let what = format!("pre-tokenizer {other} (tokenizer.ggml.pre)");
                return Err(Error::Unsupported { file: gguf.file().to_owned(), what });
            }
        })
    }
}
