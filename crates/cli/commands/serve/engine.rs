//! The loop of a server: takes texts from its requests, and continues them together.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use simmer_model::{Asked, Began, Chosen, Grammar, Next, Running, Sampling, Stop, TextId};
use simmer_serve::{Event, Finish, Job, Reader, Server, Token};

use crate::loaded::Loaded;

/// How often a server without work looks for signals.
const WAIT: Duration = Duration::from_millis(100);

/// How long a server that ends waits for connections on which nothing is computed any more.
const PATIENCE: Duration = Duration::from_secs(3);

/// The models of a server, and the texts that they continue.
pub(super) struct Engine<'a> {
    models: Vec<Continued<'a>>,
    /// The most texts that are continued at the same time.
    together: usize,
    waiting: VecDeque<Job>,
}

/// A model, and who reads each of its texts.
struct Continued<'a> {
    running: Running<'a>,
    readers: HashMap<TextId, Reader>,
}

impl<'a> Engine<'a> {
    /// For models with these contexts.
    pub(super) fn new(
        loaded: &'a [Loaded],
        contexts: &[usize],
        cache_tokens: usize,
        together: usize,
    ) -> Self {
        let models = loaded
            .iter()
            .zip(contexts)
            .map(|(loaded, context)| Continued {
                running: Running::new(&loaded.model, &loaded.eos, *context, cache_tokens),
                readers: HashMap::new(),
            });
        Self {
            models: models.collect(),
            together,
            waiting: VecDeque::new(),
        }
    }

    /// Continues texts until the server has ended. After `stop` it accepts no more requests. `false`: all texts have ended, but there
    /// are connections that do not.
    pub(super) fn run(&mut self, jobs: &Receiver<Job>, server: &Server, stop: &AtomicBool) -> bool {
        let mut idle_since: Option<Instant> = None;
        let mut stopped = false;
        while !server.has_ended() {
            if !stopped && stop.load(Ordering::SeqCst) {
                stopped = true;
                server.stop();
            }
            self.waiting.extend(jobs.try_iter());
            self.begin();
            let continued = self.models.iter_mut().map(Continued::step);
            if continued.fold(false, |any, one| any | one) {
                idle_since = None;
                continue;
            }
            let idle_since = idle_since.get_or_insert_with(Instant::now);
            if stopped && idle_since.elapsed() > PATIENCE {
                return false;
            }
            match jobs.recv_timeout(WAIT) {
                Ok(job) => self.waiting.push_back(job),
                Err(RecvTimeoutError::Timeout) => {}
                // the server has dropped its end
                Err(RecvTimeoutError::Disconnected) => return true,
            }
        }
        true
    }

    /// Takes texts that wait, as many as are continued at the same time.
    fn begin(&mut self) {
        let mut running: usize = self.models.iter().map(|model| model.readers.len()).sum();
        while running < self.together
            && let Some(job) = self.waiting.pop_front()
        {
            if job.reader.has_gone() {
                continue;
            }
            let model = &mut self.models[job.model];
            running += usize::from(model.begin(job));
        }
    }
}

impl Continued<'_> {
    /// Begins with a text. `false` if it is over at once, or cannot be continued.
    fn begin(&mut self, job: Job) -> bool {
        if job.max_tokens == 0 && !job.scores_prompt {
            job.reader.tell(Event::Ended(Finish::Length));
            return false;
        }
        let asked = Asked {
            tokens: job.tokens,
            max_new_tokens: job.max_tokens,
            sampling: sampling(&job.sampling),
            top: job.top,
            scores_prompt: job.scores_prompt,
        };
        let grammar = job.grammar.map(|grammar| Box::new(Limited(grammar)) as _);
        match self.running.begin_within(asked, grammar) {
            Ok(id) => {
                self.readers.insert(id, job.reader);
                true
            }
            Err(error) => {
                job.reader.tell(Event::Failed(error.to_string()));
                false
            }
        }
    }

    /// Continues the texts that somebody reads. `false` if there are none.
    fn step(&mut self) -> bool {
        let running = &mut self.running;
        self.readers.retain(|id, reader| {
            let is_read = !reader.has_gone();
            if !is_read {
                running.end(*id);
            }
            is_read
        });
        if running.is_empty() {
            return false;
        }
        for next in running.step() {
            let Next {
                text,
                began,
                chosen,
                stop,
                problem,
            } = next;
            let Some(reader) = self.readers.get(&text) else {
                continue;
            };
            if let Some(Began { cached, scored }) = began {
                let scored = scored.into_iter().map(token).collect();
                reader.tell(Event::Began { cached, scored });
            }
            if let Some(chosen) = chosen {
                reader.tell(Event::Token(token(chosen)));
            }
            if let Some(stop) = stop {
                reader.tell(problem.map_or(Event::Ended(finish(stop)), Event::Failed));
                self.readers.remove(&text);
            }
        }
        true
    }
}

/// What limits the tokens of a text to the form that its request asks for.
#[derive(Debug)]
struct Limited(simmer_serve::Grammar);

impl Grammar for Limited {
    fn limit(&mut self, logits: &mut [f32]) -> Result<(), String> {
        self.0.limit(logits)
    }

    fn take(&mut self, token: u32) -> Result<bool, String> {
        self.0.take(token)
    }
}

fn token(chosen: Chosen) -> Token {
    let Chosen {
        token,
        log_prob,
        top,
    } = chosen;
    Token {
        id: token,
        log_prob,
        top,
    }
}

fn finish(stop: Stop) -> Finish {
    match stop {
        Stop::Eos(_) | Stop::Caller => Finish::Stop,
        Stop::Length | Stop::Context => Finish::Length,
    }
}

fn sampling(asked: &simmer_serve::Sampling) -> Sampling {
    Sampling {
        temperature: asked.temperature,
        top_k: asked.top_k,
        top_p: asked.top_p,
        repetition_penalty: asked.repetition_penalty,
        frequency_penalty: asked.frequency_penalty,
        presence_penalty: asked.presence_penalty,
        seed: asked.seed,
    }
}
