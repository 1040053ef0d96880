//! The rows of a task as questions: prompts, choices and right answers as texts.

mod rows;

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use simmer_data::template::Blanks;
use simmer_data::{Content, Conversation, Origin, format};

use crate::answer::hash;
use crate::error::EvalError;
use crate::metric::{TextMetric, instructions};
use crate::task::{Choice, Generation, Instruction, Task};
use rows::{Rows, read};

/// The names of a task's texts.
mod text {
    pub(super) const PROMPT: &str = "prompt";
    pub(super) const CONTINUATION: &str = "continuation";
    pub(super) const WITHOUT: &str = "without";
    pub(super) const GROUP: &str = "group";
    pub(super) const HEAD: &str = "head";
    pub(super) const SAME: &str = "shots.same";
    pub(super) const SHOT_PROMPT: &str = "shots.prompt";
    pub(super) const SHOT_ANSWER: &str = "shots.answer";
}

/// One row of a task.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// Where it stands.
    pub origin: Origin,
    /// The row's number among those of its task, from 0.
    pub number: usize,
    /// The part of the task that it belongs to.
    pub group: Option<String>,
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
        hash(asked.as_bytes())[..16].to_owned()
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
            group: None,
            fields: Map::new(),
            asked: Asked::Instruction(Box::new(conversation)),
        });
        Ok(questions.collect())
    }
}

/// A task's texts, ready to be filled.
struct Texts<'a> {
    task: &'a Task,
    blanks: Blanks,
    tables: Vec<(&'a str, &'a str, Rows)>,
    shots: Vec<Map<String, Value>>,
}

impl<'a> Texts<'a> {
    fn new(task: &'a Task, folder: &Path) -> Result<Self, EvalError> {
        let mut blanks = Blanks::default();
        for (name, source) in sources(task) {
            blanks
                .add(&name, source)
                .map_err(|error| EvalError::Blank {
                    name: task.name.clone(),
                    error,
                })?;
        }
        let mut tables = Vec::new();
        for (name, table) in &task.tables {
            let rows = Rows::by_key(task, table, folder)?;
            tables.push((name.as_str(), table.of.as_str(), rows));
        }
        let mut texts = Self {
            task,
            blanks,
            tables,
            shots: Vec::new(),
        };
        texts.shots = texts.read_shots(folder)?;
        Ok(texts)
    }

    fn read_shots(&self, folder: &Path) -> Result<Vec<Map<String, Value>>, EvalError> {
        let Some(shots) = self.task.shots.as_ref().filter(|shots| shots.count > 0) else {
            return Ok(Vec::new());
        };
        if shots.files.is_empty() {
            let rows = shots.rows.iter().map(rows::of_toml);
            return Ok(rows.collect());
        }
        let rows = read(self.task, &shots.files, folder)?;
        let rows = rows.into_iter().map(|row| Ok(self.completed(row)?.1));
        rows.collect()
    }

    /// A row with the fields that the task adds.
    fn completed(&self, row: rows::Row) -> Result<(Origin, Map<String, Value>), EvalError> {
        let (origin, mut fields) = row;
        for (own, name) in &self.task.rename {
            let value = fields.remove(own);
            let value = value.ok_or_else(|| EvalError::row(&origin, format!("no `{own}`")))?;
            fields.insert(name.clone(), value);
        }
        let wrong = |error| EvalError::row(&origin, error);
        for (name, of, rows) in &self.tables {
            let key = self.blanks.value(name, of, &fields).map_err(wrong)?;
            let found = rows
                .get(&key)
                .map_err(|problem| EvalError::row(&origin, problem))?;
            fields.insert((*name).to_owned(), Value::Object(found.clone()));
        }
        for name in self.task.fields.keys() {
            let value = self.blanks.fill(name, &fields).map_err(wrong)?;
            fields.insert(name.clone(), Value::String(value));
        }
        Ok((origin, fields))
    }

    fn counts(&self, origin: &Origin, fields: &Map<String, Value>) -> Result<bool, EvalError> {
        let Some(only) = &self.task.only else {
            return Ok(true);
        };
        let value = self.blanks.value("only", only, fields);
        let value = value.map_err(|error| EvalError::row(origin, error))?;
        value
            .as_bool()
            .ok_or_else(|| EvalError::row(origin, format!("`only` is {value}, not true or false")))
    }

    fn question(
        &self,
        number: usize,
        origin: Origin,
        fields: Map<String, Value>,
    ) -> Result<Question, EvalError> {
        let asked = match (&self.task.choice, &self.task.generation) {
            (Some(choice), _) => self.choice(choice, &origin, &fields)?,
            (None, Some(generation)) => self.generation(generation, &origin, &fields)?,
            (None, None) => unreachable!("a task is one of three kinds"),
        };
        let group = self.optional(text::GROUP, &origin, &fields)?;
        Ok(Question {
            origin,
            number,
            group,
            fields,
            asked,
        })
    }

    fn choice(
        &self,
        choice: &Choice,
        origin: &Origin,
        fields: &Map<String, Value>,
    ) -> Result<Asked, EvalError> {
        let choices = self.list("choices", &choice.choices, origin, fields)?;
        let right = self.value("answer", &choice.answer, origin, fields)?;
        let right = right_ones(&right, choices.len())
            .map_err(|problem| EvalError::row(origin, format!("`answer` is {problem}")))?;
        let before = self.before(origin, fields)?;
        let mut pairs = Vec::new();
        let mut without = Vec::new();
        for one in &choices {
            let mut fields = fields.clone();
            fields.insert("choice".to_owned(), Value::String(one.clone()));
            let continuation = self.text(text::CONTINUATION, origin, &fields)?;
            if continuation.is_empty() {
                return Err(EvalError::row(origin, "a choice without a character"));
            }
            let prompt = self.text(text::PROMPT, origin, &fields)?;
            if let Some(context) = self.optional(text::WITHOUT, origin, &fields)? {
                without.push(Pair {
                    context,
                    continuation: continuation.clone(),
                });
            }
            pairs.push(Pair {
                context: format!("{before}{prompt}"),
                continuation,
            });
        }
        Ok(Asked::Choice {
            pairs,
            without,
            choices,
            right,
        })
    }

    fn generation(
        &self,
        generation: &Generation,
        origin: &Origin,
        fields: &Map<String, Value>,
    ) -> Result<Asked, EvalError> {
        if generation.metrics.contains(&TextMetric::Instructions) {
            // what cannot be checked is said before anything is generated
            instructions(fields).map_err(|problem| EvalError::row(origin, problem))?;
        }
        let before = self.before(origin, fields)?;
        let prompt = self.text(text::PROMPT, origin, fields)?;
        let answers = generation.answers.as_ref();
        let answers = answers.map(|answers| self.list("answers", answers, origin, fields));
        Ok(Asked::Text {
            prompt: format!("{before}{prompt}"),
            answers: answers.transpose()?.unwrap_or_default(),
        })
    }

    /// A row as a question and its answer.
    fn conversation(
        &self,
        instruction: &Instruction,
        row: rows::Row,
    ) -> Result<Conversation, EvalError> {
        let (origin, fields) = self.completed(row)?;
        let part = |name: &str| {
            let expression = instruction.row.get(name);
            let text = expression.map(|text| self.list(name, text, &origin, &fields));
            let text = text.transpose()?.and_then(|texts| texts.into_iter().next());
            Ok::<_, EvalError>(text.unwrap_or_default())
        };
        let content = Content::Instruction {
            system: None,
            instruction: part("instruction")?,
            input: Some(part("input")?).filter(|input| !input.is_empty()),
            output: Some(part("output")?),
        };
        let mut conversation = Conversation::new(content);
        conversation.origin = origin;
        Ok(conversation)
    }

    /// Head and shots of a question.
    fn before(&self, origin: &Origin, fields: &Map<String, Value>) -> Result<String, EvalError> {
        let head = self.optional(text::HEAD, origin, fields)?;
        let mut before = head.unwrap_or_default();
        let Some(shots) = self.task.shots.as_ref().filter(|shots| shots.count > 0) else {
            return Ok(before);
        };
        let same = self.optional(text::SAME, origin, fields)?;
        let mut count = 0;
        for shot in &self.shots {
            if count == shots.count {
                break;
            }
            if self.optional(text::SAME, origin, shot)? == same {
                let (prompt, answer) = self.shot(origin, shot)?;
                before += &format!("{prompt}{answer}{}", shots.between);
                count += 1;
            }
        }
        if count < shots.count {
            let of = same.map_or(String::new(), |same| format!(" of `{same}`"));
            let problem = format!("{} shots are wanted, {count}{of} are there", shots.count);
            return Err(EvalError::row(origin, problem));
        }
        Ok(before)
    }

    /// Prompt and right answer of a shot.
    fn shot(
        &self,
        origin: &Origin,
        shot: &Map<String, Value>,
    ) -> Result<(String, String), EvalError> {
        let prompt = if self.blanks.has(text::SHOT_PROMPT) {
            self.text(text::SHOT_PROMPT, origin, shot)?
        } else {
            self.text(text::PROMPT, origin, shot)?
        };
        if self.blanks.has(text::SHOT_ANSWER) {
            return Ok((prompt, self.text(text::SHOT_ANSWER, origin, shot)?));
        }
        let answer = match (&self.task.choice, &self.task.generation) {
            (Some(choice), _) => match self.choice_of_shot(choice, origin, shot)? {
                Some(answer) => answer,
                None => return Err(EvalError::row(origin, "a shot without a right answer")),
            },
            (None, Some(generation)) => {
                let answers = generation.answers.as_deref().unwrap_or("answer");
                let answers = self.list("answers", answers, origin, shot)?;
                format!(" {}", answers.first().map_or("", String::as_str))
            }
            (None, None) => String::new(),
        };
        Ok((prompt, answer))
    }

    fn choice_of_shot(
        &self,
        choice: &Choice,
        origin: &Origin,
        shot: &Map<String, Value>,
    ) -> Result<Option<String>, EvalError> {
        let choices = self.list("choices", &choice.choices, origin, shot)?;
        let right = self.value("answer", &choice.answer, origin, shot)?;
        let right = right_ones(&right, choices.len())
            .map_err(|problem| EvalError::row(origin, format!("`answer` is {problem}")))?;
        let Some(one) = right.first() else {
            return Ok(None);
        };
        let mut fields = shot.clone();
        fields.insert("choice".to_owned(), Value::String(choices[*one].clone()));
        Ok(Some(self.text(text::CONTINUATION, origin, &fields)?))
    }

    fn text(
        &self,
        name: &str,
        origin: &Origin,
        fields: &Map<String, Value>,
    ) -> Result<String, EvalError> {
        let filled = self.blanks.fill(name, fields);
        filled.map_err(|error| EvalError::row(origin, error))
    }

    fn optional(
        &self,
        name: &str,
        origin: &Origin,
        fields: &Map<String, Value>,
    ) -> Result<Option<String>, EvalError> {
        let wanted = self.blanks.has(name);
        let filled = wanted.then(|| self.text(name, origin, fields));
        filled.transpose()
    }

    fn value(
        &self,
        name: &str,
        expression: &str,
        origin: &Origin,
        fields: &Map<String, Value>,
    ) -> Result<Value, EvalError> {
        let value = self.blanks.value(name, expression, fields);
        value.map_err(|error| EvalError::row(origin, error))
    }

    /// A list of texts; a text alone counts as one.
    fn list(
        &self,
        name: &str,
        expression: &str,
        origin: &Origin,
        fields: &Map<String, Value>,
    ) -> Result<Vec<String>, EvalError> {
        let value = self.value(name, expression, origin, fields)?;
        let items = match value {
            Value::Array(items) => items,
            other => vec![other],
        };
        let texts = items.into_iter().map(|item| match item {
            Value::String(text) => Ok(text),
            Value::Number(number) => Ok(number.to_string()),
            other => {
                let problem = format!("`{name}` holds {other}, expected texts");
                Err(EvalError::row(origin, problem))
            }
        });
        let texts = texts.collect::<Result<Vec<String>, _>>()?;
        if texts.is_empty() {
            return Err(EvalError::row(origin, format!("`{name}` is empty")));
        }
        Ok(texts)
    }
}

/// The texts of a task by their names.
fn sources(task: &Task) -> Vec<(String, &str)> {
    let mut found: Vec<(String, Option<&String>)> = vec![
        (text::GROUP.into(), task.group.as_ref()),
        (text::HEAD.into(), task.head.as_ref()),
    ];
    if let Some(choice) = &task.choice {
        found.push((text::PROMPT.into(), Some(&choice.prompt)));
        found.push((text::CONTINUATION.into(), Some(&choice.continuation)));
        found.push((text::WITHOUT.into(), choice.without.as_ref()));
    }
    if let Some(generation) = &task.generation {
        found.push((text::PROMPT.into(), Some(&generation.prompt)));
    }
    if let Some(shots) = &task.shots {
        found.push((text::SAME.into(), shots.same.as_ref()));
        found.push((text::SHOT_PROMPT.into(), shots.prompt.as_ref()));
        found.push((text::SHOT_ANSWER.into(), shots.answer.as_ref()));
    }
    let added = task.fields.iter();
    found.extend(added.map(|(name, source)| (name.clone(), Some(source))));
    let found = found.into_iter();
    found
        .filter_map(|(name, source)| Some((name, source?.as_str())))
        .collect()
}

/// The right choices' numbers, from a number or a list of numbers.
fn right_ones(value: &Value, choices: usize) -> Result<Vec<usize>, String> {
    let items = match value {
        Value::Array(items) => items.as_slice(),
        other => std::slice::from_ref(other),
    };
    let numbers = items.iter().map(|item| {
        let number = item.as_u64().map(|number| number as usize);
        let number = number.filter(|number| *number < choices);
        number.ok_or_else(|| format!("{item}, expected a number from 0 to {}", choices - 1))
    });
    let numbers = numbers.collect::<Result<Vec<usize>, String>>()?;
    if numbers.is_empty() {
        return Err("empty".to_owned());
    }
    Ok(numbers)
}
