//! Questions to a model, many at a time, answers as they come.

mod choices;
mod instructions;
mod texts;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use simmer_data::{Example, Template, Tokenizer};
use simmer_model::{LlamaForCausalLM, Scored};

use crate::answer::{Answers, Reference};
use crate::error::EvalError;
use crate::question::Question;
use crate::score::{Row, log_likelihood, score};
use crate::task::Task;

/// Tokens that a model sees at a time, those that rows have in common counted once.
const RUN: usize = 4096;
/// Texts that are generated together.
const BATCH: usize = 16;

/// A model with what it needs to be asked.
#[derive(Debug, Clone, Copy)]
pub struct Evaluator<'a> {
    /// The model.
    pub model: &'a LlamaForCausalLM,
    /// Its tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// Tokens that end an answer.
    pub eos: &'a [u32],
    /// What the prompts of generation tasks are put into.
    pub chat: Option<&'a Template>,
}

/// What an evaluation tells while it runs, and what it looks at.
pub struct Watch<'a> {
    /// Told how many of how many questions are answered.
    pub progress: &'a mut dyn FnMut(usize, usize),
    /// Whether somebody asked to stop.
    pub stop: &'a AtomicBool,
    /// Where results are, for the message.
    pub folder: PathBuf,
}

impl Evaluator<'_> {
    /// Answers the questions that have no answer yet.
    ///
    /// # Errors
    /// [`EvalError`] where a question cannot be asked, and where somebody asked to stop.
    pub fn answer(
        &self,
        task: &Task,
        questions: &[Question],
        answers: &mut Answers,
        watch: &mut Watch<'_>,
    ) -> Result<(), EvalError> {
        let mut open = Vec::new();
        for (place, question) in questions.iter().enumerate() {
            if answers.find(question)?.is_none() {
                open.push(place);
            }
        }
        (watch.progress)(questions.len() - open.len(), questions.len());
        match (&task.generation, &task.instruction) {
            (Some(generation), _) => {
                let prompt = |place: usize| self.text(&questions[place], place, generation);
                self.generate(questions, &open, &prompt, generation, answers, watch)
            }
            (None, Some(instruction)) => {
                self.instruct(questions, &open, instruction, answers, watch)
            }
            (None, None) => self.choose(questions, &open, answers, watch),
        }
    }

    /// What the model makes of the trained tokens of each example; of one without any, nothing.
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

fn check(watch: &Watch<'_>) -> Result<(), EvalError> {
    if watch.stop.load(Ordering::Relaxed) {
        return Err(EvalError::Interrupted {
            folder: watch.folder.clone(),
        });
    }
    Ok(())
}
