//! Completions from the journal, or from the model.

use crate::completion::{Completion, Completions, Prompt, Request, Sampling, Stop};
use crate::error::InstructError;
use crate::journal::{Journal, JournalKey};

/// A prompt, and what its completion is found by in the journal.
#[derive(Debug, Clone)]
pub struct Ask<'a, K> {
    /// Its place in the journal.
    pub key: K,
    /// The prompt.
    pub prompt: Prompt<'a>,
    /// How to sample.
    pub sampling: &'a Sampling,
    /// The seed of its samples.
    pub seed: u64,
}

/// Completes prompts. Those that the journal has are not asked for again, except by a model that computes batches, if a part
/// of this batch is missing. Each completion is in the journal before `arrived` is called.
///
/// # Errors
/// If a prompt cannot be completed, the journal has a completion of another prompt in its place, or `stop` asks to stop.
pub fn ask<K: JournalKey>(
    journal: &mut Journal<K>,
    completions: &mut dyn Completions,
    asks: &[Ask<'_, K>],
    stop: Stop<'_>,
    arrived: &mut dyn FnMut(),
) -> Result<Vec<Completion>, InstructError> {
    let mut found = Vec::with_capacity(asks.len());
    for ask in asks {
        found.push(journal.find(&ask.key, &ask.prompt.text())?.cloned());
    }
    let mut missing: Vec<usize> = (0..asks.len())
        .filter(|number| found[*number].is_none())
        .collect();
    if !missing.is_empty() && completions.computes_batches() {
        missing = (0..asks.len()).collect();
    }
    let requests = missing.iter().map(|number| Request {
        prompt: asks[*number].prompt,
        sampling: asks[*number].sampling,
        seed: asks[*number].seed,
    });
    let requests: Vec<Request<'_>> = requests.collect();
    let interrupted = InstructError::Interrupted {
        journal: journal.path().to_owned(),
    };
    if !requests.is_empty() {
        if stop() {
            return Err(interrupted);
        }
        let mut done = |number: usize, completion: Completion| {
            let number = missing[number];
            let Ask { key, prompt, .. } = &asks[number];
            journal.add(key.clone(), &prompt.text(), completion.clone())?;
            found[number] = Some(completion);
            arrived();
            Ok(())
        };
        let completed = completions.complete(&requests, stop, &mut done);
        completed.map_err(|error| match error {
            InstructError::Interrupted { .. } => interrupted,
            error => error,
        })?;
    }
    let found: Vec<Completion> = found.into_iter().flatten().collect();
    if found.len() == asks.len() {
        return Ok(found);
    }
    Err(InstructError::Model(format!(
        "{} of {} prompts were completed",
        found.len(),
        asks.len()
    )))
}
