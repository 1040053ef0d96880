//! ShareGPT's rows: `conversations`, a list of `{from, value}`. Turns of `{role, content}` are read, too.
//!
//! The text of the speakers `function_call` and `tool_call` is a call as JSON.
//!
//! Source: lm-sys/FastChat, `data/dummy_conversation.json`; axolotl and LLaMA-Factory for the names of roles.

use super::messages::list;
use super::row::Row;
use super::turns::{check_turns, messages, with_system};
use super::{Format, SYSTEM, Spec};
use crate::conversation::Content;
use crate::error::RowError;

pub(super) const SPEC: Spec = Spec {
    name: "sharegpt",
    keys: "`conversations`, a list of {from, value}",
    mark: "conversations",
    fields: &["conversations", "from", "value", "system", "tools"],
    read,
};

fn read(row: &mut Row) -> Result<Content, RowError> {
    let items = list(row, Format::Sharegpt, "conversations")?;
    let mut messages = messages(row, "conversations", items)?;
    let system = row.optional(&SYSTEM)?;
    with_system("system", system, &mut messages)?;
    row.drop_answers_before_question(&mut messages);
    check_turns(row, "conversations", &messages)?;
    Ok(Content::Messages(messages))
}
