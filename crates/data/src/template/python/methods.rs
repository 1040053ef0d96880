//! Methods of Python's strings and lists that minijinja's own collection lacks, or has otherwise.

use minijinja::value::{Kwargs, Tuple, Value, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State};
use minijinja_contrib::pycompat::unknown_method_callback;

use super::pay;

/// The largest width that a text is padded to.
const WIDEST: usize = 10_000;

/// Calls a method of Python, if it is one of those here.
///
/// Source: "String Methods" in Python's library reference.
pub(super) fn call(
    state: &mut State,
    value: &Value,
    method: &str,
    args: &[Value],
) -> Result<Option<Value>, Error> {
    match value.as_str() {
        Some(text) => of_text(state, text, method, args),
        None => of_list(value, method, args),
    }
}

fn of_text(
    state: &mut State,
    text: &str,
    method: &str,
    args: &[Value],
) -> Result<Option<Value>, Error> {
    let tuple = |parts: [&str; 3]| {
        let parts: Vec<Value> = parts.into_iter().map(Value::from).collect();
        Value::from(Tuple::from(parts))
    };
    let argument = args.first().and_then(Value::as_str);
    Ok(Some(match (method, argument, args.len()) {
        ("title", None, 0) => Value::from(title(text)),
        ("swapcase", None, 0) => Value::from(swapped(text)),
        ("casefold", None, 0) => Value::from(text.to_lowercase().replace('ß', "ss")),
        ("splitlines", _, _) => lines(text, args)?,
        ("removeprefix", Some(part), 1) => Value::from(text.strip_prefix(part).unwrap_or(text)),
        ("removesuffix", Some(part), 1) => Value::from(text.strip_suffix(part).unwrap_or(text)),
        ("partition", Some(part), 1) if !part.is_empty() => match text.split_once(part) {
            Some((before, after)) => tuple([before, part, after]),
            None => tuple([text, "", ""]),
        },
        ("rpartition", Some(part), 1) if !part.is_empty() => match text.rsplit_once(part) {
            Some((before, after)) => tuple([before, part, after]),
            None => tuple(["", "", text]),
        },
        ("rsplit", Some(part), 2) if !part.is_empty() => match usize::try_from(args[1].clone()) {
            Ok(most) => {
                let parts = text.rsplitn(most.saturating_add(1), part);
                let mut parts: Vec<Value> = parts.map(Value::from).collect();
                parts.reverse();
                Value::from(parts)
            }
            Err(_) => return of_text(state, text, "rsplit", &args[..1]),
        },
        ("rsplit", _, 0 | 1) => {
            return unknown_method_callback(state, &Value::from(text), "split", args).map(Some);
        }
        ("startswith" | "endswith", _, 2) => {
            let Some(rest) = from(text, &args[1]) else {
                return Ok(None);
            };
            let rest = Value::from(rest);
            return unknown_method_callback(state, &rest, method, &args[..1]).map(Some);
        }
        ("index" | "rindex", Some(_), 1) => {
            let find = if method == "index" { "find" } else { "rfind" };
            let place = unknown_method_callback(state, &Value::from(text), find, args)?;
            if place == Value::from(-1) {
                return Err(wrong(format!("{method}: substring not found")));
            }
            place
        }
        ("zfill" | "ljust" | "rjust" | "center", _, 1 | 2) => padded(state, text, method, args)?,
        _ => return Ok(None),
    }))
}

fn of_list(value: &Value, method: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    Ok(match (method, value.kind(), args) {
        // Values cannot be changed, so a copy is the value itself.
        ("copy", ValueKind::Seq | ValueKind::Map, []) => Some(value.clone()),
        ("index", ValueKind::Seq, [wanted]) => {
            let mut items = value.try_iter()?;
            let place = items.position(|item| item == *wanted);
            let place = place.ok_or_else(|| wrong("index: the value is not in the list"))?;
            Some(Value::from(place))
        }
        _ => None,
    })
}

/// The text with words in title case; a word is a run of letters that have a case.
fn title(text: &str) -> String {
    let mut inside = false;
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        if inside {
            out.extend(character.to_lowercase());
        } else {
            out.extend(character.to_uppercase());
        }
        inside = character.is_lowercase() || character.is_uppercase();
    }
    out
}

fn swapped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_uppercase() {
            out.extend(character.to_lowercase());
        } else {
            out.extend(character.to_uppercase());
        }
    }
    out
}

/// The text from a character on; `None` for a negative place, which Python counts from the end.
fn from<'t>(text: &'t str, place: &Value) -> Option<&'t str> {
    let place = usize::try_from(place.clone()).ok()?;
    let mut places = text.char_indices().map(|(place, _)| place);
    Some(places.nth(place).map_or("", |place| &text[place..]))
}

/// The lines of a text, with Python's line boundaries.
fn lines(text: &str, args: &[Value]) -> Result<Value, Error> {
    let (given, named): (Option<bool>, Kwargs) = from_args(args)?;
    let keep = given.or(named.get("keepends")?).unwrap_or(false);
    named.assert_all_used()?;
    let is_end = |c: char| {
        matches!(
            c,
            '\n' | '\r' | '\x0b' | '\x0c' | '\x1c'..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}'
        )
    };
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(end) = rest.find(is_end) {
        let mut after = rest[end..].chars();
        let first = after.next();
        if first == Some('\r') && after.clone().next() == Some('\n') {
            after.next();
        }
        let next = rest.len() - after.as_str().len();
        found.push(Value::from(&rest[..if keep { next } else { end }]));
        rest = after.as_str();
    }
    if !rest.is_empty() {
        found.push(Value::from(rest));
    }
    Ok(Value::from(found))
}

/// The text with characters before or after it, up to a width.
fn padded(state: &State, text: &str, method: &str, args: &[Value]) -> Result<Value, Error> {
    let width = i64::try_from(args[0].clone())?;
    let width = usize::try_from(width.max(0)).unwrap_or(usize::MAX);
    if width > WIDEST {
        return Err(wrong(format!(
            "{method}: expected a width of at most {WIDEST}"
        )));
    }
    let fill = match args.get(1) {
        None if method == "zfill" => '0',
        None => ' ',
        Some(fill) => {
            let mut characters = fill.as_str().unwrap_or_default().chars();
            match (characters.next(), characters.next(), method) {
                (Some(one), None, "ljust" | "rjust" | "center") => one,
                _ => return Err(wrong(format!("{method}: expected one character"))),
            }
        }
    };
    pay(state, width.saturating_mul(fill.len_utf8()))?;
    let missing = width.saturating_sub(text.chars().count());
    let (sign, rest) = match text.strip_prefix(['+', '-']) {
        Some(rest) if method == "zfill" => text.split_at(text.len() - rest.len()),
        _ => ("", text),
    };
    let before = match method {
        "ljust" => 0,
        // As CPython rounds: an odd remainder goes to the left only if the width is odd.
        "center" => missing / 2 + (missing & width & 1),
        _ => missing,
    };
    let fill = |count: usize| String::from(fill).repeat(count);
    Ok(Value::from(format!(
        "{sign}{}{rest}{}",
        fill(before),
        fill(missing - before)
    )))
}

fn wrong(problem: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidOperation, problem)
}
