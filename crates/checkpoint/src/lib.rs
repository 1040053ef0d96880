//! Models on disk: reading and writing configurations and weights.
//!
//! Files are mapped into memory for reading, and nothing in them is trusted: [`Checkpoint::open`] checks every header
//! and the index before it returns a weight. Outputs ([`CheckpointWriter`], [`write_safetensors`]) are written
//! atomically (see [`simmer_files`]): a reader never sees half a file, and after a failure the old files are unchanged.

mod checkpoint;
mod compare;
pub mod config;
pub mod convert;
mod error;
pub mod family;
pub mod gguf;
pub mod hub;
mod hugging_face;
pub mod layout;
mod mapped;
pub mod meta;
mod nearest;
pub mod numbers;
mod pages;
pub mod pickle;
mod pretrained;
pub mod pth;
mod quantised;
pub mod sizes;
mod stored;
pub mod web;

pub use bytes::Bytes;
pub use checkpoint::{Checkpoint, Layout};
pub use compare::{Difference, compare};
pub use config::{ConfigError, ModelConfig};
pub use error::CheckpointError;
pub use hugging_face::{
    CheckpointWriter, SafetensorsFile, Shard, encode_safetensors, plan_shards, read_header,
    write_safetensors,
};
pub use nearest::nearest;
pub use pages::{Chunk, Pages};
pub use pretrained::{Pretrained, PretrainedError, gguf_in, gguf_vocabulary};
pub use safetensors::Dtype;

/// The weights of a checkpoint that is not sharded.
pub const SINGLE_FILE: &str = "model.safetensors";
/// The index of a sharded checkpoint: which file holds each tensor.
pub const INDEX_FILE: &str = "model.safetensors.index.json";
/// Maximum bytes of a weights file; Hugging Face splits larger checkpoints at this size.
pub const MAX_SHARD_BYTES: u64 = 5_000_000_000;
/// Maximum bytes of a JSON file of a model: `config.json`, `params.json`, an index, `adapter_config.json`. The index of a
/// model with a thousand layers has a few hundred thousand bytes.
pub const MAX_TEXT_BYTES: u64 = 64 << 20;
/// The safetensors metadata that every PyTorch tool writes and some require.
pub const PT_METADATA: &[(&str, &str)] = &[("format", "pt")];

/// Dtype and shape of a tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Dtype as stored.
    pub dtype: Dtype,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
}

/// Name, dtype and shape of a tensor to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// Its key.
    pub name: String,
    /// Dtype to store.
    pub dtype: Dtype,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
}

/// A tensor read from a file: row-major, little endian.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    /// Dtype as stored.
    pub dtype: Dtype,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    /// The elements. They share the pages of the file if it stores them in this form.
    pub bytes: Bytes,
}

/// A tensor to write: row-major, little endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TensorView<'a> {
    /// Dtype to store.
    pub dtype: Dtype,
    /// Dimensions, outermost first.
    pub shape: &'a [usize],
    /// The elements.
    pub bytes: &'a [u8],
}

/// Whether a key is a table of rotary frequencies, which early LLaMA conversions saved with the weights.
///
/// The configuration determines the table, so readers skip it.
pub fn is_rotary_buffer(name: &str) -> bool {
    name == "rotary_emb.inv_freq" || name.ends_with(".rotary_emb.inv_freq")
}
