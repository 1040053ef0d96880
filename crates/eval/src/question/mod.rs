//! The rows of a task as questions: prompts, choices and right answers as texts.

mod fill;
mod rows;
mod texts;

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use simmer_data::{Conversation, Origin, format};
use simmer_files::digest::sha256;

use crate::error::EvalError;
use crate::task::{Instruction, Task};
use rows::read;
use texts::Texts;

/// One row of a task.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// Where it stands.
    pub origin: Origin,
    /// The row's number among those of its task, from 0.
    pub number: usize,
    /// The parts of the task that it belongs to.
    pub groups: Vec<String>,
    /// Its fields.
    pub fields: Map<String, Value>,
    /// What is asked.
    pub asked: Asked,
}

impl Question {
    /// The beginning of the SHA-256 of what is asked, wherever its row stands.
    pub fn id(&self) -> String {
        let asked = match &self.asked {
            Asked::Instruction(conversation) => {
                format!("{:?} {:?}", conversation.content, conversation.tools)
            }
            asked => format!("{asked:?}"),
        };
        sha256(asked.as_bytes())[..16].to_owned()
    }
}

/// What is asked.
#[derive(Debug, Clone, PartialEq)]
pub enum Asked {
    /// Which of several answers is the likeliest.
    Choice {
        /// A context and what follows it, for each choice.
        pairs: Vec<Pair>,
        /// The same with a context that says nothing.
        without: Vec<Pair>,
        /// The choices themselves, as normalisations count them.
        choices: Vec<String>,
        /// The numbers of the right ones, from 0.
        right: Vec<usize>,
    },
    /// How a text goes on.
    Text {
        /// The text.
        prompt: String,
        /// Right answers; empty where something else measures.
        answers: Vec<String>,
    },
    /// What is answered to an instruction; a template has the words.
    Instruction(Box<Conversation>),
}

/// A context, and a continuation whose probability is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Pair {
    /// What comes first.
    pub context: String,
    /// What may follow.
    pub continuation: String,
}

impl Task {
    /// The questions of the task's first `limit` rows, its files below `folder`.
    ///
    /// # Errors
    /// [`EvalError`] at the first row that a text of the task cannot be filled from.
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
                problem: "no row counts".to_owned(),
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
            for file in simmer_data::file::files(&path)? {
                conversations.extend(format::read(&file, None)?);
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
