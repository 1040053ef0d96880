//! The form that a request wants its answers in.
//!
//! Source: OpenAI's API reference, `response_format`; vLLM's `structured_outputs`, which is not limited to JSON.

use serde_json::{Value, json};

use crate::error::ApiError;
use crate::fields::Fields;

/// What an answer has to be.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Form {
    /// The key of the request that asks for it.
    pub(crate) key: String,
    pub(crate) kind: Kind,
}

/// The kinds of forms.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Kind {
    /// A value that fits this JSON schema.
    Schema(Value),
    /// A text that this regular expression describes as a whole.
    Regex(String),
    /// One of these texts.
    Choice(Vec<String>),
    /// A text of a grammar in the notation of Lark.
    Lark(String),
}

/// The kinds of `structured_outputs`.
const KINDS: &str = "exactly one of `json`, `json_object`, `regex`, `choice` and `grammar`";

impl Form {
    /// Reads the keys of a request that ask for a form.
    pub(crate) fn read(fields: &mut Fields) -> Result<Option<Self>, ApiError> {
        let format = response_format(fields)?;
        let outputs = structured_outputs(fields)?;
        if format.is_some() && outputs.is_some() {
            let message = "`response_format` says what the answer has to be; leave one of them out";
            return Err(ApiError::of("structured_outputs", message));
        }
        Ok(format.or(outputs))
    }

    fn new(key: &str, kind: Kind) -> Self {
        Self {
            key: key.to_owned(),
            kind,
        }
    }
}

fn response_format(fields: &mut Fields) -> Result<Option<Form>, ApiError> {
    const KEY: &str = "response_format";
    let Some(value) = fields.take(KEY) else {
        return Ok(None);
    };
    let mut format = Fields::at(KEY, value)?;
    let kind = format.take("type").unwrap_or(Value::Null);
    let form = match kind.as_str() {
        Some("text") => None,
        Some("json_object") => {
            // llama.cpp's server takes a schema here, too
            let schema = format.take("schema");
            let key = if schema.is_some() {
                "response_format.schema"
            } else {
                KEY
            };
            let schema = schema.unwrap_or_else(|| json!({"type": "object"}));
            Some(Form::new(key, Kind::Schema(schema)))
        }
        Some("json_schema") => {
            const PLACE: &str = "response_format.json_schema";
            let missing =
                || ApiError::of(PLACE, "missing; expected an object with the key `schema`");
            let mut inner = Fields::at(PLACE, format.take("json_schema").ok_or_else(missing)?)?;
            // every schema is kept to
            inner.leave_out(&["name", "description", "strict"]);
            let key = format!("{PLACE}.schema");
            let missing = || ApiError::of(&key, "missing; expected a JSON schema");
            let schema = inner.take("schema").ok_or_else(missing)?;
            inner.finish()?;
            Some(Form::new(&key, Kind::Schema(schema)))
        }
        _ => return Err(format.wrong("type", "text, json_object or json_schema", &kind)),
    };
    format.finish()?;
    Ok(form)
}

fn structured_outputs(fields: &mut Fields) -> Result<Option<Form>, ApiError> {
    const KEY: &str = "structured_outputs";
    let Some(value) = fields.take(KEY) else {
        return Ok(None);
    };
    let mut outputs = Fields::at(KEY, value.clone())?;
    let mut found = Vec::new();
    if let Some(schema) = outputs.take("json") {
        // vLLM takes it as a text, too
        let parsed = schema.as_str().map(serde_json::from_str);
        let schema = match parsed {
            None => schema,
            Some(Ok(schema)) => schema,
            Some(Err(_)) => return Err(outputs.wrong("json", "a JSON schema", &schema)),
        };
        found.push(Form::new("structured_outputs.json", Kind::Schema(schema)));
    }
    if outputs.flag("json_object")? == Some(true) {
        found.push(Form::new(KEY, Kind::Schema(json!({"type": "object"}))));
    }
    if let Some(regex) = outputs.text("regex")? {
        found.push(Form::new("structured_outputs.regex", Kind::Regex(regex)));
    }
    if let Some(choice) = outputs.take("choice") {
        let texts: Option<Vec<String>> = choice.as_array().and_then(|texts| {
            let texts = texts.iter().map(|text| text.as_str().map(str::to_owned));
            texts.collect()
        });
        let texts =
            texts.filter(|texts| !texts.is_empty() && texts.iter().all(|text| !text.is_empty()));
        let texts = texts.ok_or_else(|| outputs.wrong("choice", "a list of texts", &choice))?;
        found.push(Form::new("structured_outputs.choice", Kind::Choice(texts)));
    }
    if let Some(grammar) = outputs.text("grammar")? {
        found.push(Form::new("structured_outputs.grammar", Kind::Lark(grammar)));
    }
    outputs.finish()?;
    match <[Form; 1]>::try_from(found) {
        Ok([form]) => Ok(Some(form)),
        Err(_) => Err(fields.wrong(KEY, KINDS, &value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(request: &Value) -> Result<Option<Form>, ApiError> {
        let mut fields = Fields::of_request(request.to_string().as_bytes())?;
        let form = Form::read(&mut fields)?;
        fields.finish()?;
        Ok(form)
    }

    #[test]
    fn forms_are_read() {
        let schema = json!({"type": "integer"});
        let form = |key: &str, kind| Some(Form::new(key, kind));
        for (request, expected) in [
            (json!({}), None),
            (json!({"response_format": {"type": "text"}}), None),
            (
                json!({"response_format": {"type": "json_object"}}),
                form("response_format", Kind::Schema(json!({"type": "object"}))),
            ),
            (
                json!({"response_format": {"type": "json_object", "schema": schema}}),
                form("response_format.schema", Kind::Schema(schema.clone())),
            ),
            (
                json!({"response_format": {"type": "json_schema", "json_schema": {"name": "n", "strict": true, "schema": schema}}}),
                form(
                    "response_format.json_schema.schema",
                    Kind::Schema(schema.clone()),
                ),
            ),
            (
                json!({"structured_outputs": {"json": schema.to_string()}}),
                form("structured_outputs.json", Kind::Schema(schema.clone())),
            ),
            (
                json!({"structured_outputs": {"choice": ["a", "b"], "regex": null}}),
                form(
                    "structured_outputs.choice",
                    Kind::Choice(vec!["a".into(), "b".into()]),
                ),
            ),
        ] {
            assert_eq!(read(&request).unwrap(), expected, "{request}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (request, expected) in [
            (
                json!({"response_format": {"type": "xml"}}),
                "`response_format.type`: expected text, json_object or json_schema, found \"xml\"",
            ),
            (
                json!({"response_format": {"type": "json_schema"}}),
                "`response_format.json_schema`: missing; expected an object with the key `schema`",
            ),
            (
                json!({"response_format": {"type": "json_schema", "json_schema": {"name": "n"}}}),
                "`response_format.json_schema.schema`: missing; expected a JSON schema",
            ),
            (
                json!({"structured_outputs": {"regex": "a", "choice": ["a"]}}),
                "`structured_outputs`: expected exactly one of `json`, `json_object`, `regex`, `choice` and `grammar`, found {\"regex\":\"a\",\"choice\":[\"a\"]}",
            ),
            (
                json!({"structured_outputs": {"choice": []}}),
                "`structured_outputs.choice`: expected a list of texts, found []",
            ),
            (
                json!({"structured_outputs": {"regex": "a"}, "response_format": {"type": "json_object"}}),
                "`structured_outputs`: `response_format` says what the answer has to be; leave one of them out",
            ),
        ] {
            assert_eq!(read(&request).unwrap_err().message, expected);
        }
    }
}
