//! A run: prompts, completions from the journal or the model, and what is kept of them.

mod stages;

use std::path::PathBuf;

use serde::Serialize;
use simmer_data::Random;

use crate::ask::ask;
use crate::completion::{Completion, Completions, Prompt, Request, Sampling, Stop};
use crate::dialogue::Dialogue;
use crate::error::InstructError;
use crate::filter::Reason;
use crate::journal::{Journal, Key, Stage};
use crate::method::Method;
use crate::recipe::GenerateRecipe;
use crate::seeds::Seeds;

/// What a run is watched with.
pub struct Watch<'a> {
    /// Called with the stage, and how much of it is done and to do.
    pub progress: &'a mut dyn FnMut(Stage, usize, usize),
    /// Whether to stop.
    pub stop: Stop<'a>,
}

/// A run.
pub struct Run<'a> {
    /// The recipe.
    pub recipe: &'a GenerateRecipe,
    /// The method that it names.
    pub method: &'a Method,
    /// The seeds that it names.
    pub seeds: &'a Seeds,
    /// The completions so far.
    pub journal: &'a mut Journal,
    /// What completes prompts.
    pub completions: &'a mut dyn Completions,
    /// What it is watched with.
    pub watch: Watch<'a>,
}

/// A row: an instruction with an instance.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The instruction.
    pub instruction: String,
    /// The input; may be empty.
    pub input: String,
    /// The output.
    pub output: String,
    /// The number of its instruction in [`Outcome::instructions`]; `None` for the row of a seed.
    pub of: Option<usize>,
    /// The prompt that the instance comes from.
    pub key: Option<Key>,
}

/// A kept instruction, and where it comes from.
#[derive(Debug, Clone, PartialEq)]
pub struct Kept {
    /// The text.
    pub text: String,
    /// The prompt.
    pub key: Key,
    /// Its place in the completion, from 0, dropped ones counted.
    pub part: usize,
    /// The names of the instructions in the prompt.
    pub examples: Vec<String>,
    /// The most similar instructions before it, with their ROUGE-L.
    pub nearest: Vec<(String, f64)>,
    /// The mean ROUGE-L with all before it.
    pub mean: f64,
    /// Whether it is a classification task; `None` if the method does not ask.
    pub is_classification: Option<bool>,
}

/// Something that is dropped.
#[derive(Debug, Clone, PartialEq)]
pub struct Dropped {
    /// The prompt.
    pub key: Key,
    /// The text.
    pub text: String,
    /// Why.
    pub reason: Reason,
}

/// What a run makes.
#[derive(Debug, Clone, PartialEq)]
pub enum Made {
    /// Rows of Alpaca's format.
    Rows(Vec<Row>),
    /// Conversations, with the prompt of each.
    Dialogues(Vec<(Dialogue, Key)>),
}

/// Why a run asks for no more instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// The target is reached.
    Target,
    /// There were `max_batches` batches.
    MaxBatches,
    /// Nothing of the last `patience` batches was kept.
    Patience,
    /// Every seed was used.
    Seeds,
}

/// The result of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// What it made.
    pub made: Made,
    /// The instructions that were kept, also those without an instance.
    pub instructions: Vec<Kept>,
    /// What was dropped.
    pub dropped: Vec<Dropped>,
    /// Why it ended.
    pub ended: Ended,
}

/// A prompt of a batch.
struct Ask<'a> {
    prompt: String,
    sampling: &'a Sampling,
    seed: u64,
    /// The names of its examples.
    examples: Vec<String>,
}

impl Ask<'_> {
    fn request(&self) -> Request<'_> {
        Request {
            prompt: Prompt::Text(&self.prompt),
            sampling: self.sampling,
            seed: self.seed,
        }
    }
}

/// The random numbers of one prompt.
fn random(seed: u64, stage: Stage, batch: usize, place: usize) -> Random {
    let stage = match stage {
        Stage::Instructions => 1,
        Stage::Classification => 2,
        Stage::Instances => 3,
        Stage::Dialogue => 4,
    };
    let salt = Random::new(stage, 0).next();
    Random::new(seed ^ salt, (batch as u64) << 20 | place as u64)
}

impl Run<'_> {
    /// Runs the method to its end. Completions that the journal has are not asked for again.
    ///
    /// # Errors
    /// If a prompt cannot be completed, or the run is interrupted. The journal has all completions so far.
    pub fn run(mut self) -> Result<Outcome, InstructError> {
        let method = self.method;
        let filter = method.filter.as_ref();
        match (&method.staged, &method.joint, &method.dialogue, filter) {
            (Some(staged), _, _, Some(filter)) => self.staged(staged, filter),
            (_, Some(joint), _, Some(filter)) => self.joint(joint, filter),
            (_, _, Some(dialogue), _) => self.dialogues(dialogue),
            _ => Err(InstructError::Invalid {
                path: PathBuf::from(&self.recipe.method),
                problem: "the method has no stages".to_owned(),
            }),
        }
    }

    /// Completes the prompts of a batch. `following` has those of a later one, none if they are not known yet.
    fn ask<'b>(
        &mut self,
        stage: Stage,
        batch: usize,
        asks: &[Ask<'_>],
        following: &dyn Fn(usize) -> Vec<Ask<'b>>,
    ) -> Result<Vec<Completion>, InstructError> {
        let more = (batch + 1..batch + self.completions.batches_at_once()).map(following);
        let more: Vec<Vec<Ask<'b>>> = more.take_while(|asks| !asks.is_empty()).collect();
        let mut expected: Vec<Vec<Request<'_>>> = Vec::with_capacity(more.len());
        for asks in &more {
            expected.push(asks.iter().map(Ask::request).collect());
        }
        self.completions.expect(expected);
        let asks = asks.iter().enumerate().map(|(place, ask)| crate::ask::Ask {
            key: Key {
                stage,
                batch,
                place,
            },
            prompt: Prompt::Text(&ask.prompt),
            sampling: ask.sampling,
            seed: ask.seed,
        });
        let asks: Vec<_> = asks.collect();
        let stop = self.watch.stop;
        ask(self.journal, self.completions, &asks, stop, &mut || ())
    }

    /// The outcome with the rows of the seeds, if the recipe asks for them.
    fn with_seeds(&self, mut outcome: Outcome) -> Outcome {
        if let (true, Made::Rows(rows)) = (self.recipe.include_seeds, &mut outcome.made) {
            for seed in &self.seeds.all {
                rows.extend(seed.instances.iter().map(|instance| Row {
                    instruction: seed.instruction.clone(),
                    input: instance.input.clone(),
                    output: instance.output.clone(),
                    of: None,
                    key: None,
                }));
            }
        }
        outcome
    }
}

/// Instructions, and for each the number that `parse` gave it.
struct Found {
    outcome: Outcome,
    candidates: Vec<usize>,
}
