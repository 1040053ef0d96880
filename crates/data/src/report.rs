//! Counts of what was read, truncated and dropped, so that no data is lost silently.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::NaiveDate;
use simmer_files::size::counted;

use crate::bad::{BadKind, BadRow, LISTED, OnBad, Unusable};
use crate::config::SourceConfig;
use crate::conversation::Origin;
use crate::error::DataError;
use crate::example::{Limits, Outcome};
use crate::format::Format;

/// How many rows of each kind are listed by number.
const NAMED: usize = 5;

/// How many files are named.
const FILES: usize = 8;

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
    /// Rows read, those that cannot be used among them.
    pub rows: usize,
    /// The files that were read, each with its rows.
    pub files: Vec<(Arc<Path>, usize)>,
    /// Data files of the folder that are not read, and why.
    pub unread: Vec<(PathBuf, String)>,
    /// The key below which a file had its rows, if it was one JSON object.
    pub wrapper: Option<String>,
    /// Rows that cannot be used.
    pub unusable: Unusable,
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
    /// Whether the truncated rows are listed elsewhere.
    truncated_elsewhere: bool,
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
    pub(crate) fn new(
        source: &SourceConfig,
        format: Format,
        template: &str,
    ) -> Result<SourceReport, DataError> {
        Ok(SourceReport {
            path: source.path.display().to_string(),
            format,
            template: template.into(),
            rows: 0,
            files: Vec::new(),
            unread: source.found()?.unread,
            wrapper: None,
            unusable: Unusable::default(),
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
            truncated_elsewhere: false,
        })
    }

    /// Counts a row.
    pub(crate) fn row(&mut self, origin: &Origin) {
        self.rows += 1;
        // rows come file by file, but a stream mixes neighbouring files
        let known = self
            .files
            .iter()
            .rposition(|(file, _)| *file == origin.file);
        match known {
            Some(place) => self.files[place].1 += 1,
            None => self.files.push((Arc::clone(&origin.file), 1)),
        }
    }

    /// Counts a row that cannot be used.
    ///
    /// # Errors
    /// The row's error, if such rows stop the pass.
    pub(crate) fn bad(&mut self, bad: BadRow, on_bad: OnBad) -> Result<(), DataError> {
        if on_bad == OnBad::Stop {
            return Err(DataError::Unusable(bad));
        }
        self.row(&bad.origin);
        self.unusable.push(&bad);
        Ok(())
    }

    /// Checks that at most this share of the rows cannot be used, and at least one row can.
    ///
    /// # Errors
    /// [`DataError::TooManyBad`].
    pub(crate) fn check_share(&self, most: f64) -> Result<(), DataError> {
        let (bad, rows) = (self.unusable.rows, self.rows);
        if bad < rows && bad as f64 <= most * rows as f64 {
            return Ok(());
        }
        let Some(first) = self.unusable.first() else {
            return Ok(());
        };
        Err(DataError::TooManyBad {
            path: self.path.clone().into(),
            bad,
            rows,
            most,
            first: format!("{}: {}", first.origin, first.what),
        })
    }

    /// Counts a row whose answers start differently in training and generation.
    pub(crate) fn start(&mut self, origin: &Origin, other: bool) {
        if other {
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
            Outcome::Untrained { .. } | Outcome::Weightless { .. } => {
                self.untrained.push(origin);
            }
        }
        if self.first.is_none() && !matches!(outcome, Outcome::Kept { .. }) {
            self.first = Some(outcome.clone());
        }
    }

    pub(crate) fn nothing_trained(&self, first: &Origin, limits: &Limits) -> DataError {
        let row = first.row;
        let why = match self.first {
            Some(Outcome::Overlong { tokens }) => {
                format!(
                    "row {row} has {}, and overlong rows are dropped",
                    counted(tokens, "token")
                )
            }
            Some(Outcome::Weightless { .. }) => {
                format!("all answers of row {row} have weight 0")
            }
            Some(Outcome::Untrained { tokens, targets: 0 }) => {
                format!("row {row} has {} and no answer", counted(tokens, "token"))
            }
            Some(Outcome::Untrained { tokens, targets }) => {
                format!(
                    "row {row} has {}, and truncation removed all {} of its answer",
                    counted(tokens, "token"),
                    counted(targets, "token")
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
        write!(f, "{} ({}", counted(self.count, "row"), rows.join(", "))?;
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
            "{path}: {} ({format}, template {template}): {}, {}, {targets} of them trained on",
            counted(*rows, "row"),
            counted(*examples, "example"),
            counted(*tokens, "token"),
        )?;
        self.write_files(f)?;
        if self.unusable.rows > 0 {
            write!(
                f,
                "\n  cannot be used: {}",
                counted(self.unusable.rows, "row")
            )?;
        }
        for kind in &self.unusable.kinds {
            let kind = kind.clone().listing(LISTED);
            write!(f, "\n    {kind}\n{}", kind.list("      "))?;
        }
        if self.truncated.count > 0 && !self.truncated_elsewhere {
            write!(
                f,
                "\n  truncated: {}, {} lost",
                self.truncated,
                counted(self.truncated_targets, "label")
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
                "\n  dropped an answer before the first question: {}",
                counted(self.leading_answers, "row")
            )?;
        }
        if !self.ignored_keys.is_empty() {
            let keys: Vec<_> = self
                .ignored_keys
                .iter()
                .map(|(key, rows)| format!("{key} (in {})", counted(*rows, "row")))
                .collect();
            write!(f, "\n  keys not used: {}", keys.join(", "))?;
        }
        Ok(())
    }
}

impl SourceReport {
    /// The files by name, if the path stands for several or for a part of a folder.
    fn write_files(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let below = |file: &Path| {
            let short = file.strip_prefix(&self.path).unwrap_or(file);
            short.display().to_string()
        };
        let list = |names: Vec<String>| match names.len().checked_sub(FILES) {
            None | Some(0) => names.join(", "),
            Some(more) => format!("{} and {more} more", names[..FILES].join(", ")),
        };
        let one = self.files.len() == 1 && self.files[0].0.as_os_str() == self.path.as_str();
        if !one && !self.files.is_empty() {
            let files = self
                .files
                .iter()
                .map(|(file, rows)| format!("{} ({})", below(file), counted(*rows, "row")));
            write!(f, "\n  files: {}", list(files.collect()))?;
        }
        if let Some(key) = &self.wrapper {
            write!(f, "\n  rows read from the list `{key}`")?;
        }
        if !self.unread.is_empty() {
            let files = self.unread.iter();
            let files = files.map(|(file, why)| format!("{} ({why})", below(file)));
            write!(f, "\n  not read: {}", list(files.collect()))?;
        }
        Ok(())
    }
}

impl Report {
    /// The training sources, then those that are used only for validation.
    pub fn sources(&self) -> impl Iterator<Item = &SourceReport> {
        self.train.iter().chain(&self.validation)
    }

    /// The rows that cannot be used, of all sources; the report keeps their number.
    pub fn take_unusable(&mut self) -> Vec<BadKind> {
        let sources = self.train.iter_mut().chain(&mut self.validation);
        let kinds = sources.map(|source| std::mem::take(&mut source.unusable.kinds));
        kinds.flatten().collect()
    }

    /// Leaves truncated rows out of the text, because another text lists them.
    pub fn truncated_elsewhere(&mut self) {
        for source in self.train.iter_mut().chain(&mut self.validation) {
            source.truncated_elsewhere = true;
        }
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
