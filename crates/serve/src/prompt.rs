//! The prompts of requests: messages that a template renders, texts, and tokens.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use simmer_data::{Conversation, Message, Role, prompt_tokens};

use crate::error::ApiError;
use crate::fields::{Fields, shown};
use crate::server::Served;

/// The messages of a chat completion.
#[derive(Debug, PartialEq)]
pub(crate) struct Messages {
    list: Vec<Message>,
    /// Whether the last message is the beginning of the answer.
    continues: bool,
}

impl Messages {
    /// Reads `messages`, and whether the last one is continued.
    pub(crate) fn read(fields: &mut Fields) -> Result<Self, ApiError> {
        let expected = "a list of messages such as {\"role\": \"user\", \"content\": \"Hello!\"}";
        let list = match fields.take("messages") {
            None => {
                return Err(ApiError::of(
                    "messages",
                    format!("missing; expected {expected}"),
                ));
            }
            Some(Value::Array(list)) if !list.is_empty() => list,
            Some(other) => return Err(fields.wrong("messages", expected, &other)),
        };
        let list = list.into_iter().enumerate();
        let list =
            list.map(|(number, message)| message_of(&format!("messages[{number}]"), message));
        let list: Vec<Message> = list.collect::<Result<_, _>>()?;
        let continues = fields.flag("continue_final_message")?.unwrap_or(false);
        let adds_prompt = fields.flag("add_generation_prompt")?;
        if adds_prompt == Some(continues) {
            let message = "expected the opposite of `continue_final_message`";
            return Err(ApiError::of("add_generation_prompt", message));
        }
        let last = list.last().map(|message| message.role);
        match (continues, last == Some(Role::Assistant)) {
            (true, false) => {
                let message = "the last message is not one of the assistant";
                Err(ApiError::of("continue_final_message", message))
            }
            (false, true) => Err(ApiError::of(
                "messages",
                "the last message is one of the assistant; add one of the user, or have it continued with \
                 `continue_final_message`: true",
            )),
            _ => Ok(Self { list, continues }),
        }
    }

    /// The tokens that the template of a model makes of them and of tools. The answer begins with `begin`.
    pub(crate) fn tokens(
        mut self,
        served: &Served,
        tools: Option<Value>,
        begin: &str,
    ) -> Result<Vec<u32>, ApiError> {
        let template = served.template()?;
        if self.continues && !begin.is_empty() {
            let message = "an answer that is continued cannot be a call: leave out `tool_choice`";
            return Err(ApiError::of("continue_final_message", message));
        }
        let start = if self.continues {
            self.list.pop().map(|last| last.content)
        } else {
            None
        };
        let has_answer = self
            .list
            .iter()
            .any(|message| message.role == Role::Assistant);
        let mut conversation = Conversation::chat(self.list);
        conversation.tools = tools;
        let rendered = match start {
            None => template.prompt(&conversation),
            Some(start) => template.prompt_with_start(&conversation, &start),
        };
        let mut rendered = rendered.map_err(|error| {
            let name = template.name();
            let mut message = format!("the template {name} cannot render them: {error}");
            if has_answer {
                message.push_str(
                    "; send the last question alone, or start the server with --template chat if the model has learned conversations",
                );
            }
            ApiError::of("messages", message)
        })?;
        rendered.text.push_str(begin);
        served.check_length("messages", &rendered.text)?;
        Ok(prompt_tokens(&rendered, &served.tokenizer)?)
    }
}

fn message_of(place: &str, value: Value) -> Result<Message, ApiError> {
    let mut fields = Fields::at(place, value)?;
    let role = fields.text("role")?;
    let role = match role.as_deref() {
        // what OpenAI's newer models call the system
        Some("developer") => Role::System,
        Some(name) => Role::named(name).ok_or_else(|| {
            fields.wrong(
                "role",
                "system, developer, user, assistant or tool",
                &json!(name),
            )
        })?,
        None => {
            let expected = "missing; expected system, developer, user, assistant or tool";
            return Err(ApiError::of(&format!("{place}.role"), expected));
        }
    };
    let content = fields.take("content");
    let content = content
        .map(|value| text_of(&format!("{place}.content"), value))
        .transpose()?;
    let mut more = BTreeMap::new();
    for key in [
        "name",
        "tool_calls",
        "tool_call_id",
        "reasoning_content",
        "reasoning",
    ] {
        if let Some(value) = fields.take(key) {
            more.insert(key.to_owned(), value);
        }
    }
    // keys of answers, which clients send back as they got them
    fields.leave_out(&["refusal", "annotations", "audio", "function_call", "id"]);
    // a mark for caches of other servers
    fields.leave_out(&["cache_control"]);
    fields.finish()?;
    if content.is_none() && role != Role::Assistant {
        return Err(ApiError::of(
            &format!("{place}.content"),
            "missing; expected a text",
        ));
    }
    Ok(Message {
        null_content: content.is_none() && more.contains_key("tool_calls"),
        more,
        ..Message::new(role, content.unwrap_or_default())
    })
}

/// A text, or a list of parts that are texts.
fn text_of(place: &str, value: Value) -> Result<String, ApiError> {
    let parts = match value {
        Value::String(text) => return Ok(text),
        Value::Array(parts) => parts,
        other => {
            let found = shown(&other);
            let message = format!("expected a text, or a list of parts with texts, found {found}");
            return Err(ApiError::of(place, message));
        }
    };
    let parts = parts.into_iter().enumerate().map(|(number, part)| {
        let place = format!("{place}[{number}]");
        let mut part = Fields::at(&place, part)?;
        let kind = part.text("type")?;
        if kind.as_deref() != Some("text") {
            let found = kind.map_or("nothing".to_owned(), |kind| format!("\"{kind}\""));
            let message =
                format!("expected \"text\", found {found}: this server reads texts alone");
            return Err(ApiError::of(&format!("{place}.type"), message));
        }
        let text = part.text("text")?;
        part.leave_out(&["cache_control"]);
        part.finish()?;
        text.ok_or_else(|| ApiError::of(&format!("{place}.text"), "missing; expected a text"))
    });
    let parts: Vec<String> = parts.collect::<Result<_, _>>()?;
    Ok(parts.concat())
}

/// A prompt of a completion.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Plain {
    /// A text to continue.
    Text(String),
    /// Its tokens.
    Tokens(Vec<u32>),
}

impl Plain {
    /// Reads `prompt`: a text, texts, tokens, or lists of tokens.
    pub(crate) fn read(fields: &mut Fields) -> Result<Vec<Self>, ApiError> {
        let expected = "a text, a list of texts, a list of tokens, or a list of lists of tokens, none of them empty";
        let Some(value) = fields.take("prompt") else {
            return Err(ApiError::of(
                "prompt",
                format!("missing; expected {expected}"),
            ));
        };
        let tokens = |list: &[Value]| -> Option<Self> {
            let tokens: Option<Vec<u32>> = list
                .iter()
                .map(|token| token.as_u64().and_then(|token| u32::try_from(token).ok()))
                .collect();
            tokens.filter(|tokens| !tokens.is_empty()).map(Self::Tokens)
        };
        let found = match &value {
            Value::String(text) => Some(vec![Self::Text(text.clone())]),
            Value::Array(list) if list.first().is_some_and(Value::is_u64) => {
                tokens(list).map(|prompt| vec![prompt])
            }
            Value::Array(list) => list
                .iter()
                .map(|prompt| match prompt {
                    Value::String(text) => Some(Self::Text(text.clone())),
                    Value::Array(list) => tokens(list),
                    _ => None,
                })
                .collect(),
            _ => None,
        };
        found
            .filter(|prompts| !prompts.is_empty())
            .ok_or_else(|| fields.wrong("prompt", expected, &value))
    }

    /// Its tokens, and its text.
    pub(crate) fn tokens(self, served: &Served) -> Result<(Vec<u32>, String), ApiError> {
        match self {
            Self::Text(text) => {
                served.check_length("prompt", &text)?;
                let tokens = served.tokenizer.encode_with_prefix(&text)?;
                if tokens.is_empty() {
                    return Err(ApiError::of(
                        "prompt",
                        "an empty text has no token to continue",
                    ));
                }
                Ok((tokens, text))
            }
            Self::Tokens(tokens) => {
                if tokens.len() > served.context {
                    return Err(ApiError::too_long("prompt", tokens.len(), served.context));
                }
                let found = tokens
                    .iter()
                    .find(|token| **token as usize >= served.vocabulary);
                if let Some(token) = found {
                    let most = served.vocabulary;
                    let message =
                        format!("token {token} is outside the model's vocabulary of {most}");
                    return Err(ApiError::of("prompt", message));
                }
                let text = served.tokenizer.decode(&tokens, false)?;
                Ok((tokens, text))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(list: &Value) -> Result<Messages, ApiError> {
        let request = json!({"messages": list}).to_string();
        Messages::read(&mut Fields::of_request(request.as_bytes()).unwrap())
    }

    #[test]
    fn messages_are_read() {
        let found = messages(&json!([
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo!"}], "name": "Ann"},
            {"role": "assistant", "content": null, "tool_calls": [{"id": "1"}], "refusal": null},
            {"role": "tool", "content": "7", "tool_call_id": "1"},
        ]))
        .unwrap();
        let texts: Vec<(Role, &str)> = found
            .list
            .iter()
            .map(|message| (message.role, message.content.as_str()))
            .collect();
        let expected = [
            (Role::System, "Be brief."),
            (Role::User, "Hello!"),
            (Role::Assistant, ""),
            (Role::Tool, "7"),
        ];
        assert_eq!(texts, expected);
        assert!(found.list[2].null_content);
        assert_eq!(found.list[1].more["name"], "Ann");
    }

    #[test]
    fn mistakes_in_messages_are_named() {
        let user = json!({"role": "user", "content": "Hi"});
        let assistant = json!({"role": "assistant", "content": "Hello"});
        for (list, expected) in [
            (json!([]), "`messages`: expected a list of messages"),
            (json!("Hi"), "`messages`: expected a list of messages"),
            (
                json!([{"role": "bot", "content": ""}]),
                "`messages[0].role`: expected system, developer, user",
            ),
            (json!([{"content": ""}]), "`messages[0].role`: missing"),
            (
                json!([user, {"role": "user"}]),
                "`messages[1].content`: missing; expected a text",
            ),
            (
                json!([{"role": "user", "content": 7}]),
                "`messages[0].content`: expected a text",
            ),
            (
                json!([user, assistant]),
                "`messages`: the last message is one of the assistant",
            ),
            (
                json!([{"role": "user", "content": "Hi", "weight": 1}]),
                "`messages[0].weight`: this server does not know",
            ),
            (
                json!([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]),
                "`messages[0].content[0].type`: expected \"text\", found \"image_url\": this server reads texts alone",
            ),
        ] {
            let error = messages(&list).unwrap_err();
            assert!(error.message.starts_with(expected), "{}", error.message);
        }
    }

    #[test]
    fn prompts_are_texts_or_tokens() {
        let read = |prompt: &Value| {
            let request = json!({"prompt": prompt}).to_string();
            Plain::read(&mut Fields::of_request(request.as_bytes()).unwrap())
        };
        let text = |text: &str| Plain::Text(text.to_owned());
        assert_eq!(read(&json!("a")).unwrap(), [text("a")]);
        assert_eq!(read(&json!(["a", "b"])).unwrap(), [text("a"), text("b")]);
        assert_eq!(read(&json!([1, 2])).unwrap(), [Plain::Tokens(vec![1, 2])]);
        assert_eq!(
            read(&json!([[1], [2, 3]])).unwrap(),
            [Plain::Tokens(vec![1]), Plain::Tokens(vec![2, 3])]
        );
        for wrong in [
            json!([]),
            json!([[]]),
            json!([1, "a"]),
            json!(["a", 1]),
            json!([-1]),
            json!(7),
            json!({}),
        ] {
            assert!(read(&wrong).is_err(), "{wrong}");
        }
    }
}
