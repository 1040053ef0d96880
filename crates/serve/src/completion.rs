//! Completions of plain texts.
//!
//! Source: OpenAI's API reference, "Create completion" (legacy).

use serde_json::{Value, json};

use crate::answer::{Piece, Spoken};
use crate::error::ApiError;
use crate::fields::Fields;
use crate::log_probs::of_completion;
use crate::prompt::Plain;
use crate::server::Defaults;
use crate::settings::Settings;

/// New tokens if the request does not say how many.
const NEW_TOKENS: usize = 16;
/// The most tokens whose log-probabilities are told at each place.
const MOST: u64 = 20;

/// A request for completions.
#[derive(Debug)]
pub(crate) struct CompletionRequest {
    pub(crate) model: Option<String>,
    pub(crate) prompts: Vec<Plain>,
    pub(crate) settings: Settings,
    /// Whether log-probabilities are told, and for how many of the most likely tokens.
    pub(crate) top: Option<usize>,
    /// Whether an answer begins with its prompt.
    pub(crate) echo: bool,
}

impl CompletionRequest {
    pub(crate) fn read(body: &[u8], defaults: &Defaults) -> Result<Self, ApiError> {
        let mut fields = Fields::of_request(body)?;
        let model = fields.text("model")?;
        let prompts = Plain::read(&mut fields)?;
        let mut settings = Settings::read(&mut fields, defaults)?;
        // -1 is "as many as there is room for" to llama.cpp's clients
        let is_open = fields.has("max_tokens", &json!(-1));
        let max_tokens = if is_open {
            fields.leave_out(&["max_tokens"]);
            None
        } else {
            fields.count("max_tokens", 0, u64::MAX)?
        };
        settings.max_tokens = max_tokens.or((!is_open).then_some(NEW_TOKENS));
        let echo = fields.flag("echo")?.unwrap_or(false);
        if max_tokens == Some(0) && !echo {
            return Err(ApiError::of("max_tokens", "0 new tokens need `echo`: true"));
        }
        if fields.has("logprobs", &json!(false)) {
            fields.leave_out(&["logprobs"]);
        }
        let top = fields.count("logprobs", 0, MOST)?;
        fields.only("suffix", &[json!("")])?;
        fields.finish()?;
        Ok(Self {
            model,
            prompts,
            settings,
            top,
            echo,
        })
    }
}

/// The choice of an answer, or of a part of it that begins at `offset` (in characters).
pub(crate) fn choice(
    index: usize,
    piece: &Piece,
    spoken: Option<&Spoken>,
    log_probs: bool,
    offset: usize,
) -> Value {
    json!({
        "index": index,
        "text": piece.text,
        "logprobs": log_probs.then(|| of_completion(&piece.tokens, offset)),
        "finish_reason": spoken.map(|spoken| spoken.finish.name()),
    })
}
