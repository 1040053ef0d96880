//! Chat completions.
//!
//! Source: OpenAI's API reference, "Create chat completion" and "The chat completion chunk object".

use serde_json::{Value, json};

use crate::answer::{Piece, Spoken};
use crate::error::ApiError;
use crate::fields::Fields;
use crate::log_probs::of_chat;
use crate::prompt::Messages;
use crate::server::Defaults;
use crate::settings::Settings;

/// The most tokens whose log-probabilities are told at each place.
const MOST: u64 = 20;

/// A request for a chat completion.
#[derive(Debug)]
pub(crate) struct ChatRequest {
    pub(crate) model: Option<String>,
    pub(crate) messages: Messages,
    pub(crate) settings: Settings,
    /// Whether log-probabilities are told, and for how many of the most likely tokens.
    pub(crate) top: Option<usize>,
}

impl ChatRequest {
    pub(crate) fn read(body: &[u8], defaults: &Defaults) -> Result<Self, ApiError> {
        let mut fields = Fields::of_request(body)?;
        let model = fields.text("model")?;
        let messages = Messages::read(&mut fields)?;
        if fields.has("tool_choice", &json!("none")) {
            // the model may call none of them
            fields.leave_out(&["tools"]);
        }
        fields.only("tool_choice", &[json!("none"), json!("auto")])?;
        let mut settings = Settings::read(&mut fields, defaults)?;
        let older = limit(&mut fields, "max_tokens")?;
        let newer = limit(&mut fields, "max_completion_tokens")?;
        if older.is_some() && newer.is_some() && older != newer {
            let message = "differs from `max_completion_tokens`; leave one of them out";
            return Err(ApiError::of("max_tokens", message));
        }
        settings.max_tokens = newer.or(older);
        let told = fields.flag("logprobs")?.unwrap_or(false);
        let top = fields.count("top_logprobs", 0, MOST)?;
        if top.is_some_and(|top| top > 0) && !told {
            return Err(ApiError::of("top_logprobs", "needs `logprobs`: true"));
        }
        fields.only("functions", &[json!([])])?;
        fields.only("function_call", &[json!("none"), json!("auto")])?;
        fields.only("modalities", &[json!(["text"])])?;
        fields.finish()?;
        Ok(Self {
            model,
            messages,
            settings,
            top: told.then(|| top.unwrap_or(0)),
        })
    }
}

/// The most new tokens; -1 is "as many as there is room for" to llama.cpp's clients.
fn limit(fields: &mut Fields, key: &'static str) -> Result<Option<usize>, ApiError> {
    if fields.has(key, &json!(-1)) {
        fields.leave_out(&[key]);
        return Ok(None);
    }
    fields.count(key, 1, u64::MAX)
}

/// The choice of an answer.
pub(crate) fn choice(index: usize, piece: &Piece, spoken: &Spoken, log_probs: bool) -> Value {
    json!({
        "index": index,
        "message": {"role": "assistant", "content": piece.text, "refusal": null},
        "logprobs": log_probs.then(|| of_chat(&piece.tokens)),
        "finish_reason": spoken.finish.name(),
    })
}

/// The choice of the first chunk of a stream.
pub(crate) fn first_delta(index: usize) -> Value {
    json!({
        "index": index,
        "delta": {"role": "assistant", "content": "", "refusal": null},
        "logprobs": null,
        "finish_reason": null,
    })
}

/// The choice of a chunk with a part of the answer.
pub(crate) fn delta(index: usize, piece: &Piece, log_probs: bool) -> Value {
    json!({
        "index": index,
        "delta": {"content": piece.text},
        "logprobs": log_probs.then(|| of_chat(&piece.tokens)),
        "finish_reason": null,
    })
}

/// The choice of the last chunk.
pub(crate) fn last_delta(index: usize, spoken: &Spoken) -> Value {
    json!({"index": index, "delta": {}, "logprobs": null, "finish_reason": spoken.finish.name()})
}
