//! What a recipe's values must satisfy together.

use simmer_model::base::BaseConfig;
use simmer_model::device;

use super::Recipe;
use crate::config::Weights;
use crate::problem::Problem;

impl Recipe {
    /// Checks each value and their combinations.
    ///
    /// # Errors
    /// The first key whose value is not allowed.
    pub fn check(&self) -> Result<(), Problem> {
        if let Err(error) = device::check(&self.device) {
            return Err(Problem::new("device", error.to_string()));
        }
        self.train.check()?;
        if let Some(samples) = &self.samples {
            samples.check()?;
        }
        let needs_validation = |key: &str| {
            let why = "needs a validation set, but [data] has no `validation`";
            Err(Problem::new(key, why))
        };
        if self.data.validation.is_none() {
            if self.train.early_stop.is_some() {
                return needs_validation("train.early_stop");
            }
            if self.train.weights == Weights::Best {
                return needs_validation("train.weights");
            }
        }
        self.check_stream()?;
        let base = &self.base;
        if base.path.is_some() && base.init.is_some() {
            let why = "cannot be combined with `base.path`: weights are loaded or random";
            return Err(Problem::new("base.init", why));
        }
        if base.path.is_none() && base.init.is_none() {
            let why = "needs `path` (a checkpoint) or `init` (random weights)";
            return Err(Problem::new("base", why));
        }
        check_added_tokens(base)
    }

    /// A stream has no last row, so its epochs cannot be counted.
    fn check_stream(&self) -> Result<(), Problem> {
        if !self.data.stream {
            return Ok(());
        }
        let train = &self.train;
        if train.epochs.is_some() {
            let why =
                "cannot be combined with data.stream, whose rows are not counted; set `max_steps`";
            return Err(Problem::new("train.epochs", why));
        }
        if train.max_steps.is_none() {
            let why = "needs `max_steps`, because data.stream has no end";
            return Err(Problem::new("train", why));
        }
        Ok(())
    }
}

/// Checks the tokens that a recipe adds: none is empty, and none occurs twice.
fn check_added_tokens(base: &BaseConfig) -> Result<(), Problem> {
    let lists = [
        ("base.add_tokens", base.add_tokens.as_slice()),
        ("base.add_special_tokens", &base.add_special_tokens),
        ("base.pad_token", base.pad_token.as_slice()),
    ];
    let mut seen = Vec::new();
    for (key, token) in lists
        .iter()
        .flat_map(|(key, list)| list.iter().map(move |t| (*key, t)))
    {
        if token.is_empty() {
            return Err(Problem::new(key, "a token cannot be empty"));
        }
        if seen.contains(&token) {
            return Err(Problem::new(key, format!("duplicate token `{token}`")));
        }
        seen.push(token);
    }
    Ok(())
}
