//! What the model reads: files into conversations, conversations into tokens and trained spans, those into micro-batches.
//!
//! ```text
//! file --format--> Conversation --template--> Rendered --tokenizer--> Example --order, pack--> MicroBatch
//! ```
//!
//! [`Dataset::load`] goes the first half of that way for a recipe's `[data]` table; [`Order`] and [`pack`] the rest, step by
//! step. Each stage can be used alone. Nothing here knows Burn or the model.

mod config;
pub mod conversation;
pub mod dataset;
mod error;
pub mod example;
pub mod file;
pub mod format;
mod guarded;
pub mod lint;
mod micro_batch;
pub mod order;
mod pass;
mod random;
pub mod report;
mod stack;
pub mod stream;
pub mod template;
pub mod tokenizer;

pub use config::{DataConfig, SourceConfig, Validation};
pub use conversation::{Content, Conversation, Message, Origin, Role};
pub use dataset::{Dataset, Steps};
pub use error::DataError;
pub use example::{Example, Limits, Outcome, Overlong, encode, examples, prompt_tokens};
pub use format::Format;
pub use guarded::is_guarded;
pub use micro_batch::{IGNORE, MicroBatch, pack};
pub use order::{Batch, Cursor, Order};
pub use pass::{Inspect, RowView};
pub use report::{Report, SourceReport};
pub use template::{Rendered, Template, TrainOn};
pub use tokenizer::Tokenizer;
