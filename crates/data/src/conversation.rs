//! One row of a dataset, before a template is applied: its content, and its position in the file.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

use crate::integer::Exact;

/// The role of a [`Message`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Instructions for the whole conversation; at most one message, and the first.
    System,
    /// The person who asks.
    User,
    /// The model that answers; by default, its messages are trained on.
    Assistant,
    /// The result of a tool that the assistant called.
    Tool,
}

impl Role {
    /// Every role, in the order in which error messages list them.
    pub const ALL: [Role; 4] = [Role::System, Role::User, Role::Assistant, Role::Tool];

    /// The role's name in chat templates.
    pub fn name(self) -> &'static str {
        match self {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
            Role::Tool => "tool",
        }
    }

    /// The role with this name.
    pub fn named(name: &str) -> Option<Role> {
        Role::ALL.into_iter().find(|role| role.name() == name)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One message of a conversation, as chat templates receive it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The author's role.
    pub role: Role,
    /// The text.
    pub content: String,
    /// Whether the row has null as content, as OpenAI's messages with calls do. Then `content` is empty.
    pub null_content: bool,
    /// Other keys, which only chat templates use: `name`, `tool_calls`, `tool_call_id`.
    pub more: BTreeMap<String, Value>,
    /// Whether it is trained on, if the row says so; otherwise its role decides.
    pub train: Option<bool>,
}

impl Serialize for Message {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut keys = serializer.serialize_map(Some(2 + self.more.len()))?;
        keys.serialize_entry("role", &self.role)?;
        let content = (!self.null_content).then_some(&self.content);
        keys.serialize_entry("content", &content)?;
        for (key, value) in &self.more {
            keys.serialize_entry(key, &Exact(value))?;
        }
        keys.end()
    }
}

impl Message {
    /// A message of `role`.
    pub fn new(role: Role, content: impl Into<String>) -> Message {
        Message {
            role,
            content: content.into(),
            null_content: false,
            more: BTreeMap::new(),
            train: None,
        }
    }
}

/// The keys of a message's thought, which are one field, as in transformers' `_alias_reasoning_fields`.
pub(crate) const THOUGHTS: [&str; 3] = ["reasoning_content", "reasoning", "thinking"];

/// The position of a row: its file, its number in the file, and the line on which it starts (both from 1).
#[derive(Clone, PartialEq, Eq)]
pub struct Origin {
    /// The file, as the recipe names it.
    pub file: Arc<Path>,
    /// The row's number in the file, from 1.
    pub row: usize,
    /// The line on which the row starts, from 1; 0 for Parquet, which has no lines.
    pub line: usize,
}

impl Default for Origin {
    fn default() -> Origin {
        Origin {
            file: Arc::from(Path::new("(none)")),
            row: 0,
            line: 0,
        }
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Origin { file, row, line } = self;
        write!(f, "{}: row {row}", file.display())?;
        // Parquet has no lines.
        match line {
            0 => Ok(()),
            _ => write!(f, " (line {line})"),
        }
    }
}

/// The kinds of content that a row may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// An instruction, an optional input, and an output (Alpaca).
    Instruction,
    /// A prompt and its completion.
    Completion,
    /// Turns between a user and an assistant.
    Messages,
    /// Plain text.
    Text,
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Layout::Instruction => "instruction/output",
            Layout::Completion => "prompt/completion",
            Layout::Messages => "messages",
            Layout::Text => "text",
        })
    }
}

/// The content of a row. If the answer is `None`, the model is to generate it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// An instruction, an optional input, and an output (Alpaca).
    Instruction {
        /// The system message.
        system: Option<String>,
        /// The instruction.
        instruction: String,
        /// The input; never empty.
        input: Option<String>,
        /// The answer.
        output: Option<String>,
    },
    /// A prompt and its completion.
    Completion {
        /// The prompt.
        prompt: String,
        /// The completion.
        completion: Option<String>,
    },
    /// Turns between a user and an assistant, after an optional system message.
    Messages(Vec<Message>),
    /// Plain text, all of it trained on.
    Text(String),
}

/// The key under which a row has its list of messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListKey(Cow<'static, str>);

impl Default for ListKey {
    fn default() -> ListKey {
        ListKey(Cow::Borrowed("messages"))
    }
}

impl ListKey {
    /// The list under `key`.
    pub fn new(key: impl Into<Cow<'static, str>>) -> ListKey {
        ListKey(key.into())
    }

    /// The place of a message in its row, as errors name it: `conversations[1]`. `index` is from 0.
    pub fn at(&self, index: usize) -> String {
        format!("{}[{index}]", self.0)
    }
}

/// One row of a dataset, before a template is applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conversation {
    /// The content.
    pub content: Content,
    /// The key of its messages. Default: `messages`, as for rows that have no list.
    pub list: ListKey,
    /// The tools that the assistant may call; only chat templates use them.
    pub tools: Option<Value>,
    /// The row's position.
    pub origin: Origin,
}

impl Conversation {
    /// A conversation that does not come from a file.
    pub fn new(content: Content) -> Conversation {
        Conversation {
            content,
            list: ListKey::default(),
            tools: None,
            origin: Origin::default(),
        }
    }

    /// A prompt without an answer, which every template accepts.
    pub fn prompt(text: impl Into<String>) -> Conversation {
        Conversation::new(Content::Completion {
            prompt: text.into(),
            completion: None,
        })
    }

    /// Turns between a user and an assistant.
    pub fn chat(messages: Vec<Message>) -> Conversation {
        Conversation::new(Content::Messages(messages))
    }

    /// The kind of the row's content.
    pub fn layout(&self) -> Layout {
        match self.content {
            Content::Instruction { .. } => Layout::Instruction,
            Content::Completion { .. } => Layout::Completion,
            Content::Messages(_) => Layout::Messages,
            Content::Text(_) => Layout::Text,
        }
    }

    /// The row as chat messages; `None` for plain text.
    ///
    /// An instruction and its input become one user message, separated by a blank line.
    pub fn messages(&self) -> Option<Vec<Message>> {
        let turns = |system: Option<&String>, user: String, answer: Option<&String>| {
            let system = system.map(|text| Message::new(Role::System, text));
            let answer = answer.map(|text| Message::new(Role::Assistant, text));
            let user = Message::new(Role::User, user);
            system.into_iter().chain([user]).chain(answer).collect()
        };
        match &self.content {
            Content::Instruction {
                system,
                instruction,
                input,
                output,
            } => {
                let user = match input {
                    Some(input) => format!("{instruction}\n\n{input}"),
                    None => instruction.clone(),
                };
                Some(turns(system.as_ref(), user, output.as_ref()))
            }
            Content::Completion { prompt, completion } => {
                Some(turns(None, prompt.clone(), completion.as_ref()))
            }
            Content::Messages(messages) => Some(messages.clone()),
            Content::Text(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instruction_and_input_become_one_user_message() {
        let row = Conversation::new(Content::Instruction {
            system: Some("Be brief.".into()),
            instruction: "Add.".into(),
            input: Some("2 and 2".into()),
            output: Some("4".into()),
        });
        assert_eq!(
            row.messages().unwrap(),
            [
                Message::new(Role::System, "Be brief."),
                Message::new(Role::User, "Add.\n\n2 and 2"),
                Message::new(Role::Assistant, "4"),
            ]
        );
    }

    #[test]
    fn roles_are_found_by_the_names_they_give() {
        for role in Role::ALL {
            assert_eq!(Role::named(role.name()), Some(role));
        }
        assert_eq!(Role::named("human"), None);
    }
}
