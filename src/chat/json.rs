//! Floor 5: `json.dumps`, as templates call it. Knows no models.

use super::python::{MAX_DEPTH, float, str_of, too_deep};
use minijinja::value::{Kwargs, Rest, ValueKind};
use minijinja::{Error, ErrorKind, State, Value};
use std::fmt::Write;

/// How `json.dumps` writes.
struct Style {
    ascii: bool,
    sort: bool,
    indent: Option<String>,
    comma: String,
    colon: String,
}

/// The filter `tojson`: `json.dumps(x, ensure_ascii, indent, separators, sort_keys)`.
pub(super) fn to_json(
    state: &State,
    value: &Value,
    args: Rest<Value>,
    kwargs: Kwargs,
) -> Result<Value, Error> {
    let mut given = args.0.into_iter();
    let mut arg = |name: &str| -> Result<Option<Value>, Error> {
        let by_name: Option<Value> = kwargs.get(name)?;
        Ok(given.next().or(by_name).filter(|value| !value.is_none() && !value.is_undefined()))
    };
    let ascii = arg("ensure_ascii")?.is_some_and(|value| value.is_true());
    let indent = arg("indent")?.map(|value| match value.as_str() {
        Some(text) => text.to_owned(),
        None => " ".repeat(u8::try_from(value.as_i64().unwrap_or(0).max(0)).unwrap_or(u8::MAX).into()),
    });
    let (comma, colon) = match arg("separators")? {
        None => (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned()),
        Some(pair) => {
            (str_of(state, &pair.get_item_by_index(0)?)?, str_of(state, &pair.get_item_by_index(1)?)?)
        }
    };
    let sort = arg("sort_keys")?.is_some_and(|value| value.is_true());
    kwargs.assert_all_used()?;
    let style = Style { ascii, sort, indent, comma, colon };
    let mut out = String::new();
    style.write(state, value, 0, &mut out)?;
    Ok(Value::from(out))
}

/// All items of a list, or keys of an object, each of which is work before it takes memory.
fn listed(state: &State, value: &Value) -> Result<Vec<Value>, Error> {
    value.try_iter()?.map(|item| state.consume_fuel(1).map(|()| item)).collect()
}

impl Style {
    fn write(&self, state: &State, value: &Value, depth: usize, out: &mut String) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            return Err(too_deep());
        }
        state.consume_fuel(1)?;
        match value.kind() {
            ValueKind::None => out.push_str("null"),
            ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number if value.is_integer() => write!(out, "{value}")?,
            ValueKind::Number => {
                let start = out.len();
                float(value, out)?;
                let name = match &out[start..] {
                    "nan" => "NaN",
                    "inf" => "Infinity",
                    "-inf" => "-Infinity",
                    _ => return Ok(()),
                };
                out.truncate(start);
                out.push_str(name);
            }
            ValueKind::String => self.text(state, value.as_str().unwrap_or_default(), out)?,
            ValueKind::Seq | ValueKind::Iterable => {
                let items = listed(state, value)?;
                self.list(state, depth, ['[', ']'], &items, out, |item, out| {
                    self.write(state, item, depth + 1, out)
                })?;
            }
            ValueKind::Map => {
                let mut keys = listed(state, value)?;
                if self.sort {
                    keys.sort();
                }
                self.list(state, depth, ['{', '}'], &keys, out, |key, out| {
                    match key.as_str() {
                        Some(name) => self.text(state, name, out)?,
                        None => {
                            out.push('"');
                            self.write(state, key, depth + 1, out)?;
                            out.push('"');
                        }
                    }
                    out.push_str(&self.colon);
                    self.write(state, &value.get_item(key)?, depth + 1, out)
                })?;
            }
            kind => {
                let what = format!("{kind} is not JSON serializable");
                return Err(Error::new(ErrorKind::InvalidOperation, what));
            }
        }
        Ok(())
    }

    fn list(
        &self,
        state: &State,
        depth: usize,
        [open, close]: [char; 2],
        items: &[Value],
        out: &mut String,
        mut write: impl FnMut(&Value, &mut String) -> Result<(), Error>,
    ) -> Result<(), Error> {
        out.push(open);
        for (n, item) in items.iter().enumerate() {
            out.push_str(if n > 0 { &self.comma } else { "" });
            self.line(state, depth + 1, out)?;
            write(item, out)?;
        }
        if !items.is_empty() {
            self.line(state, depth, out)?;
        }
        out.push(close);
        Ok(())
    }

    /// Begins a line, where there are lines.
    fn line(&self, state: &State, depth: usize, out: &mut String) -> Result<(), Error> {
        if let Some(indent) = &self.indent {
            state.consume_fuel((indent.len() * depth / 64) as u64)?;
            out.push('\n');
            (0..depth).for_each(|_| out.push_str(indent));
        }
        Ok(())
    }

    fn text(&self, state: &State, text: &str, out: &mut String) -> Result<(), Error> {
        state.consume_fuel((text.len() / 16) as u64)?;
        out.push('"');
        for c in text.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                c if c < ' ' => write!(out, "\\u{:04x}", u32::from(c))?,
                c if self.ascii && (!c.is_ascii() || c == '\u{7f}') => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        write!(out, "\\u{unit:04x}")?;
                    }
                }
                c => out.push(c),
            }
        }
        out.push('"');
        Ok(())
    }
}
