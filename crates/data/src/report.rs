//! Counts of what was read, truncated and dropped, so that no data is lost silently.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use chrono::NaiveDate;

use crate::conversation::Origin;
use crate::error::DataError;
use crate::example::{Limits, Outcome};
use crate::format::Format;
use crate::template::Rendered;

/// How many rows of each kind are listed by number.
const NAMED: usize = 5;

/// What was read, truncated and dropped, source by source.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// The training sources, including the rows that are held out for validation.
    pub train: Vec<SourceReport>,
    /// The sources that are used only for validation.
    pub validation: Vec<SourceReport>,
}

/// Rows of one kind: how many, and the first of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rows {
    /// The number of rows.
    pub count: usize,
    /// The first few.
    pub first: Vec<Origin>,
}

/// What was read, truncated and dropped from one source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceReport {
    /// The source's path.
    pub path: String,
    /// The format of its rows.
    pub format: Format,
    /// The template that rendered them.
    pub template: String,
    /// Rows read.
    pub rows: usize,
    /// Examples created from them.
    pub examples: usize,
    /// Tokens of the examples.
    pub tokens: usize,
    /// Labels: the tokens among those that the loss is computed on.
    pub targets: usize,
    /// Truncated examples.
    pub truncated: Rows,
    /// Labels lost by truncation.
    pub truncated_targets: usize,
    /// Rows dropped because they have more than `max_tokens` tokens.
    pub overlong: Rows,
    /// Rows dropped because they have no label, or none after truncation.
    pub untrained: Rows,
    /// Examples with a token that lies across the start or end of an answer.
    pub straddling: Rows,
    /// Rows with an answer that is trained on from another start than the end of its generation prompt.
    pub other_start: Rows,
    /// Keys that were not used, each with the number of rows in which it was not empty.
    pub ignored_keys: BTreeMap<String, usize>,
    /// Rows that started with an answer, which was dropped.
    pub leading_answers: usize,
    /// The date that a chat template put into the text. With another date, the same data gives another text.
    pub date: Option<NaiveDate>,
    /// What happened to the first row that gave no example.
    first: Option<Outcome>,
}

impl Rows {
    fn push(&mut self, origin: &Origin) {
        self.count += 1;
        if self.first.len() < NAMED {
            self.first.push(origin.clone());
        }
    }
}

impl SourceReport {
    pub(crate) fn new(path: &Path, format: Format, template: &str) -> SourceReport {
        SourceReport {
            path: path.display().to_string(),
            format,
            template: template.into(),
            rows: 0,
            examples: 0,
            tokens: 0,
            targets: 0,
            truncated: Rows::default(),
            truncated_targets: 0,
            overlong: Rows::default(),
            untrained: Rows::default(),
            straddling: Rows::default(),
            other_start: Rows::default(),
            ignored_keys: BTreeMap::new(),
            leading_answers: 0,
            date: None,
            first: None,
        }
    }

    /// Counts a row by its text.
    pub(crate) fn rendered(&mut self, rendered: &Rendered, origin: &Origin) {
        self.rows += 1;
        if rendered.other_start {
            self.other_start.push(origin);
        }
    }

    /// Counts what happened to a row, or to a piece of it.
    pub(crate) fn count(&mut self, outcome: &Outcome, origin: &Origin) {
        match outcome {
            Outcome::Kept {
                example,
                cut,
                cut_targets,
                straddling,
            } => {
                self.examples += 1;
                self.tokens += example.tokens.len();
                self.targets += example.targets();
                self.truncated_targets += cut_targets;
                if *cut > 0 {
                    self.truncated.push(origin);
                }
                if *straddling > 0 {
                    self.straddling.push(origin);
                }
            }
            Outcome::Overlong { .. } => self.overlong.push(origin),
            Outcome::Untrained { .. } => self.untrained.push(origin),
        }
        if self.first.is_none() && !matches!(outcome, Outcome::Kept { .. }) {
            self.first = Some(outcome.clone());
        }
    }

    pub(crate) fn nothing_trained(&self, first: &Origin, limits: &Limits) -> DataError {
        let row = first.row;
        let why = match self.first {
            Some(Outcome::Overlong { tokens }) => {
                format!("row {row} has {tokens} tokens, and overlong rows are dropped")
            }
            Some(Outcome::Untrained { tokens, targets: 0 }) => {
                format!("row {row} has {tokens} tokens and no answer")
            }
            Some(Outcome::Untrained { tokens, targets }) => {
                format!(
                    "row {row} has {tokens} tokens, and truncation removed all {targets} tokens of its answer"
                )
            }
            _ => "there are no rows".into(),
        };
        DataError::NothingTrained {
            first: first.clone(),
            template: self.template.clone(),
            max_tokens: limits.max_tokens,
            why,
        }
    }
}

impl fmt::Display for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows: Vec<_> = self
            .first
            .iter()
            .map(|origin| origin.row.to_string())
            .collect();
        let noun = if self.count == 1 { "row" } else { "rows" };
        write!(f, "{} {noun} ({}", self.count, rows.join(", "))?;
        f.write_str(if self.count > rows.len() {
            ", ...)"
        } else {
            ")"
        })
    }
}

impl fmt::Display for SourceReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SourceReport {
            path,
            format,
            template,
            rows,
            examples,
            tokens,
            targets,
            ..
        } = self;
        write!(
            f,
            "{path}: {rows} rows ({format}, template {template}): {examples} examples, {tokens} tokens, {targets} of them trained on"
        )?;
        if self.truncated.count > 0 {
            write!(
                f,
                "\n  truncated: {}, {} labels lost",
                self.truncated, self.truncated_targets
            )?;
        }
        let kinds = [
            ("dropped, longer than max_tokens", &self.overlong),
            ("dropped, no token to train on", &self.untrained),
            ("a token lies across prompt and answer", &self.straddling),
            (
                "warning: the generation prompt is not how these answers start in training",
                &self.other_start,
            ),
        ];
        for (kind, rows) in kinds {
            if rows.count > 0 {
                write!(f, "\n  {kind}: {rows}")?;
            }
        }
        if self.leading_answers > 0 {
            write!(
                f,
                "\n  dropped an answer before the first question: {} rows",
                self.leading_answers
            )?;
        }
        if !self.ignored_keys.is_empty() {
            let keys: Vec<_> = self
                .ignored_keys
                .iter()
                .map(|(key, rows)| format!("{key} (in {rows} rows)"))
                .collect();
            write!(f, "\n  keys not used: {}", keys.join(", "))?;
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reports: Vec<_> = self
            .train
            .iter()
            .chain(&self.validation)
            .map(SourceReport::to_string)
            .collect();
        f.write_str(&reports.join("\n"))
    }
}
