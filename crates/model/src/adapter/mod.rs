//! LoRA adapters: trainable weights added to a frozen base model.
//!
//! File formats and rules are those of PEFT.

mod attach;
mod card;
pub mod config;
mod diagnosis;
pub mod difference;
mod error;
pub mod gguf;
pub mod inspect;
mod keys;
pub mod kind;
mod mlx;
mod names;
pub mod peft;
mod rules;
mod settings;
mod spectrum;
pub mod targets;
pub(crate) mod tokens;
mod trained_with;
mod unmatched;
mod weights;

pub use attach::{Attached, LoraConfig, attach, load, load_folder, peft_keys, save, selection};
pub use card::Card;
pub use config::{AdapterConfig, Bias};
pub use error::AdapterError;
pub use peft::trained_shapes;
pub use spectrum::Spectrum;
pub use tokens::{ROWS, SelectedTokens, TokenIndices};
pub use trained_with::{PromptTemplate, QuantisedBase, SETTINGS_FILE, TrainedWith};
pub use weights::AdapterWeights;
