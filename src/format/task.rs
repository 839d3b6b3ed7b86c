//! Floor 3: what a model's files say of the tasks it was trained for: names of classes, how texts are pooled, how long they
//! may be. Knows no family.

use super::config::Config;
use super::files::Files;
use super::json;
use crate::arch::Rows;
use crate::error::{Error, Result};
use serde_json::Value;

/// More classes than any model has.
const MAX_LABELS: usize = 1 << 20;

/// What the files say; the default says nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TaskConfig {
    /// Names of the classes, by number; empty where there are none.
    pub labels: Vec<String>,
    /// Whether classes do not exclude each other (`problem_type` of `multi_label_classification`).
    pub multi_label: bool,
    /// How the states of a text become one, as the sentence-transformers library writes it.
    pub pooling: Option<Pooling>,
    /// Most tokens of a text, where that is less than the model can hold.
    pub max_tokens: Option<usize>,
}

/// How the states of a text become one vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pooling {
    /// Which rows.
    pub rows: Rows,
    /// Whether the vector is divided by its length.
    pub normalize: bool,
}

impl TaskConfig {
    /// Reads them.
    ///
    /// # Errors
    /// `Format` for values of the wrong type; `Unsupported` for a module or a way of pooling that the engine does not do;
    /// `Io`.
    pub fn open(files: &Files) -> Result<TaskConfig> {
        let config = files.config()?;
        let mut out = TaskConfig { labels: labels(&config)?, ..TaskConfig::default() };
        out.multi_label = config.str_or("problem_type", "")? == "multi_label_classification";
        if let Some(modules) = read(files, "modules.json")? {
            out.pooling = pooling(files, &modules)?;
        }
        if let Some(own) = read(files, "sentence_bert_config.json")? {
            out.max_tokens = Config::new("sentence_bert_config.json", own)?.maybe_usize("max_seq_length")?;
        }
        Ok(out)
    }
}

/// Names of the files that say how texts become vectors, which a copy of the model needs too.
///
/// # Errors
/// `Format` for modules that are none; `Io`.
pub fn names(files: &Files) -> Result<Vec<String>> {
    let mut out = ["modules.json", "sentence_bert_config.json", "config_sentence_transformers.json"]
        .map(String::from)
        .to_vec();
    let modules = read(files, "modules.json")?.unwrap_or_default();
    let paths = modules.as_array().into_iter().flatten().filter_map(|module| module["path"].as_str());
    out.extend(paths.filter(|path| !path.is_empty()).map(|path| format!("{path}/config.json")));
    Ok(out)
}

fn read(files: &Files, name: &str) -> Result<Option<Value>> {
    let bytes = files.small(name, json::MAX_BYTES)?;
    bytes.map(|bytes| json::parse(&files.label(name), bytes.bytes())).transpose()
}

/// `id2label`, an object of numbers and names.
fn labels(config: &Config) -> Result<Vec<String>> {
    let Some(map) = config.object("id2label")? else { return Ok(Vec::new()) };
    let mut out = Vec::new();
    for (id, name) in map.object_itself() {
        let wrong = || config.bad("id2label: expected numbers and names");
        let id: usize = id.parse().ok().filter(|id| *id < MAX_LABELS).ok_or_else(wrong)?;
        if out.len() <= id {
            out.resize(id + 1, String::new());
        }
        out[id] = name.as_str().ok_or_else(wrong)?.to_owned();
    }
    Ok(out)
}

/// The modules after the transformer itself.
fn pooling(files: &Files, modules: &Value) -> Result<Option<Pooling>> {
    let file = files.label("modules.json");
    let unsupported = |what: String| Error::Unsupported { file: file.clone(), what };
    let list = modules.as_array().ok_or_else(|| super::bad(&file, "expected a list of modules"))?;
    let mut out: Option<Pooling> = None;
    for module in list {
        let (kind, path) = (module["type"].as_str().unwrap_or(""), module["path"].as_str().unwrap_or(""));
        match (kind.rsplit('.').next().unwrap_or(""), &mut out) {
            ("Transformer", _) => {}
            ("Pooling", out) => *out = Some(mode(files, path)?),
            ("Normalize", Some(pooling)) => pooling.normalize = true,
            (other, _) => return Err(unsupported(format!("module `{}`", super::shown(other)))),
        }
    }
    Ok(out)
}

/// The one way of pooling that is switched on.
fn mode(files: &Files, path: &str) -> Result<Pooling> {
    let name = format!("{path}/config.json");
    let Some(config) = read(files, &name)? else {
        return Err(super::bad(&files.label(&name), "is missing; modules.json names it"));
    };
    let config = Config::new(&files.label(&name), config)?;
    let mut found = Vec::new();
    for (key, value) in config.object_itself() {
        if key.starts_with("pooling_mode_") && *value == true {
            found.push(match key.as_str() {
                "pooling_mode_mean_tokens" => Rows::Mean,
                "pooling_mode_cls_token" => Rows::First,
                "pooling_mode_lasttoken" => Rows::Last,
                other => {
                    let what = format!("{} (known: mean, cls, lasttoken)", super::shown(other));
                    return Err(Error::Unsupported { file: config.file().to_owned(), what });
                }
            });
        }
    }
    match found[..] {
        [rows] => Ok(Pooling { rows, normalize: false }),
        [] => Ok(Pooling { rows: Rows::Mean, normalize: false }),
        _ => {
            let what = "several ways of pooling at once".to_owned();
            Err(Error::Unsupported { file: config.file().to_owned(), what })
        }
    }
}
