//! Baize's self-chat: the turns of a conversation that one completion has.
//!
//! Source: preprocess.py of Baize describes the rows; github.com/project-baize/baize-chatbot.

use serde::Serialize;

use crate::completion::{Completion, Finish};
use crate::filter::Reason;
use crate::python::strip;

/// A conversation about a topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Dialogue {
    /// The seed.
    pub topic: String,
    /// What the human says, and the answer.
    pub turns: Vec<(String, String)>,
}

/// The prompt: the topic in the place of `{seed}`.
pub(crate) fn prompt(template: &str, topic: &str) -> String {
    template.replace("{seed}", topic)
}

/// The turns of a completion. The last statement of the human is left out, as the original does: the human ends the conversation
/// with it, or it is incomplete. A statement without exactly one answer ends the conversation.
///
/// # Errors
/// If there is no turn.
pub fn turns(
    completion: &Completion,
    human: &str,
    ai: &str,
) -> Result<Vec<(String, String)>, Reason> {
    if completion.finish == Finish::TooLong {
        return Err(Reason::PromptTooLong);
    }
    let statements: Vec<&str> = completion.text.split(human).skip(1).collect();
    let but_last = statements.len().saturating_sub(1);
    let one = |statement: &&str| {
        let (question, answer) = statement.split_once(ai)?;
        let is_pair = !answer.contains(ai);
        is_pair.then(|| (strip(question).to_owned(), strip(answer).to_owned()))
    };
    let turns: Vec<(String, String)> = statements[..but_last].iter().map_while(one).collect();
    if turns.is_empty() {
        Err(Reason::Format)
    } else {
        Ok(turns)
    }
}

impl Dialogue {
    /// The conversation as a text, as the rows of Baize have it.
    pub fn baize(&self) -> String {
        let mut text = "The conversation between human and AI assistant.\n".to_owned();
        for (question, answer) in &self.turns {
            text.extend(["[|Human|] ", question, "\n[|AI|] ", answer, "\n"]);
        }
        text + "[|Human|] "
    }
}
