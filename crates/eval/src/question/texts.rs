//! The templates of a task, which are filled from its rows.

use std::cell::{OnceCell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};
use simmer_data::Origin;
use simmer_data::template::Blanks;
use simmer_ifeval::PythonRandom;

use super::filters::add_filters;
use super::rows::{self, Rows, read};
use super::turns::Shot;
use crate::error::EvalError;
use crate::task::Task;

/// The names of a task's templates.
pub(super) mod text {
    pub(in crate::question) const PROMPT: &str = "prompt";
    pub(in crate::question) const START: &str = "start";
    pub(in crate::question) const CONTINUATION: &str = "continuation";
    pub(in crate::question) const WITHOUT: &str = "without";
    pub(in crate::question) const GROUP: &str = "group";
    pub(in crate::question) const HEAD: &str = "head";
    pub(in crate::question) const SAME: &str = "shots.same";
    pub(in crate::question) const SHOT_PROMPT: &str = "shots.prompt";
    pub(in crate::question) const SHOT_ANSWER: &str = "shots.answer";
}

/// The templates of a task.
pub(super) struct Texts<'a> {
    pub(super) task: &'a Task,
    pub(super) blanks: Blanks,
    tables: Vec<(&'a str, &'a str, Rows)>,
    pub(super) shots: Vec<Map<String, Value>>,
    /// Where each of these rows is.
    pub(super) shot_places: Vec<Origin>,
    /// The few-shot examples, by the value of `shots.same`: questions share them.
    pub(super) examples: RefCell<BTreeMap<Option<String>, Vec<Arc<Shot>>>>,
    /// Each few-shot example, by its row: questions share them, also if each has its own.
    pub(super) rendered: RefCell<HashMap<usize, Arc<Shot>>>,
    /// The value of `shots.same` for each row of examples.
    pub(super) sames: OnceCell<Vec<Option<String>>>,
    /// Draws the examples of each question, with `shots.seed`.
    pub(super) drawn: Option<RefCell<PythonRandom>>,
}

impl<'a> Texts<'a> {
    pub(super) fn new(task: &'a Task, folder: &Path) -> Result<Self, EvalError> {
        let mut blanks = Blanks::default();
        add_filters(&mut blanks);
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
        let seed = task.shots.as_ref().and_then(|shots| shots.seed);
        let mut texts = Self {
            task,
            blanks,
            tables,
            shots: Vec::new(),
            shot_places: Vec::new(),
            examples: RefCell::default(),
            rendered: RefCell::default(),
            sames: OnceCell::new(),
            drawn: seed.map(|seed| RefCell::new(PythonRandom::new(seed))),
        };
        let shots = texts.read_shots(folder)?;
        (texts.shot_places, texts.shots) = shots.into_iter().unzip();
        Ok(texts)
    }

    fn read_shots(&self, folder: &Path) -> Result<Vec<rows::Row>, EvalError> {
        let Some(shots) = self.task.shots.as_ref().filter(|shots| shots.count > 0) else {
            return Ok(Vec::new());
        };
        if shots.files.is_empty() {
            let of_task = format!("[shots] of task `{}`", self.task.name);
            let file: Arc<Path> = Arc::from(Path::new(&of_task));
            let rows = shots.rows.iter().zip(1..);
            let rows = rows.map(|(table, row)| {
                let file = Arc::clone(&file);
                (Origin { file, row, line: 0 }, rows::of_toml(table))
            });
            return Ok(rows.collect());
        }
        let rows = read(self.task, &shots.files, folder)?;
        rows.into_iter().map(|row| self.completed(row)).collect()
    }

    /// A row with the fields that the task renames and adds.
    pub(super) fn completed(
        &self,
        row: rows::Row,
    ) -> Result<(Origin, Map<String, Value>), EvalError> {
        let (origin, mut fields) = row;
        // rows in other columns have none of these
        let renamed = self.task.rename.iter();
        let has_any = self.task.rename.keys().any(|own| fields.contains_key(own));
        for (own, name) in renamed.filter(|_| has_any) {
            let value = fields.remove(own);
            let value = value
                .ok_or_else(|| EvalError::row(&origin, format!("field `{own}` is missing")))?;
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

    pub(super) fn counts(
        &self,
        origin: &Origin,
        fields: &Map<String, Value>,
    ) -> Result<bool, EvalError> {
        let Some(only) = &self.task.only else {
            return Ok(true);
        };
        let value = self.blanks.value("only", only, fields);
        let value = value.map_err(|error| EvalError::row(origin, error))?;
        value
            .as_bool()
            .ok_or_else(|| EvalError::row(origin, format!("`only` is {value}, not true or false")))
    }

    pub(super) fn text(
        &self,
        name: &str,
        origin: &Origin,
        fields: &Map<String, Value>,
    ) -> Result<String, EvalError> {
        let filled = self.blanks.fill(name, fields);
        filled.map_err(|error| EvalError::row(origin, error))
    }

    pub(super) fn optional(
        &self,
        name: &str,
        origin: &Origin,
        fields: &Map<String, Value>,
    ) -> Result<Option<String>, EvalError> {
        let wanted = self.blanks.has(name);
        let filled = wanted.then(|| self.text(name, origin, fields));
        filled.transpose()
    }

    pub(super) fn value(
        &self,
        name: &str,
        expression: &str,
        origin: &Origin,
        fields: &Map<String, Value>,
    ) -> Result<Value, EvalError> {
        let value = self.blanks.value(name, expression, fields);
        value.map_err(|error| EvalError::row(origin, error))
    }

    /// A list of texts; a single text is a list of one.
    pub(super) fn list(
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
                let problem = format!("`{name}`: expected texts, found {other}");
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

/// The templates of a task with their names.
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
        found.push((text::START.into(), generation.start.as_ref()));
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
