//! The `[data]` table of a recipe.

use std::path::PathBuf;

use chrono::NaiveDate;
use serde::{Deserialize, Serialize};

use crate::error::DataError;
use crate::example::{Limits, Overlong};
use crate::format::{Fields, Format, Reader, Reading};
use crate::lint::LintConfig;
use crate::template::{Template, TrainOn};
use crate::tokenizer::Tokenizer;

/// The `[data]` table: what is trained on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[derive(schemars::JsonSchema)]
pub struct DataConfig {
    /// The sources of rows to train on.
    pub train: Vec<SourceConfig>,
    /// What the validation loss is measured on; without it there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<Validation>,
    /// The most tokens of an example.
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
    /// Whether rows are read when they are needed, for files larger than the memory.
    #[serde(default)]
    pub stream: bool,
    /// How many neighbouring rows of a stream are shuffled together.
    #[serde(default = "default_shuffle_rows")]
    pub shuffle_rows: usize,
    /// The day that chat templates which ask for it are told, as YEAR-MONTH-DAY; today without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub date: Option<String>,
    /// Which faults of the data stop the training, and which are only shown.
    #[serde(default)]
    pub lint: LintConfig,
}

fn default_max_tokens() -> usize {
    1024
}

fn default_shuffle() -> bool {
    true
}

fn default_shuffle_rows() -> usize {
    10_000
}

/// One source of rows: a file, or several of one layout.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[derive(schemars::JsonSchema)]
pub struct SourceConfig {
    /// A file, a folder, or a pattern such as `rows/*.jsonl`, relative to the current directory; or a data set's name on
    /// the hub.
    pub path: PathBuf,
    /// The template that renders its rows.
    pub template: String,
    /// The layout of its rows; recognised from the first without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    /// What the rows call the keys of their layout, where they have names of their own.
    #[serde(default, skip_serializing_if = "Fields::is_empty")]
    pub fields: Fields,
    /// Whether what is said before the first question is left out, as FastChat does; else it is an error.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub drop_leading_answers: bool,
    /// Its part of an epoch, in proportion to the other sources'. Without weights every row comes once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<f64>,
    /// The files of a data set of the hub, once they are on this disk.
    #[serde(skip)]
    located: Option<Vec<PathBuf>>,
}

/// What the validation loss is measured on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[derive(schemars::JsonSchema)]
pub enum Validation {
    /// This part of the training examples, rounded up; they are not trained on.
    Fraction(f64),
    /// This many of the training examples; they are not trained on.
    Rows(usize),
    /// Files of their own.
    Files(Vec<SourceConfig>),
}

impl SourceConfig {
    /// Says where its files are on this disk, for a data set of the hub.
    pub fn locate(&mut self, files: Vec<PathBuf>) {
        self.located = Some(files);
    }

    /// Its files, in order.
    ///
    /// # Errors
    /// [`DataError`] when there are none.
    pub fn files(&self) -> Result<Vec<PathBuf>, DataError> {
        match &self.located {
            Some(files) => Ok(files.clone()),
            None => crate::file::files(&self.path),
        }
    }

    /// Its rows, from the first on.
    pub(crate) fn open(&self) -> Result<Reader, DataError> {
        let reading = Reading {
            format: self.format,
            fields: self.fields.clone(),
            drop_leading_answers: self.drop_leading_answers,
        };
        Reader::open(&self.files()?, &reading)
    }
}

impl DataConfig {
    /// The sources to train on, and those of the validation.
    pub fn sources(&self) -> impl Iterator<Item = &SourceConfig> {
        self.train.iter().chain(self.validation_files())
    }

    /// The same, to be changed.
    pub fn sources_mut(&mut self) -> impl Iterator<Item = &mut SourceConfig> {
        let validation = match &mut self.validation {
            Some(Validation::Files(files)) => files.as_mut_slice(),
            _ => &mut [],
        };
        self.train.iter_mut().chain(validation)
    }

    /// The validation's own sources.
    pub(crate) fn validation_files(&self) -> &[SourceConfig] {
        match &self.validation {
            Some(Validation::Files(files)) => files,
            _ => &[],
        }
    }

    pub(crate) fn limits(&self) -> Limits {
        Limits {
            max_tokens: self.max_tokens,
            overlong: self.overlong,
            train_on: self.train_on,
        }
    }

    /// The weights of the training sources, where they have any.
    pub(crate) fn weights(&self) -> Option<Vec<f64>> {
        self.train.iter().map(|source| source.weight).collect()
    }

    /// The template of one of the sources.
    pub(crate) fn template(
        &self,
        source: &SourceConfig,
        tokenizer: &Tokenizer,
    ) -> Result<Template, DataError> {
        let template = Template::named(&source.template, tokenizer)?;
        Ok(match self.date()? {
            Some(date) => template.dated(date),
            None => template,
        })
    }

    fn date(&self) -> Result<Option<NaiveDate>, DataError> {
        let Some(text) = &self.date else {
            return Ok(None);
        };
        let date = NaiveDate::parse_from_str(text, "%Y-%m-%d");
        date.map(Some).map_err(|_| {
            wrong(
                "date",
                format!("expected YEAR-MONTH-DAY, such as 2026-01-31, found `{text}`"),
            )
        })
    }

    /// Whether the values go together.
    ///
    /// # Errors
    /// The first key whose value cannot be.
    pub fn check(&self) -> Result<(), DataError> {
        if self.train.is_empty() {
            return Err(wrong("train", "no files are named"));
        }
        if self.max_tokens < 2 {
            return Err(wrong(
                "max_tokens",
                "a row needs two tokens: one to see and one to predict",
            ));
        }
        self.check_weights()?;
        if self.shuffle_rows == 0 {
            return Err(wrong("shuffle_rows", "expected at least 1, found 0"));
        }
        match &self.validation {
            Some(Validation::Files(files)) if files.is_empty() => {
                Err(wrong("validation.files", "no files are named"))
            }
            Some(Validation::Fraction(part)) if !(*part > 0.0 && *part < 1.0) => Err(wrong(
                "validation.fraction",
                format!("expected a number between 0 and 1, found {part}"),
            )),
            Some(Validation::Rows(0)) => {
                Err(wrong("validation.rows", "expected at least 1, found 0"))
            }
            Some(Validation::Fraction(_) | Validation::Rows(_)) if self.stream => Err(wrong(
                "validation",
                "a stream has no rows to spare: give `files`",
            )),
            _ => Ok(()),
        }
    }

    /// Checks the sources' weights: all training sources have one, or none; validation sources have none.
    fn check_weights(&self) -> Result<(), DataError> {
        let weights: Vec<f64> = self
            .train
            .iter()
            .filter_map(|source| source.weight)
            .collect();
        if let Some(weight) = weights
            .iter()
            .find(|weight| !(**weight > 0.0 && weight.is_finite()))
        {
            return Err(wrong(
                "train.weight",
                format!("expected a number above 0, found {weight}"),
            ));
        }
        let (with, all) = (weights.len(), self.train.len());
        if with > 0 && with < all {
            let problem =
                format!("{with} of {all} sources have a weight: give all of them one, or none");
            return Err(wrong("train.weight", problem));
        }
        if self
            .validation_files()
            .iter()
            .any(|source| source.weight.is_some())
        {
            return Err(wrong(
                "validation.files",
                "a weight has no meaning here: every row counts once",
            ));
        }
        Ok(())
    }
}

fn wrong(key: &'static str, problem: impl Into<String>) -> DataError {
    DataError::Config {
        key,
        problem: problem.into(),
    }
}
