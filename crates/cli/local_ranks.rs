//! A local model that completes prompts on several ranks.
//!
//! What is dealt are prompts that are computed together, which the recipe alone decides: so no text depends on the ranks. Rank 0
//! asks, and keeps what other ranks have completed until the run comes to it.

use serde::{Deserialize, Serialize};
use simmer_instruct::{
    Completion, Completions, InstructError, Prompt, Request, Sampling, Stop as Stopped,
};
use simmer_train::program;
use simmer_train::ranks::{Ranks, RanksError};

use crate::local_model::Local;

/// A prompt on its way to another rank.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Asked {
    prompt: String,
    sampling: Sampling,
    seed: u64,
}

/// Prompts that are computed together.
type Group = Vec<Asked>;

/// What rank 0 tells another rank.
#[derive(Debug, Serialize, Deserialize)]
enum Told {
    /// To complete these.
    Complete(Vec<Group>),
    /// The run has ended.
    End,
}

/// What it gets back: completions of each group, or an error.
type Reply = Result<Vec<Vec<Completion>>, String>;

/// What a rank was started with: it must complete prompts as rank 0 does.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Greeting {
    program: String,
    model: String,
}

/// The model of rank 0, and the other ranks.
pub(crate) struct OnRanks<'a> {
    local: Local,
    ranks: &'a dyn Ranks,
    /// What the run asks for next.
    expected: Vec<Group>,
    /// What it has not asked for yet.
    completed: Vec<(Group, Vec<Completion>)>,
    failed: Option<RanksError>,
}

impl<'a> OnRanks<'a> {
    /// Waits until the other ranks have their model.
    ///
    /// # Errors
    /// A rank that has failed, or has another program or model.
    pub(crate) fn new(local: Local, ranks: &'a dyn Ranks) -> Result<Self, RanksError> {
        let ours = Greeting::of(&local);
        for rank in 1..ranks.size() {
            let theirs: Result<Greeting, String> = read(&ranks.receive(rank)?, rank)?;
            let theirs = theirs.map_err(|why| RanksError::Failed { rank, why })?;
            ours.check(rank, theirs)?;
        }
        Ok(Self {
            local,
            ranks,
            expected: Vec::new(),
            completed: Vec::new(),
            failed: None,
        })
    }

    /// The error between ranks that has ended the run, if one has.
    pub(crate) fn failed(&mut self) -> Option<RanksError> {
        self.failed.take()
    }

    /// Ends the run on all ranks.
    ///
    /// # Errors
    /// A rank that has ended before.
    pub(crate) fn end(&self) -> Result<(), RanksError> {
        for rank in 1..self.ranks.size() {
            self.ranks.send(rank, written(&Told::End))?;
        }
        self.ranks.end();
        Ok(())
    }

    fn is_completed(&self, group: &Group) -> bool {
        self.completed.iter().any(|(known, _)| known == group)
    }

    /// Completes groups on all ranks.
    fn round(&mut self, groups: Vec<Group>, stop: Stopped<'_>) -> Result<(), InstructError> {
        let share = groups.len().div_ceil(self.ranks.size());
        let mut shares = groups.chunks(share);
        let own = shares.next().unwrap_or_default();
        let others: Vec<(usize, &[Group])> = (1..).zip(shares).collect();
        for (rank, share) in &others {
            let told = written(&Told::Complete(share.to_vec()));
            let sent = self.ranks.send(*rank, told);
            sent.map_err(|error| self.lost(error))?;
        }
        let mut completed = all(&mut self.local, own, stop)?;
        for (rank, share) in others {
            let theirs = self.replied(rank, share.len());
            completed.extend(theirs.map_err(|error| self.lost(error))?);
        }
        self.completed.extend(groups.into_iter().zip(completed));
        Ok(())
    }

    fn replied(&self, rank: usize, groups: usize) -> Result<Vec<Vec<Completion>>, RanksError> {
        let reply: Reply = read(&self.ranks.receive(rank)?, rank)?;
        let completed = reply.map_err(|why| RanksError::Failed { rank, why })?;
        if completed.len() == groups {
            return Ok(completed);
        }
        let why = format!(
            "expected the completions of {groups} groups of prompts, found {}",
            completed.len()
        );
        Err(RanksError::Message { rank, why })
    }

    /// Keeps an error of the ranks, which is reported in place of the run's.
    fn lost(&mut self, error: RanksError) -> InstructError {
        if error == RanksError::Stopped {
            return InstructError::interrupted();
        }
        let text = error.to_string();
        self.failed = Some(error);
        InstructError::Model(text)
    }
}

impl Completions for OnRanks<'_> {
    fn name(&self) -> String {
        self.local.name()
    }

    fn computes_batches(&self) -> bool {
        true
    }

    fn batches_at_once(&self) -> usize {
        self.ranks.size()
    }

    fn expect(&mut self, batches: Vec<Vec<Request<'_>>>) {
        let groups = batches.iter().flat_map(|batch| self.local.groups(batch));
        // a wrong prompt is an error when it is asked for
        self.expected = groups.filter_map(|group| asked(group).ok()).collect();
    }

    fn complete(
        &mut self,
        requests: &[Request<'_>],
        stop: Stopped<'_>,
        done: &mut dyn FnMut(usize, Completion) -> Result<(), InstructError>,
    ) -> Result<(), InstructError> {
        let groups = self.local.groups(requests).map(asked);
        let groups: Vec<Group> = groups.collect::<Result<_, _>>()?;
        let is_open = |group: &&Group| !self.is_completed(group);
        let mut open: Vec<Group> = groups.iter().filter(is_open).cloned().collect();
        if !open.is_empty() {
            // each rank has equally many, as far as the next batches are known
            let places = open.len().next_multiple_of(self.ranks.size());
            let expected = self.expected.iter().filter(is_open);
            open.extend(expected.take(places - open.len()).cloned());
            // what the run has not come to by now it does not ask for
            self.completed.retain(|(group, _)| groups.contains(group));
            self.round(open, stop)?;
        }
        let mut number = 0;
        for group in &groups {
            let place = self.completed.iter().position(|(known, _)| known == group);
            let completions = place.map(|place| self.completed.swap_remove(place).1);
            for completion in completions.unwrap_or_default() {
                done(number, completion)?;
                number += 1;
            }
        }
        Ok(())
    }
}

impl Greeting {
    fn of(local: &Local) -> Self {
        Self {
            program: format!("{} {}", program::VERSION, program::COMMIT),
            model: local.name(),
        }
    }

    /// Whether another rank has the same.
    fn check(&self, rank: usize, theirs: Self) -> Result<(), RanksError> {
        let both = [
            ("program", &self.program, theirs.program),
            ("model", &self.model, theirs.model),
        ];
        for (what, ours, theirs) in both {
            if *ours != theirs {
                return Err(RanksError::Differs {
                    rank,
                    what,
                    ours: ours.clone(),
                    theirs,
                });
            }
        }
        Ok(())
    }
}

/// Completes what rank 0 asks for, until the run has ended.
///
/// # Errors
/// If rank 0 has ended.
pub(crate) fn follow(local: &mut Local, ranks: &dyn Ranks) -> Result<(), RanksError> {
    let greeting: Result<Greeting, String> = Ok(Greeting::of(local));
    ranks.send(0, written(&greeting))?;
    loop {
        let told: Told = read(&ranks.receive(0)?, 0)?;
        let groups = match told {
            Told::Complete(groups) => groups,
            Told::End => {
                ranks.end();
                return Ok(());
            }
        };
        let reply: Reply = all(local, &groups, &|| false).map_err(|error| error.to_string());
        ranks.send(0, written(&reply))?;
    }
}

/// The completions of each group.
fn all(
    local: &mut Local,
    groups: &[Group],
    stop: Stopped<'_>,
) -> Result<Vec<Vec<Completion>>, InstructError> {
    let one = |group: &Group| -> Result<Vec<Completion>, InstructError> {
        let requests = group.iter().map(|asked| Request {
            prompt: Prompt::Text(&asked.prompt),
            sampling: &asked.sampling,
            seed: asked.seed,
        });
        let requests: Vec<Request<'_>> = requests.collect();
        let mut found: Vec<Option<Completion>> = vec![None; requests.len()];
        let mut keep = |number: usize, completion| {
            found[number] = Some(completion);
            Ok(())
        };
        local.complete(&requests, stop, &mut keep)?;
        Ok(found.into_iter().flatten().collect())
    };
    groups.iter().map(one).collect()
}

fn asked(group: &[Request<'_>]) -> Result<Group, InstructError> {
    let one = |request: &Request<'_>| match request.prompt {
        Prompt::Text(text) => Ok(Asked {
            prompt: text.to_owned(),
            sampling: request.sampling.clone(),
            seed: request.seed,
        }),
        Prompt::Chat(_) => Err(InstructError::Model(
            "several ranks complete texts, not conversations".to_owned(),
        )),
    };
    group.iter().map(one).collect()
}

fn written(message: &impl Serialize) -> Vec<u8> {
    // texts and numbers always have a form in JSON
    serde_json::to_vec(message).unwrap_or_default()
}

fn read<T: for<'a> Deserialize<'a>>(bytes: &[u8], rank: usize) -> Result<T, RanksError> {
    serde_json::from_slice(bytes).map_err(|error| RanksError::Message {
        rank,
        why: error.to_string(),
    })
}
