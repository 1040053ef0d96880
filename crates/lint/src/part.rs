//! The texts of a row.

use std::fmt;

use simmer_data::conversation::{Content, Conversation, ListKey, Message, Role};

/// A text of a row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part<'c> {
    pub(super) place: Place<'c>,
    /// Who wrote it; `None` for plain text.
    pub(super) role: Option<Role>,
    pub(super) text: &'c str,
    /// The message, if the row consists of messages.
    pub(super) message: Option<&'c Message>,
}

/// The place of a text in its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place<'c> {
    Field(&'static str),
    /// A message of a list, by its index from 0.
    Message(&'c ListKey, usize),
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Field(name) => f.write_str(name),
            Place::Message(list, index) => f.write_str(&list.at(*index)),
        }
    }
}

/// Every text of a row, in the order of the conversation.
pub(super) fn parts(conversation: &Conversation) -> Vec<Part<'_>> {
    let field = |name, role, text: Option<_>| {
        let place = Place::Field(name);
        text.map(|text| Part {
            place,
            role,
            text,
            message: None,
        })
    };
    let (user, assistant) = (Some(Role::User), Some(Role::Assistant));
    let fields = match &conversation.content {
        Content::Instruction {
            system,
            instruction,
            input,
            output,
        } => vec![
            field("system", Some(Role::System), system.as_deref()),
            field("instruction", user, Some(instruction.as_str())),
            field("input", user, input.as_deref()),
            field("output", assistant, output.as_deref()),
        ],
        Content::Completion { prompt, completion } => vec![
            field("prompt", user, Some(prompt.as_str())),
            field("completion", assistant, completion.as_deref()),
        ],
        Content::Messages(messages) => {
            let message = messages.iter().enumerate().map(|(index, message)| Part {
                place: Place::Message(&conversation.list, index),
                role: Some(message.role),
                text: &message.content,
                message: Some(message),
            });
            return message.collect();
        }
        Content::Text(text) => vec![field("text", None, Some(text.as_str()))],
    };
    fields.into_iter().flatten().collect()
}
