//! The `[model.endpoint]` table of a recipe.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use simmer_recipe::{Problem, wrong_count};
use ureq::http::Uri;

use crate::completion::Completion;

/// A server of OpenAI's API.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EndpointConfig {
    /// The address of the API, such as `https://api.openai.com/v1` or `http://127.0.0.1:8000/v1`.
    pub url: String,
    /// The name of the model.
    pub model: String,
    /// Which of the API's two functions: `completions` continues a text, `chat` answers it as a message of the user.
    #[serde(default)]
    pub api: Api,
    /// The environment variable that has the key. A server on this machine may need none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_env: Option<String>,
    /// Whether to send the method's `logit_bias`: its token IDs are those of GPT-3.
    #[serde(default)]
    pub logit_bias: bool,
    /// The number of requests at a time.
    #[serde(default = "four")]
    pub concurrency: usize,
    /// The maximum number of requests per minute; 0: no limit.
    #[serde(default)]
    pub requests_per_minute: u32,
    /// How many seconds to wait for an answer.
    #[serde(default = "two_minutes")]
    pub timeout_s: f64,
    /// How often a request is repeated that was not answered, or with 429 or 5xx.
    #[serde(default = "six")]
    pub retries: u32,
    /// The seconds before the first repetition. They double with each, up to a minute; the server may ask for more.
    #[serde(default = "two_seconds")]
    pub backoff_s: f64,
    /// The price of a million tokens of prompts.
    #[serde(default)]
    pub price_prompt: f64,
    /// The price of a million tokens of completions.
    #[serde(default)]
    pub price_completion: f64,
    /// Stop when so much has been spent, by these prices. Requests that are under way are paid for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_cost: Option<f64>,
}

/// A function of the API.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Api {
    /// `/completions`.
    #[default]
    Completions,
    /// `/chat/completions`.
    Chat,
}

fn four() -> usize {
    4
}

fn six() -> u32 {
    6
}

fn two_seconds() -> f64 {
    2.0
}

fn two_minutes() -> f64 {
    120.0
}

impl EndpointConfig {
    /// Checks every value. A problem has the key below this table.
    ///
    /// # Errors
    /// The first value that is wrong.
    pub fn check(&self) -> Result<(), Problem> {
        let wrong = |key: &str, why: String| Err(Problem::new(key, why));
        self.check_url()?;
        if let Some(why) = wrong_count(self.concurrency as u64, 1, 256) {
            return wrong("concurrency", why);
        }
        let positive = [("timeout_s", self.timeout_s), ("backoff_s", self.backoff_s)];
        if let Some((key, found)) = positive
            .iter()
            .find(|(_, value)| !(*value > 0.0 && *value <= 86_400.0))
        {
            let why = format!("expected more than 0, at most 86400, found {found}");
            return wrong(key, why);
        }
        let prices = [
            ("price_prompt", self.price_prompt),
            ("price_completion", self.price_completion),
        ];
        if let Some((key, found)) = prices
            .iter()
            .find(|(_, value)| !(value.is_finite() && *value >= 0.0))
        {
            return wrong(key, format!("expected 0 or more, found {found}"));
        }
        if self.max_cost.is_some() && self.price_prompt == 0.0 && self.price_completion == 0.0 {
            let why = "expected `price_prompt` or `price_completion` beside it, found neither";
            return wrong("max_cost", why.to_owned());
        }
        Ok(())
    }

    fn check_url(&self) -> Result<(), Problem> {
        let found = &self.url;
        if found.contains('@') {
            // the address itself is not shown
            let why = "expected an address without `@`: a user name or password would appear in messages and files";
            let hint = "put the key into an environment variable, and set `key_env` to the name of the variable; \
                        write an @ that is part of the address as %40";
            return Err(Problem::new("url", why).with_hint(Some(hint.to_owned())));
        }
        let uri: Option<Uri> = found.parse().ok();
        if let Some("http" | "https") = uri.as_ref().and_then(Uri::scheme_str) {
            return Ok(());
        }
        let why = format!("expected http:// or https://, found {found:?}");
        Err(Problem::new("url", why))
    }

    /// The cost of a completion.
    pub fn cost(&self, completion: &Completion) -> f64 {
        let of = |tokens: Option<u64>, price: f64| tokens.unwrap_or(0) as f64 * price / 1e6;
        of(completion.prompt_tokens, self.price_prompt)
            + of(completion.completion_tokens, self.price_completion)
    }

    /// The address of a function. It is put before the query; a function that the address ends in already is replaced.
    pub(super) fn address(&self, api: Api) -> String {
        let function = match api {
            Api::Completions => "completions",
            Api::Chat => "chat/completions",
        };
        // a fragment is never sent
        let url = self.url.split('#').next().unwrap_or_default();
        let (base, query) = match url.split_once('?') {
            Some((base, query)) => (base, format!("?{query}")),
            None => (url, String::new()),
        };
        let base = base.trim_end_matches('/');
        let base = ["/chat/completions", "/completions"]
            .into_iter()
            .find_map(|ending| base.strip_suffix(ending))
            .unwrap_or(base);
        format!("{}/{function}{query}", base.trim_end_matches('/'))
    }
}
