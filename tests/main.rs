//! Integration tests: one binary, so that Burn links once.
#![expect(clippy::unwrap_used, reason = "a test stops where something is wrong")]

mod adapters;
mod commands;
mod converting;
mod corpus;
mod estimate;
mod eval;
mod golden;
mod hostile;
mod merging;
mod model;
mod recipes;
mod training;
mod vocabulary;
