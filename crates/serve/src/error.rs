//! What a client reads if its request fails, and why the server cannot run.

use std::io;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use simmer_hint::Hint;

use crate::fields::shortened;

/// A request that cannot be answered, in the form of OpenAI's errors.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
    /// The key of the request that is wrong.
    pub(crate) param: Option<String>,
    pub(crate) code: Option<&'static str>,
}

/// The server cannot run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address cannot be opened.
    #[error("cannot listen on {address}")]
    Listen {
        /// As given.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// The connections of clients cannot be accepted.
    #[error("the server cannot accept connections")]
    Accept(#[source] io::Error),
}

impl Hint for ServeError {
    fn hint(&self) -> Option<String> {
        let Self::Listen { source, .. } = self else {
            return None;
        };
        let hint = match source.kind() {
            io::ErrorKind::AddrInUse => "choose another one with --port, or 0 for any free port",
            io::ErrorKind::PermissionDenied => "choose a port from 1024 on with --port",
            _ => "--host takes an address of this machine, such as 127.0.0.1 or 0.0.0.0",
        };
        Some(hint.to_owned())
    }
}

impl ApiError {
    fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            param: None,
            code: None,
        }
    }

    /// A request with a mistake.
    pub(crate) fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// A mistake in the value of a key.
    pub(crate) fn of(key: &str, message: impl std::fmt::Display) -> Self {
        Self {
            param: Some(key.to_owned()),
            ..Self::bad(format!("`{key}`: {message}"))
        }
    }

    /// The prompt is longer than the model's context.
    pub(crate) fn too_long(key: &str, found: usize, context: usize) -> Self {
        let message = format!(
            "the prompt has {found} tokens, and the model's context of {context} leaves room for an answer after at most {}",
            context - 1
        );
        Self {
            code: Some("context_length_exceeded"),
            ..Self::of(key, message)
        }
    }

    /// The text of a prompt is longer than the longest tokens of a full context.
    pub(crate) fn text_too_long(key: &str, found: usize, context: usize) -> Self {
        let message = format!(
            "the prompt has {found} bytes, which are more tokens than the model's context of {context}"
        );
        Self {
            code: Some("context_length_exceeded"),
            ..Self::of(key, message)
        }
    }

    /// The body of a request did not arrive.
    pub(crate) fn incomplete(why: &str) -> Self {
        Self::bad(format!("the request is not complete: {why}"))
    }

    /// No model has this name.
    pub(crate) fn no_model(name: &str, names: &[&str]) -> Self {
        let names = names.join("`, `");
        Self {
            param: Some("model".to_owned()),
            code: Some("model_not_found"),
            ..Self::new(
                StatusCode::NOT_FOUND,
                format!(
                    "there is no model `{}` here; expected one of: `{names}`",
                    shortened(name)
                ),
            )
        }
    }

    /// The key is missing or wrong.
    pub(crate) fn no_key() -> Self {
        Self {
            code: Some("invalid_api_key"),
            ..Self::new(
                StatusCode::UNAUTHORIZED,
                "this server asks for its API key, in the header `Authorization: Bearer KEY`",
            )
        }
    }

    /// There is no such address.
    pub(crate) fn no_route(method: &str, path: &str) -> Self {
        let message = format!(
            "there is no {method} {} here; expected POST /v1/chat/completions, POST /v1/completions, GET /v1/models, \
             GET /health or GET /metrics",
            shortened(path)
        );
        Self::new(StatusCode::NOT_FOUND, message)
    }

    /// An address that takes another method.
    pub(crate) fn other_method(method: &str, path: &str) -> Self {
        let expected = if path.ends_with("completions") {
            "POST"
        } else {
            "GET"
        };
        let message = format!("{path}: expected {expected}, found {method}");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, message)
    }

    /// Too many texts wait.
    pub(crate) fn overloaded(waiting: usize) -> Self {
        let message =
            format!("{waiting} texts are being continued or wait already; try again later");
        Self {
            code: Some("overloaded"),
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, message)
        }
    }

    /// The server is about to end.
    pub(crate) fn ending() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "this server is shutting down",
        )
    }

    /// A fault of the server.
    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }

    /// The body of a larger request than the server takes.
    pub(crate) fn too_large(most: usize) -> Self {
        let message = format!("the request has more than {most} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, message)
    }

    /// As the client reads it.
    pub(crate) fn body(&self) -> Value {
        let kind = match self.status.as_u16() {
            401 => "authentication_error",
            404 => "not_found_error",
            500.. => "server_error",
            _ => "invalid_request_error",
        };
        json!({"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}})
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body())).into_response();
        let headers = response.headers_mut();
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
