//! Asks a model many questions at a time, and saves the answers as they arrive.

mod choices;
mod instructions;
mod texts;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use simmer_data::{Example, Template, Tokenizer};
use simmer_model::{LlamaForCausalLM, Scored};

use crate::answer::{Answer, Reference};
use crate::error::EvalError;
use crate::question::Question;
use crate::score::{Row, log_likelihood, score};
use crate::task::Task;

/// The number of tokens of a packed sequence; shared prefixes count once.
const RUN: usize = 4096;
/// The number of texts that are generated together.
const BATCH: usize = 16;

/// A model, and what is needed to ask it questions.
#[derive(Debug, Clone, Copy)]
pub struct Evaluator<'a> {
    /// The model.
    pub model: &'a LlamaForCausalLM,
    /// Its tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// The EOS tokens.
    pub eos: &'a [u32],
    /// The chat template that the prompts of generation tasks are put into.
    pub chat: Option<&'a Template>,
}

/// Where answers go as they arrive, and interruption.
pub struct Batches<'a> {
    /// Called with the answers of a batch of questions.
    pub keep: &'a mut dyn FnMut(Vec<Answer>) -> Result<(), EvalError>,
    /// Set when the evaluation is to be interrupted.
    pub stop: &'a AtomicBool,
    /// The folder of the results, for the error message.
    pub folder: &'a Path,
}

impl Batches<'_> {
    /// # Errors
    /// If the evaluation is interrupted.
    fn check(&self) -> Result<(), EvalError> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(EvalError::Interrupted {
                folder: self.folder.to_owned(),
            });
        }
        Ok(())
    }
}

impl Evaluator<'_> {
    /// Answers the questions at these places.
    ///
    /// # Errors
    /// [`EvalError`] if a question cannot be asked, the evaluation is interrupted, or answers cannot be kept.
    ///
    /// # Panics
    /// If there is no question at one of the places.
    pub fn ask(
        &self,
        task: &Task,
        questions: &[Question],
        places: &[usize],
        batches: &mut Batches<'_>,
    ) -> Result<(), EvalError> {
        match (&task.generation, &task.instruction) {
            (Some(generation), _) => {
                let prompt = |place: usize| self.text(&questions[place], place, generation);
                self.generate(questions, places, &prompt, generation, batches)
            }
            (None, Some(instruction)) => self.instruct(questions, places, instruction, batches),
            (None, None) => self.choose(questions, places, batches),
        }
    }

    /// The model's score of the trained tokens of each example; `None` for an example without any.
    pub fn examples(&self, examples: &[Example]) -> Vec<Option<Reference>> {
        let rows = examples.iter().map(|example| Row {
            tokens: example.tokens.clone(),
            asked: example.trained.clone(),
            cut: 0,
        });
        let rows: Vec<Row> = rows.collect();
        let mut found = Vec::with_capacity(rows.len());
        let mut begin = 0;
        while begin < rows.len() {
            let mut tokens = 0;
            let together = rows[begin..].iter().take_while(|row| {
                tokens += row.tokens.len();
                tokens <= RUN
            });
            let end = begin + together.count().max(1);
            let together: Vec<&Row> = rows[begin..end].iter().collect();
            let scored = score(self.model, &together);
            found.extend(scored.iter().map(|scored| Reference::of(scored)));
            begin = end;
        }
        found
    }

    fn limit(&self) -> usize {
        self.model.config().max_position_embeddings
    }
}

impl Reference {
    fn of(scored: &[Scored]) -> Option<Self> {
        let likeliest = scored.iter().filter(|token| token.is_likeliest);
        (!scored.is_empty()).then(|| Self {
            log_prob: log_likelihood(scored),
            tokens: scored.len(),
            likeliest: likeliest.count(),
        })
    }
}
