//! Integration tests: one binary, so that Burn links once.
#![expect(clippy::unwrap_used, reason = "a test stops where something is wrong")]

mod adapters;
mod golden;
mod model;
