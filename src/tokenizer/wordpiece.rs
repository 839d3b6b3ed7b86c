//! Floor 5: the tokenizer of BERT's older files, which have a list of words (`vocab.txt`) and no `tokenizer.json`. Knows how
//! such a list is used: words and their pieces (Wu et al. 2016), apart at white space and punctuation.

use super::{MAX_VOCAB, refuse};
use crate::error::Result;
use crate::format::json;
use serde_json::{Map, Value, json};

/// The list of words.
pub const FILE: &str = "vocab.txt";

/// The `tokenizer.json` that a list of words stands for, with what `tokenizer_config.json` says of cases and accents.
///
/// # Errors
/// `Tokenizer` for a list that is not text, has a word twice, or lacks the special ones; `Format` for a config that is not
/// JSON.
pub fn tokenizer(vocab: &[u8], config: Option<&[u8]>) -> Result<String> {
    let Ok(text) = std::str::from_utf8(vocab) else { return refuse(format!("{FILE}: expected UTF-8")) };
    let mut words = Map::new();
    for (id, word) in text.lines().enumerate() {
        if id >= MAX_VOCAB {
            return refuse(format!("{FILE}: expected at most {MAX_VOCAB} words"));
        }
        if words.insert(word.to_owned(), id.into()).is_some() {
            return refuse(format!("{FILE}: `{}` is there twice", crate::format::shown(word)));
        }
    }
    let config = config.map(|bytes| json::parse(super::CONFIG, bytes)).transpose()?.unwrap_or_default();
    let name = |key: &str, usual: &str| {
        let own = &config[key];
        own.as_str().or(own["content"].as_str()).unwrap_or(usual).to_owned()
    };
    let mut added = Vec::new();
    let mut special = |key: &str, usual: &str| {
        let name = name(key, usual);
        let Some(id) = words.get(&name).cloned() else {
            return refuse(format!("{FILE}: expected the word `{}`", crate::format::shown(&name)));
        };
        added.push(json!({"id": id, "content": name, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true}));
        Ok((name, id))
    };
    special("pad_token", "[PAD]")?;
    let unknown = special("unk_token", "[UNK]")?;
    let (cls, sep) = (special("cls_token", "[CLS]")?, special("sep_token", "[SEP]")?);
    special("mask_token", "[MASK]")?;
    added.sort_by_key(|token| token["id"].as_u64());
    let flag = |key: &str, usual: Value| if config[key].is_null() { usual } else { config[key].clone() };
    let (lower, chinese) = (flag("do_lower_case", true.into()), flag("tokenize_chinese_chars", true.into()));
    let file = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": chinese,
            "strip_accents": config["strip_accents"], "lowercase": lower},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "BertProcessing", "sep": [sep.0, sep.1], "cls": [cls.0, cls.1]},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {"type": "WordPiece", "unk_token": unknown.0, "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": words},
    });
    Ok(file.to_string())
}

#[cfg(test)]
mod tests {
    use super::super::Tokenizer;
    use super::*;

    const WORDS: &str = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nun\n##able\nto\ncafe\n!";

    #[test]
    fn words_and_pieces_are_found() {
        let open = |config: Option<&[u8]>| {
            let file = tokenizer(WORDS.as_bytes(), config).unwrap();
            Tokenizer::from_bytes(file.as_bytes(), config).unwrap()
        };
        let lower = open(None);
        assert_eq!(lower.encode("Unable to café! [MASK]", true, true).unwrap(), [2, 5, 6, 7, 8, 9, 4, 3]);
        assert_eq!(lower.encode_pair("to", Some("to to")).unwrap().types, [0, 0, 0, 1, 1, 1]);
        let cased = open(Some(br#"{"do_lower_case": false}"#));
        assert_eq!(cased.encode("Unable unable", false, true).unwrap(), [1, 5, 6]);
    }

    #[test]
    fn lists_that_make_no_sense_are_refused() {
        for (list, says) in [("[PAD]\n[UNK]", "[CLS]"), ("a\na", "twice"), ("", "[PAD]")] {
            assert!(tokenizer(list.as_bytes(), None).unwrap_err().to_string().contains(says), "{list}");
        }
        assert!(tokenizer(b"\xff", None).unwrap_err().to_string().contains("UTF-8"));
    }
}
