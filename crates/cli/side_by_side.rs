//! Compares base and trained model on the validation rows of a run and on its sample prompts.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};
use simmer_data::Example;
use simmer_data::example::prompt_tokens;
use simmer_eval::report::{self, MetricReport};
use simmer_eval::{Evaluator, FEWEST_ROWS, Reference};
use simmer_files::size::counted;
use simmer_files::write_file;
use simmer_model::base::BaseConfig;
use simmer_model::{KvCache, Sampling};
use simmer_train::{Recipe, SampleConfig};

use crate::failure::{Context, Failure};
use crate::loaded::Loaded;
use crate::output::note;
use crate::progress;

/// The file of the comparison, in the run's folder.
const COMPARISON_FILE: &str = "comparison.json";

/// The results of one of the two models.
struct Results {
    references: Vec<Option<Reference>>,
    answers: Vec<String>,
}

/// The comparison of base and trained model, as saved in the run's folder.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Comparison {
    /// The answers of both to the recipe's sample prompts.
    pub(crate) samples: Vec<Sample>,
    /// The number of validation rows that both were scored on.
    pub(crate) held_out_rows: usize,
    /// The scores, the base model's first; none if the rows have tokens that the base model lacks.
    pub(crate) scores: Vec<MetricReport>,
}

/// A prompt and the answers of both models.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Sample {
    pub(crate) prompt: String,
    /// The base model's answer.
    pub(crate) before: String,
    /// The trained model's.
    pub(crate) after: String,
}

impl Comparison {
    /// Reads the comparison of a run's folder, if it has one.
    pub(crate) fn read(run: &Path) -> Result<Option<Self>, Failure> {
        let path = run.join(COMPARISON_FILE);
        if !path.exists() {
            return Ok(None);
        }
        let what = || format!("cannot read {}", path.display());
        let text = fs::read(&path).with_context(what)?;
        serde_json::from_slice(&text)
            .map_err(Failure::foreign)
            .with_context(what)
    }

    fn write(&self, run: &Path) -> Result<(), Failure> {
        let json = serde_json::to_string_pretty(self).map_err(Failure::foreign)?;
        let path = run.join(COMPARISON_FILE);
        Ok(write_file(&path, |file| writeln!(file, "{json}"))?)
    }

    fn show(&self) {
        for sample in &self.samples {
            note(&format!(
                "\n{}\n  before: {}\n  after:  {}",
                sample.prompt,
                indented(&sample.before),
                indented(&sample.after)
            ));
        }
        if self.held_out_rows == 0 {
            return;
        }
        if self.scores.is_empty() {
            note("\nnot compared on held-out rows: the base model lacks the added tokens");
            return;
        }
        note(&self.head());
        for line in report::lines(&self.scores) {
            note(&format!("  {line}"));
        }
    }

    /// The line before the scores.
    fn head(&self) -> String {
        let rows = counted(self.held_out_rows, "held-out row");
        let interval = if self.held_out_rows < FEWEST_ROWS {
            format!("; fewer than {FEWEST_ROWS} rows have no bootstrap interval")
        } else {
            " [95% bootstrap interval], * if p < 0.05".to_owned()
        };
        format!("\non {rows}: before, after, difference{interval}")
    }
}

/// Prints how base and trained model score on held-out rows and what they answer to the recipe's sample prompts, and saves
/// the comparison in the run's folder.
pub(crate) fn show(
    recipe: &Recipe,
    run: &Path,
    weights: &Path,
    held_out: &[Example],
) -> Result<(), Failure> {
    if recipe.samples.is_none() && held_out.is_empty() {
        return Ok(());
    }
    let base = &recipe.base;
    let before = results(recipe, &Loaded::open(base, None, &recipe.device)?, held_out)?;
    let trained = match recipe.method.adapter() {
        Some(_) => Loaded::open(base, Some(weights), &recipe.device)?,
        None => Loaded::open(&BaseConfig::from_path(weights), None, &recipe.device)?,
    };
    let after = results(recipe, &trained, held_out)?;
    let mut comparison = Comparison {
        held_out_rows: held_out.len(),
        ..Comparison::default()
    };
    let prompts = recipe.samples.iter().flat_map(|samples| &samples.prompts);
    for ((prompt, before), after) in prompts.zip(before.answers).zip(after.answers) {
        comparison.samples.push(Sample {
            prompt: prompt.clone(),
            before,
            after,
        });
    }
    if !before.references.is_empty() {
        comparison.scores = report::of_references(&[before.references, after.references]);
        // the third, perplexity, follows from the loss
        comparison.scores.truncate(2);
    }
    comparison.show();
    if let Err(error) = comparison.write(run) {
        note(&format!(
            "{error}; `simmer report` will not show the answers"
        ));
    }
    Ok(())
}

fn results(recipe: &Recipe, loaded: &Loaded, held_out: &[Example]) -> Result<Results, Failure> {
    let evaluator = Evaluator {
        model: &loaded.model,
        tokenizer: &loaded.tokenizer,
        eos: &loaded.eos,
        chat: None,
    };
    // Training may have added tokens to the vocabulary.
    let vocabulary = loaded.model.config().vocab_size as u32;
    let mut tokens = held_out.iter().flat_map(|example| &example.tokens);
    let knows_all = tokens.all(|token| *token < vocabulary);
    let bar = progress::spinner("comparing");
    let references = if knows_all {
        evaluator.examples(held_out)
    } else {
        Vec::new()
    };
    let answers = recipe
        .samples
        .as_ref()
        .map(|samples| answers(recipe, samples, loaded));
    bar.finish_and_clear();
    Ok(Results {
        references,
        answers: answers.transpose()?.unwrap_or_default(),
    })
}

fn answers(
    recipe: &Recipe,
    samples: &SampleConfig,
    loaded: &Loaded,
) -> Result<Vec<String>, Failure> {
    let template = match &samples.template {
        Some(name) => name,
        None => &recipe.data.train[0].template,
    };
    let template = loaded.template(template)?;
    let answer = |prompt: &String| {
        let prompt = template.prompt(&samples.conversation(prompt))?;
        let prompt = prompt_tokens(&prompt, &loaded.tokenizer)?;
        let sampling = Sampling::default();
        let mut text = String::new();
        loaded.answer(
            &prompt,
            &mut KvCache::default(),
            samples.max_new_tokens,
            &sampling,
            &mut |piece| {
                text.push_str(piece);
                Ok(())
            },
        )?;
        Ok(text)
    };
    samples.prompts.iter().map(answer).collect()
}

/// An answer beside its label: with its line breaks, and further lines below the first one.
fn indented(text: &str) -> String {
    const LABEL: &str = "\n          ";
    let lines = text.trim().lines().map(str::trim_end);
    let lines = lines.collect::<Vec<_>>().join(LABEL);
    // lines of spaces alone are empty
    lines.replace(&format!("{LABEL}\n"), "\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_rows_have_no_interval() {
        let head = |held_out_rows| {
            Comparison {
                held_out_rows,
                ..Comparison::default()
            }
            .head()
        };
        assert_eq!(
            head(4),
            "\non 4 held-out rows: before, after, difference; fewer than 10 rows have no bootstrap interval"
        );
        assert!(head(10).ends_with("[95% bootstrap interval], * if p < 0.05"));
    }

    #[test]
    fn answers_keep_their_line_breaks() {
        let text = "\nThree tips:\n\n1. Sleep.  \n2. Eat.\n";
        let expected = "Three tips:\n\n          1. Sleep.\n          2. Eat.";
        assert_eq!(indented(text), expected);
        assert_eq!(indented("one\ttwo"), "one\ttwo");
        assert_eq!(indented(" "), "");
    }
}
