//! Base and trained model, side by side: on the rows that a run held out, and on its sample prompts.

use std::fs;
use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use simmer_checkpoint::write_file;
use simmer_data::example::prompt_tokens;
use simmer_data::{Conversation, Example};
use simmer_eval::report::{self, MetricReport};
use simmer_eval::{Evaluator, Reference};
use simmer_model::base::BaseConfig;
use simmer_model::{KvCache, Sampling};
use simmer_train::{Method, Recipe, SampleConfig};

use crate::loaded::Loaded;
use crate::output::note;
use crate::progress;

/// The file that keeps it, in a run's folder.
const COMPARISON_FILE: &str = "comparison.json";

/// What one of the two says.
struct Said {
    references: Vec<Option<Reference>>,
    answers: Vec<String>,
}

/// How base and trained model differ, as it is kept in the run's folder.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Comparison {
    /// What both say to the recipe's sample prompts.
    pub(crate) samples: Vec<Sample>,
    /// Validation rows that both were scored on.
    pub(crate) held_out_rows: usize,
    /// The scores, the base's first; none where the base does not know tokens of the rows.
    pub(crate) scores: Vec<MetricReport>,
}

/// A prompt, and what both say to it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Sample {
    pub(crate) prompt: String,
    /// The base's answer.
    pub(crate) before: String,
    /// The trained model's.
    pub(crate) after: String,
}

impl Comparison {
    /// Reads that of a run's folder, if it is there.
    pub(crate) fn read(run: &Path) -> anyhow::Result<Option<Self>> {
        let path = run.join(COMPARISON_FILE);
        if !path.exists() {
            return Ok(None);
        }
        let what = || format!("cannot read {}", path.display());
        let text = fs::read(&path).with_context(what)?;
        serde_json::from_slice(&text).with_context(what)
    }

    fn write(&self, run: &Path) -> anyhow::Result<()> {
        let json = serde_json::to_string_pretty(self)?;
        let path = run.join(COMPARISON_FILE);
        Ok(write_file(&path, |file| writeln!(file, "{json}"))?)
    }

    fn show(&self) {
        for sample in &self.samples {
            note(&format!(
                "\n{}\n  before: {}\n  after:  {}",
                sample.prompt,
                on_one_line(&sample.before),
                on_one_line(&sample.after)
            ));
        }
        if self.held_out_rows == 0 {
            return;
        }
        if self.scores.is_empty() {
            note(
                "\nheld-out rows are not compared: the base does not know the tokens that were added",
            );
            return;
        }
        note(&format!(
            "\non {} held-out rows: before, after, difference [95 of 100 draws], * where p < 0.05",
            self.held_out_rows
        ));
        for line in report::lines(&self.scores) {
            note(&format!("  {line}"));
        }
    }
}

/// Says how base and trained model do on held-out rows, and what they answer to the recipe's sample prompts; keeps it in
/// the run's folder.
pub(crate) fn show(
    recipe: &Recipe,
    run: &Path,
    weights: &Path,
    held_out: &[Example],
) -> anyhow::Result<()> {
    if recipe.samples.is_none() && held_out.is_empty() {
        return Ok(());
    }
    let base = &recipe.base;
    let before = said(recipe, &Loaded::open(base, None, &recipe.device)?, held_out)?;
    let trained = match recipe.method {
        Method::Lora(_) => Loaded::open(base, Some(weights), &recipe.device)?,
        Method::Full(_) => Loaded::open(&BaseConfig::from_path(weights), None, &recipe.device)?,
    };
    let after = said(recipe, &trained, held_out)?;
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
        // perplexity is the loss again
        comparison.scores.truncate(2);
    }
    comparison.show();
    if let Err(error) = comparison.write(run) {
        note(&format!("{error:#}; reports will not have the answers"));
    }
    Ok(())
}

fn said(recipe: &Recipe, loaded: &Loaded, held_out: &[Example]) -> anyhow::Result<Said> {
    let evaluator = Evaluator {
        model: &loaded.model,
        tokenizer: &loaded.tokenizer,
        eos: &loaded.eos,
        chat: None,
    };
    // A trained model may know tokens that the base does not.
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
    Ok(Said {
        references,
        answers: answers.transpose()?.unwrap_or_default(),
    })
}

fn answers(
    recipe: &Recipe,
    samples: &SampleConfig,
    loaded: &Loaded,
) -> anyhow::Result<Vec<String>> {
    let template = match &samples.template {
        Some(name) => name,
        None => &recipe.data.train[0].template,
    };
    let template = loaded.template(template)?;
    let answer = |prompt: &String| {
        let prompt = template.prompt(&Conversation::prompt(prompt))?;
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

fn on_one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
