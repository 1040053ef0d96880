//! The parts of Python that chat templates use: methods of strings, lists and dicts, and how values become text.
//!
//! minijinja counts the steps of a template and the values that it keeps, but not the work of functions outside the
//! engine. So functions here that could take unbounded memory or time consume steps before they run.

mod methods;
pub(super) mod percent;
mod print;

use minijinja::value::{Kwargs, Rest, Value, ValueKind, ValueOrKwargs, from_args};
use minijinja::{Error, ErrorKind, State, filters};
use minijinja_contrib::pycompat::unknown_method_callback;

use print::{Json, Style};

/// Bytes per step.
const BYTES_PER_STEP: usize = 64;

/// A Python method that minijinja does not have.
pub(super) fn method(
    state: &mut State,
    value: &Value,
    method: &str,
    args: &[Value],
) -> Result<Value, Error> {
    for value in args.iter().chain([value]) {
        pay(state, size(value))?;
    }
    match (method, value.as_str(), args) {
        ("replace", Some(text), [old, new, ..]) => {
            if let (Some(old), Some(new)) = (old.as_str(), new.as_str()) {
                pay(state, text.matches(old).count().saturating_mul(new.len()))?;
            }
        }
        // minijinja's own `join` counts its work.
        ("join", Some(_), [items]) => {
            return state.apply_filter("join", &[items.clone(), value.clone()]);
        }
        ("format", Some(text), _) if wide(text) => {
            let problem = "format: expected a width of at most four digits";
            return Err(Error::new(ErrorKind::InvalidOperation, problem));
        }
        _ => {}
    }
    if let Some(result) = methods::call(state, value, method, args)? {
        return Ok(result);
    }
    unknown_method_callback(state, value, method, args)
}

/// The filter `int`, which gives 0 or the given default for other texts than numbers.
pub(super) fn int(
    state: &State,
    value: &Value,
    default: Option<Value>,
    base: Option<u32>,
    named: Kwargs,
) -> Result<Value, Error> {
    let default = default.or(named.get("default")?).unwrap_or(Value::from(0));
    filters::int(state, value, Some(default), base, named)
}

/// The filter `float`, which gives 0.0 or the given default for other texts than numbers.
pub(super) fn to_float(
    state: &State,
    value: &Value,
    default: Option<Value>,
    named: Kwargs,
) -> Result<Value, Error> {
    let default = default
        .or(named.get("default")?)
        .unwrap_or(Value::from(0.0));
    filters::float(state, value, Some(default), named)
}

fn pay(state: &State, bytes: usize) -> Result<(), Error> {
    state.consume_fuel((bytes / BYTES_PER_STEP) as u64)
}

/// The bytes of a string; for a list, the bytes of one step per item.
fn size(value: &Value) -> usize {
    match (value.as_str(), value.kind()) {
        (Some(text), _) => text.len(),
        (_, ValueKind::Seq | ValueKind::Iterable) => {
            let items = value.len().unwrap_or(0);
            items.saturating_mul(BYTES_PER_STEP)
        }
        _ => 0,
    }
}

/// Whether a format contains a number of five digits or more.
fn wide(format: &str) -> bool {
    let digits = format.split(|c: char| !c.is_ascii_digit());
    digits.into_iter().any(|digits| digits.len() > 4)
}

/// The largest indentation of a level in bytes, so that steps limit the text.
const WIDEST_INDENT: usize = 64;

/// The filter `tojson` of transformers: `json.dumps` with `ensure_ascii=False` and three more arguments.
///
/// Source: `_compile_jinja_template` in transformers' `utils/chat_template_utils.py`.
pub(super) fn to_json(
    state: &State,
    value: &Value,
    args: Rest<ValueOrKwargs>,
) -> Result<Value, Error> {
    let args = args.into_values();
    let (given, named): (&[Value], Kwargs) = from_args(&args)?;
    let names = ["ensure_ascii", "indent", "separators", "sort_keys"];
    if given.len() > names.len() {
        return Err(Error::from(ErrorKind::TooManyArguments));
    }
    let mut options: [Option<Value>; 4] = Default::default();
    for (index, name) in names.into_iter().enumerate() {
        options[index] = match given.get(index) {
            Some(value) => Some(value.clone()),
            None => named.get(name)?,
        };
    }
    named.assert_all_used()?;
    let [ascii, indent, separators, sorted] =
        options.map(|option| option.filter(|value| !value.is_none()));
    let indent = indent.map(|value| indentation(&value)).transpose()?;
    let (item, key) = match separators {
        Some(value) => separators_of(&value)?,
        None if indent.is_some() => (",".into(), ": ".into()),
        None => (", ".into(), ": ".into()),
    };
    let style = Style::Json(Json {
        ensure_ascii: ascii.is_some_and(|value| value.is_true()),
        indent,
        item,
        key,
        sort_keys: sorted.is_some_and(|value| value.is_true()),
    });
    Ok(Value::from(print::write(state, value, &style)?))
}

/// The text of one level of indentation: spaces, or the text itself.
fn indentation(value: &Value) -> Result<String, Error> {
    let text = match value.as_str() {
        Some(text) => Some(text.to_owned()),
        // Python's booleans are numbers. A number below 0 counts as 0.
        None => i64::try_from(value.clone())
            .ok()
            .or_else(|| (value.kind() == ValueKind::Bool).then_some(i64::from(value.is_true())))
            .and_then(|spaces| usize::try_from(spaces.max(0)).ok())
            .filter(|&spaces| spaces <= WIDEST_INDENT)
            .map(|spaces| " ".repeat(spaces)),
    };
    text.filter(|text| text.len() <= WIDEST_INDENT)
        .ok_or_else(|| {
            let problem = format!(
                "tojson: indent: expected a number or text of at most {WIDEST_INDENT} characters, found {value}"
            );
            Error::new(ErrorKind::InvalidOperation, problem)
        })
}

/// The text between items, and the text between a key and its value.
fn separators_of(value: &Value) -> Result<(String, String), Error> {
    let items: Vec<Value> = value.try_iter()?.take(3).collect();
    match &items[..] {
        [item, key] if value.kind() != ValueKind::String => item.as_str().zip(key.as_str()),
        _ => None,
    }
    .map(|(item, key)| (item.to_owned(), key.to_owned()))
    .ok_or_else(|| {
        let problem = format!("tojson: separators: expected two texts, found {value}");
        Error::new(ErrorKind::InvalidOperation, problem)
    })
}

/// A value as Python's `str` gives it, unless minijinja writes it in the same way.
pub(super) fn text(state: &State, value: &Value) -> Result<Option<String>, Error> {
    Ok(match value.kind() {
        ValueKind::Bool => Some(if value.is_true() { "True" } else { "False" }.into()),
        ValueKind::None => Some("None".into()),
        ValueKind::Number => print::as_float(value).map(print::float),
        ValueKind::Seq | ValueKind::Iterable | ValueKind::Map => {
            Some(print::write(state, value, &Style::Repr)?)
        }
        _ => None,
    })
}

/// The filter `string`: Python's `str`.
pub(super) fn string(state: &State, value: &Value) -> Result<Value, Error> {
    match text(state, value)? {
        Some(text) => Ok(Value::from(text)),
        None => filters::string(state, value),
    }
}

/// The most bytes that a character of HTML takes: `&#34;`.
const LONGEST_ENTITY: usize = 5;

/// The filter `escape`: the text in HTML, unless it is marked as safe.
///
/// Source: markupsafe's `escape`.
pub(super) fn escape(state: &State, value: &Value) -> Result<Value, Error> {
    if value.is_safe() || value.is_undefined() {
        return Ok(value.clone());
    }
    let value = string(state, value)?;
    let text = value.as_str().unwrap_or_default();
    pay(state, text.len().saturating_mul(LONGEST_ENTITY))?;
    let mut html = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '\'' => html.push_str("&#39;"),
            '"' => html.push_str("&#34;"),
            other => html.push(other),
        }
    }
    Ok(Value::from_safe_string(html))
}

/// The name of minijinja's own filter `join`; no template can write it.
pub(super) const JOIN: &str = "join of minijinja";

/// The filter `join`, which writes items as Python does.
pub(super) fn join(
    state: &mut State,
    value: &Value,
    args: Rest<ValueOrKwargs>,
) -> Result<Value, Error> {
    let mut all = vec![value.clone()];
    all.extend(args.into_values());
    // With `attribute`, the items are not those that are written.
    let plain = all.len() <= 2 && !all.last().is_some_and(Value::is_kwargs);
    if plain && matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable) {
        let mut items = Vec::new();
        for item in value.try_iter()?.checked() {
            let item = item?;
            pay(state, BYTES_PER_STEP)?;
            items.push(match text(state, &item)? {
                Some(text) => Value::from(text),
                None => item,
            });
        }
        all[0] = Value::from(items);
    }
    state.apply_filter(JOIN, &all)
}

#[cfg(test)]
mod tests;
