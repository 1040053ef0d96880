//! Answers of the base and of the trained model, side by side.

use std::path::Path;

use simmer_data::Conversation;
use simmer_data::example::prompt_tokens;
use simmer_model::base::BaseConfig;
use simmer_model::{KvCache, Sampling};
use simmer_train::{Method, Recipe};

use crate::loaded::Loaded;
use crate::output;

/// Prints what base and trained model answer to the recipe's sample prompts.
pub(crate) fn show(recipe: &Recipe, weights: &Path) -> anyhow::Result<()> {
    let Some(samples) = &recipe.samples else {
        return Ok(());
    };
    let base = &recipe.base;
    let template = match &samples.template {
        Some(name) => name,
        None => &recipe.data.train[0].template,
    };
    let answers = |loaded: &Loaded| -> anyhow::Result<Vec<String>> {
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
    };
    let before = answers(&Loaded::open(base, None, &recipe.device)?)?;
    let after = answers(&match recipe.method {
        Method::Lora(_) => Loaded::open(base, Some(weights), &recipe.device)?,
        Method::Full(_) => Loaded::open(&BaseConfig::from_path(weights), None, &recipe.device)?,
    })?;
    for ((prompt, before), after) in samples.prompts.iter().zip(before).zip(after) {
        output::note(&format!(
            "\n{prompt}\n  before: {}\n  after:  {}",
            on_one_line(&before),
            on_one_line(&after)
        ));
    }
    Ok(())
}

fn on_one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
