//! Floor 5: what templates expect of Python: its texts of values, and names beside those of Jinja. Knows no models.

use super::json::to_json;
use super::methods::{method, trimmed};
use minijinja::value::{Tuple, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Output, State, Value};
use std::fmt::Write;

/// Values deeper than this are refused: no JSON is.
pub(super) const MAX_DEPTH: usize = 150;

/// Teaches `env` Python.
pub(super) fn install(env: &mut Environment<'static>) {
    env.set_unknown_method_callback(method);
    env.set_formatter(print);
    env.add_function("raise_exception", |message: &Value| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, message.to_string()))
    });
    env.add_filter("tojson", to_json);
    env.add_filter("string", |state: &State, value: &Value| str_of(state, value));
    env.add_filter("trim", |state: &State, value: &Value, chars: Option<&str>| -> Result<String, Error> {
        Ok(trimmed(&str_of(state, value)?, chars, true, true).to_owned())
    });
    env.add_test("sequence", |value: &Value| is_listed(value));
    env.add_test("iterable", |value: &Value| is_listed(value) || value.kind() == ValueKind::Iterable);
    // In Python a truth value is a number, and an integer at that, but jinja2 tells it from neither of them.
    env.add_test("boolean", |value: &Value| value.kind() == ValueKind::Bool);
}

/// Whether Python could index it. The sum of two lists is an iterable here, but of known length.
fn is_listed(value: &Value) -> bool {
    match value.kind() {
        ValueKind::Seq | ValueKind::String | ValueKind::Map | ValueKind::Undefined => true,
        ValueKind::Iterable => value.len().is_some(),
        _ => false,
    }
}

/// `{{ value }}`.
fn print(out: &mut Output, state: &mut State, value: &Value) -> Result<(), Error> {
    match value.as_str() {
        Some(text) => out.write_str(text)?,
        None => out.write_str(&str_of(state, value)?)?,
    }
    Ok(())
}

/// `str(value)`.
pub(super) fn str_of(state: &State, value: &Value) -> Result<String, Error> {
    let mut out = String::new();
    match value.as_str() {
        Some(text) => out.push_str(text),
        None if value.is_undefined() => {}
        None => repr(state, value, MAX_DEPTH, &mut out)?,
    }
    Ok(out)
}

/// `repr(value)`. Each value is work: minijinja makes sums and multiples of lists without counting their items.
fn repr(state: &State, value: &Value, depth: usize, out: &mut String) -> Result<(), Error> {
    let inner = depth.checked_sub(1).ok_or_else(too_deep)?;
    state.consume_fuel(1 + value.as_str().map_or(0, str::len) as u64 / 16)?;
    match value.kind() {
        ValueKind::String => repr_text(value.as_str().unwrap_or_default(), out),
        ValueKind::Number if !value.is_integer() => float(value, out)?,
        ValueKind::Seq | ValueKind::Iterable => {
            let tuple = value.downcast_object_ref::<Tuple>().is_some();
            out.push(if tuple { '(' } else { '[' });
            for (n, item) in value.try_iter()?.enumerate() {
                out.push_str(if n > 0 { ", " } else { "" });
                repr(state, &item, inner, out)?;
            }
            out.push(if tuple { ')' } else { ']' });
        }
        ValueKind::Map => {
            out.push('{');
            for (n, key) in value.try_iter()?.enumerate() {
                out.push_str(if n > 0 { ", " } else { "" });
                repr(state, &key, inner, out)?;
                out.push_str(": ");
                repr(state, &value.get_item(&key)?, inner, out)?;
            }
            out.push('}');
        }
        ValueKind::Undefined => out.push_str("Undefined"),
        _ => write!(out, "{value}")?,
    }
    Ok(())
}

pub(super) fn too_deep() -> Error {
    Error::new(ErrorKind::InvalidOperation, "a value is nested too deep")
}

fn repr_text(text: &str, out: &mut String) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for c in text.chars() {
        let _ = match c {
            '\\' => out.write_str("\\\\"),
            '\n' => out.write_str("\\n"),
            '\r' => out.write_str("\\r"),
            '\t' => out.write_str("\\t"),
            c if c == quote => write!(out, "\\{c}"),
            c if printable(c) => out.write_char(c),
            c if u32::from(c) < 0x100 => write!(out, "\\x{:02x}", u32::from(c)),
            c if u32::from(c) < 0x1_0000 => write!(out, "\\u{:04x}", u32::from(c)),
            c => write!(out, "\\U{:08x}", u32::from(c)),
        }; // writing to a String cannot fail
    }
    out.push(quote);
}

/// `str.isprintable`: all but control and format characters, spaces other than the ordinary one and private use.
fn printable(c: char) -> bool {
    let hidden = matches!(c, '\u{ad}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{180e}'
        | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{e000}'..='\u{f8ff}'
        | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0001}'..='\u{e007f}' | '\u{f0000}'..);
    c == ' ' || !(c.is_control() || c.is_whitespace() || hidden)
}

/// `repr(float)`: the shortest digits that give the number back, with an exponent from 1e16 up and below 1e-4.
pub(super) fn float(value: &Value, out: &mut String) -> Result<(), Error> {
    let x = f64::try_from(value.clone())?;
    if !x.is_finite() {
        out.push_str(if x.is_nan() {
            "nan"
        } else if x > 0.0 {
            "inf"
        } else {
            "-inf"
        });
        return Ok(());
    }
    let scientific = format!("{x:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        write!(out, "{x:?}")?;
    } else {
        write!(out, "{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())?;
    }
    Ok(())
}
