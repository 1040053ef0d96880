//! What both kinds of requests say about their answers.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::error::ApiError;
use crate::fields::{Fields, whole};
use crate::form::Form;
use crate::job::Sampling;
use crate::server::Defaults;

/// The most stop texts of a request.
const STOPS: usize = 16;
/// The most answers to a prompt.
const ANSWERS: u64 = 128;
/// Keys without an effect on an answer: about the user, the account, caches of other servers, and models that think.
const WITHOUT_EFFECT: [&str; 14] = [
    "include_reasoning",
    "cache_control",
    "user",
    "reasoning_effort",
    "verbosity",
    "keep_alive",
    "metadata",
    "store",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "parallel_tool_calls",
    "cache_prompt",
];

/// How answers are made.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Settings {
    pub(crate) sampling: Sampling,
    /// The most new tokens; `None`: as many as the context has room for.
    pub(crate) max_tokens: Option<usize>,
    pub(crate) stop: Vec<String>,
    /// What each answer has to be.
    pub(crate) form: Option<Form>,
    /// Number of answers.
    pub(crate) n: usize,
    pub(crate) stream: bool,
    /// Whether a stream ends with the numbers of tokens.
    pub(crate) stream_usage: bool,
}

impl Settings {
    /// Reads the keys that both kinds of requests have.
    pub(crate) fn read(fields: &mut Fields, defaults: &Defaults) -> Result<Self, ApiError> {
        let sampling = sampling(fields, defaults)?;
        let stop = stop(fields)?;
        let form = Form::read(fields)?;
        let n = fields.count("n", 1, ANSWERS)?.unwrap_or(1);
        let stream = fields.flag("stream")?.unwrap_or(false);
        let mut stream_usage = false;
        if let Some(options) = fields.take("stream_options") {
            let mut options = Fields::at("stream_options", options)?;
            stream_usage = options.flag("include_usage")?.unwrap_or(false);
            options.leave_out(&["include_obfuscation"]);
            options.only("continuous_usage_stats", &[json!(false)])?;
            options.finish()?;
        }
        fields.leave_out(&WITHOUT_EFFECT);
        fields.only("logit_bias", &[json!({})])?;
        fields.only("min_p", &[json!(0), json!(0.0)])?;
        fields.only("ignore_eos", &[json!(false)])?;
        fields.only("min_tokens", &[json!(0)])?;
        fields.only("skip_special_tokens", &[json!(true)])?;
        fields.only("stop_token_ids", &[json!([])])?;
        // chats have read theirs
        fields.only("tools", &[json!([])])?;
        let best_of = fields.count("best_of", 1, u64::MAX)?;
        if best_of.is_some_and(|best_of| best_of != n) {
            let message = "this server makes as many answers as it returns; leave it out";
            return Err(ApiError::of("best_of", message));
        }
        Ok(Self {
            sampling,
            max_tokens: None,
            stop,
            form,
            n,
            stream,
            stream_usage,
        })
    }
}

fn sampling(fields: &mut Fields, defaults: &Defaults) -> Result<Sampling, ApiError> {
    let temperature = fields
        .number("temperature")?
        .unwrap_or(defaults.temperature);
    check("temperature", temperature, temperature >= 0.0, "0 or more")?;
    let top_p = fields.number("top_p")?.unwrap_or(defaults.top_p);
    check(
        "top_p",
        top_p,
        (0.0..=1.0).contains(&top_p),
        "a number from 0 to 1",
    )?;
    let top_k = match fields.take("top_k") {
        None => defaults.top_k,
        // as vLLM says "all"
        Some(value) if value == json!(-1) => 0,
        Some(value) => whole(&value)
            .ok_or_else(|| fields.wrong("top_k", "a whole number from 0 on", &value))?
            as usize,
    };
    let repetition_penalty = fields.number("repetition_penalty")?;
    // llama.cpp's name for it
    let other = fields.number("repeat_penalty")?;
    let repetition_penalty = repetition_penalty.or(other);
    let repetition_penalty = repetition_penalty.unwrap_or(defaults.repetition_penalty);
    check(
        "repetition_penalty",
        repetition_penalty,
        repetition_penalty > 0.0,
        "a number above 0",
    )?;
    let mut penalties = [0.0; 2];
    for (key, penalty) in ["frequency_penalty", "presence_penalty"]
        .into_iter()
        .zip(&mut penalties)
    {
        *penalty = fields.number(key)?.unwrap_or(0.0);
        check(
            key,
            *penalty,
            (-2.0..=2.0).contains(penalty),
            "a number from -2 to 2",
        )?;
    }
    let seed = match fields.take("seed") {
        None => unforeseen(),
        // -1 is "any seed" to llama.cpp's clients
        Some(value) => match (whole(&value), value.as_i64()) {
            (Some(seed), _) => seed,
            (None, Some(-1)) => unforeseen(),
            (None, Some(seed)) => seed as u64,
            (None, None) => return Err(fields.wrong("seed", "a whole number", &value)),
        },
    };
    // no token is in a nucleus of 0: the most likely one, as with temperature 0
    let is_greedy = top_p <= 0.0;
    Ok(Sampling {
        temperature: if is_greedy { 0.0 } else { temperature },
        top_p: if is_greedy { 1.0 } else { top_p },
        top_k,
        repetition_penalty,
        frequency_penalty: penalties[0],
        presence_penalty: penalties[1],
        seed,
    })
}

fn check(key: &str, found: f64, fits: bool, expected: &str) -> Result<(), ApiError> {
    if fits && found.is_finite() {
        return Ok(());
    }
    Err(ApiError::of(
        key,
        format!("expected {expected}, found {found}"),
    ))
}

/// A text or a list of texts.
fn stop(fields: &mut Fields) -> Result<Vec<String>, ApiError> {
    let Some(value) = fields.take("stop") else {
        return Ok(Vec::new());
    };
    let texts = match &value {
        Value::String(text) => Some(vec![text.clone()]),
        Value::Array(list) => list
            .iter()
            .map(|text| text.as_str().map(str::to_owned))
            .collect(),
        _ => None,
    };
    let expected = format!("a text, or a list of up to {STOPS} texts");
    let texts: Option<Vec<String>> = texts;
    // an empty field of a form is no stop text
    let texts = texts.map(|texts| texts.into_iter().filter(|text| !text.is_empty()));
    texts
        .map(Iterator::collect)
        .filter(|texts: &Vec<String>| texts.len() <= STOPS)
        .ok_or_else(|| fields.wrong("stop", &expected, &value))
}

/// A number that is another one each time.
pub(crate) fn unforeseen() -> u64 {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let time = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let calls = CALLS.fetch_add(1, Ordering::Relaxed);
    (time.as_nanos() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ calls.rotate_left(40)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: &Value) -> Result<Settings, ApiError> {
        let mut fields = Fields::of_request(value.to_string().as_bytes())?;
        let settings = Settings::read(&mut fields, &Defaults::default())?;
        fields.finish()?;
        Ok(settings)
    }

    #[test]
    fn defaults_are_those_of_the_api() {
        let found = read(&json!({})).unwrap();
        let Sampling {
            temperature,
            top_p,
            top_k,
            ..
        } = found.sampling;
        assert_eq!((temperature, top_p, top_k), (1.0, 1.0, 0));
        assert_eq!((found.n, found.stream, found.stop.len()), (1, false, 0));
        assert_ne!(unforeseen(), unforeseen());
    }

    #[test]
    fn keys_are_read() {
        let found = read(&json!({
            "temperature": 0, "top_p": 0.5, "top_k": 40, "seed": -7, "stop": ["a", "", "b"], "n": 3.0, "stream": true,
            "stream_options": {"include_usage": true}, "user": "me", "logit_bias": {}
        }))
        .unwrap();
        assert_eq!(found.sampling.top_k, 40);
        assert_eq!(found.sampling.seed, -7_i64 as u64);
        assert_eq!(found.stop, ["a", "b"]);
        assert!(found.stream_usage);
        let greedy = read(&json!({"top_p": 0, "stop": "x", "top_k": -1})).unwrap();
        assert_eq!(
            (greedy.sampling.temperature, greedy.sampling.top_p),
            (0.0, 1.0)
        );
        assert_eq!(greedy.stop, ["x"]);
    }

    #[test]
    fn mistakes_are_named() {
        for (request, expected) in [
            (
                json!({"temperature": -1}),
                "`temperature`: expected 0 or more, found -1",
            ),
            (
                json!({"temperature": "hot"}),
                "`temperature`: expected a number, found \"hot\"",
            ),
            (
                json!({"top_p": 1.5}),
                "`top_p`: expected a number from 0 to 1, found 1.5",
            ),
            (
                json!({"top_k": -2}),
                "`top_k`: expected a whole number from 0 on, found -2",
            ),
            (
                json!({"frequency_penalty": 3}),
                "`frequency_penalty`: expected a number from -2 to 2, found 3",
            ),
            (
                json!({"repetition_penalty": 0}),
                "`repetition_penalty`: expected a number above 0, found 0",
            ),
            (
                json!({"seed": 1.5}),
                "`seed`: expected a whole number, found 1.5",
            ),
            (
                json!({"n": 129}),
                "`n`: expected a whole number from 1 to 128, found 129",
            ),
            (
                json!({"stream": true, "stream_options": {"usage": true}}),
                "`stream_options.usage`: this server does not know this key; leave it out",
            ),
            (
                json!({"logit_bias": {"5": 1}}),
                "`logit_bias`: this server does not support it; leave it out",
            ),
            (
                json!({"stop": ["a", 7]}),
                "`stop`: expected a text, or a list of up to 16 texts, found [\"a\",7]",
            ),
        ] {
            assert_eq!(read(&request).unwrap_err().message, expected);
        }
    }
}
