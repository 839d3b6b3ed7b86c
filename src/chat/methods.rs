//! Floor 5: methods of Python's strings that minijinja's helper lacks or does otherwise. Knows no models.

use minijinja::value::from_args;
use minijinja::{Error, ErrorKind, State, Value};
use minijinja_contrib::pycompat::unknown_method_callback;

/// What `str.strip` takes off without an argument, and `str.split` splits at.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

pub(super) fn trimmed<'a>(text: &'a str, chars: Option<&str>, start: bool, end: bool) -> &'a str {
    let cut = |c: char| chars.map_or_else(|| is_space(c), |chars| chars.contains(c));
    let text = if start { text.trim_start_matches(cut) } else { text };
    if end { text.trim_end_matches(cut) } else { text }
}

/// `value.name(args)`: what minijinja's own helper does otherwise than Python, or not at all; then the helper.
///
/// Methods look at the whole of a text or a list, which minijinja does not count as work, and lists may be far longer than
/// the memory they take.
pub(super) fn method(state: &mut State, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    let items = value.as_str().map_or_else(|| value.len().unwrap_or(0), |text| text.len() / 64);
    state.consume_fuel(items as u64)?;
    let Some(text) = value.as_str() else {
        return unknown_method_callback(state, value, name, args);
    };
    match name {
        "strip" | "lstrip" | "rstrip" => {
            let (chars,): (Option<&str>,) = from_args(args)?;
            Ok(Value::from(trimmed(text, chars, name != "rstrip", name != "lstrip")))
        }
        "split" if args.first().is_none_or(Value::is_none) && args.len() < 2 => {
            Ok(text.split(is_space).filter(|word| !word.is_empty()).map(Value::from).collect())
        }
        "rsplit" => {
            let (separator, most): (Option<&str>, Option<i64>) = from_args(args)?;
            let Some(separator) = separator.filter(|text| !text.is_empty()) else {
                return Err(Error::new(ErrorKind::InvalidOperation, "rsplit needs a separator"));
            };
            let most = most
                .and_then(|most| usize::try_from(most).ok())
                .map_or(usize::MAX, |most| most.saturating_add(1));
            let mut parts: Vec<&str> = text.rsplitn(most, separator).collect();
            parts.reverse();
            Ok(parts.into_iter().map(Value::from).collect())
        }
        "splitlines" => {
            let (keep,): (Option<bool>,) = from_args(args)?;
            Ok(lines(text, keep.unwrap_or(false)).into_iter().map(Value::from).collect())
        }
        "removeprefix" | "removesuffix" => {
            let (affix,): (&str,) = from_args(args)?;
            let cut =
                if name == "removeprefix" { text.strip_prefix(affix) } else { text.strip_suffix(affix) };
            Ok(Value::from(cut.unwrap_or(text)))
        }
        "partition" | "rpartition" => {
            let (separator,): (&str,) = from_args(args)?;
            let (cut, none) = match name {
                "partition" => (text.split_once(separator), [text, "", ""]),
                _ => (text.rsplit_once(separator), ["", "", text]),
            };
            let parts = cut.map_or(none, |(before, after)| [before, separator, after]);
            Ok(parts.into_iter().map(Value::from).collect())
        }
        _ => unknown_method_callback(state, value, name, args),
    }
}

/// `str.splitlines`.
fn lines(text: &str, keep: bool) -> Vec<&str> {
    let ends = |c| matches!(c, '\n'..='\r' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}');
    let (mut out, mut rest) = (Vec::new(), text);
    while let Some((at, end)) = rest.char_indices().find(|(_, c)| ends(*c)) {
        let len = if rest[at..].starts_with("\r\n") { 2 } else { end.len_utf8() };
        out.push(&rest[..if keep { at + len } else { at }]);
        rest = &rest[at + len..];
    }
    out.extend(Some(rest).filter(|rest| !rest.is_empty()));
    out
}
