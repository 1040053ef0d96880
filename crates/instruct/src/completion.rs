//! What continues a prompt: a local model, or a server.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use simmer_data::Message;

use crate::error::InstructError;

/// How a completion is sampled; the names are those of OpenAI's API.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sampling {
    /// The maximum number of new tokens. Fewer are asked for if the prompt leaves no room for them.
    pub max_tokens: usize,
    /// Divides the logits; 0: always the most likely token.
    #[serde(default = "one")]
    pub temperature: f64,
    /// Sample among the fewest tokens whose probabilities add up to this; 1: among all. 0 is the most likely token.
    #[serde(default = "one")]
    pub top_p: f64,
    /// Subtracted from the logit of each new token that is in the completion already, times its count.
    #[serde(default)]
    pub frequency_penalty: f64,
    /// Subtracted from the logit of each new token that is in the completion already.
    #[serde(default)]
    pub presence_penalty: f64,
    /// Texts at which the completion ends; they are not part of it.
    #[serde(default)]
    pub stop: Vec<String>,
    /// Added to the logits of tokens, by their IDs in GPT-3. Only sent to a server, if its table has `logit_bias = true`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub logit_bias: BTreeMap<String, f64>,
}

fn one() -> f64 {
    1.0
}

/// What is completed.
#[derive(Debug, Clone, Copy)]
pub enum Prompt<'a> {
    /// A text, which is continued.
    Text(&'a str),
    /// A conversation, which is answered: a local model needs a prompt template, a server gets the messages.
    Chat(&'a [Message]),
}

impl Prompt<'_> {
    /// The text, or the messages as JSON: what tells prompts apart.
    pub fn text(&self) -> Cow<'_, str> {
        match self {
            Self::Text(text) => Cow::Borrowed(text),
            // roles and texts always have a form in JSON
            Self::Chat(messages) => Cow::Owned(serde_json::to_string(messages).unwrap_or_default()),
        }
    }
}

/// A prompt to continue.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// The text, or the conversation.
    pub prompt: Prompt<'a>,
    /// How to sample.
    pub sampling: &'a Sampling,
    /// The seed of the samples, of this request alone.
    pub seed: u64,
}

/// Why a completion ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finish {
    /// The model ended it, or wrote a stop text.
    Stop,
    /// The maximum number of tokens was reached.
    Length,
    /// The prompt is longer than the model's context: there is no completion.
    TooLong,
}

/// A continued prompt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "a completion: an object with `text` and `finish`"
)]
pub struct Completion {
    /// The new text, without the stop text.
    pub text: String,
    /// Why it ended.
    pub finish: Finish,
    /// The number of the prompt's tokens; `None` if the server does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_tokens: Option<u64>,
    /// The number of new tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_tokens: Option<u64>,
}

impl Completion {
    /// Of a prompt that is longer than the model's context.
    pub fn too_long() -> Self {
        Self {
            text: String::new(),
            finish: Finish::TooLong,
            prompt_tokens: None,
            completion_tokens: None,
        }
    }
}

/// Whether the work is to stop.
pub type Stop<'a> = &'a (dyn Fn() -> bool + Sync);

/// Continues prompts.
pub trait Completions {
    /// Its name and what distinguishes it from others, for the journal and the rows.
    fn name(&self) -> String;

    /// Whether a batch is computed as a whole, so that a part of one is computed again after a kill.
    fn computes_batches(&self) -> bool;

    /// How many batches are computed at a time, each as a whole.
    fn batches_at_once(&self) -> usize {
        1
    }

    /// Names the batches that will be asked for after the next one, as far as they are known: so many that the next one and they are
    /// [`Completions::batches_at_once`] at most. They may be computed with the next one. The last of them may never be asked for.
    fn expect(&mut self, _batches: Vec<Vec<Request<'_>>>) {}

    /// Continues each request, and passes each completion to `done` with the number of its request when it arrives, in any
    /// order. After an error, completions that have arrived are passed to `done`, too.
    ///
    /// # Errors
    /// If one of the requests cannot be answered, if `done` fails, or if `stop` asks to stop.
    fn complete(
        &mut self,
        requests: &[Request<'_>],
        stop: Stop<'_>,
        done: &mut dyn FnMut(usize, Completion) -> Result<(), InstructError>,
    ) -> Result<(), InstructError>;
}
