//! One request, repeated until it is answered.

use std::time::{Duration, Instant};

use chrono::Utc;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use simmer_checkpoint::web::{agent, reason};
use ureq::Agent;
use ureq::http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use ureq::http::{Request as Http, Uri};

use super::config::{Api, EndpointConfig};
use super::pace::{Pace, backoff, retry_after, sleep};
use crate::completion::{Completion, Finish, Prompt, Request, Stop};
use crate::error::InstructError;

/// The longest answer that is read.
const MAX_ANSWER: u64 = 64 << 20;
/// The longest text of an answer that is shown.
const SHOWN: usize = 300;
/// The shortest key that is left out of messages: a shorter one may be a part of other words.
const SHORTEST_KEY: usize = 4;
/// The longest pause that a server may ask for.
const LONGEST_PAUSE: Duration = Duration::from_mins(10);

/// A client of one server.
pub(super) struct Client {
    agent: Agent,
    config: EndpointConfig,
    key: Option<String>,
}

/// Never shows the key.
impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("url", &self.config.url)
            .finish_non_exhaustive()
    }
}

/// The answer of the API.
#[derive(Deserialize)]
struct Answer {
    choices: Vec<Choice>,
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default, deserialize_with = "present")]
    text: Option<Text>,
    message: Option<Message>,
    finish_reason: Option<String>,
}

/// A text, or null.
#[derive(Deserialize)]
struct Text(Option<String>);

#[derive(Deserialize)]
struct Message {
    content: Option<String>,
}

#[derive(Deserialize)]
struct Usage {
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
}

/// The value of a key that is present, also if it is null.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Text>, D::Error> {
    Text::deserialize(deserializer).map(Some)
}

impl Choice {
    /// Its text. It is empty if the server says null: the model refused, called a tool, or used up its tokens for thoughts.
    /// `None` if there is neither `text` nor `message`.
    fn text(self) -> Option<String> {
        let is_completion = self.text.is_some() || self.message.is_some();
        let text = self.text.and_then(|Text(text)| text);
        let content = self.message.and_then(|message| message.content);
        text.or(content).or_else(|| is_completion.then(String::new))
    }
}

/// A request that was not completed.
enum Failed {
    /// It may be repeated, after a pause if the server names one.
    Repeat(String, Option<Duration>),
    /// Prompt and completion are too long for the model.
    TooLong,
    /// It would fail again.
    Refused(String),
}

impl Client {
    pub(super) fn new(config: &EndpointConfig) -> Result<Self, InstructError> {
        let wrong = |problem: String| InstructError::Endpoint { problem };
        let uri: Uri = config
            .url
            .parse()
            .map_err(|error| wrong(format!("`url`: {error}")))?;
        let read = |name: &String| match std::env::var(name) {
            Ok(key) if !key.trim().is_empty() => Ok(key.trim().to_owned()),
            _ => Err(wrong(format!("`key_env`: the environment has no {name}"))),
        };
        Ok(Self {
            agent: agent(&uri, Duration::from_secs_f64(config.timeout_s)),
            key: config.key_env.as_ref().map(read).transpose()?,
            config: config.clone(),
        })
    }

    /// Completes a prompt.
    pub(super) fn complete(
        &self,
        request: &Request<'_>,
        pace: &Pace,
        stop: Stop<'_>,
    ) -> Result<Completion, InstructError> {
        let address = self.config.address(self.api(request));
        let mut max_tokens = request.sampling.max_tokens;
        let mut attempt = 0;
        loop {
            pace.wait(stop)?;
            let refused = |problem: String| InstructError::Refused {
                url: address.clone(),
                problem,
            };
            match self.send(&address, &self.body(request, max_tokens)) {
                Ok(completion) => return Ok(completion),
                Err(Failed::Refused(problem)) => return Err(refused(problem)),
                // the original programs ask for a fifth less, too
                Err(Failed::TooLong) if max_tokens > 16 => max_tokens = max_tokens * 4 / 5,
                Err(Failed::TooLong) => return Ok(Completion::too_long()),
                Err(Failed::Repeat(problem, _)) if attempt >= self.config.retries => {
                    return Err(InstructError::Unanswered {
                        url: address,
                        problem,
                        attempts: attempt + 1,
                    });
                }
                Err(Failed::Repeat(problem, asked)) => {
                    if asked.is_some_and(|pause| pause > LONGEST_PAUSE) {
                        return Err(refused(format!(
                            "{problem}; the server asks for a pause of more than 10 minutes"
                        )));
                    }
                    let own = backoff(
                        self.config.backoff_s,
                        attempt,
                        request.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15),
                    );
                    let until = Instant::now() + asked.unwrap_or(own);
                    if asked.is_some() {
                        pace.hold(until);
                    }
                    sleep(until, stop)?;
                    attempt += 1;
                }
            }
        }
    }

    /// The function that a request is for: a conversation is always for `/chat/completions`.
    fn api(&self, request: &Request<'_>) -> Api {
        match request.prompt {
            Prompt::Text(_) => self.config.api,
            Prompt::Chat(_) => Api::Chat,
        }
    }

    fn body(&self, request: &Request<'_>, max_tokens: usize) -> Value {
        let sampling = request.sampling;
        let mut body = json!({
            "model": self.config.model,
            "max_tokens": max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "n": 1,
        });
        match (request.prompt, self.config.api) {
            (Prompt::Text(text), Api::Completions) => body["prompt"] = text.into(),
            (Prompt::Text(text), Api::Chat) => {
                body["messages"] = json!([{"role": "user", "content": text}]);
            }
            (Prompt::Chat(messages), _) => body["messages"] = json!(messages),
        }
        let penalties = [
            ("frequency_penalty", sampling.frequency_penalty),
            ("presence_penalty", sampling.presence_penalty),
        ];
        for (name, penalty) in penalties.into_iter().filter(|(_, penalty)| *penalty != 0.0) {
            body[name] = penalty.into();
        }
        if !sampling.stop.is_empty() {
            body["stop"] = json!(sampling.stop);
        }
        if self.config.logit_bias && !sampling.logit_bias.is_empty() {
            body["logit_bias"] = json!(sampling.logit_bias);
        }
        body
    }

    fn send(&self, address: &str, body: &Value) -> Result<Completion, Failed> {
        let refused = |error: ureq::http::Error| Failed::Refused(error.to_string());
        let repeat = |error: ureq::Error| Failed::Repeat(self.unanswered(&error), None);
        let mut request = Http::builder()
            .method("POST")
            .uri(address)
            .header(CONTENT_TYPE, "application/json");
        if let Some(key) = &self.key {
            request = request.header(AUTHORIZATION, format!("Bearer {key}"));
        }
        let request = request.body(body.to_string()).map_err(refused)?;
        // the agent limits each part alone, so that an answer in small parts would have no limit
        let request = self
            .agent
            .configure_request(request)
            .timeout_global(Some(Duration::from_secs_f64(self.config.timeout_s)))
            .build();
        let mut response = self.agent.run(request).map_err(repeat)?;
        let status = response.status().as_u16();
        let pause = response
            .headers()
            .get(RETRY_AFTER)
            .and_then(|header| header.to_str().ok());
        let pause = pause.and_then(|header| retry_after(header, Utc::now()));
        let text = response
            .body_mut()
            .with_config()
            .limit(MAX_ANSWER)
            .read_to_string()
            .map_err(repeat)?;
        if (200..300).contains(&status) {
            let completion = self.answer(&text);
            return completion.map_err(|problem| Failed::Repeat(problem, pause));
        }
        Err(self.failed(status, &text, pause))
    }

    /// Why a request has no answer.
    fn unanswered(&self, error: &ureq::Error) -> String {
        match error {
            ureq::Error::Timeout(_) => {
                format!("timeout: no complete answer in {} s", self.config.timeout_s)
            }
            error => reason(error),
        }
    }

    /// A text of the server without the key, which some servers repeat.
    fn without_key(&self, text: &str) -> String {
        match &self.key {
            Some(key) if key.len() >= SHORTEST_KEY => text.replace(key.as_str(), "***"),
            _ => text.to_owned(),
        }
    }

    /// The start of a text of the server, to be shown.
    fn shown(&self, text: &str) -> String {
        let text = self.without_key(text);
        text.chars().take(SHOWN).collect()
    }

    /// The completion of an answer.
    fn answer(&self, text: &str) -> Result<Completion, String> {
        let answer: Answer = serde_json::from_str(text).map_err(|error| {
            let error = self.without_key(&error.to_string());
            let shown = self.shown(text);
            format!("the answer is no completion ({error}): {shown:?}")
        })?;
        let Some(choice) = answer.choices.into_iter().next() else {
            return Err("the answer has no choices".to_owned());
        };
        let finish = match choice.finish_reason.as_deref() {
            Some("length") => Finish::Length,
            _ => Finish::Stop,
        };
        let Some(completed) = choice.text() else {
            return Err(format!("the answer has no text: {:?}", self.shown(text)));
        };
        let usage = answer.usage.as_ref();
        Ok(Completion {
            text: completed,
            finish,
            prompt_tokens: usage.and_then(|usage| usage.prompt_tokens),
            completion_tokens: usage.and_then(|usage| usage.completion_tokens),
        })
    }

    /// What an answer that is no completion means.
    fn failed(&self, status: u16, text: &str, pause: Option<Duration>) -> Failed {
        let parsed: Option<Value> = serde_json::from_str(text).ok();
        let error = parsed.as_ref().and_then(|answer| answer.get("error"));
        let message = error.and_then(|error| error.get("message").unwrap_or(error).as_str());
        let code = error.and_then(|error| error.get("code")?.as_str());
        // the page of a proxy is not shown
        let is_page = text.trim_start().starts_with('<');
        let plain =
            Some(text.trim()).filter(|text| !text.is_empty() && !is_page && message.is_none());
        let said = self.shown(message.or(plain).unwrap_or_default());
        let problem = format!(
            "status {status}{}{said}",
            if said.is_empty() { "" } else { ": " }
        );
        let is_too_long = code == Some("context_length_exceeded")
            || [
                "reduce your prompt",
                "maximum context length",
                "context size",
            ]
            .iter()
            .any(|part| said.contains(part));
        match status {
            400 | 413 | 422 | 500 if is_too_long => Failed::TooLong,
            // the account has nothing left: waiting does not help
            429 if code == Some("insufficient_quota") => Failed::Refused(problem),
            408 | 409 | 425 | 429 | 500..600 => Failed::Repeat(problem, pause),
            _ => Failed::Refused(problem),
        }
    }
}
