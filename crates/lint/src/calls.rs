//! Checks of the calls in a row: their arguments, and the names of their tools.

use serde_json::Value;
use simmer_data::{Conversation, RowView};

use super::Kind;

/// Finds what is wrong with the calls of a row, and which fields of its messages are lost.
pub(super) fn check(view: &RowView<'_>, found: &mut Vec<(Kind, String)>) {
    let Some(messages) = view.row.messages() else {
        return;
    };
    if messages.iter().all(|message| message.more.is_empty()) {
        return;
    }
    let known = tools(view.row);
    let calls = messages.iter().enumerate().flat_map(|(index, message)| {
        let calls = message.more.get("tool_calls").and_then(Value::as_array);
        let calls = calls.into_iter().flatten().enumerate();
        let message = view.row.list.at(index);
        calls.map(move |(number, call)| (format!("{message}.tool_calls[{number}]"), call))
    });
    let mut first = calls.filter_map(|(key, call)| one(&key, call, known.as_deref()));
    let oddities = &view.rendered.oddities;
    let what = first.next().or_else(|| {
        let [text, object] = oddities.spellings.as_ref()?;
        Some(format!(
            "arguments are JSON text, and the template would print an object differently: `{}`, as an object `{}`",
            one_line(text),
            one_line(object)
        ))
    });
    found.extend(what.map(|what| (Kind::Calls, what)));
    if let Some(field) = oddities.lost.first() {
        found.push((Kind::LostFields, field.clone()));
    }
}

/// What is wrong with one call.
fn one(key: &str, call: &Value, known: Option<&[&str]>) -> Option<String> {
    let function = call.get("function").unwrap_or(call);
    match function.get("name").and_then(Value::as_str) {
        None => return Some(format!("{key} has no name")),
        Some(name) if known.is_some_and(|known| !known.contains(&name)) => {
            return Some(format!(
                "{key} calls `{name}`, which is not among the tools"
            ));
        }
        Some(_) => {}
    }
    match function.get("arguments") {
        Some(Value::String(text)) => match serde_json::from_str(text) {
            Ok(object @ Value::Object(_)) => null(&object),
            _ => return Some(format!("{key}: arguments are text that is no JSON object")),
        },
        Some(Value::Null) => Some(String::new()),
        Some(object @ Value::Object(_)) => null(object),
        Some(other) => {
            let kind = if other.is_array() {
                "a list"
            } else {
                "one value"
            };
            return Some(format!("{key}: arguments are {kind}, not an object"));
        }
        None => None,
    }
    .map(|path| format!("{key}: arguments{path} is null"))
}

/// A text on one line, with its line breaks as `\n`.
fn one_line(text: &str) -> String {
    text.replace('\n', "\\n").replace('\r', "\\r")
}

/// The path of the first null.
fn null(value: &Value) -> Option<String> {
    match value {
        Value::Null => Some(String::new()),
        Value::Object(fields) => fields
            .iter()
            .find_map(|(name, value)| null(value).map(|path| format!(".{name}{path}"))),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .find_map(|(index, item)| null(item).map(|path| format!("[{index}]{path}"))),
        _ => None,
    }
}

/// The names of the row's tools; `None` if it lists none.
fn tools(row: &Conversation) -> Option<Vec<&str>> {
    let tools = row.tools.as_ref()?.as_array()?.iter();
    let names = tools.filter_map(|tool| tool.get("function").unwrap_or(tool).get("name")?.as_str());
    Some(names.collect())
}
