//! ShareGPT's rows: `conversations`, a list of `{from, value}`.
//!
//! Source: lm-sys/FastChat, `data/dummy_conversation.json`; axolotl and LLaMA-Factory for the names of roles.

use serde_json::Value;

use super::messages::{check_turns, texts_of};
use super::row::Row;
use super::{Format, Spec};
use crate::conversation::{Content, Message, Role};
use crate::error::RowError;

pub(super) const SPEC: Spec = Spec {
    name: "sharegpt",
    keys: "`conversations`, a list of {from, value}",
    mark: "conversations",
    fields: &["conversations", "from", "value", "system", "tools"],
    read,
};

/// The names of speakers.
const ROLES: [(&str, Role); 15] = [
    ("human", Role::User),
    ("user", Role::User),
    ("gpt", Role::Assistant),
    ("chatgpt", Role::Assistant),
    ("assistant", Role::Assistant),
    ("bing", Role::Assistant),
    ("bard", Role::Assistant),
    ("model", Role::Assistant),
    ("system", Role::System),
    ("tool", Role::Tool),
    ("observation", Role::Tool),
    ("function_response", Role::Tool),
    ("ipython", Role::Tool),
    ("function_call", Role::Assistant),
    ("tool_call", Role::Assistant),
];

fn read(row: &mut Row) -> Result<Content, RowError> {
    let (from, value) = (row.own("from"), row.own("value"));
    let turns = texts_of(row, Format::Sharegpt, "conversations", [&from, &value])?;
    let mut messages = Vec::with_capacity(turns.len() + 1);
    if let Some(system) = row.optional(&["system", "system_prompt"])? {
        messages.push(Message::new(Role::System, system));
    }
    row.tools = row
        .take("tools")
        .filter(|tools| !Row::is_blank(tools))
        .map(parsed);
    for (index, (speaker, text)) in turns.into_iter().enumerate() {
        let known = ROLES
            .iter()
            .find(|(name, _)| speaker.eq_ignore_ascii_case(name));
        let Some((_, role)) = known else {
            return Err(RowError::UnknownRole {
                key: format!("conversations[{index}].{from}"),
                role: speaker,
                known: ROLES.map(|(name, _)| name).join(", "),
            });
        };
        messages.push(Message::new(*role, text));
    }
    row.drop_answers_before_question(&mut messages);
    check_turns("conversations", &messages)?;
    Ok(Content::Messages(messages))
}

/// Tools, which are often JSON in a string.
fn parsed(tools: Value) -> Value {
    match &tools {
        Value::String(text) => serde_json::from_str(text).unwrap_or(tools),
        _ => tools,
    }
}
