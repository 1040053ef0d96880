//! Questions, in the forms of the files in which they were published.

use std::collections::HashMap;
use std::path::Path;

use serde::Serialize;
use simmer_data::Origin;
use simmer_data::file::{FileRow, rows};

use crate::answer;
use crate::error::JudgeError;
use crate::fields;

/// A question of one or two turns.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Question {
    /// Its name in the file; without one, the number of its row.
    pub id: String,
    /// Its category.
    pub category: Option<String>,
    /// What the user writes: one or two messages.
    pub turns: Vec<String>,
    /// Reference answers, one for each turn, or none.
    pub references: Vec<String>,
    /// Its row.
    #[serde(skip)]
    pub origin: Origin,
}

/// Where a form of files has what; JSON pointers, empty if the form does not have it.
struct Form {
    /// Its name, for messages.
    name: &'static str,
    /// The message of the user, or a list of one or two. A file whose first row has it, and `mark`, has this form.
    text: &'static str,
    /// Another place that every row of the form has.
    mark: &'static str,
    /// A text that stands below the message, after an empty line.
    input: &'static str,
    /// The category.
    category: &'static str,
    /// The reference answer, or a list of one for each turn.
    reference: &'static str,
}

/// The keys of a question's name.
const IDS: [&str; 2] = ["/question_id", "/id"];

/// The forms; the first that fits counts. A new one needs a line here.
#[rustfmt::skip]
const FORMS: &[Form] = &[
    Form { name: "MT-bench", text: "/turns", mark: "", input: "", category: "/category", reference: "/reference" },
    Form { name: "Self-Instruct", text: "/instruction", mark: "/instances", input: "/instances/0/input", category: "/motivation_app", reference: "/instances/0/output" },
    Form { name: "AlpacaEval", text: "/instruction", mark: "", input: "/input", category: "/dataset", reference: "/reference" },
    Form { name: "Koala", text: "/prompt", mark: "", input: "", category: "/category", reference: "/reference" },
    Form { name: "question", text: "/question", mark: "", input: "", category: "/category", reference: "/reference" },
    Form { name: "Vicuna", text: "/text", mark: "", input: "", category: "/category", reference: "/reference" },
];

impl Form {
    fn of(first: &FileRow) -> Result<&'static Self, String> {
        let fits = |form: &&Form| {
            fields::at(first, form.text).is_some()
                && (form.mark.is_empty() || fields::at(first, form.mark).is_some())
        };
        FORMS.iter().find(fits).ok_or_else(|| {
            let mut keys: Vec<String> = FORMS.iter().map(|form| fields::shown(form.text)).collect();
            keys.dedup();
            let found: Vec<&str> = first.fields.keys().map(String::as_str).collect();
            format!(
                "expected the text of a question under one of the keys `{}`, found the keys `{}`",
                keys.join("`, `"),
                found.join("`, `")
            )
        })
    }

    fn read(&self, row: &FileRow) -> Result<Question, String> {
        let mut turns = fields::texts(row, self.text)?;
        let key = fields::shown(self.text);
        if turns.len() > 2 {
            return Err(format!(
                "key `{key}`: expected one or two messages, found {}",
                turns.len()
            ));
        }
        if let Some(turn) = turns.iter().position(|turn| turn.trim().is_empty()) {
            return Err(format!(
                "key `{key}`: expected text, found an empty one in turn {}",
                turn + 1
            ));
        }
        if let Some(input) = fields::text(row, self.input) {
            turns[0] = format!("{}\n\n{input}", turns[0]);
        }
        let references = match fields::at(row, self.reference) {
            None => Vec::new(),
            Some(_) => fields::texts(row, self.reference)?,
        };
        if !references.is_empty() && references.len() != turns.len() {
            return Err(format!(
                "key `{}`: expected a reference answer for each turn, {}, found {}",
                fields::shown(self.reference),
                turns.len(),
                references.len()
            ));
        }
        let id = fields::id(row, &IDS)?;
        Ok(Question {
            id: id.unwrap_or_else(|| row.origin.row.to_string()),
            category: fields::text(row, self.category).map(str::to_owned),
            turns,
            references,
            origin: row.origin.clone(),
        })
    }
}

/// The questions of a file, at most `limit` of them; 0: all.
///
/// # Errors
/// If the file cannot be read, or a row has no text, no valid reference answers, or the name of another row, which may be one
/// beyond the limit.
pub fn read(path: &Path, limit: usize) -> Result<Vec<Question>, JudgeError> {
    let rows = rows(path, None)?;
    let wrong = |row: &FileRow, problem: String| JudgeError::Question {
        origin: row.origin.clone(),
        problem,
    };
    // there is a first row: a file without rows is an error
    let form = match rows.first() {
        Some(first) => Form::of(first).map_err(|problem| wrong(first, problem))?,
        None => return Ok(Vec::new()),
    };
    let mut known: HashMap<String, usize> = HashMap::new();
    let mut questions = Vec::new();
    let limit = if limit == 0 { usize::MAX } else { limit };
    for row in &rows {
        let of_form = |problem: String| wrong(row, format!("{} question: {problem}", form.name));
        // of the questions that are left out, the names alone are read
        let id = if questions.len() < limit {
            let question = form.read(row).map_err(of_form)?;
            let id = question.id.clone();
            questions.push(question);
            id
        } else {
            fields::id(row, &IDS)
                .map_err(of_form)?
                .unwrap_or_else(|| row.origin.row.to_string())
        };
        if let Some(before) = known.insert(id.clone(), row.origin.row) {
            let problem = format!(
                "expected a name that no other question has, found `{id}`, the name of row {before}"
            );
            return Err(wrong(row, problem));
        }
    }
    Ok(questions)
}

/// Adds the reference answers of a file, which is in one of the forms of answers, such as FastChat's
/// `reference_answer/gpt-4.jsonl`. Questions that it does not have keep theirs.
///
/// # Errors
/// If the file cannot be read, or a row cannot be used.
pub fn with_references(questions: &mut [Question], path: &Path) -> Result<(), JudgeError> {
    for (question, answer) in answer::matched(path, questions)?.answers {
        questions[question].references = answer.turns;
    }
    Ok(())
}
