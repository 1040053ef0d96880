//! A server of OpenAI's API: chat completions, completions, and the list of models.
//!
//! This crate reads requests, renders and tokenises prompts, and writes answers, as a whole or as a stream. It has no model:
//! each text to continue is a [`Job`], which the program's loop continues beside others, and whose tokens come back one by one.
//!
//! Source: OpenAI's API reference, "Chat" and "Completions"; vLLM's OpenAI-compatible server for the keys beyond it.

mod answer;
mod answering;
mod chat;
mod completion;
mod error;
mod fields;
mod form;
mod grammar;
mod job;
mod log_probs;
mod metrics;
mod prompt;
mod routes;
mod server;
mod settings;
mod stops;
mod stream;
mod tools;

pub use axum::http::HeaderValue;
pub use error::ServeError;
pub use grammar::Grammar;
pub use job::{Event, Finish, Job, Likely, Reader, Sampling, Token};
pub use server::{Defaults, Served, Server, Setup, listen};
