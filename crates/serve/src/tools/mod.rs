//! The tools that a request offers the model, and the calls of an answer.
//!
//! How a call is written is a matter of the model: [`CallForm`] finds it in what the chat template makes of one.
//!
//! Source: OpenAI's API reference, "Create chat completion": `tools`, `tool_choice`, `parallel_tool_calls`.

mod call_form;
mod heard;

use serde_json::{Value, json};

pub(crate) use call_form::CallForm;
pub(crate) use heard::{Call, Hearing};

use crate::error::ApiError;
use crate::fields::{Fields, shown};
use crate::form::{Form, Kind};

/// The tools of a request.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tools {
    /// As the template gets them.
    list: Vec<Value>,
    choice: Choice,
    /// Whether an answer has one call at most.
    single: bool,
}

/// Which tools the model may call, or has to.
#[derive(Debug, Clone, PartialEq)]
enum Choice {
    /// Any, or none.
    Auto,
    /// One of them.
    Required,
    /// The one of this name.
    Named(String),
}

/// The key of the tools.
const KEY: &str = "tools";

impl Tools {
    /// Reads the keys of a request about tools. `None`: the model may call none.
    pub(crate) fn read(fields: &mut Fields) -> Result<Option<Self>, ApiError> {
        let several = fields.flag("parallel_tool_calls")?.unwrap_or(true);
        let choice = choice(fields)?;
        let list = match fields.take(KEY) {
            None => Vec::new(),
            Some(Value::Array(list)) => list,
            Some(other) => return Err(fields.wrong(KEY, "a list of tools", &other)),
        };
        let Some(choice) = choice else {
            return Ok(None);
        };
        let mut names: Vec<String> = Vec::new();
        for (number, tool) in list.iter().enumerate() {
            let place = format!("{KEY}[{number}]");
            let name = name_of(&place, tool)?;
            if names.contains(&name) {
                let message = format!("expected a name that no other tool has, found `{name}`");
                return Err(ApiError::of(&format!("{place}.function.name"), message));
            }
            names.push(name);
        }
        match &choice {
            Choice::Auto if list.is_empty() => return Ok(None),
            Choice::Required if list.is_empty() => {
                return Err(ApiError::of("tool_choice", "needs `tools`"));
            }
            Choice::Named(name) if !names.contains(name) => {
                let names = names.join("`, `");
                let message = format!("expected the name of a tool, `{names}`, found `{name}`");
                return Err(ApiError::of("tool_choice.function.name", message));
            }
            _ => {}
        }
        Ok(Some(Self {
            list,
            choice,
            single: !several,
        }))
    }

    /// As templates get them.
    pub(crate) fn list(&self) -> Value {
        Value::Array(self.list.clone())
    }

    /// Whether the model has to call one.
    pub(crate) fn is_forced(&self) -> bool {
        self.choice != Choice::Auto
    }

    /// Whether an answer has one call at most.
    pub(crate) fn is_single(&self) -> bool {
        self.single || self.is_forced()
    }

    /// What a call of one of the tools is that have to be called.
    pub(crate) fn form(&self, written: &CallForm) -> Form {
        let mut definitions = serde_json::Map::new();
        let mut calls = Vec::new();
        for tool in self.list.iter().map(|tool| &tool["function"]) {
            let name = tool["name"].as_str().unwrap_or_default();
            if matches!(&self.choice, Choice::Named(wanted) if wanted != name) {
                continue;
            }
            let mut parameters = match &tool["parameters"] {
                Value::Null => json!({"type": "object"}),
                schema => schema.clone(),
            };
            let place = format!("tool{}", calls.len());
            refer_to(&mut parameters, &format!("#/$defs/{place}"));
            close(&mut parameters);
            calls.push(json!({
                "type": "object",
                "properties": {
                    written.name.as_str(): {"const": name},
                    written.arguments.as_str(): {"$ref": format!("#/$defs/{place}")},
                },
                "required": [written.name, written.arguments],
                "additionalProperties": false,
            }));
            definitions.insert(place, parameters);
        }
        Form {
            key: KEY.to_owned(),
            kind: Kind::Schema(json!({"anyOf": calls, "$defs": definitions})),
        }
    }
}

/// Reads `tool_choice`. `None`: the model may call no tool.
fn choice(fields: &mut Fields) -> Result<Option<Choice>, ApiError> {
    const CHOICE: &str = "tool_choice";
    let expected =
        "none, auto, required, or {\"type\": \"function\", \"function\": {\"name\": ...}}";
    let Some(value) = fields.take(CHOICE) else {
        return Ok(Some(Choice::Auto));
    };
    match value.as_str() {
        Some("none") => return Ok(None),
        Some("auto") => return Ok(Some(Choice::Auto)),
        // llama.cpp's and others' name for it
        Some("required" | "any") => return Ok(Some(Choice::Required)),
        Some(_) => return Err(fields.wrong(CHOICE, expected, &value)),
        None => {}
    }
    let mut named = Fields::at(CHOICE, value)?;
    if named.text("type")?.as_deref() != Some("function") {
        return Err(ApiError::of(
            "tool_choice.type",
            "expected \"function\": this server knows no other kind",
        ));
    }
    let missing = || ApiError::of("tool_choice.function", "missing; expected {\"name\": ...}");
    let function = named.take("function").ok_or_else(missing)?;
    named.finish()?;
    let mut function = Fields::at("tool_choice.function", function)?;
    let name = function.text("name")?.ok_or_else(missing)?;
    function.finish()?;
    Ok(Some(Choice::Named(name)))
}

/// Checks a tool, and returns its name.
fn name_of(place: &str, tool: &Value) -> Result<String, ApiError> {
    let mut fields = Fields::at(place, tool.clone())?;
    let kind = fields.text("type")?;
    if kind.as_deref() != Some("function") {
        let found = kind.map_or("nothing".to_owned(), |kind| format!("\"{kind}\""));
        let message =
            format!("expected \"function\", found {found}: this server has no tools of its own");
        return Err(ApiError::of(&format!("{place}.type"), message));
    }
    let place = format!("{place}.function");
    let missing = || {
        ApiError::of(
            &place,
            "missing; expected {\"name\": ..., \"description\": ..., \"parameters\": {...}}",
        )
    };
    let mut function = Fields::at(&place, fields.take("function").ok_or_else(missing)?)?;
    fields.finish()?;
    let name = function.text("name")?.filter(|name| !name.is_empty());
    function.text("description")?;
    if let Some(schema) = function
        .take("parameters")
        .filter(|schema| !schema.is_object())
    {
        let message = format!("expected a JSON schema, found {}", shown(&schema));
        return Err(ApiError::of(&format!("{place}.parameters"), message));
    }
    // every schema is kept to if a call is required, and none if not
    function.leave_out(&["strict", "cache_control"]);
    function.finish()?;
    name.ok_or_else(|| {
        ApiError::of(
            &format!("{place}.name"),
            "missing; expected the name of the tool",
        )
    })
}

/// Leaves out keys that a schema of an object does not name: a tool has no use for them, and a small model goes on with them for ever.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(keys) => {
            // what other parts of a schema name is not known here
            const OTHERS: [&str; 7] = [
                "additionalProperties",
                "patternProperties",
                "unevaluatedProperties",
                "$ref",
                "allOf",
                "anyOf",
                "oneOf",
            ];
            let is_whole = keys.get("properties").is_some_and(Value::is_object)
                && !OTHERS.iter().any(|other| keys.contains_key(*other));
            for (key, value) in keys.iter_mut() {
                match (key.as_str(), value) {
                    ("properties" | "$defs" | "definitions", Value::Object(schemas)) => {
                        schemas.values_mut().for_each(close);
                    }
                    ("enum" | "const" | "default" | "examples", _) => {}
                    (_, other) => close(other),
                }
            }
            if is_whole {
                keys.insert("additionalProperties".to_owned(), Value::Bool(false));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(close),
        _ => {}
    }
}

/// Makes the references of a schema to its own parts ones to the same parts at another place.
fn refer_to(schema: &mut Value, place: &str) {
    match schema {
        Value::Object(keys) => {
            for (key, value) in keys {
                match value {
                    Value::String(path) if key == "$ref" && path.starts_with('#') => {
                        path.replace_range(..1, place);
                    }
                    other => refer_to(other, place),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| refer_to(item, place)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(request: &Value) -> Result<Option<Tools>, ApiError> {
        let mut fields = Fields::of_request(request.to_string().as_bytes())?;
        let tools = Tools::read(&mut fields)?;
        fields.finish()?;
        Ok(tools)
    }

    fn tool(name: &str) -> Value {
        json!({"type": "function", "function": {"name": name, "description": "d", "parameters": {"type": "object"}, "strict": true}})
    }

    #[test]
    fn tools_are_read() {
        for request in [
            json!({}),
            json!({"tools": null, "tool_choice": "auto"}),
            json!({"tools": [], "parallel_tool_calls": true}),
            json!({"tools": [tool("a")], "tool_choice": "none"}),
        ] {
            assert_eq!(read(&request).unwrap(), None, "{request}");
        }
        let tools = read(&json!({"tools": [tool("a"), tool("b")]}))
            .unwrap()
            .unwrap();
        assert_eq!(
            (tools.list(), tools.is_forced(), tools.is_single()),
            (json!([tool("a"), tool("b")]), false, false)
        );
        let one = json!({"tools": [tool("a")], "parallel_tool_calls": false});
        assert!(read(&one).unwrap().unwrap().is_single());
        let named = json!({"tools": [tool("a")], "tool_choice": {"type": "function", "function": {"name": "a"}}});
        assert!(read(&named).unwrap().unwrap().is_forced());
    }

    #[test]
    fn mistakes_are_named() {
        for (request, expected) in [
            (
                json!({"tools": {}}),
                "`tools`: expected a list of tools, found {}",
            ),
            (
                json!({"tools": [{"type": "web_search"}]}),
                "`tools[0].type`: expected \"function\", found \"web_search\": this server has no tools of its own",
            ),
            (
                json!({"tools": [{"type": "function"}]}),
                "`tools[0].function`: missing; expected {\"name\": ",
            ),
            (
                json!({"tools": [{"type": "function", "function": {"description": "d"}}]}),
                "`tools[0].function.name`: missing",
            ),
            (
                json!({"tools": [{"type": "function", "function": {"name": "a", "parameters": []}}]}),
                "`tools[0].function.parameters`: expected a JSON schema, found []",
            ),
            (
                json!({"tools": [{"type": "function", "function": {"name": "a", "parametres": {}}}]}),
                "`tools[0].function.parametres`: this server does not know this key; did you mean `parameters`?",
            ),
            (
                json!({"tools": [tool("a"), tool("a")]}),
                "`tools[1].function.name`: expected a name that no other tool has, found `a`",
            ),
            (
                json!({"tool_choice": "required"}),
                "`tool_choice`: needs `tools`",
            ),
            (
                json!({"tools": [tool("a")], "tool_choice": "always"}),
                "`tool_choice`: expected none, auto, required, or ",
            ),
            (
                json!({"tools": [tool("a")], "tool_choice": {"type": "function", "function": {"name": "b"}}}),
                "`tool_choice.function.name`: expected the name of a tool, `a`, found `b`",
            ),
            (
                json!({"tools": [tool("a")], "tool_choice": {"type": "allowed_tools"}}),
                "`tool_choice.type`: expected \"function\"",
            ),
        ] {
            let error = read(&request).unwrap_err();
            assert!(
                error.message.starts_with(expected),
                "{request}: {}",
                error.message
            );
        }
    }

    #[test]
    fn objects_have_the_keys_that_their_schema_names() {
        let mut schema = json!({
            "properties": {"a": {"type": "object", "properties": {}}, "b": {"type": "object"}},
            "$defs": {"c": {"properties": {}, "additionalProperties": true}, "d": {"allOf": [], "properties": {}}},
            "enum": [{"properties": {}}]
        });
        close(&mut schema);
        let expected = json!({
            "properties": {
                "a": {"type": "object", "properties": {}, "additionalProperties": false},
                "b": {"type": "object"}
            },
            "$defs": {"c": {"properties": {}, "additionalProperties": true}, "d": {"allOf": [], "properties": {}}},
            "enum": [{"properties": {}}],
            "additionalProperties": false
        });
        assert_eq!(schema, expected);
    }

    #[test]
    fn references_of_schemas_stay_with_their_tool() {
        let mut schema = json!({"$defs": {"p": {"type": "string"}}, "properties": {"a": {"$ref": "#/$defs/p"}, "b": {"items": [{"$ref": "#"}]}}});
        refer_to(&mut schema, "#/$defs/tool1");
        assert_eq!(
            schema["properties"],
            json!({"a": {"$ref": "#/$defs/tool1/$defs/p"}, "b": {"items": [{"$ref": "#/$defs/tool1"}]}})
        );
    }
}
