//! Floor 6: `inlaid info`. Knows what can be asked of an open model.

use crate::args::{ModelArg, Run, token_name};
use crate::output::{Failure, json, print};
use clap::Args;
use inlaid::arch::{Mlp, Out, Position, Stack, Table, Task};
use inlaid::model::Model;
use serde_json::{Map, Value, json};
use std::fmt::Write;

const AFTER: &str = "\
Examples:
  inlaid info
  inlaid info model.gguf --json";

/// Say what a model is and what it takes
///
/// Prints family, sizes, element types, memory, tokenizer and stop tokens.
#[derive(Args)]
#[command(after_help = AFTER)]
pub struct Info {
    #[command(flatten)]
    model: ModelArg,
    /// One JSON object on standard output
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    run: Run,
}

/// Runs the command.
///
/// # Errors
/// Why it could not.
pub fn run(args: &Info) -> Result<(), Failure> {
    let model = args.run.open(&args.model.model)?;
    let mut object = json!({"model": args.model.model.to_string_lossy()});
    if let Some(object) = object.as_object_mut() {
        object.append(&mut shape(&model));
        object.insert("parameters".into(), model.parameters().into());
        object.insert("dtypes".into(), dtypes(&model));
        object.insert("memory".into(), memory(&model));
        object.insert("tokenizer".into(), tokenizer(&model));
        object.insert("stop_tokens".into(), stop_tokens(&model));
        object.insert("chat_template".into(), model.template().is_ok().into());
        object.insert("isa".into(), model.engine().isa().into());
        object.insert("threads".into(), model.engine().threads().into());
    }
    if args.json {
        return json(&object);
    }
    let mut text = String::new();
    lines("", &object, &mut text);
    print(&text)
}

/// Family, what it can do, and the sizes of its stacks.
fn shape(model: &Model) -> Map<String, Value> {
    let arch = model.arch();
    let mut map = Map::new();
    map.insert("family".into(), arch.family.into());
    map.insert("branch".into(), arch.branch().into());
    map.insert("task".into(), arch.head.task.name().into());
    map.insert("tasks".into(), tasks(model).into());
    map.insert("format".into(), if model.tensors().is_gguf() { "gguf" } else { "safetensors" }.into());
    map.insert("max_positions".into(), arch.max_positions.into());
    map.insert("vocab".into(), arch.vocab().into());
    map.insert("tied".into(), matches!(arch.head.out, Out::Tied(_)).into());
    match (&arch.encoder, &arch.decoder) {
        (Some(encoder), Some(decoder)) => {
            map.insert("encoder".into(), stack(encoder).into());
            map.insert("decoder".into(), stack(decoder).into());
        }
        (one, other) => one.iter().chain(other).for_each(|own| map.extend(stack(own))),
    }
    map
}

/// The commands that can do something with the model, beside those that print its numbers.
fn tasks(model: &Model) -> Vec<&'static str> {
    let own: &[&str] = match model.arch().head.task {
        Task::LanguageModel if model.arch().reads_source() => &["translate", "generate", "score"],
        Task::LanguageModel if model.template().is_ok() => &["generate", "chat", "score", "perplexity"],
        Task::LanguageModel => &["generate", "score", "perplexity"],
        Task::MaskedLm => &["fill"],
        Task::Classify => &["classify"],
        Task::Tag => &["tag"],
        Task::Span => &["answer"],
        Task::Hidden => &[],
    };
    own.iter().copied().chain(["embed", "attention"]).collect()
}

fn stack(s: &Stack) -> Map<String, Value> {
    let (mlp, act) = match s.mlp {
        Mlp::Gated(act) => ("gated", act),
        Mlp::Plain(act) => ("plain", act),
    };
    let positions = match &s.position {
        Position::Rope { .. } => "rope",
        Position::Table { table: Table::Learned, .. } => "learned",
        Position::Table { .. } => "sinusoidal",
        Position::Alibi { .. } => "alibi",
        Position::Relative { .. } => "relative",
    };
    let object = json!({
        "n_layers": s.n_layers,
        "d_model": s.d_model,
        "n_heads": s.n_heads,
        "n_kv_heads": s.n_kv_heads,
        "head_dim": s.head_dim,
        "d_ff": s.d_ff,
        "window": s.attention().window,
        "norm": format!("{:?}", s.norm.kind).to_lowercase(),
        "mlp": mlp,
        "activation": format!("{act:?}").to_lowercase(),
        "positions": positions,
    });
    if let Value::Object(map) = object { map } else { Map::new() }
}

/// Element types with how much is stored in each.
fn dtypes(model: &Model) -> Value {
    let mut all = Map::new();
    for (_, tensor) in model.tensors().iter() {
        let entry = all
            .entry(tensor.dtype().name())
            .or_insert_with(|| json!({"tensors": 0, "elements": 0, "bytes": 0}));
        for (key, more) in [("tensors", 1), ("elements", tensor.elements()), ("bytes", tensor.bytes().len())]
        {
            entry[key] = (entry[key].as_u64().unwrap_or(0) + more as u64).into();
        }
    }
    all.into()
}

fn memory(model: &Model) -> Value {
    let plan = model.memory_plan();
    json!({
        "mapped_bytes": plan.mapped_bytes,
        "private_bytes": plan.private_bytes,
        "kv_type": model.cache().name(),
        "kv_bytes_per_token": plan.kv_bytes_per_token,
        "kv_page_tokens": plan.kv_page_tokens,
    })
}

/// A token's id and its name.
fn named(model: &Model, id: u32) -> Value {
    json!({"id": id, "token": token_name(model, id)})
}

fn tokenizer(model: &Model) -> Value {
    let Ok(tokenizer) = model.tokenizer() else { return Value::Null };
    let token = |id: Option<u32>| id.map(|id| named(model, id));
    json!({"vocab": tokenizer.vocab_size(), "bos": token(tokenizer.bos()), "eos": token(tokenizer.eos())})
}

fn stop_tokens(model: &Model) -> Value {
    model.generation().eos_token_ids.iter().map(|id| named(model, *id)).collect()
}

/// `value` as lines of `name value`, names of what is inside joined by dots.
pub fn lines(name: &str, value: &Value, out: &mut String) {
    let below = |key: &str| if name.is_empty() { key.to_owned() } else { format!("{name}.{key}") };
    let _ = match value {
        Value::Object(map) => return map.iter().for_each(|(key, value)| lines(&below(key), value, out)),
        Value::Array(list) if list.is_empty() => writeln!(out, "{name:<28} none"),
        Value::Array(list) => {
            return list.iter().enumerate().for_each(|(i, value)| lines(&below(&i.to_string()), value, out));
        }
        Value::Null => writeln!(out, "{name:<28} none"),
        Value::String(text) => writeln!(out, "{name:<28} {}", text.escape_debug()),
        Value::Number(n) if name.ends_with("bytes") => {
            writeln!(out, "{name:<28} {}", indicatif::HumanBytes(n.as_u64().unwrap_or(0)))
        }
        Value::Number(_) | Value::Bool(_) => writeln!(out, "{name:<28} {value}"),
    }; // a String takes everything
}
