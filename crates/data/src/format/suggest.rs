//! What a recipe could say to read rows whose keys have other names.

use serde_json::Value;

use super::row::Row;

/// Names of questions, answers and texts in public datasets, in English and other languages.
const QUESTIONS: [&str; 15] = [
    "question",
    "query",
    "user",
    "human",
    "problem",
    "input",
    "source",
    "q",
    "instruction",
    "prompt",
    "frage",
    "pregunta",
    "domanda",
    "pergunta",
    "vraag",
];
const ANSWERS: [&str; 16] = [
    "answer",
    "response",
    "output",
    "reply",
    "assistant",
    "bot",
    "chatbot",
    "solution",
    "target",
    "completion",
    "a",
    "antwort",
    "respuesta",
    "risposta",
    "resposta",
    "antwoord",
];
const TEXTS: [&str; 6] = ["content", "text", "body", "article", "document", "passage"];

/// How to read a row whose keys fit no format, as the end of a sentence that begins with "to read these rows".
pub(super) fn for_row(row: &Row) -> Option<String> {
    let conversation = row.entries().find(|(_, value)| is_conversation(value));
    if let Some((key, _)) = conversation {
        return Some(format!(
            "as conversations, set `fields = {{ messages = \"{key}\" }}`"
        ));
    }
    if let (Some(question), Some(answer)) = (text(row, &QUESTIONS), text(row, &ANSWERS)) {
        let output = match answer {
            "response" | "output" | "completion" => String::new(),
            other => format!(", output = \"{other}\""),
        };
        return Some(format!(
            "as questions and answers, set `fields = {{ instruction = \"{question}\"{output} }}`"
        ));
    }
    text(row, &TEXTS).map(|key| format!("as plain text, set `fields = {{ text = \"{key}\" }}`"))
}

/// The line of a recipe that reads another key of the row as the one that is missing.
pub(super) fn for_key(row: &Row, missing: &str) -> Option<String> {
    let names: &[&str] = match missing {
        "output" | "completion" => &ANSWERS,
        "instruction" | "prompt" => &QUESTIONS,
        _ => return None,
    };
    text(row, names).map(|own| format!("fields = {{ {missing} = \"{own}\" }}"))
}

/// The row's own spelling of the first of the names that it has as text.
fn text<'r>(row: &'r Row, names: &[&str]) -> Option<&'r str> {
    names.iter().find_map(|name| {
        let mut entries = row.entries();
        let found =
            entries.find(|(key, value)| key.eq_ignore_ascii_case(name) && value.is_string());
        found.map(|(key, _)| key)
    })
}

/// Whether a value is a list of messages.
fn is_conversation(value: &Value) -> bool {
    let is_message = |message: &Value| {
        let has = |key: &str| message.get(key).is_some();
        (has("role") && has("content")) || (has("from") && has("value"))
    };
    let items = value.as_array();
    items.is_some_and(|items| !items.is_empty() && items.iter().all(is_message))
}
