//! Floor 5: a conversation as the one text that a model was trained on, by its Jinja template. Knows no tokens beyond
//! the names of special ones.
//!
//! Templates are written for Python: `transformers` renders them with jinja2 in a sandbox, `trim_blocks` and
//! `lstrip_blocks` on, and a few names of its own. Here minijinja does, with `python` for what Python does differently.
//!
//! A template is a program that comes with a file, so its size, work and depth are bounded. One thing is not: minijinja
//! counts no work for adding lists, so a template that doubles a list some thirty times can take all memory.

mod clock;
mod json;
mod methods;
mod python;
mod source;

use crate::error::{Error, Result};
use clock::Clock;
use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, ErrorKind, UndefinedBehavior, Value};
use serde_json::Value as Json;

/// Largest template.
const MAX_SOURCE: usize = 128 << 10;
/// Work that a template may do: so many instructions, or 64 times as many bytes made.
const FUEL: u64 = 1 << 20;
/// Stack for parsing and rendering. Neither bounds how deep it nests, but each level costs a character or an instruction
/// and a half; with the limits above that is the deepest.
const STACK: usize = 256 << 20;
/// Macros may call each other so deep.
const MAX_DEPTH: usize = 64;
/// Name of the template in messages.
const NAME: &str = "template";

/// A model's chat template, or two: some models have another one for conversations with tools. Immutable; may be used
/// from many threads at once.
pub struct ChatTemplate {
    plain: Parsed,
    tools: Option<Parsed>,
    /// Special tokens under the names that templates know, `bos_token` and so on.
    special: Vec<(String, String)>,
}

/// A template that parses.
struct Parsed {
    source: String,
    env: Environment<'static>,
}

/// What a conversation is rendered with.
#[derive(Clone, Copy, Debug, Default)]
pub struct RenderOptions<'a> {
    /// Descriptions of functions that the model may call: a list of JSON objects.
    pub tools: Option<&'a Json>,
    /// Texts to answer from: a list of JSON objects. Few templates look at them.
    pub documents: Option<&'a Json>,
    /// End with the beginning of the model's answer.
    pub add_generation_prompt: bool,
    /// Further variables: a JSON object. They win over special tokens and the options above.
    pub extra: Option<&'a Json>,
    /// The time for templates that write the date, in seconds since 1970; `None`: now. Dates are those of UTC.
    pub now: Option<u64>,
}

/// A message of a conversation. Messages with tool calls have more keys: write them as JSON objects.
pub fn message(role: &str, content: &str) -> Json {
    serde_json::json!({"role": role, "content": content})
}

impl ChatTemplate {
    /// The template that `source` is, for a model whose text begins and ends with these tokens.
    ///
    /// # Errors
    /// `Template` naming the line that does not parse.
    pub fn new(source: &str, bos: Option<&str>, eos: Option<&str>) -> Result<ChatTemplate> {
        let mut template = ChatTemplate { plain: Parsed::new(source)?, tools: None, special: Vec::new() };
        template.set_special("bos_token", bos);
        template.set_special("eos_token", eos);
        Ok(template)
    }

    /// Gives a special token the name under which templates know it.
    fn set_special(&mut self, name: &str, token: Option<&str>) {
        self.special.retain(|(other, _)| other != name);
        self.special.extend(token.map(|token| (name.to_owned(), token.to_owned())));
    }

    /// The template as it is written.
    pub fn source(&self) -> &str {
        &self.plain.source
    }

    /// The text of `messages`, a list of JSON objects with `role` and mostly `content`, as `transformers`'
    /// `apply_chat_template` makes it. It may begin with the BOS.
    ///
    /// # Errors
    /// `Template` where the template refuses the conversation, does not understand it or does too much work; `Argument`
    /// where an argument is not what it should be.
    pub fn render(&self, messages: &Json, options: &RenderOptions) -> Result<String> {
        let all_objects =
            |value: &Json| value.as_array().is_some_and(|list| list.iter().all(Json::is_object));
        let lists =
            [("messages", Some(messages)), ("tools", options.tools), ("documents", options.documents)];
        let mut context = serde_json::Map::new();
        for (name, token) in &self.special {
            context.insert(name.clone(), token.clone().into());
        }
        for (name, value) in lists {
            if value.is_some_and(|value| !value.is_null() && !all_objects(value))
                || name == "messages" && messages.is_null()
            {
                return Err(Error::Argument { name, what: "expected a list of JSON objects".to_owned() });
            }
            context.insert(name.to_owned(), value.cloned().unwrap_or(Json::Null));
        }
        context.insert("add_generation_prompt".to_owned(), options.add_generation_prompt.into());
        match options.extra {
            None | Some(Json::Null) => {}
            Some(Json::Object(extra)) => context.extend(extra.clone()),
            Some(_) => {
                return Err(Error::Argument { name: "extra", what: "expected a JSON object".to_owned() });
            }
        }
        let with_tools = options.tools.is_some_and(|tools| !tools.is_null());
        let parsed = self.tools.as_ref().filter(|_| with_tools).unwrap_or(&self.plain);
        parsed.render(&context, Clock::at(options.now))
    }
}

impl Parsed {
    fn new(source: &str) -> Result<Parsed> {
        if source.len() > MAX_SOURCE {
            return Err(Error::Template(format!(
                "expected at most {MAX_SOURCE} bytes, found {}",
                source.len()
            )));
        }
        let mut env = Environment::new();
        env.set_undefined_behavior(UndefinedBehavior::Lenient);
        env.set_recursion_limit(MAX_DEPTH);
        env.set_fuel(Some(FUEL));
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        env.set_syntax(syntax.map_err(|e| refused(&e))?);
        python::install(&mut env);
        let parsed = deep(|| env.add_template_owned(NAME, source::prepare(source)).map_err(|e| refused(&e)));
        parsed??;
        Ok(Parsed { source: source.to_owned(), env })
    }

    fn render(&self, context: &serde_json::Map<String, Json>, clock: Clock) -> Result<String> {
        deep(|| {
            let strftime = Value::from_function(move |format: &str| clock.format(format));
            let pairs = context.iter().map(|(key, value)| (key.as_str(), value_of(value)));
            let context = Value::from_pairs(pairs.chain([("strftime_now", strftime)]));
            let template = self.env.get_template(NAME).map_err(|e| refused(&e))?;
            template.render(context).map_err(|e| refused(&e))
        })?
    }
}

/// Does `work` where the stack is deep enough, whatever thread the host calls from.
fn deep<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("inlaid-template".to_owned()).stack_size(STACK);
        let thread = thread.spawn_scoped(scope, work);
        let thread = thread.map_err(|_| Error::Memory { what: "a template's stack", bytes: STACK as u64 })?;
        thread.join().map_err(|_| Error::Template("it makes no sense".to_owned()))
    })
}

/// JSON as templates see it. (Nesting is that of the JSON parser: bounded.)
fn value_of(json: &Json) -> Value {
    match json {
        Json::Null => Value::from(()),
        Json::Bool(yes) => Value::from(*yes),
        Json::String(text) => Value::from(text.as_str()),
        Json::Array(list) => list.iter().map(value_of).collect(),
        Json::Object(map) => {
            Value::from_pairs(map.iter().map(|(key, value)| (key.as_str(), value_of(value))))
        }
        Json::Number(n) => match (n.as_i64(), n.as_u64()) {
            (Some(n), _) => Value::from(n),
            (None, Some(n)) => Value::from(n),
            (None, None) => Value::from(n.as_f64().unwrap_or(f64::NAN)),
        },
    }
}

fn refused(e: &minijinja::Error) -> Error {
    const MOST: usize = 300;
    let what = match (e.kind(), e.detail()) {
        (ErrorKind::OutOfFuel, _) => "it does too much work".to_owned(),
        (ErrorKind::InvalidOperation, Some(detail)) => detail.to_owned(),
        (kind, Some(detail)) => format!("{kind}: {detail}"),
        (kind, None) => kind.to_string(),
    };
    let mut what: String = what.chars().take(MOST).collect();
    if let Some(line) = e.line() {
        what.push_str(&format!(" (line {line})"));
    }
    Error::Template(what)
}
