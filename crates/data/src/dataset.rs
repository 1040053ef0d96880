//! The `[data]` table of a recipe, and the examples it leads to.

use std::path::PathBuf;

use chrono::NaiveDate;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::error::DataError;
use crate::example::{Example, Limits, Outcome, Overlong, examples};
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
            .map(|row| examples(row, &template, tokenizer, &limits))
            .collect();

        let mut report = SourceReport::new(&rows, template.name());
        let mut examples = Vec::with_capacity(outcomes.len());
        for (row, outcomes) in rows.conversations.iter().zip(outcomes) {
            for outcome in outcomes? {
                report.count(&outcome, &row.origin);
                if let Outcome::Kept { example, .. } = outcome {
                    examples.push(example);
                }
            }
        }
        report.date = template.date_told();
        if examples.is_empty() {
            return Err(report.nothing_trained(&rows.conversations[0].origin, &limits));
        }
        Ok((examples, report))
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::tests::{bare_tiny, tiny};
    use serde_json::json;
    use std::path::Path;
    use tempfile::TempDir;

    /// A folder with twenty Alpaca rows, the third of them long and the fifth longer.
    fn folder() -> TempDir {
        let folder = TempDir::new().unwrap();
        let rows: Vec<_> = (1..=20)
            .map(|row| {
                let more = match row {
                    3 => 60,
                    5 => 300,
                    _ => 0,
                };
                json!({
                    "instruction": format!("{}Write {row}.", if row == 5 { "x ".repeat(more) } else { String::new() }),
                    "output": format!("{row}{}", if row == 3 { "!?".repeat(more) } else { String::new() }),
                    "id": row,
                })
            })
            .collect();
        write(folder.path(), "rows.json", &json!(rows));
        folder
    }

    fn write(folder: &Path, name: &str, value: &serde_json::Value) {
        std::fs::write(folder.join(name), value.to_string()).unwrap();
    }

    /// The `[data]` table of that text; `DIR` stands for the folder.
    fn config(folder: &TempDir, text: &str) -> DataConfig {
        toml::from_str(&text.replace("DIR", &folder.path().display().to_string())).unwrap()
    }

    fn load(folder: &TempDir, text: &str) -> Result<Dataset, DataError> {
        Dataset::load(&config(folder, text), &tiny(), 42)
    }

    fn error(folder: &TempDir, text: &str) -> String {
        let error = load(folder, text).unwrap_err();
        let text = match error.hint() {
            Some(hint) => format!("{error}\nhint: {hint}"),
            None => error.to_string(),
        };
        text.replace(&folder.path().display().to_string(), "DIR")
    }

    const TRAIN: &str = r#"train = [{ path = "DIR/rows.json", template = "alpaca" }]"#;

    #[test]
    fn what_is_cut_and_left_out_is_reported() {
        let folder = folder();
        let report = |text: &str| {
            let report = load(&folder, text).unwrap().report.to_string();
            report.replace(&folder.path().display().to_string(), "DIR")
        };
        insta::assert_snapshot!(report(TRAIN), @"
    DIR/rows.json: 20 rows (alpaca, template alpaca): 20 examples, 2382 tokens, 171 of them trained on
      keys not used: id (in 20 rows)
    ");
        insta::assert_snapshot!(report(&format!("{TRAIN}\nmax_tokens = 120")), @"
    DIR/rows.json: 20 rows (alpaca, template alpaca): 19 examples, 1618 tokens, 87 of them trained on
      cut: 1 row (3), 82 trained tokens lost
      left out, no token to train on: 1 row (5)
      keys not used: id (in 20 rows)
    ");
        insta::assert_snapshot!(report(&format!("{TRAIN}\nmax_tokens = 120\noverlong = \"drop\"")), @"
    DIR/rows.json: 20 rows (alpaca, template alpaca): 18 examples, 1498 tokens, 47 of them trained on
      left out, too long: 2 rows (3, 5)
      keys not used: id (in 20 rows)
    ");
    }

    #[test]
    fn examples_come_in_file_order_and_know_their_rows() {
        let data = load(&folder(), TRAIN).unwrap();
        let rows: Vec<_> = data
            .train
            .iter()
            .map(|example| example.origin.row)
            .collect();
        assert!(rows.into_iter().eq(1..=20));
        assert!(data.validation.is_empty());
    }

    #[test]
    fn validation_rows_are_taken_from_training() {
        let folder = folder();
        for (validation, count) in [("{ fraction = 0.12 }", 3), ("{ rows = 5 }", 5)] {
            let text = format!("{TRAIN}\nvalidation = {validation}");
            let data = load(&folder, &text).unwrap();
            assert_eq!(data.validation.len(), count);
            let both = data.train.iter().chain(&data.validation);
            let mut rows: Vec<_> = both.map(|example| example.origin.row).collect();
            rows.sort_unstable();
            assert!(rows.into_iter().eq(1..=20));
            let again = Dataset::load(&config(&folder, &text), &tiny(), 42).unwrap();
            assert_eq!(data, again);
            let other = Dataset::load(&config(&folder, &text), &tiny(), 43).unwrap();
            assert_ne!(data.validation, other.validation);
        }
    }

    #[test]
    fn validation_may_have_its_own_files() {
        let folder = folder();
        write(
            folder.path(),
            "more.json",
            &json!([{"prompt": "Write 1.", "completion": " 1"}]),
        );
        let files =
            r#"validation = { files = [{ path = "DIR/more.json", template = "completion" }] }"#;
        let data = load(&folder, &format!("{TRAIN}\n{files}")).unwrap();
        assert_eq!((data.train.len(), data.validation.len()), (20, 1));
        assert_eq!(data.report.validation[0].format, Format::PromptCompletion);
    }

    #[test]
    fn impossible_tables_are_errors() {
        let folder = folder();
        let with = |line: &str| error(&folder, &format!("{TRAIN}\n{line}"));
        insta::assert_snapshot!(error(&folder, "train = []"), @"data.train: no files are named");
        insta::assert_snapshot!(with("validation = { fraction = 1.5 }"), @"data.validation.fraction: expected a number between 0 and 1, found 1.5");
        insta::assert_snapshot!(with("validation = { rows = 20 }"), @"data.validation: 20 rows of 20 would leave none to train on");
        insta::assert_snapshot!(with("validation = { rows = 0 }"), @"data.validation.rows: expected at least 1, found 0");
        insta::assert_snapshot!(with("validation = { files = [] }"), @"data.validation.files: no files are named");
        insta::assert_snapshot!(with("max_tokens = 1"), @"data.max_tokens: a row needs two tokens: one to see and one to predict");
        insta::assert_snapshot!(with("date = \"tomorrow\""), @"data.date: expected YEAR-MONTH-DAY, such as 2026-01-31, found `tomorrow`");
    }

    #[test]
    fn unknown_keys_are_errors() {
        let parse = |text: &str| toml::from_str::<DataConfig>(text).unwrap_err().to_string();
        insta::assert_snapshot!(parse(&format!("{TRAIN}\nmax_token = 5")), @"
    TOML parse error at line 2, column 1
      |
    2 | max_token = 5
      | ^^^^^^^^^
    unknown field `max_token`, expected one of `train`, `validation`, `max_tokens`, `overlong`, `train_on`, `shuffle`, `date`
    ");
        insta::assert_snapshot!(parse("train = [{ path = \"a\", template = \"alpaca\", format = \"alpacca\" }]"), @r#"
    TOML parse error at line 1, column 54
      |
    1 | train = [{ path = "a", template = "alpaca", format = "alpacca" }]
      |                                                      ^^^^^^^^^
    unknown variant `alpacca`, expected one of `messages`, `alpaca`, `prompt_completion`, `text`
    "#);
        insta::assert_snapshot!(parse(&format!("{TRAIN}\nvalidation = {{ part = 0.1 }}")), @"
    TOML parse error at line 2, column 16
      |
    2 | validation = { part = 0.1 }
      |                ^^^^
    unknown variant `part`, expected one of `fraction`, `rows`, `files`
    ");
    }

    #[test]
    fn rows_without_anything_to_train_on_are_an_error() {
        let folder = folder();
        insta::assert_snapshot!(error(&folder, &format!("{TRAIN}\nmax_tokens = 20")), @"
    DIR/rows.json: no row has a token to train on (template `alpaca`, max_tokens 20): row 1 has 82 tokens, the last 2 of them its answer, all cut off
    hint: raise data.max_tokens, or choose the template whose answers these rows hold
    ");
        insta::assert_snapshot!(error(&folder, &format!("{TRAIN}\nmax_tokens = 20\noverlong = \"drop\"")), @"
    DIR/rows.json: no row has a token to train on (template `alpaca`, max_tokens 20): row 1 has 82 tokens, and overlong rows are dropped
    hint: raise data.max_tokens, or choose the template whose answers these rows hold
    ");
    }

    #[test]
    fn a_row_that_its_template_cannot_render_is_named() {
        let folder = folder();
        insta::assert_snapshot!(error(&folder, r#"train = [{ path = "DIR/rows.json", template = "completion" }]"#), @"
        DIR/rows.json: row 1 (line 1): template `completion` does not render instruction/output rows
        hint: name another template for this file: alpaca, alpaca-short, alpaca-lora, vicuna-v0, vicuna-v1.1, koala, baize, gpt4all, chatdoctor, llama-2-chat, llama-3, chatml, completion, chat
        ");
    }

    #[test]
    fn a_tokenizer_without_an_end_cannot_train() {
        let folder = folder();
        let error = Dataset::load(&config(&folder, TRAIN), &bare_tiny(), 42).unwrap_err();
        assert!(matches!(
            error,
            DataError::Tokenizer(crate::tokenizer::TokenizerError::NoEos { .. })
        ));
    }

    #[test]
    fn a_date_that_was_told_is_reported() {
        let folder = folder();
        let chat = r#"train = [{ path = "DIR/rows.json", template = "chat" }]"#;
        let dated = crate::tokenizer::tests::with_config(&json!({
            "eos_token": "<|im_end|>",
            "chat_template": "{{ strftime_now('%Y') }}{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}",
        }));
        let load = |text: &str| Dataset::load(&config(&folder, text), &dated, 42).unwrap();
        let data = load(&format!("{chat}\ndate = \"2024-07-26\""));
        assert_eq!(
            data.report.train[0].date,
            NaiveDate::from_ymd_opt(2024, 7, 26)
        );
        assert_eq!(data, load(&format!("{chat}\ndate = \"2024-07-26\"")));
        assert!(load(chat).report.train[0].date.is_some());
    }
}
