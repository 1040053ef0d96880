//! A language model: configuration, loading and saving weights, forward pass, adapters, merging, generation.

pub mod adapter;
mod backward;
pub mod base;
mod batch;
mod cache;
mod decoder;
pub mod device;
pub mod export;
mod generate;
mod layer;
mod llama;
mod lora;
pub mod merge;
mod modules;
mod numbers;
mod parameters;
mod prefix;
mod random;
mod rotary;
mod sampler;
mod sequence;
pub mod tensor_file;
mod trainable;
mod weight;

pub use backward::Recompute;
pub use batch::Prompt;
pub use cache::KvCache;
pub use decoder::{DecoderLayer, Mlp, SelfAttention};
pub use generate::{GenerateError, Generated, Scored, Stop};
pub use layer::{Embedding, Linear, LmHead, RmsNorm};
pub use llama::{LlamaForCausalLM, LlamaModel};
pub use parameters::{Parameters, add};
pub use prefix::Shared;
pub use rotary::RotarySettings;
pub use sampler::{Sampling, SamplingError};
pub use sequence::{Sequence, Target};
