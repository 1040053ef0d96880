//! A text to continue, and what becomes of it.

use tokio::sync::mpsc::UnboundedSender;

use crate::grammar::Grammar;
use crate::metrics::Ticket;

/// A text to continue.
#[derive(Debug)]
pub struct Job {
    /// Which of the served models.
    pub model: usize,
    /// The tokens of its prompt, fewer than the model's context has.
    pub tokens: Vec<u32>,
    /// The most new tokens; 0 if only the prompt is scored.
    pub max_tokens: usize,
    /// How its tokens are chosen.
    pub sampling: Sampling,
    /// For how many of the most likely tokens at each place log-probabilities are told.
    pub top: usize,
    /// Whether the tokens of the prompt are scored, too.
    pub scores_prompt: bool,
    /// What limits its new tokens.
    pub grammar: Option<Grammar>,
    /// Who reads the answer.
    pub reader: Reader,
}

/// Who reads an answer. The text counts as one that is continued or waits until this is dropped.
#[derive(Debug)]
pub struct Reader {
    pub(crate) events: UnboundedSender<Event>,
    #[expect(dead_code, reason = "counts the text until it is dropped")]
    pub(crate) ticket: Ticket,
}

impl Reader {
    /// Tells what has become of the text, if the reader is still there.
    pub fn tell(&self, event: Event) {
        // who has gone is noticed before the next step
        let _ = self.events.send(event);
    }

    /// Whether nobody reads the answer any more.
    pub fn has_gone(&self) -> bool {
        self.events.is_closed()
    }
}

/// How tokens are chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0: always the most likely token.
    pub temperature: f64,
    /// Sample among the fewest tokens whose probabilities add up to it.
    pub top_p: f64,
    /// Sample among so many of the most likely tokens; 0: among all.
    pub top_k: usize,
    /// Divides positive logits of tokens in the text, and multiplies negative ones.
    pub repetition_penalty: f64,
    /// Subtracted from the logits of tokens in the new text, once per occurrence.
    pub frequency_penalty: f64,
    /// Subtracted from them once.
    pub presence_penalty: f64,
    /// Seed of the samples.
    pub seed: u64,
}

/// What becomes of a text.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Its prompt is computed.
    Began {
        /// How many of the prompt's first tokens were in the cache already.
        cached: usize,
        /// The tokens of the prompt after the first one, if they are scored.
        scored: Vec<Token>,
    },
    /// A new token.
    Token(Token),
    /// The text has ended.
    Ended(Finish),
    /// It cannot be continued.
    Failed(String),
}

/// A token with its log-probability.
#[derive(Debug, Clone, PartialEq)]
pub struct Token {
    /// The token.
    pub id: u32,
    /// Natural logarithm of its probability.
    pub log_prob: f32,
    /// The most likely tokens at this place, the most likely first.
    pub top: Vec<Likely>,
}

/// A token that was likely at some place, and its log-probability.
pub type Likely = (u32, f32);

/// Why a text has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// The model has ended it, or it has a stop text.
    Stop,
    /// It has the most tokens that it may have, or has filled the context.
    Length,
}

impl Finish {
    /// Its name in the API.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
        }
    }
}
