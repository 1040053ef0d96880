//! `simmer eval` on several ranks: each answers a share of the questions, and rank 0 keeps the answers of all.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use serde::{Deserialize, Serialize};
use simmer_eval::{Answer, Answers, Asking, Batches, EvalError, Evaluator, Question, Task};
use simmer_train::ranks::{Ranks, RanksError};

use crate::failure::Failure;

/// So many questions are asked of each rank at a time. Between them rank 0 saves the answers of all.
const SHARE: usize = 64;

/// What rank 0 tells another rank.
#[derive(Debug, Serialize, Deserialize)]
enum Told {
    /// To answer the questions at these places.
    Answer { asking: Asking, places: Vec<usize> },
    /// There are no more questions of this model and task.
    Next,
}

/// What it gets back: the answers, or an error.
type Reply = Result<Vec<Answer>, String>;

/// A model's questions of one task.
pub(super) struct Shared<'a> {
    pub(super) ranks: &'a dyn Ranks,
    pub(super) evaluator: &'a Evaluator<'a>,
    pub(super) task: &'a Task,
    pub(super) questions: &'a [Question],
    pub(super) asking: &'a Asking,
    pub(super) stop: &'a AtomicBool,
    /// The folder of the results, for the error message.
    pub(super) folder: &'a Path,
}

impl Shared<'_> {
    /// Deals the questions that have no answer yet, answers a share of them, and saves the answers of all ranks. `progress` gets the
    /// number of answers.
    pub(super) fn lead(
        &self,
        answers: &mut Answers,
        progress: &mut dyn FnMut(usize),
    ) -> Result<(), Failure> {
        let open = answers.open_questions(self.questions)?;
        progress(answers.len());
        for round in open.chunks(SHARE * self.ranks.size()) {
            let mut shares = round.chunks(round.len().div_ceil(self.ranks.size()));
            let own = shares.next().unwrap_or_default();
            let others: Vec<(usize, &[usize])> = (1..).zip(shares).collect();
            for (rank, share) in &others {
                self.tell(
                    *rank,
                    &Told::Answer {
                        asking: self.asking.clone(),
                        places: share.to_vec(),
                    },
                )?;
            }
            self.answer(own, &mut |new| {
                answers.add(new)?;
                progress(answers.len());
                Ok(())
            })?;
            for (rank, share) in others {
                answers.add(self.answers_of(rank, share)?)?;
                progress(answers.len());
            }
        }
        for rank in 1..self.ranks.size() {
            self.tell(rank, &Told::Next)?;
        }
        Ok(())
    }

    /// Answers what rank 0 asks for.
    pub(super) fn follow(&self) -> Result<(), Failure> {
        loop {
            let bytes = self.ranks.receive(0)?;
            let told = serde_json::from_slice(&bytes).map_err(|error| wrong(0, &error))?;
            let Told::Answer { asking, places } = told else {
                return Ok(());
            };
            let reply: Reply = if asking == *self.asking {
                let mut found = Vec::new();
                let mut keep = |new| {
                    found.extend(new);
                    Ok(())
                };
                let answered = self.answer(&places, &mut keep);
                answered.map(|()| found).map_err(|error| error.to_string())
            } else {
                Err(format!(
                    "it evaluates {} on {} with other weights or questions than rank 0",
                    self.asking.model, self.asking.task
                ))
            };
            let bytes = serde_json::to_vec(&reply).map_err(Failure::foreign)?;
            self.ranks.send(0, bytes)?;
        }
    }

    fn answer(
        &self,
        places: &[usize],
        keep: &mut dyn FnMut(Vec<Answer>) -> Result<(), EvalError>,
    ) -> Result<(), EvalError> {
        let mut batches = Batches {
            keep,
            stop: self.stop,
            folder: self.folder,
        };
        self.evaluator
            .ask(self.task, self.questions, places, &mut batches)
    }

    fn tell(&self, rank: usize, told: &Told) -> Result<(), Failure> {
        let bytes = serde_json::to_vec(told).map_err(Failure::foreign)?;
        Ok(self.ranks.send(rank, bytes)?)
    }

    /// The answers of another rank to the questions of its share.
    fn answers_of(&self, rank: usize, share: &[usize]) -> Result<Vec<Answer>, Failure> {
        let bytes = match self.ranks.receive(rank) {
            Err(RanksError::Stopped) => {
                return Err(EvalError::Interrupted {
                    folder: self.folder.to_owned(),
                }
                .into());
            }
            received => received?,
        };
        let reply: Reply = serde_json::from_slice(&bytes).map_err(|error| wrong(rank, &error))?;
        let answers = reply.map_err(|why| RanksError::Failed { rank, why })?;
        if answers.len() != share.len() {
            let why = format!("expected {} answers, found {}", share.len(), answers.len());
            return Err(RanksError::Message { rank, why }.into());
        }
        Ok(answers)
    }
}

fn wrong(rank: usize, error: &serde_json::Error) -> RanksError {
    RanksError::Message {
        rank,
        why: error.to_string(),
    }
}
