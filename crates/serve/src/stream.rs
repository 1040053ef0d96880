//! Answers as they are made: one event for each part (server-sent events).

use std::convert::Infallible;
use std::sync::Arc;

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::unfold;
use serde_json::Value;
use tokio::sync::mpsc::{Sender, channel};

use crate::answer::{Gone, Listener, Piece, Spoken, read};
use crate::answering::{Answering, Kind, Usage};
use crate::error::ApiError;
use crate::log_probs::Told;
use crate::tools::{Call, Hearing};
use crate::{chat, completion};

/// Events that wait for a slow reader at most; then its answer waits, too.
const AHEAD: usize = 64;

/// Sends the parts of one answer.
struct Parts<'a> {
    answering: &'a Answering,
    index: usize,
    to: Sender<Value>,
    /// Characters so far.
    offset: usize,
    /// What tells calls from text, if the answer may have calls.
    hearing: Option<Hearing<'a>>,
    /// Tokens whose text is not shown yet.
    held: Vec<Told>,
}

impl Parts<'_> {
    async fn send(&self, choice: Value) -> Result<(), Gone> {
        let chunk = self.answering.chunk(vec![choice]);
        self.to.send(chunk).await.map_err(|_| Gone)
    }
}

impl Listener for Parts<'_> {
    async fn piece(&mut self, mut piece: Piece) -> Result<(), Gone> {
        if let Some(hearing) = &mut self.hearing {
            self.held.append(&mut piece.tokens);
            piece.text = hearing.push(&piece.text);
            if piece.text.is_empty() {
                return Ok(());
            }
            piece.tokens = std::mem::take(&mut self.held);
        }
        self.show(piece).await
    }
}

impl Parts<'_> {
    /// Sends a part of the text.
    async fn show(&mut self, piece: Piece) -> Result<(), Gone> {
        let log_probs = self.answering.top.is_some();
        let choice = match self.answering.kind {
            Kind::Chat => chat::delta(self.index, &piece, log_probs),
            Kind::Text => completion::choice(self.index, &piece, None, log_probs, self.offset),
        };
        self.offset += piece.text.chars().count();
        self.send(choice).await
    }

    /// Sends what was held back of an answer that has ended. Returns its calls.
    async fn show_rest(&mut self) -> Result<Vec<Call>, Gone> {
        let Some(hearing) = self.hearing.take() else {
            return Ok(Vec::new());
        };
        let (text, calls) = hearing.finish();
        let tokens = std::mem::take(&mut self.held);
        if !text.is_empty() || !tokens.is_empty() {
            self.show(Piece { text, tokens }).await?;
        }
        if !calls.is_empty() {
            self.send(chat::delta_of_calls(self.index, &calls)).await?;
        }
        Ok(calls)
    }
}

/// One answer from its beginning to its end. `None`: nobody reads it any more.
async fn one(
    answering: &Answering,
    index: usize,
    to: Sender<Value>,
) -> Result<Option<Spoken>, ApiError> {
    let mut parts = Parts {
        answering,
        index,
        to,
        offset: 0,
        hearing: answering.hearing(),
        held: Vec::new(),
    };
    let (prompt, events) = answering.submit(index)?;
    if answering.kind == Kind::Chat && parts.send(chat::first_delta(index)).await.is_err() {
        return Ok(None);
    }
    let Some(spoken) = read(events, &answering.reading(prompt), &mut parts).await? else {
        return Ok(None);
    };
    let Ok(calls) = parts.show_rest().await else {
        return Ok(None);
    };
    let last = match answering.kind {
        Kind::Chat => chat::last_delta(index, &calls, &spoken),
        Kind::Text => {
            let nothing = Piece::default();
            completion::choice(index, &nothing, Some(&spoken), false, parts.offset)
        }
    };
    let sent = parts.send(last).await;
    Ok(sent.is_ok().then_some(spoken))
}

/// All answers to a request, as events.
pub(crate) fn respond(answering: Answering) -> Response {
    let (to, from) = channel::<Value>(AHEAD);
    tokio::spawn(all(Arc::new(answering), to));
    let events = unfold((from, false), |(mut from, ended)| async move {
        if ended {
            return None;
        }
        let next: (Result<Event, Infallible>, _) = match from.recv().await {
            Some(chunk) => (Ok(event(&chunk.to_string())), (from, false)),
            None => (Ok(event("[DONE]")), (from, true)),
        };
        Some(next)
    });
    Sse::new(events)
        .keep_alive(KeepAlive::default())
        .into_response()
}

fn event(data: &str) -> Event {
    Event::default().data(data)
}

async fn all(answering: Arc<Answering>, to: Sender<Value>) {
    let count = answering.choices();
    let answers = (0..count).map(|index| {
        let (answering, to) = (Arc::clone(&answering), to.clone());
        tokio::spawn(async move { one(&answering, index, to).await })
    });
    let answers: Vec<_> = answers.collect();
    let mut usage = Usage::of_prompts(&answering);
    let mut failure = None;
    let mut gone = false;
    for answer in answers {
        match answer.await {
            Ok(Ok(Some(spoken))) => usage.add(&spoken),
            Ok(Ok(None)) => gone = true,
            Ok(Err(error)) => failure = Some(error),
            Err(error) => failure = Some(ApiError::internal(error.to_string())),
        }
    }
    if let Some(error) = &failure {
        let _ = to.send(error.body()).await;
    } else if answering.settings.stream_usage {
        let mut chunk = answering.chunk(Vec::new());
        chunk["usage"] = usage.json();
        let _ = to.send(chunk).await;
    }
    if !gone {
        answering.done(&usage, failure.as_ref());
    }
}
