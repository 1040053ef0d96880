//! Requests to an MLflow server.
//!
//! Source: MLflow's REST API, version 2.0 (mlflow.org/docs/latest/rest-api.html), and `mlflow/server/handlers.py` for
//! artifacts.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use simmer_checkpoint::web::{agent, encoded, reason};
use ureq::Agent;
use ureq::http::header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE, HeaderName, LOCATION};
use ureq::http::{Method, Request, Response};

use super::settings::Settings;
use crate::tracking::Unsent;

/// The longest answer that is read.
const MAX_ANSWER: u64 = 8 << 20;
/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest text of an error page that is shown.
const SHOWN: usize = 300;

/// A client for one server.
pub(super) struct Client {
    agent: Agent,
    address: String,
    authorization: Option<String>,
}

/// MLflow's form of an error.
#[derive(Deserialize)]
struct Refusal {
    error_code: Option<String>,
    message: Option<String>,
}

impl Client {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            agent: agent(&settings.uri, PATIENCE),
            address: settings.address.clone(),
            authorization: settings.authorization.clone(),
        }
    }

    /// The server's address.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// Calls a function of the API that changes something.
    pub(super) fn post(&self, call: &str, body: &Value) -> Result<Value, Unsent> {
        let url = format!("{}/api/2.0/mlflow/{call}", self.address);
        let text = self.send(Method::POST, &url, "application/json", &body.to_string())?;
        parsed(&url, &text)
    }

    /// Calls a function of the API that only reads.
    pub(super) fn get(&self, call: &str, key: &str, value: &str) -> Result<Value, Unsent> {
        let value = encoded(value, "");
        let url = format!("{}/api/2.0/mlflow/{call}?{key}={value}", self.address);
        let text = self.send(Method::GET, &url, "application/json", "")?;
        parsed(&url, &text)
    }

    /// Uploads a file to the run's artifacts, which the server keeps at `artifacts`; false if it does not take files itself.
    pub(super) fn upload(&self, artifacts: &str, name: &str, text: &str) -> Result<bool, Unsent> {
        // of another scheme, the client would need the storage's own credentials
        let Some(folder) = artifacts.strip_prefix("mlflow-artifacts:/") else {
            return Ok(false);
        };
        let folder = folder.trim_matches('/');
        let path = encoded(&format!("{folder}/{name}"), "/");
        let url = format!("{}/api/2.0/mlflow-artifacts/artifacts/{path}", self.address);
        match self.send(Method::PUT, &url, "application/octet-stream", text) {
            Ok(_) => Ok(true),
            Err(Unsent::Status { status, .. }) if (400..500).contains(&status) => Ok(false),
            // a server that was started with --no-serve-artifacts
            Err(Unsent::Status {
                status: 501 | 503, ..
            }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn send(&self, method: Method, url: &str, kind: &str, body: &str) -> Result<String, Unsent> {
        let wrong = |problem: String| Unsent::Answer {
            url: url.to_owned(),
            problem,
        };
        let has_body = method != Method::GET;
        // requests are seconds apart, and a kept connection may be closed by the server just then
        let mut request = Request::builder()
            .method(method)
            .uri(url)
            .header(CONNECTION, "close");
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let sent = if has_body {
            let request = request.header(CONTENT_TYPE, kind).body(body);
            let request = request.map_err(|error| wrong(error.to_string()))?;
            self.agent.run(request)
        } else {
            let request = request.body(());
            let request = request.map_err(|error| wrong(error.to_string()))?;
            self.agent.run(request)
        };
        let mut response = sent.map_err(|error| self.unreachable(&error))?;
        let location = header(&response, &LOCATION);
        let status = response.status();
        let answer = response.body_mut().with_config().limit(MAX_ANSWER);
        let text = answer
            .read_to_string()
            .map_err(|error| self.unreachable(&error))?;
        if status.is_redirection() {
            let to = self.without_secret(&location.unwrap_or_default());
            return Err(wrong(format!("the server redirects to {to:?}")));
        }
        if !status.is_success() {
            return Err(refused(url, status.as_u16(), &self.without_secret(&text)));
        }
        Ok(text)
    }

    /// A text of the server without the token, which some servers repeat.
    fn without_secret(&self, text: &str) -> String {
        let header = self.authorization.as_deref();
        match header.and_then(|header| header.split_once(' ')) {
            Some((_, secret)) if secret.len() >= 4 => text.replace(secret, "***"),
            _ => text.to_owned(),
        }
    }

    fn unreachable(&self, error: &ureq::Error) -> Unsent {
        Unsent::Unreachable {
            server: self.address.clone(),
            reason: reason(error),
        }
    }
}

/// The error of an answer that is one.
fn refused(url: &str, status: u16, text: &str) -> Unsent {
    let refusal = serde_json::from_str::<Refusal>(text).ok();
    let (code, message) = refusal.map_or((None, None), |refusal| {
        (refusal.error_code, refusal.message)
    });
    // a proxy's page, or the text of a plug-in for accounts
    let is_page = text.trim_start().starts_with('<');
    let text = Some(text.trim()).filter(|text| !text.is_empty() && !is_page);
    let said = message.or_else(|| text.map(|text| text.chars().take(SHOWN).collect()));
    Unsent::Status {
        url: url.to_owned(),
        status,
        said,
        code,
    }
}

/// The JSON of an answer; an empty one is an empty object.
fn parsed(url: &str, text: &str) -> Result<Value, Unsent> {
    if text.trim().is_empty() {
        return Ok(json!({}));
    }
    serde_json::from_str(text).map_err(|_| Unsent::Answer {
        url: url.to_owned(),
        problem: "the answer is not MLflow's".to_owned(),
    })
}

fn header(response: &Response<ureq::Body>, name: &HeaderName) -> Option<String> {
    let value = response.headers().get(name)?;
    value.to_str().ok().map(str::to_owned)
}
