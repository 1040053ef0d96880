//! The `[data]` table of a recipe.

use std::path::PathBuf;

use chrono::NaiveDate;
use serde::{Deserialize, Deserializer, Serialize};

use crate::bad::{BadRows, OnBad};
use crate::conversation::Conversation;
use crate::error::DataError;
use crate::example::{Limits, Overlong};
use crate::file::{Found, SampleBy, is_text, split_files};
use crate::format::{Fields, Format, Reader, Reading};
use crate::lint::LintConfig;
use crate::template::{Template, TrainOn};
use crate::tokenizer::Tokenizer;

/// The `[data]` table: training and validation data, and how rows become examples.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[derive(schemars::JsonSchema)]
pub struct DataConfig {
    /// The sources of training rows.
    pub train: Vec<SourceConfig>,
    /// The rows for the validation loss: `{ fraction = F }` of the training rows (rounded up), `{ rows = N }` of them,
    /// or `{ files = [...] }`, sources of their own. Rows taken from the training sources are chosen by `train.seed`
    /// and not trained on. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<Validation>,
    /// The maximum number of tokens in an example, at least 2 (`sequence_len`, `cutoff_len` elsewhere).
    #[serde(default = "default_max_tokens")]
    pub max_tokens: usize,
    /// What happens to a row with more tokens: `"truncate"` (default) drops its end, `"drop"` drops the row, `"split"`
    /// makes several examples of it (a conversation is split between pairs of turns, text anywhere). Lost tokens are
    /// counted.
    #[serde(default)]
    pub overlong: Overlong,
    /// Which tokens get a label: `"answers"` (default), every answer of the row; `"last_answer"`, the last one of a
    /// conversation; `"everything"`, the prompt too; `"marked"`, the messages that the row marks.
    #[serde(default)]
    pub train_on: TrainOn,
    /// Whether rows are shuffled in every epoch; otherwise they keep the file order.
    #[serde(default = "default_shuffle")]
    pub shuffle: bool,
    /// Whether rows are read during training, for files that do not fit in memory. Needs `train.max_steps`, and no
    /// `train.epochs`.
    #[serde(default)]
    pub stream: bool,
    /// How many consecutive rows of a stream are shuffled together, at least 1.
    #[serde(default = "default_shuffle_rows")]
    pub shuffle_rows: usize,
    /// What happens to a row that cannot be read or used, for example one without an answer: `"error"` (default) stops
    /// at the first, `"drop"` leaves such rows out. The report counts them and lists the first of each kind.
    #[serde(default)]
    pub bad_rows: BadRows,
    /// The share of a source's rows that `bad_rows = "drop"` may leave out, from 0 to 1. The run stops if more rows
    /// cannot be used.
    #[serde(default = "default_max_bad_share")]
    pub max_bad_share: f64,
    /// The date for chat templates that print one, as `"YEAR-MONTH-DAY"`. A run keeps its date. Default: today.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub date: Option<String>,
    /// Which lint findings stop the training, and which are only shown.
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

fn default_max_bad_share() -> f64 {
    0.05
}

/// A source of rows: one file, or several with the same format.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[derive(schemars::JsonSchema)]
pub struct SourceConfig {
    /// A file, a folder, or a pattern such as `rows/*.jsonl`, relative to the current directory; or the name of a
    /// dataset on the Hub.
    pub path: PathBuf,
    /// The prompt template that renders its rows: `alpaca`, `alpaca-short`, `alpaca-lora`, `vicuna-v0`,
    /// `vicuna-v1.1`, `koala`, `baize`, `gpt4all`, `chatdoctor`, `llama-2-chat`, `llama-3`, `chatml`, `completion`,
    /// the chat template of the model (`chat`, `chat:NAME`), or a file that ends in `.toml`.
    pub template: String,
    /// The format of its rows. Default: detected from the first row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    /// The rows' names for the keys of the format, if they differ: `{ instruction = "question" }`. Default: none.
    #[serde(default, skip_serializing_if = "Fields::is_empty")]
    pub fields: Fields,
    /// Whether to drop answers before the first user message, as FastChat does; otherwise they are an error.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub drop_leading_answers: bool,
    /// What one row of a text file (`.txt`) is: `"line"` (default), `"paragraph"`, lines up to an empty one, or
    /// `"document"`, the whole file.
    #[serde(default, skip_serializing_if = "SampleBy::is_line")]
    pub sample_by: SampleBy,
    /// Its share of an epoch, relative to the other sources, above 0; for all sources or none. Default: none, and an
    /// epoch has every row once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<f64>,
    /// The local files of a dataset from the Hub, once they are downloaded.
    #[serde(skip)]
    located: Option<Vec<PathBuf>>,
    /// Whether its rows are held out for validation.
    #[serde(skip)]
    held_out: bool,
}

/// The data for the validation loss.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[derive(schemars::JsonSchema)]
pub enum Validation {
    /// This fraction of the training rows, rounded up, held out from training.
    Fraction(f64),
    /// This many of the training rows, held out from training.
    Rows(usize),
    /// Separate files.
    Files(#[serde(deserialize_with = "held_out")] Vec<SourceConfig>),
}

fn held_out<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<SourceConfig>, D::Error> {
    let mut sources = Vec::<SourceConfig>::deserialize(deserializer)?;
    for source in &mut sources {
        source.held_out = true;
    }
    Ok(sources)
}

impl SourceConfig {
    /// Sets the local files of a dataset from the Hub.
    pub fn locate(&mut self, files: Vec<PathBuf>) {
        self.located = Some(files);
    }

    /// Its files, in order.
    ///
    /// # Errors
    /// [`DataError`] if there are none.
    pub fn files(&self) -> Result<Vec<PathBuf>, DataError> {
        Ok(self.found()?.files)
    }

    /// Its files, and those of a folder that belong to other splits.
    ///
    /// # Errors
    /// As [`SourceConfig::files`].
    pub(crate) fn found(&self) -> Result<Found, DataError> {
        match &self.located {
            Some(files) => Ok(Found {
                files: files.clone(),
                unread: Vec::new(),
            }),
            None => split_files(&self.path, self.held_out),
        }
    }

    /// All its rows; those that cannot be used are an error, or left out.
    ///
    /// # Errors
    /// [`DataError`] if there are no files, or if one cannot be read.
    pub fn read(&self, bad: BadRows) -> Result<Vec<Conversation>, DataError> {
        let on_bad = match bad {
            BadRows::Error => OnBad::Stop,
            BadRows::Drop => OnBad::Drop { most: 1.0 },
        };
        self.open(on_bad)?.rest()
    }

    /// Opens its files, at the first row.
    pub(crate) fn open(&self, on_bad: OnBad) -> Result<Reader, DataError> {
        let reading = Reading {
            format: self.format,
            fields: self.fields.clone(),
            drop_leading_answers: self.drop_leading_answers,
            without_answers: false,
            sample_by: self.sample_by,
            skip_bad: on_bad != OnBad::Stop,
        };
        let files = self.files()?;
        if !self.sample_by.is_line() && !files.iter().any(|file| is_text(file)) {
            return Err(DataError::Config {
                key: "sample_by",
                problem: format!(
                    "only text files (.txt) are read by it, and {} has none",
                    self.path.display()
                ),
            });
        }
        Reader::open(&files, &reading)
    }
}

/// The upper limit of counts: no machine can hold more.
const MOST: usize = 1 << 30;

impl DataConfig {
    /// The training sources, then the validation sources.
    pub fn sources(&self) -> impl Iterator<Item = &SourceConfig> {
        self.train.iter().chain(self.validation_files())
    }

    /// Like [`DataConfig::sources`], mutable.
    pub fn sources_mut(&mut self) -> impl Iterator<Item = &mut SourceConfig> {
        let validation = match &mut self.validation {
            Some(Validation::Files(files)) => files.as_mut_slice(),
            _ => &mut [],
        };
        self.train.iter_mut().chain(validation)
    }

    /// The sources that are used only for validation.
    pub fn validation_files(&self) -> &[SourceConfig] {
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

    /// The weights of the training sources, if all of them have one.
    pub(crate) fn weights(&self) -> Option<Vec<f64>> {
        self.train.iter().map(|source| source.weight).collect()
    }

    /// What becomes of rows that cannot be used.
    pub(crate) fn on_bad(&self) -> OnBad {
        match self.bad_rows {
            BadRows::Error => OnBad::Stop,
            BadRows::Drop => OnBad::Drop {
                most: self.max_bad_share,
            },
        }
    }

    /// The template of a source.
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

    /// Checks the values, each and together.
    ///
    /// # Errors
    /// [`DataError::Config`] for the first key with an invalid value.
    pub fn check(&self) -> Result<(), DataError> {
        if self.train.is_empty() {
            return Err(wrong("train", "expected at least one source, found none"));
        }
        if self.max_tokens < 2 {
            return Err(wrong(
                "max_tokens",
                format!(
                    "expected at least 2, found {}: the first token is never predicted; the nearest valid value is 2",
                    self.max_tokens
                ),
            ));
        }
        for (key, count) in [
            ("max_tokens", self.max_tokens),
            ("shuffle_rows", self.shuffle_rows),
        ] {
            if count > MOST {
                let problem = format!(
                    "expected at most {MOST}, found {count}; the nearest valid value is {MOST}"
                );
                return Err(wrong(key, problem));
            }
        }
        self.date()?;
        self.check_weights()?;
        if !(0.0..=1.0).contains(&self.max_bad_share) {
            return Err(wrong(
                "max_bad_share",
                format!(
                    "expected a number from 0 to 1, found {}",
                    self.max_bad_share
                ),
            ));
        }
        if self.shuffle_rows == 0 {
            let problem = "expected at least 1, found 0; the nearest valid value is 1";
            return Err(wrong("shuffle_rows", problem));
        }
        match &self.validation {
            Some(Validation::Files(files)) if files.is_empty() => Err(wrong(
                "validation.files",
                "expected at least one source, found none",
            )),
            Some(Validation::Fraction(part)) if !(*part > 0.0 && *part < 1.0) => {
                Err(wrong("validation.fraction", fraction(*part)))
            }
            Some(Validation::Rows(0)) => {
                let problem = "expected at least 1, found 0; the nearest valid value is 1";
                Err(wrong("validation.rows", problem))
            }
            Some(Validation::Fraction(_) | Validation::Rows(_)) if self.stream => Err(wrong(
                "validation",
                "`fraction` and `rows` cannot hold out rows of a stream; use `files`",
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
                format!("expected a weight for every source or for none, found {with} of {all}");
            return Err(wrong("train.weight", problem));
        }
        if self
            .validation_files()
            .iter()
            .any(|source| source.weight.is_some())
        {
            return Err(wrong(
                "validation.files",
                "expected no `weight`: every validation row counts once",
            ));
        }
        Ok(())
    }
}

/// Why a fraction of the rows cannot be used.
fn fraction(part: f64) -> String {
    let instead = match part {
        _ if part > 1.0 && part < 100.0 => format!("; {part}% is {}", part / 100.0),
        _ => ", such as 0.05".to_owned(),
    };
    format!("expected a number between 0 and 1, found {part}{instead}")
}

fn wrong(key: &'static str, problem: impl Into<String>) -> DataError {
    DataError::Config {
        key,
        problem: problem.into(),
    }
}
