//! Base and trained model, side by side: on the rows that a run held out, and on its sample prompts.

use std::path::Path;

use simmer_data::example::prompt_tokens;
use simmer_data::{Conversation, Example};
use simmer_eval::{Evaluator, Reference, report};
use simmer_model::base::BaseConfig;
use simmer_model::{KvCache, Sampling};
use simmer_train::{Method, Recipe, SampleConfig};

use crate::loaded::Loaded;
use crate::output::note;
use crate::progress;

/// What one of the two says.
struct Said {
    references: Vec<Option<Reference>>,
    answers: Vec<String>,
}

/// Prints how base and trained model do on held-out rows, and what they answer to the recipe's sample prompts.
pub(crate) fn show(recipe: &Recipe, weights: &Path, held_out: &[Example]) -> anyhow::Result<()> {
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
    let prompts = recipe.samples.iter().flat_map(|samples| &samples.prompts);
    for ((prompt, before), after) in prompts.zip(before.answers).zip(after.answers) {
        note(&format!(
            "\n{prompt}\n  before: {}\n  after:  {}",
            on_one_line(&before),
            on_one_line(&after)
        ));
    }
    if held_out.is_empty() {
        return Ok(());
    }
    if before.references.is_empty() {
        note("\nheld-out rows are not compared: the base does not know the tokens that were added");
    } else {
        let mut metrics = report::of_references(&[before.references, after.references]);
        // perplexity is the loss again
        metrics.truncate(2);
        note(&format!(
            "\non {} held-out rows: before, after, difference [95 of 100 draws], * where p < 0.05",
            held_out.len()
        ));
        for line in report::lines(&metrics) {
            note(&format!("  {line}"));
        }
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
