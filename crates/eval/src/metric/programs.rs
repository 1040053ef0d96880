//! Answers that are programs: run in a sandbox, all samples of all answers at a time.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;
use serde_json::Value;
use simmer_data::template::Blanks;
use simmer_sandbox::{Outcome, Sandbox};

use super::Score;
use super::pass_at_k::pass_at_k;
use crate::answer::Answer;
use crate::error::EvalError;
use crate::question::{Question, add_filters};
use crate::task::Generation;

/// The name of the template of programs, and the field that holds a text.
const PROGRAM: &str = "program";
const ANSWER: &str = "answer";

/// The programs of a task, and how they ended.
#[derive(Debug)]
pub(super) struct Programs {
    task: String,
    blanks: Blanks,
    /// By the program's text: equal programs run once.
    ended: HashMap<String, Outcome>,
}

impl Programs {
    pub(super) fn of(task: &str, generation: &Generation) -> Result<Option<Self>, EvalError> {
        let Some(source) = &generation.program else {
            return Ok(None);
        };
        let mut blanks = Blanks::default();
        add_filters(&mut blanks);
        blanks
            .add(PROGRAM, source)
            .map_err(|error| EvalError::Blank {
                name: task.to_owned(),
                error,
            })?;
        Ok(Some(Self {
            task: task.to_owned(),
            blanks,
            ended: HashMap::new(),
        }))
    }

    /// Checks that each question can become a program.
    pub(super) fn check(&self, questions: &[Question]) -> Result<(), EvalError> {
        let mut questions = questions.iter();
        questions.try_for_each(|question| self.program(question, "").map(drop))
    }

    /// Runs the programs of all answers. `progress` gets the number of programs that have ended, and of all.
    pub(super) fn run(
        &mut self,
        answers: &[(&Question, &Answer)],
        sandbox: &Sandbox,
        progress: &(dyn Fn(usize, usize) + Sync),
    ) -> Result<(), EvalError> {
        let mut programs = Vec::new();
        for (question, answer) in answers {
            for text in &answer.texts {
                programs.push(self.program(question, text)?);
            }
        }
        programs.sort_unstable();
        programs.dedup();
        programs.retain(|program| !self.ended.contains_key(program));
        let all = programs.len();
        let done = AtomicUsize::new(0);
        let run = |program: String| -> Result<(String, Outcome), EvalError> {
            let outcome = sandbox.run(&program)?;
            progress(done.fetch_add(1, Ordering::Relaxed) + 1, all);
            Ok((program, outcome))
        };
        let ended: Vec<_> = programs
            .into_par_iter()
            .map(run)
            .collect::<Result<_, _>>()?;
        self.ended.extend(ended);
        Ok(())
    }

    /// pass@k of an answer's samples.
    pub(super) fn scores(
        &self,
        question: &Question,
        answer: &Answer,
        generation: &Generation,
    ) -> Result<Vec<Score>, EvalError> {
        let mut right = 0;
        for text in &answer.texts {
            right += usize::from(*self.ended(question, text)? == Outcome::Passed);
        }
        let samples = answer.texts.len();
        let each = generation.pass_at(samples).into_iter();
        let each = each.map(|k| Score::of(format!("pass@{k}"), pass_at_k(samples, right, k)));
        Ok(each.collect())
    }

    /// How many programs of these answers ended how: `passed`, `failed`, `timed out`, `wrote too much`, `had too
    /// much memory`.
    pub(super) fn counts(
        &self,
        answers: &[(&Question, &Answer)],
    ) -> Result<BTreeMap<&'static str, usize>, EvalError> {
        let mut counts = BTreeMap::new();
        for (question, answer) in answers {
            for text in &answer.texts {
                let name = match self.ended(question, text)? {
                    Outcome::Passed => "passed",
                    Outcome::Failed(_) => "failed",
                    Outcome::TimedOut => "timed out",
                    Outcome::TooMuchOutput => "wrote too much",
                    Outcome::TooMuchMemory => "had too much memory",
                };
                *counts.entry(name).or_insert(0) += 1;
            }
        }
        Ok(counts)
    }

    fn ended(&self, question: &Question, text: &str) -> Result<&Outcome, EvalError> {
        let ended = self.ended.get(&self.program(question, text)?);
        ended.ok_or_else(|| EvalError::NotRun {
            name: self.task.clone(),
        })
    }

    fn program(&self, question: &Question, text: &str) -> Result<String, EvalError> {
        let mut fields = question.fields.clone();
        fields.insert(ANSWER.to_owned(), Value::String(text.to_owned()));
        let filled = self.blanks.fill(PROGRAM, &fields);
        filled.map_err(|error| EvalError::row(&question.origin, error))
    }
}
