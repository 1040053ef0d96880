//! Training data: reads files into conversations, tokenises them with trained spans, and packs them into micro-batches.
//!
//! ```text
//! file --format--> Conversation --template--> Rendered --tokenizer--> Example --order, pack--> MicroBatch
//! ```
//!
//! [`Dataset::load`] runs the stages up to `Example` for a recipe's `[data]` table; [`Order`] and [`pack`] run the
//! rest, step by step. Each stage can be used alone. The crate does not depend on Burn or the model.

pub mod bad;
mod config;
pub mod conversation;
pub mod dataset;
mod error;
pub mod example;
pub mod file;
pub mod format;
mod guarded;
mod integer;
pub mod lint;
mod micro_batch;
mod nearest;
pub mod order;
mod pass;
mod random;
pub mod report;
mod stack;
mod stamp;
pub mod stream;
pub mod template;
pub mod tokenizer;

pub use bad::{BadRow, BadRows};
pub use config::{DataConfig, SourceConfig, Validation};
pub use conversation::{Content, Conversation, Message, Origin, Role};
pub use dataset::Dataset;
pub use error::{Absent, DataError, RowError, hint_of_table};
pub use example::{Example, Limits, Outcome, Overlong, encode, examples, prompt_tokens};
pub use format::Format;
pub use guarded::is_guarded;
pub use micro_batch::{IGNORE, MicroBatch, pack};
pub use order::{Batch, Cursor, Order, Steps};
pub use pass::{Inspect, RowView};
pub use random::Random;
pub use report::{Report, SourceReport};
pub use template::{Rendered, Template, TrainOn};
pub use tokenizer::Tokenizer;
