//! Structure inside a column: `tools`, `tool_calls`, and what is in them come to one form, whatever a file has them as.
//!
//! Tables often have them as JSON text, as LLaMA-Factory's and TRL's do. Parquet and Arrow give every struct of a column
//! the same members, so a member that a row lacks is null there.

use serde_json::{Map, Value, json};

use super::row::Row;
use crate::error::{RowError, json_type};
use crate::integer;

/// Takes the tools out of a row: a list of objects, or `None` if there are none.
pub(super) fn take_tools(row: &mut Row) -> Result<Option<Value>, RowError> {
    let mut found: Option<(&'static str, Vec<Value>)> = None;
    for key in ["tools", "functions"] {
        let Some(mut value) = row.take(key) else {
            continue;
        };
        let own = row.own(key);
        row.strip(key, &mut value);
        let mut tools = objects(&own, value)?;
        if tools.is_empty() {
            continue;
        }
        if let [Value::Object(tool)] = tools.as_slice() {
            is_tool(&own, tool)?;
        }
        if let Some((first, _)) = found {
            return Err(RowError::TwoKeys { first, second: key });
        }
        for (index, tool) in tools.iter_mut().enumerate() {
            inner(tool, &format!("{own}[{index}]"), "parameters")?;
        }
        found = Some((key, tools));
    }
    Ok(found.map(|(_, tools)| Value::Array(tools)))
}

/// Refuses an object of tools by their names, which is easily taken for one tool.
fn is_tool(key: &str, tool: &Map<String, Value>) -> Result<(), RowError> {
    let is_named = ["name", "function", "type"]
        .iter()
        .any(|name| tool.contains_key(*name));
    if is_named
        || !tool
            .values()
            .all(|value| value.is_object() && !Row::is_blank(value))
    {
        return Ok(());
    }
    Err(RowError::NotATool {
        key: key.into(),
        keys: tool.keys().cloned().collect(),
    })
}

/// The calls of a message: a list of objects. Arguments that are text stay text, because some templates print them.
pub(super) fn calls(key: &str, value: Value) -> Result<Vec<Value>, RowError> {
    let mut calls = objects(key, value)?;
    for (index, call) in calls.iter_mut().enumerate() {
        if let Some(Value::String(text)) = call.get("function")
            && text.trim_start().starts_with('{')
        {
            call["function"] = parse(&format!("{key}[{index}].function"), text)?;
        }
        let function = match call.get_mut("function") {
            Some(Value::Object(function)) => function,
            Some(_) => continue,
            None => match call.as_object_mut() {
                Some(function) => function,
                None => continue,
            },
        };
        name_arguments(function);
    }
    Ok(calls)
}

/// Gives the arguments of a call their name, if it has them under another: Llama's `parameters`, Anthropic's `input`. A
/// text without content is that of no arguments.
fn name_arguments(function: &mut Map<String, Value>) {
    if !function.contains_key("arguments") && function.contains_key("name") {
        let other = ["parameters", "input", "args", "kwargs"]
            .into_iter()
            .find(|name| {
                matches!(
                    function.get(*name),
                    Some(Value::Object(_) | Value::String(_))
                )
            });
        if let Some(arguments) = other.and_then(|name| function.shift_remove(name)) {
            function.insert("arguments".into(), arguments);
        }
    }
    if let Some(Value::String(text)) = function.get_mut("arguments")
        && text.trim().is_empty()
    {
        *text = "{}".into();
    }
}

/// The calls that a speaker `function_call` writes as JSON: `{name, arguments}` or a list of them.
pub(super) fn spoken_calls(key: &str, value: Value) -> Result<Vec<Value>, RowError> {
    let wrong = |what: String| RowError::NotACall {
        key: key.into(),
        what,
    };
    let listed = match value {
        Value::String(text) => integer::from_str(&text).map_err(|e| wrong(e.to_string()))?,
        other => other,
    };
    let listed = match listed {
        Value::Array(items) if !items.is_empty() => items,
        Value::Array(_) => return Err(wrong("the list is empty".into())),
        one => vec![one],
    };
    listed
        .into_iter()
        .map(|call| spoken(call, &wrong))
        .collect()
}

fn spoken(call: Value, wrong: &dyn Fn(String) -> RowError) -> Result<Value, RowError> {
    let Value::Object(mut call) = call else {
        return Err(wrong(format!("found {}", json_type(&call))));
    };
    if let Some(Value::Object(function)) = call.get_mut("function") {
        name_arguments(function);
        return Ok(Value::Object(call));
    }
    name_arguments(&mut call);
    let name = match call.shift_remove("name") {
        Some(Value::String(name)) => name,
        Some(other) => return Err(wrong(format!("`name` is {}", json_type(&other)))),
        None => return Err(wrong("`name` is missing".into())),
    };
    let arguments = call.shift_remove("arguments");
    let arguments = arguments.ok_or_else(|| wrong("`arguments` is missing".into()))?;
    if !matches!(arguments, Value::Object(_) | Value::String(_)) {
        return Err(wrong(format!("`arguments` is {}", json_type(&arguments))));
    }
    let mut form = Map::new();
    if let Some(id) = call.shift_remove("id") {
        form.insert("id".into(), id);
    }
    call.shift_remove("type");
    if let Some((other, _)) = call.iter().find(|(_, value)| !Row::is_blank(value)) {
        return Err(wrong(format!("`{other}` would be lost")));
    }
    form.insert("type".into(), "function".into());
    form.insert(
        "function".into(),
        json!({ "name": name, "arguments": arguments }),
    );
    Ok(Value::Object(form))
}

/// A list of objects from a list, one object, or the JSON text of either; empty if the value says that there are none.
fn objects(key: &str, value: Value) -> Result<Vec<Value>, RowError> {
    let value = match value {
        Value::String(text) if text.trim().is_empty() => Value::Null,
        Value::String(text) => parse(key, &text)?,
        other => other,
    };
    let items = match value {
        value if Row::is_blank(&value) => Vec::new(),
        Value::Array(items) => items,
        one @ Value::Object(_) if integer::digits(&one).is_none() => vec![one],
        other => {
            return Err(RowError::WrongType {
                key: key.into(),
                expected: "a list of objects, or its JSON text",
                found: json_type(&other),
            });
        }
    };
    let item = |(index, item): (usize, Value)| {
        let key = format!("{key}[{index}]");
        let item = match item {
            Value::String(text) => parse(&key, &text)?,
            other => other,
        };
        if item.is_object() {
            return Ok(item);
        }
        Err(RowError::WrongType {
            key,
            expected: "an object",
            found: json_type(&item),
        })
    };
    items.into_iter().enumerate().map(item).collect()
}

/// Parses the text of a member of a tool, or of its `function`, which is an object everywhere else.
fn inner(tool: &mut Value, key: &str, member: &str) -> Result<(), RowError> {
    if let Some(Value::String(text)) = tool.get("function")
        && text.trim_start().starts_with('{')
    {
        tool["function"] = parse(&format!("{key}.function"), text)?;
    }
    let (path, holder) = if tool.get("function").is_some_and(Value::is_object) {
        (format!("{key}.function.{member}"), &mut tool["function"])
    } else {
        (format!("{key}.{member}"), tool)
    };
    if let Some(Value::String(text)) = holder.get(member)
        && !text.trim().is_empty()
    {
        holder[member] = parse(&path, text)?;
    }
    Ok(())
}

fn parse(key: &str, text: &str) -> Result<Value, RowError> {
    match integer::from_str(text) {
        // Some tools encode twice.
        Ok(Value::String(inner)) if inner.trim_start().starts_with(['[', '{']) => {
            integer::from_str(&inner).map_err(|error| inner_json(key, &inner, &error))
        }
        parsed => parsed.map_err(|error| inner_json(key, text, &error)),
    }
}

/// The error of a text that should be JSON.
pub(super) fn inner_json(key: &str, text: &str, error: &serde_json::Error) -> RowError {
    let text = text.trim_start();
    RowError::InnerJson {
        key: key.into(),
        what: error.to_string(),
        is_python: ["[{'", "{'", "['", "None", "True", "False"]
            .iter()
            .any(|start| text.starts_with(start)),
    }
}

/// Removes the members that are null from every struct; returns whether there were any.
pub(super) fn strip_nulls(value: &mut Value) -> bool {
    match value {
        Value::Object(fields) => {
            let before = fields.len();
            fields.retain(|_, value| !value.is_null());
            let mut found = fields.len() < before;
            for value in fields.values_mut() {
                found |= strip_nulls(value);
            }
            found
        }
        Value::Array(items) => {
            let mut found = false;
            for item in items {
                found |= strip_nulls(item);
            }
            found
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_have_one_name() {
        let read = |call: Value| calls("tool_calls", json!([call])).unwrap().remove(0);
        let form = |arguments: Value| json!({"function": {"name": "f", "arguments": arguments}});
        for name in ["arguments", "parameters", "input", "args"] {
            let call = json!({"function": {"name": "f", name: {"x": 1}}});
            assert_eq!(read(call), form(json!({"x": 1})), "{name}");
        }
        let flat = read(json!({"type": "tool_use", "name": "f", "input": {"x": 1}}));
        assert_eq!(
            flat,
            json!({"type": "tool_use", "name": "f", "arguments": {"x": 1}})
        );
        // no arguments as text
        assert_eq!(read(form(json!(" "))), form(json!("{}")));
        // an argument may be called `input`
        let call = form(json!({"input": 1}));
        assert_eq!(read(call.clone()), call);
    }

    #[test]
    fn text_may_be_encoded_twice_and_python_is_named() {
        let call = json!([{"function": {"name": "f", "arguments": {}}}]);
        let twice = json!(json!(call.to_string()).to_string());
        assert_eq!(json!(calls("tool_calls", twice).unwrap()), call);
        let python = json!("[{'function': None}]");
        let error = calls("tool_calls", python).unwrap_err();
        assert!(
            matches!(
                error,
                RowError::InnerJson {
                    is_python: true,
                    ..
                }
            ),
            "{error}"
        );
    }

    #[test]
    fn tools_by_their_names_are_not_one_tool() {
        let tools = |tools: Value| take_tools(&mut Row::new(vec![("tools".into(), tools)]));
        let error = tools(json!({"get": {"type": "function"}})).unwrap_err();
        assert!(matches!(error, RowError::NotATool { .. }), "{error}");
        let tool = json!({"type": "function", "function": {"name": "get"}});
        assert_eq!(tools(tool.clone()).unwrap(), Some(json!([tool])));
        // tools that the provider has
        let built_in = json!({"google_search": {}});
        assert_eq!(tools(built_in.clone()).unwrap(), Some(json!([built_in])));
    }
}
