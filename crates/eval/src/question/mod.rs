//! Questions made from the rows of a task: prompts, choices and right answers.

mod fill;
mod filters;
mod literal;
mod rows;
mod texts;
mod turns;

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use simmer_data::format::{Reader, Reading};
use simmer_data::{Conversation, Origin};
use simmer_files::digest::sha256;

use crate::error::EvalError;
use crate::task::{Instruction, Task};
use rows::read;
use texts::Texts;

pub(crate) use filters::add_filters;
pub use turns::{Shot, Turns};

/// One row of a task.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// The file, row and line.
    pub origin: Origin,
    /// The number of the row in its task, from 0.
    pub number: usize,
    /// The groups that it belongs to.
    pub groups: Vec<String>,
    /// Its fields.
    pub fields: Map<String, Value>,
    /// What is asked.
    pub asked: Asked,
}

impl Question {
    /// The start of the SHA-256 of what is asked, independent of the row's place.
    pub fn id(&self) -> String {
        let asked = match &self.asked {
            Asked::Instruction(conversation) => {
                format!("{:?} {:?}", conversation.content, conversation.tools)
            }
            // the parts of a prompt are in it
            Asked::Text { turns, answers } => {
                let prompt = turns.text();
                format!("Text {{ prompt: {prompt:?}, answers: {answers:?} }}")
            }
            asked @ Asked::Choice { .. } => format!("{asked:?}"),
        };
        sha256(asked.as_bytes())[..16].to_owned()
    }
}

/// What is asked.
#[derive(Debug, Clone, PartialEq)]
pub enum Asked {
    /// Which of several choices is the most likely.
    Choice {
        /// The context and the continuation of each choice.
        pairs: Vec<Pair>,
        /// The same with a neutral context.
        without: Vec<Pair>,
        /// The choices, whose lengths metrics divide by.
        choices: Vec<String>,
        /// The indices of the right choices, from 0.
        right: Vec<usize>,
    },
    /// The continuation of a prompt.
    Text {
        /// The prompt, in parts.
        turns: Turns,
        /// The right answers; empty if the metrics do not need them.
        answers: Vec<String>,
    },
    /// The answer to an instruction, formatted by a prompt template.
    Instruction(Box<Conversation>),
}

/// A context, and a continuation whose log-likelihood is computed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Pair {
    /// The text before the continuation.
    pub context: String,
    /// The text to score.
    pub continuation: String,
}

impl Task {
    /// The questions of the task's first `limit` rows, read from its files in `folder`.
    ///
    /// # Errors
    /// [`EvalError`] at the first row that cannot fill a template of the task.
    pub fn questions(&self, folder: &Path, limit: usize) -> Result<Vec<Question>, EvalError> {
        if let Some(instruction) = &self.instruction {
            return self.instructions(instruction, folder, limit);
        }
        let texts = Texts::new(self, folder)?;
        let mut questions = Vec::new();
        for row in read(self, &self.files, folder)? {
            if questions.len() >= limit {
                break;
            }
            let (origin, fields) = texts.completed(row)?;
            if texts.counts(&origin, &fields)? {
                questions.push(texts.question(questions.len(), origin, fields)?);
            }
        }
        if questions.is_empty() {
            return Err(EvalError::Task {
                name: self.name.clone(),
                problem: "the expression `only` is true for no row".to_owned(),
            });
        }
        Ok(questions)
    }

    fn instructions(
        &self,
        instruction: &Instruction,
        folder: &Path,
        limit: usize,
    ) -> Result<Vec<Question>, EvalError> {
        let mut conversations = Vec::new();
        if instruction.row.is_empty() {
            let path = rows::first(self, &self.files, folder)?;
            let reading = Reading {
                fields: instruction.names.clone(),
                ..Reading::default()
            };
            for file in simmer_data::file::files(&path)? {
                conversations.extend(Reader::open(&[file], &reading)?.rest()?);
            }
        } else {
            let texts = Texts::new(self, folder)?;
            for row in read(self, &self.files, folder)? {
                conversations.push(texts.conversation(instruction, row)?);
            }
        }
        conversations.truncate(limit);
        let questions = conversations.into_iter().enumerate();
        let questions = questions.map(|(number, conversation)| Question {
            origin: conversation.origin.clone(),
            number,
            groups: Vec::new(),
            fields: Map::new(),
            asked: Asked::Instruction(Box::new(conversation)),
        });
        Ok(questions.collect())
    }
}
