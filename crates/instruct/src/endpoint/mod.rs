//! Completions from a server of OpenAI's API: OpenAI's own, vLLM, llama.cpp, Ollama and others.
//!
//! Source: platform.openai.com/docs/api-reference, `/completions` and `/chat/completions`.

mod client;
mod config;
mod pace;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;

use client::Client;
pub use config::{Api, EndpointConfig};
use pace::Pace;

use crate::completion::{Completion, Completions, Request, Stop};
use crate::error::InstructError;

/// A server, and what was spent there.
#[derive(Debug)]
pub struct Endpoint {
    config: EndpointConfig,
    client: Client,
    pace: Pace,
    /// What was spent, by the recipe's prices.
    spent: Mutex<f64>,
}

impl Endpoint {
    /// A server as the recipe describes it. The key is read from the environment.
    ///
    /// # Errors
    /// If the address is invalid, or the key is missing.
    pub fn new(config: &EndpointConfig) -> Result<Self, InstructError> {
        config.check().map_err(|problem| InstructError::Endpoint {
            problem: problem.to_string(),
        })?;
        Ok(Self {
            config: config.clone(),
            client: Client::new(config)?,
            pace: Pace::new(config.requests_per_minute),
            spent: Mutex::new(0.0),
        })
    }

    /// Counts completions of the journal, which were paid for before.
    pub fn spend<'a>(&self, completions: impl Iterator<Item = &'a Completion>) {
        let before: f64 = completions
            .map(|completion| self.config.cost(completion))
            .sum();
        *self.spent.lock().unwrap_or_else(PoisonError::into_inner) += before;
    }

    fn within_budget(&self) -> Result<(), InstructError> {
        let spent = *self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        match self.config.max_cost {
            Some(limit) if spent >= limit => Err(InstructError::Budget { spent, limit }),
            _ => Ok(()),
        }
    }

    fn one(&self, request: &Request<'_>, stop: Stop<'_>) -> Result<Completion, InstructError> {
        self.within_budget()?;
        let completion = self.client.complete(request, &self.pace, stop)?;
        self.spend([&completion].into_iter());
        Ok(completion)
    }
}

impl Completions for Endpoint {
    fn name(&self) -> String {
        format!("{} at {}", self.config.model, self.config.url)
    }

    fn computes_batches(&self) -> bool {
        false
    }

    fn complete(
        &mut self,
        requests: &[Request<'_>],
        stop: Stop<'_>,
        done: &mut dyn FnMut(usize, Completion) -> Result<(), InstructError>,
    ) -> Result<(), InstructError> {
        let this = &*self;
        let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
        let threads = this.config.concurrency.min(requests.len()).max(1);
        let (sender, receiver) = mpsc::channel();
        thread::scope(|scope| {
            for _ in 0..threads {
                let (sender, next, failed) = (sender.clone(), &next, &failed);
                scope.spawn(move || {
                    // once one has failed, no other begins; those that wait for an answer are waited for
                    let given_up = || failed.load(Ordering::SeqCst) || stop();
                    while !given_up() {
                        let number = next.fetch_add(1, Ordering::SeqCst);
                        let Some(request) = requests.get(number) else {
                            break;
                        };
                        let answer = this.one(request, &given_up);
                        failed.fetch_or(answer.is_err(), Ordering::SeqCst);
                        if sender.send((number, answer)).is_err() {
                            break;
                        }
                    }
                });
            }
            drop(sender);
            let mut first: Option<InstructError> = None;
            for (number, answer) in receiver {
                let kept = answer.and_then(|completion| done(number, completion));
                if let Err(error) = kept {
                    failed.store(true, Ordering::SeqCst);
                    // a thread that was only told to give up has nothing to say
                    let says_more = !matches!(error, InstructError::Interrupted { .. });
                    if first.is_none() || says_more {
                        first = Some(error);
                    }
                }
            }
            match first {
                Some(error) => Err(error),
                None if stop() => Err(InstructError::interrupted()),
                None => Ok(()),
            }
        })
    }
}
