//! Rows of a `prompt` and its `completion` (or `response`): texts, or lists of messages (TRL's conversational rows).

use serde_json::Value;

use super::messages::list;
use super::row::Row;
use super::turns::{check_turns, messages, with_system};
use super::{Format, SYSTEM, Spec};
use crate::conversation::{Content, Message, Role};
use crate::error::RowError;

pub(super) const SPEC: Spec = Spec {
    name: "prompt_completion",
    keys: "`prompt` and `completion` (or `response`)",
    mark: "prompt",
    fields: &["prompt", "completion", "system", "tools"],
    read,
};

fn read(row: &mut Row) -> Result<Content, RowError> {
    // In GPT4All's data, the key says where a row comes from.
    row.take("source");
    if row.has_list("prompt") || row.has_list("completion") {
        return conversation(row);
    }
    let prompt = row.required(Format::PromptCompletion, &["prompt"])?;
    let completion = row.answer(Format::PromptCompletion, &["completion", "response"])?;
    let system = row.optional(&SYSTEM)?;
    Ok(match system {
        None => Content::Completion { prompt, completion },
        system => Content::Instruction {
            system,
            instruction: prompt,
            input: None,
            output: completion,
        },
    })
}

/// A prompt and a completion of messages. Only the completion is trained on, as in TRL.
fn conversation(row: &mut Row) -> Result<Content, RowError> {
    let mut turns = part(row, "prompt", Role::User)?;
    for message in &mut turns {
        if message.role == Role::Assistant {
            message.train = message.train.or(Some(false));
        }
    }
    let system = row.optional(&SYSTEM)?;
    with_system("system", system, &mut turns)?;
    let completion = if row.may.lack_answers && !row.has("completion") {
        Vec::new()
    } else {
        part(row, "completion", Role::Assistant)?
    };
    if !row.may.lack_answers && !completion.iter().any(|m| m.role == Role::Assistant) {
        return Err(RowError::NoAnswer);
    }
    turns.extend(completion);
    check_turns(row, "prompt and completion", &turns)?;
    Ok(Content::Messages(turns))
}

fn part(row: &mut Row, key: &'static str, role: Role) -> Result<Vec<Message>, RowError> {
    if row.has_list(key) {
        let items: Vec<Value> = list(row, Format::PromptCompletion, key)?;
        return messages(row, key, items);
    }
    let text = row.required(Format::PromptCompletion, &[key])?;
    Ok(vec![Message::new(role, text)])
}
