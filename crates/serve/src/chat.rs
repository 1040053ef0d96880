//! Chat completions.
//!
//! Source: OpenAI's API reference, "Create chat completion" and "The chat completion chunk object".

use serde_json::{Value, json};

use crate::answer::{Piece, Spoken};
use crate::error::ApiError;
use crate::fields::Fields;
use crate::job::Finish;
use crate::log_probs::of_chat;
use crate::prompt::Messages;
use crate::server::Defaults;
use crate::settings::Settings;
use crate::tools::{Call, Tools};

/// The most tokens whose log-probabilities are told at each place.
const MOST: u64 = 20;

/// A request for a chat completion.
#[derive(Debug)]
pub(crate) struct ChatRequest {
    pub(crate) model: Option<String>,
    pub(crate) messages: Messages,
    pub(crate) settings: Settings,
    /// The tools that the model may call.
    pub(crate) tools: Option<Tools>,
    /// Whether log-probabilities are told, and for how many of the most likely tokens.
    pub(crate) top: Option<usize>,
}

impl ChatRequest {
    pub(crate) fn read(body: &[u8], defaults: &Defaults) -> Result<Self, ApiError> {
        let mut fields = Fields::of_request(body)?;
        let model = fields.text("model")?;
        let messages = Messages::read(&mut fields)?;
        let tools = Tools::read(&mut fields)?;
        let mut settings = Settings::read(&mut fields, defaults)?;
        if let Some(form) = settings.form.as_ref().filter(|_| tools.is_some()) {
            let message = "cannot be combined with `tools`; set `tool_choice` to \"none\" for an answer in a form";
            return Err(ApiError::of(&form.key, message));
        }
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
            tools,
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
pub(crate) fn choice(
    index: usize,
    piece: &Piece,
    calls: &[Call],
    spoken: &Spoken,
    log_probs: bool,
) -> Value {
    let mut message = json!({"role": "assistant", "content": piece.text, "refusal": null});
    if !calls.is_empty() {
        message["tool_calls"] = calls.iter().map(Call::json).collect();
        if piece.text.is_empty() {
            message["content"] = Value::Null;
        }
    }
    json!({
        "index": index,
        "message": message,
        "logprobs": log_probs.then(|| of_chat(&piece.tokens)),
        "finish_reason": finish_reason(calls, spoken),
    })
}

/// Why an answer has ended.
fn finish_reason(calls: &[Call], spoken: &Spoken) -> &'static str {
    match spoken.finish {
        Finish::Stop if !calls.is_empty() => "tool_calls",
        finish => finish.name(),
    }
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

/// The choice of a chunk with the calls of the answer.
pub(crate) fn delta_of_calls(index: usize, calls: &[Call]) -> Value {
    let calls = calls.iter().enumerate().map(|(number, call)| {
        let mut call = call.json();
        call["index"] = number.into();
        call
    });
    json!({
        "index": index,
        "delta": {"tool_calls": calls.collect::<Value>()},
        "logprobs": null,
        "finish_reason": null,
    })
}

/// The choice of the last chunk.
pub(crate) fn last_delta(index: usize, calls: &[Call], spoken: &Spoken) -> Value {
    json!({"index": index, "delta": {}, "logprobs": null, "finish_reason": finish_reason(calls, spoken)})
}
