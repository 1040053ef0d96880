//! The `[data]` table of a recipe, and the examples it leads to.

use std::path::PathBuf;

use chrono::NaiveDate;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::conversation::Conversation;
use crate::error::DataError;
use crate::example::{Example, Limits, Outcome, Overlong, encode};
use crate::format::{self, Format};
use crate::order::validation_rows;
use crate::report::{Report, SourceReport};
use crate::template::{Template, TrainOn};
use crate::tokenizer::Tokenizer;

/// The `[data]` table: what is trained on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// The files to train on.
    pub train: Vec<SourceConfig>,
    /// What the validation loss is measured on; without it there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<Validation>,
    /// The most tokens of a row.
    #[serde(default = "default_max_tokens")]
    pub max_tokens: usize,
    /// What becomes of a row with more tokens.
    #[serde(default)]
    pub overlong: Overlong,
    /// Which tokens are trained on.
    #[serde(default)]
    pub train_on: TrainOn,
    /// Whether rows are shuffled in every epoch; else they come in file order.
    #[serde(default = "default_shuffle")]
    pub shuffle: bool,
    /// The day that chat templates which ask for it are told, as YEAR-MONTH-DAY; today without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub date: Option<String>,
}

fn default_max_tokens() -> usize {
    1024
}

fn default_shuffle() -> bool {
    true
}

/// One file of rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceConfig {
    /// The file, relative to the current directory.
    pub path: PathBuf,
    /// The template that renders its rows.
    pub template: String,
    /// The layout of its rows; recognised from the first without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
}

/// What the validation loss is measured on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Validation {
    /// This part of the training rows, rounded up; they are not trained on.
    Fraction(f64),
    /// This many of the training rows; they are not trained on.
    Rows(usize),
    /// Files of their own.
    Files(Vec<SourceConfig>),
}

/// The examples of a recipe.
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    /// The examples to train on, in file order.
    pub train: Vec<Example>,
    /// The examples that the validation loss is measured on, in file order.
    pub validation: Vec<Example>,
    /// What was read, and what was cut and left out.
    pub report: Report,
}

impl Dataset {
    /// Reads, renders and tokenises everything that `config` names. `seed` chooses the validation rows.
    ///
    /// # Errors
    /// [`DataError`] at the first thing that is wrong; a source with nothing to train on is wrong.
    pub fn load(
        config: &DataConfig,
        tokenizer: &Tokenizer,
        seed: u64,
    ) -> Result<Dataset, DataError> {
        config.check()?;
        let (mut train, train_reports) = config.sources(&config.train, tokenizer)?;
        let mut validation = Vec::new();
        let mut validation_reports = Vec::new();
        match &config.validation {
            None => {}
            Some(Validation::Files(files)) => {
                (validation, validation_reports) = config.sources(files, tokenizer)?;
            }
            Some(Validation::Fraction(fraction)) => {
                let count = (fraction * train.len() as f64).ceil() as usize;
                (train, validation) = split(train, count, seed)?;
            }
            Some(Validation::Rows(count)) => (train, validation) = split(train, *count, seed)?,
        }
        Ok(Dataset {
            train,
            validation,
            report: Report {
                train: train_reports,
                validation: validation_reports,
            },
        })
    }
}

impl DataConfig {
    fn check(&self) -> Result<(), DataError> {
        let wrong = |key, problem: &str| {
            let problem = problem.to_owned();
            Err(DataError::Config { key, problem })
        };
        if self.train.is_empty() {
            return wrong("train", "no files are named");
        }
        if self.max_tokens < 2 {
            return wrong(
                "max_tokens",
                "a row needs two tokens: one to see and one to predict",
            );
        }
        match &self.validation {
            Some(Validation::Files(files)) if files.is_empty() => {
                wrong("validation.files", "no files are named")
            }
            Some(Validation::Fraction(part)) if !(*part > 0.0 && *part < 1.0) => wrong(
                "validation.fraction",
                &format!("expected a number between 0 and 1, found {part}"),
            ),
            Some(Validation::Rows(0)) => wrong("validation.rows", "expected at least 1, found 0"),
            _ => Ok(()),
        }
    }

    fn date(&self) -> Result<Option<NaiveDate>, DataError> {
        let Some(text) = &self.date else {
            return Ok(None);
        };
        let date = NaiveDate::parse_from_str(text, "%Y-%m-%d");
        date.map(Some).map_err(|_| DataError::Config {
            key: "date",
            problem: format!("expected YEAR-MONTH-DAY, such as 2026-01-31, found `{text}`"),
        })
    }

    fn sources(
        &self,
        sources: &[SourceConfig],
        tokenizer: &Tokenizer,
    ) -> Result<(Vec<Example>, Vec<SourceReport>), DataError> {
        let mut examples = Vec::new();
        let mut reports = Vec::new();
        for source in sources {
            let (more, report) = self.source(source, tokenizer)?;
            examples.extend(more);
            reports.push(report);
        }
        Ok((examples, reports))
    }

    fn source(
        &self,
        source: &SourceConfig,
        tokenizer: &Tokenizer,
    ) -> Result<(Vec<Example>, SourceReport), DataError> {
        let mut template = Template::named(&source.template, tokenizer)?;
        if let Some(date) = self.date()? {
            template = template.dated(date);
        }
        let rows = format::read(&source.path, source.format)?;
        let limits = Limits {
            max_tokens: self.max_tokens,
            overlong: self.overlong,
            train_on: self.train_on,
        };
        let outcomes: Vec<_> = rows
            .conversations
            .par_iter()
            .map(|row| outcome(row, &template, tokenizer, &limits))
            .collect();

        let mut report = SourceReport::new(&rows, template.name());
        let mut examples = Vec::with_capacity(outcomes.len());
        for (row, outcome) in rows.conversations.iter().zip(outcomes) {
            let outcome = outcome?;
            report.count(&outcome, &row.origin);
            if let Outcome::Kept { mut example, .. } = outcome {
                example.origin = row.origin.clone();
                examples.push(example);
            }
        }
        report.date = template.date_told();
        if examples.is_empty() {
            return Err(report.nothing_trained(&rows.conversations[0].origin, &limits));
        }
        Ok((examples, report))
    }
}

fn outcome(
    row: &Conversation,
    template: &Template,
    tokenizer: &Tokenizer,
    limits: &Limits,
) -> Result<Outcome, DataError> {
    let rendered = template
        .render(row)
        .map_err(|error| DataError::row(row.origin.clone(), error))?;
    Ok(encode(&rendered, tokenizer, limits)?)
}

/// Takes `count` of the examples for validation.
fn split(
    examples: Vec<Example>,
    count: usize,
    seed: u64,
) -> Result<(Vec<Example>, Vec<Example>), DataError> {
    if count >= examples.len() {
        return Err(DataError::Config {
            key: "validation",
            problem: format!(
                "{count} rows of {} would leave none to train on",
                examples.len()
            ),
        });
    }
    let chosen = validation_rows(examples.len(), count, seed);
    let (mut train, mut validation) = (Vec::new(), Vec::new());
    for (example, chosen) in examples.into_iter().zip(chosen) {
        if chosen { &mut validation } else { &mut train }.push(example);
    }
    Ok((train, validation))
}
