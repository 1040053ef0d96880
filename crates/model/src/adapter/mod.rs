//! Trainable weights beside a frozen base, and how they join it.
//!
//! Formats and rules are PEFT's; see `docs/reference/adapters.md`.

mod lora;

pub use lora::{EmbeddingLora, Lora};
