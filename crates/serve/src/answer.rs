//! One answer, as its tokens arrive.

use simmer_data::Tokenizer;
use tokio::sync::mpsc::UnboundedReceiver;

use crate::error::ApiError;
use crate::job::{Event, Finish};
use crate::log_probs::Told;
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
    /// Whether the text has the names of special tokens.
    pub(crate) with_specials: bool,
}

impl Reading<'_> {
    /// Whether the tokens of the prompt are shown with their log-probabilities.
    pub(crate) fn scores_prompt(&self) -> bool {
        self.echo.is_some() && self.log_probs
    }
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

/// What [`read`] calls with each part of an answer.
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
    let mut text = Growing::new(reading.tokenizer, reading.stops, reading.with_specials);
    let mut held = Piece {
        text: reading.echo.unwrap_or_default().to_owned(),
        tokens: Vec::new(),
    };
    let (mut cached, mut tokens) = (0, 0);
    // bytes of the answer that were read, with log-probabilities, and that were shown
    let (mut told, mut shown) = (0, 0);
    let finish = loop {
        let Some(event) = events.recv().await else {
            return Err(ApiError::ending());
        };
        match event {
            Event::Began {
                cached: found,
                scored,
            } => {
                cached = found;
                if reading.scores_prompt()
                    && let Some(first) = reading.prompt.first()
                {
                    held.tokens.push(Told::first(*first, reading.tokenizer)?);
                }
                for token in &scored {
                    held.tokens.push(Told::new(token, reading.tokenizer)?);
                }
            }
            Event::Token(token) => {
                tokens += 1;
                let new = text.push(token.id)?;
                shown += new.len();
                held.text.push_str(&new);
                if reading.log_probs {
                    let one = Told::new(&token, reading.tokenizer)?;
                    // of a stop text, only what is shown
                    if !text.has_stopped() || told < shown {
                        told += one.bytes.len();
                        held.tokens.push(one);
                    }
                }
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
