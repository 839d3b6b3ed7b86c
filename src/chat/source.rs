//! Floor 5: where templates come from, and what is done to their text before it is parsed. Knows the files of a model.

use super::{ChatTemplate, Parsed};
use crate::error::Result;
use crate::format::files::Files;
use crate::format::gguf::Gguf;
use crate::format::{bad, json};
use serde_json::Value as Json;
use std::borrow::Cow;

/// A template in a file of its own: it wins over that of the config.
pub const FILE: &str = "chat_template.jinja";
/// The config with special tokens, and often the template.
const CONFIG: &str = "tokenizer_config.json";
/// The template among several that is meant unless there are tools, and the one for tools.
const DEFAULT: &str = "default";
const TOOLS: &str = "tool_use";

impl ChatTemplate {
    /// The template of the model in `files`; `None` where it has none.
    ///
    /// # Errors
    /// `Template` for one that does not parse, `Format` for a config that is not JSON or has values of the wrong type;
    /// `Io`.
    pub fn open(files: &Files) -> Result<Option<ChatTemplate>> {
        if let Some(gguf) = files.gguf()? {
            return of_gguf(gguf);
        }
        let config = match files.small(CONFIG, json::MAX_BYTES)? {
            Some(bytes) => json::parse(CONFIG, bytes.bytes())?,
            None => Json::Null,
        };
        let file = files.small(FILE, super::MAX_SOURCE as u64)?;
        let text = file.as_ref().map(|file| {
            std::str::from_utf8(file.bytes()).map_err(|e| bad(FILE, format!("expected UTF-8: {e}")))
        });
        ChatTemplate::of_config(&config, text.transpose()?)
    }

    /// The template of a `tokenizer_config.json`, or `text` in its stead, with the special tokens that it names.
    ///
    /// # Errors
    /// As [`ChatTemplate::open`].
    pub fn of_config(config: &Json, text: Option<&str>) -> Result<Option<ChatTemplate>> {
        let (plain, tools) = match (text, config.get("chat_template")) {
            (Some(text), _) => (text, None),
            (None, Some(Json::String(text))) => (text.as_str(), None),
            (None, Some(Json::Array(list))) => {
                let named = |wanted| list.iter().find(|item| item["name"] == wanted)?["template"].as_str();
                match (named(DEFAULT), named(TOOLS)) {
                    (Some(plain), tools) => (plain, tools),
                    (None, Some(tools)) => (tools, None),
                    (None, None) => return Ok(None),
                }
            }
            (None, None | Some(Json::Null)) => return Ok(None),
            (None, Some(_)) => {
                return Err(bad(CONFIG, "`chat_template`: expected a text or a list of templates"));
            }
        };
        let mut template = ChatTemplate::new(plain, None, None)?;
        template.tools = tools.map(Parsed::new).transpose()?;
        for name in
            ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"]
        {
            let token =
                config.get(name).and_then(|token| token.as_str().or_else(|| token["content"].as_str()));
            template.set_special(name, token);
        }
        Ok(Some(template))
    }
}

/// The template in the metadata of a GGUF file.
fn of_gguf(gguf: &Gguf) -> Result<Option<ChatTemplate>> {
    let tools = gguf.str("tokenizer.chat_template.tool_use")?;
    let Some(plain) = gguf.str("tokenizer.chat_template")?.or(tools) else { return Ok(None) };
    let mut template = ChatTemplate::new(plain, None, None)?;
    template.tools = tools.map(Parsed::new).transpose()?;
    let names =
        [("bos", "bos_token"), ("eos", "eos_token"), ("unknown", "unk_token"), ("padding", "pad_token")];
    let tokens = gguf.list("tokenizer.ggml.tokens")?;
    for (key, name) in names {
        let Some(id) = gguf.id(&format!("tokenizer.ggml.{key}_token_id"))? else { continue };
        let token = tokens.and_then(|tokens| tokens.texts().nth(id as usize)).flatten();
        template.set_special(name, token.and_then(|token| std::str::from_utf8(token).ok()));
    }
    Ok(Some(template))
}

/// The text that minijinja should parse: line ends as jinja2 reads them, and `transformers`' own blocks `generation`,
/// which mark the model's words for training, as plain scopes.
pub(super) fn prepare(source: &str) -> String {
    let lines = if source.contains('\r') {
        Cow::Owned(source.replace("\r\n", "\n").replace('\r', "\n"))
    } else {
        Cow::Borrowed(source)
    };
    let mut out = String::with_capacity(lines.len());
    let mut rest: &str = &lines;
    while let Some(at) = rest.find("{%") {
        let (before, tag) = rest.split_at(at + 2);
        out.push_str(before);
        rest = tag;
        let word = tag.trim_start_matches(['-', '+']).trim_start();
        let lead = tag.len() - word.len();
        for (name, block) in [("generation", "with"), ("endgeneration", "endwith")] {
            let Some(after) = word.strip_prefix(name) else { continue };
            if after.trim_start().trim_start_matches(['-', '+']).starts_with("%}") {
                out.push_str(&tag[..lead]);
                out.push_str(block);
                rest = after;
                break;
            }
        }
    }
    out.push_str(rest);
    out
}
