//! Adapters: trainable weights added to a frozen base model.
//!
//! File formats and rules are those of PEFT.

mod adaption_prompt;
mod attach;
mod card;
pub mod combine;
pub mod config;
mod continued;
mod decomposition;
mod diagnosis;
pub mod difference;
mod error;
pub mod gguf;
mod ia3;
pub(crate) mod init;
pub mod inspect;
mod keys;
pub mod kind;
mod limits;
pub mod llama_adapter;
mod mlx;
mod names;
pub mod peft;
mod peft_type;
mod quantisation_error;
mod rules;
mod saved;
mod settings;
pub(crate) mod since_start;
mod spectrum;
mod starting_factors;
mod table;
pub mod targets;
pub(crate) mod tokens;
mod trained_with;
mod unmatched;
mod weights;

pub use adaption_prompt::{AdaptionPromptConfig, Gate, SelectedAttention};
pub use attach::{Attached, LoraConfig, Starts, attach, load, load_folder, selection};
pub use card::Card;
pub use config::{AdapterConfig, Bias};
pub use continued::Continued;
pub use error::AdapterError;
pub use ia3::Ia3Config;
pub use init::Init;
pub use limits::{Limit, Program};
pub use peft::trained_shapes;
pub use peft_type::PeftType;
pub use quantisation_error::make_up_for_quantisation;
pub use saved::{peft_keys, save};
pub use spectrum::Spectrum;
pub use table::AdapterTable;
pub use tokens::{ROWS, SelectedTokens, TokenIndices};
pub use trained_with::{PromptTemplate, QuantisedBase, SETTINGS_FILE, TrainedWith};
pub use weights::AdapterWeights;
