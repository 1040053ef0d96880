//! One answer, as its tokens arrive.

use simmer_data::Tokenizer;
use tokio::sync::mpsc::UnboundedReceiver;

use crate::error::ApiError;
use crate::job::{Event, Finish};
use crate::log_probs::{Texts, Told};
use crate::stops::Growing;

/// How an answer is read.
pub(crate) struct Reading<'a> {
    pub(crate) tokenizer: &'a Tokenizer,
    pub(crate) stops: &'a [String],
    /// The tokens of the prompt.
    pub(crate) prompt: &'a [u32],
    /// The text that the answer begins with, if the prompt is a part of it.
    pub(crate) echo: Option<&'a str>,
    pub(crate) log_probs: bool,
}

/// A part of an answer: its text, and its tokens if they are asked for.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct Piece {
    pub(crate) text: String,
    pub(crate) tokens: Vec<Told>,
}

/// How an answer has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Spoken {
    pub(crate) finish: Finish,
    /// Tokens of the prompt that were in the cache already.
    pub(crate) cached: usize,
    /// New tokens.
    pub(crate) tokens: usize,
}

/// Nobody reads the answer any more.
#[derive(Debug)]
pub(crate) struct Gone;

/// What `read` calls with each part of an answer, and when the text has begun.
pub(crate) trait Listener {
    /// A part of the answer.
    fn piece(&mut self, piece: Piece) -> impl Future<Output = Result<(), Gone>> + Send;
}

/// Reads an answer to its end. `None`: nobody reads it any more.
///
/// # Errors
/// If the text cannot be continued or decoded.
pub(crate) async fn read(
    mut events: UnboundedReceiver<Event>,
    reading: &Reading<'_>,
    listener: &mut impl Listener,
) -> Result<Option<Spoken>, ApiError> {
    let mut text = Growing::new(reading.tokenizer, reading.stops);
    let mut texts = Texts::after(reading.tokenizer, reading.prompt.last().copied());
    let mut held = Piece::default();
    let (mut cached, mut tokens) = (0, 0);
    // the prompt is shown with its scores, if they are asked for
    let mut echo = reading.echo.map(str::to_owned);
    let finish = loop {
        let Some(event) = events.recv().await else {
            return Err(ApiError::ending());
        };
        let waits_for_scores =
            reading.log_probs && matches!(event, Event::Began { .. } | Event::Prompt(_));
        if !waits_for_scores && let Some(echo) = echo.take() {
            held.text.push_str(&echo);
        }
        match event {
            Event::Began { cached: found } => cached = found,
            Event::Prompt(scored) => {
                held.text.push_str(&echo.take().unwrap_or_default());
                let mut texts = Texts::after(reading.tokenizer, None);
                if let Some(first) = reading.prompt.first() {
                    held.tokens.push(texts.first(*first)?);
                }
                for token in &scored {
                    held.tokens.push(texts.next(token)?);
                }
            }
            Event::Token(token) => {
                tokens += 1;
                if reading.log_probs {
                    held.tokens.push(texts.next(&token)?);
                }
                held.text.push_str(&text.push(token.id)?);
                if text.has_stopped() {
                    break Finish::Stop;
                }
            }
            Event::Ended(finish) => break finish,
            Event::Failed(message) => return Err(ApiError::internal(message)),
        }
        if !held.text.is_empty() && listener.piece(std::mem::take(&mut held)).await.is_err() {
            return Ok(None);
        }
    };
    drop(events);
    let (rest, stopped) = text.finish()?;
    held.text.push_str(&rest);
    let is_nothing = held.text.is_empty() && held.tokens.is_empty();
    if !is_nothing && listener.piece(held).await.is_err() {
        return Ok(None);
    }
    Ok(Some(Spoken {
        finish: if stopped { Finish::Stop } else { finish },
        cached,
        tokens,
    }))
}

impl Listener for Piece {
    /// Collects a whole answer.
    async fn piece(&mut self, piece: Piece) -> Result<(), Gone> {
        self.text.push_str(&piece.text);
        self.tokens.extend(piece.tokens);
        Ok(())
    }
}

impl From<simmer_data::tokenizer::TokenizerError> for ApiError {
    fn from(error: simmer_data::tokenizer::TokenizerError) -> Self {
        Self::internal(format!("the tokenizer: {error}"))
    }
}
