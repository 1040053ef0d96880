//! The addresses of the server, and what each answers.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{Path, State};
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::answering::{Answering, Kind, Tokenised, Usage};
use crate::chat::ChatRequest;
use crate::completion::CompletionRequest;
use crate::error::ApiError;
use crate::metrics::Metrics;
use crate::server::{App, BODY_BYTES, Served};
use crate::stream;

/// `POST /v1/chat/completions`
pub(crate) async fn chat_completions(
    State(app): State<Arc<App>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    counted(&app, chat_answers(&app, body).await).await
}

async fn chat_answers(
    app: &Arc<App>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Answering, ApiError> {
    let request = ChatRequest::read(&whole(body)?, &app.defaults)?;
    let model = app.find(request.model.as_deref())?;
    let mut answering = Answering::new(Arc::clone(app), model, Kind::Chat, request.settings);
    answering.top = request.top;
    answering
        .with_messages(request.messages, request.tools)
        .await
}

/// `POST /v1/completions`
pub(crate) async fn completions(
    State(app): State<Arc<App>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    counted(&app, text_answers(&app, body).await).await
}

async fn text_answers(
    app: &Arc<App>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Answering, ApiError> {
    let request = CompletionRequest::read(&whole(body)?, &app.defaults)?;
    let model = app.find(request.model.as_deref())?;
    let mut answering = Answering::new(Arc::clone(app), model, Kind::Text, request.settings);
    answering.top = request.top;
    answering.echo = request.echo;
    let prompts = request.prompts;
    answering
        .tokenised(move |app, model| {
            let served = &app.served[model];
            let prompts = prompts.into_iter().map(|prompt| prompt.tokens(served));
            Ok(Tokenised {
                prompts: prompts.collect::<Result<_, _>>()?,
                form: None,
            })
        })
        .await
}

/// The body of a request, if it has arrived.
fn whole(body: Result<Bytes, BytesRejection>) -> Result<Bytes, ApiError> {
    body.map_err(|rejection| {
        if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
            ApiError::too_large(BODY_BYTES)
        } else {
            ApiError::incomplete(&rejection.body_text())
        }
    })
}

/// Answers a request that has no mistake.
async fn counted(app: &App, answering: Result<Answering, ApiError>) -> Result<Response, ApiError> {
    Metrics::add(&app.metrics.requests, 1);
    let answering = answering.inspect_err(|error| {
        Metrics::add(&app.metrics.failed, 1);
        (app.log)(&format!(
            "refused ({}): {}",
            error.status.as_u16(),
            error.message
        ));
    })?;
    if answering.settings.stream {
        return Ok(stream::respond(answering));
    }
    let answered = answering.all().await;
    match &answered {
        Ok((_, usage)) => answering.done(usage, None),
        Err(error) => answering.done(&Usage::of_prompts(&answering), Some(error)),
    }
    answered.map(|(response, _)| response)
}

/// `GET /v1/models`
pub(crate) async fn models(State(app): State<Arc<App>>) -> Json<Value> {
    let models: Vec<Value> = app.served.iter().map(Served::json).collect();
    Json(json!({"object": "list", "data": models}))
}

/// `GET /v1/models/{name}`
pub(crate) async fn model(
    State(app): State<Arc<App>>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, ApiError> {
    let Path(name) = name.map_err(|rejection| ApiError::bad(rejection.body_text()))?;
    let model = app.find(Some(&name))?;
    Ok(Json(app.served[model].json()))
}

/// `GET /health`
pub(crate) async fn health() -> Json<Value> {
    Json(json!({"status": "ok"}))
}

/// `GET /metrics`
pub(crate) async fn metrics(State(app): State<Arc<App>>) -> Response {
    let kind = [("content-type", "text/plain; version=0.0.4; charset=utf-8")];
    (kind, app.metrics.text()).into_response()
}

/// Any other address.
pub(crate) async fn nowhere(method: Method, uri: Uri) -> ApiError {
    ApiError::no_route(method.as_str(), uri.path())
}

/// An address with another method.
pub(crate) async fn other_method(method: Method, uri: Uri) -> ApiError {
    ApiError::other_method(method.as_str(), uri.path())
}
