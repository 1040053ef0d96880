//! A prompt in parts: the messages of a chat.
//!
//! Source: lm-evaluation-harness 0.4.13, `ConfigurableTask.fewshot_context` with a chat template and `fewshot_as_multiturn`, which
//! is its default.

use std::sync::Arc;

use simmer_data::template::RenderError;
use simmer_data::{Conversation, Message, Rendered, Role, Template};

/// The parts of a prompt.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Turns {
    /// The text before the few-shot examples: the system message of a chat.
    pub head: String,
    /// The few-shot examples: messages of the user, and answers.
    pub shots: Vec<Arc<Shot>>,
    /// The question: the last message of the user.
    pub question: String,
    /// The start of the answer, which the model continues.
    pub start: String,
}

/// A few-shot example.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Shot {
    /// Its question.
    pub question: String,
    /// Its answer, with the space before it.
    pub answer: String,
    /// The text after it.
    pub between: String,
}

impl Turns {
    /// The prompt as one text.
    pub fn text(&self) -> String {
        let mut text = self.head.clone();
        for shot in &self.shots {
            shot.append_to(&mut text);
        }
        text + &self.question + &self.start
    }

    /// The prompt as messages, without the start of the answer.
    pub fn conversation(&self) -> Conversation {
        let mut messages = Vec::with_capacity(2 * self.shots.len() + 2);
        if !self.head.is_empty() {
            messages.push(Message::new(Role::System, self.head.clone()));
        }
        for shot in &self.shots {
            messages.push(Message::new(Role::User, shot.question.clone()));
            // the space only separates the answer from the question
            let answer = shot.answer.strip_prefix(' ').unwrap_or(&shot.answer);
            messages.push(Message::new(Role::Assistant, answer));
        }
        messages.push(Message::new(Role::User, self.question.clone()));
        Conversation::chat(messages)
    }

    /// The prompt in a chat template. If the template refuses the system message, the prompt is without it, as in
    /// lm-evaluation-harness.
    ///
    /// # Errors
    /// As [`Template::prompt_with_start`].
    pub fn in_chat(&self, template: &Template) -> Result<Rendered, RenderError> {
        match template.prompt_with_start(&self.conversation(), &self.start) {
            Err(RenderError::Jinja { .. }) if !self.head.is_empty() => {
                let without = Self {
                    head: String::new(),
                    ..self.clone()
                };
                template.prompt_with_start(&without.conversation(), &self.start)
            }
            rendered => rendered,
        }
    }
}

impl Shot {
    pub(super) fn append_to(&self, text: &mut String) {
        for part in [&self.question, &self.answer, &self.between] {
            text.push_str(part);
        }
    }
}
