//! Baize's rows: `topic`, and `input`, a whole conversation in one text.
//!
//! ```text
//! The conversation between human and AI assistant.
//! [|Human|] question
//! [|AI|] answer
//! [|Human|] ...
//! [|Human|]
//! ```
//!
//! Source: Xu et al. 2023; github.com/project-baize/baize-chatbot.

use super::row::Row;
use super::{Format, Spec};
use crate::conversation::{Content, Message, Role};
use crate::error::RowError;

pub(super) const SPEC: Spec = Spec {
    name: "baize",
    keys: "`topic` and `input`, a conversation between [|Human|] and [|AI|]",
    mark: "topic",
    fields: &["topic", "input"],
    read,
};

const HUMAN: &str = "[|Human|]";
const AI: &str = "[|AI|]";

/// The first line of a conversation.
const BEGINNING: &str = "The conversation between human and AI assistant.";

fn read(row: &mut Row) -> Result<Content, RowError> {
    let text = row.required(Format::Baize, &["input"])?;
    // The topic only says where the row comes from, like GPT4All's `source`.
    row.optional(&["topic"])?;
    let messages = turns(&text).map_err(|problem| RowError::NotBaize { problem })?;
    Ok(Content::Messages(messages))
}

/// The turns of a conversation, without the empty question at its end.
fn turns(text: &str) -> Result<Vec<Message>, &'static str> {
    let text = text.trim_start();
    let rest = text.strip_prefix(BEGINNING).unwrap_or(text).trim_start();
    let mut rest = rest
        .strip_prefix(HUMAN)
        .ok_or("it does not start with [|Human|]")?;
    let mut messages = Vec::new();
    let mut role = Role::User;
    loop {
        let next = [(HUMAN, Role::User), (AI, Role::Assistant)]
            .into_iter()
            .filter_map(|(mark, role)| rest.find(mark).map(|at| (at, mark, role)))
            .min_by_key(|(at, ..)| *at);
        let said = next.map_or(rest, |(at, ..)| &rest[..at]);
        messages.push(Message::new(role, trimmed(said)));
        let Some((at, mark, next_role)) = next else {
            break;
        };
        if next_role == role {
            return Err("two consecutive turns have the same speaker");
        }
        rest = &rest[at + mark.len()..];
        role = next_role;
    }
    if messages
        .last()
        .is_some_and(|last| last.role == Role::User && last.content.trim().is_empty())
    {
        messages.pop();
    }
    if !messages
        .iter()
        .any(|message| message.role == Role::Assistant)
    {
        return Err("no turn is from [|AI|], so there is nothing to train on");
    }
    Ok(messages)
}

/// The text without the space after its mark and the line break before the next mark.
fn trimmed(said: &str) -> &str {
    let said = said.strip_prefix(' ').unwrap_or(said);
    said.strip_suffix('\n').unwrap_or(said)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// As Baize writes it.
    fn text(turns: &[(String, String)]) -> String {
        let mut text = BEGINNING.to_owned();
        for (question, answer) in turns {
            text.extend(["\n", HUMAN, " ", question, "\n", AI, " ", answer]);
        }
        text + &format!("\n{HUMAN} ")
    }

    proptest! {
        #[test]
        fn turns_come_back_as_they_were(
            said in prop::collection::vec(("[a-zé \n.]{0,20}[a-z]", "[a-zé \n.]{0,20}[a-z]"), 1..5),
        ) {
            let messages = turns(&text(&said)).unwrap();
            let pairs: Vec<(String, String)> =
                messages.chunks(2).map(|pair| (pair[0].content.clone(), pair[1].content.clone())).collect();
            prop_assert_eq!(pairs, said);
        }
    }

    #[test]
    fn other_texts_are_refused() {
        assert_eq!(turns("Hello"), Err("it does not start with [|Human|]"));
        assert_eq!(
            turns("[|Human|] a\n[|Human|] b"),
            Err("two consecutive turns have the same speaker")
        );
        assert_eq!(
            turns("[|Human|] a"),
            Err("no turn is from [|AI|], so there is nothing to train on")
        );
    }
}
