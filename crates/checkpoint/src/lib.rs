//! A model on disk: its shape, and its weights in and out.
//!
//! Reading maps the files into memory and trusts nothing: [`Checkpoint::open`] checks every header
//! and the index before the first weight is seen. Writing ([`CheckpointWriter`],
//! [`write_safetensors`], [`StagedFolder`]) happens aside, reaches the disk, and is then renamed
//! into place, so that a reader never meets half a file and a failure leaves what was there.

mod checkpoint;
mod compare;
pub mod config;
pub mod convert;
mod error;
pub mod gguf;
pub mod hub;
mod hugging_face;
pub mod layout;
mod mapped;
pub mod meta;
mod nearest;
pub mod numbers;
pub mod pickle;
mod pretrained;
pub mod pth;
pub mod sizes;
mod stage;
mod stored;

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
pub use pretrained::{Pretrained, PretrainedError, gguf_in, gguf_vocabulary};
pub use safetensors::Dtype;
pub use stage::{Existing, StagedFolder, try_write_file, write_file};

/// The one-file form of a checkpoint.
pub const SINGLE_FILE: &str = "model.safetensors";
/// Which file each tensor of a sharded checkpoint is in.
pub const INDEX_FILE: &str = "model.safetensors.index.json";
/// Most bytes of a weights file, as Hugging Face splits them.
pub const MAX_SHARD_BYTES: u64 = 5_000_000_000;
/// Most bytes of a text file beside the weights: `config.json`, `params.json`, an index, `adapter_config.json`. The index of
/// a model of a thousand layers has some hundreds of thousands.
pub const MAX_TEXT_BYTES: u64 = 64 << 20;
/// The metadata that every PyTorch tool writes and some ask for.
pub const PT_METADATA: &[(&str, &str)] = &[("format", "pt")];

/// What the header says about one tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Number type as stored.
    pub dtype: Dtype,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
}

/// One tensor that is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// Its key.
    pub name: String,
    /// Number type to store.
    pub dtype: Dtype,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
}

/// A tensor that was read: row-major, little endian.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    /// Number type as stored.
    pub dtype: Dtype,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    /// The numbers; pages of the file where they lie there as they are wanted.
    pub bytes: Bytes,
}

/// A tensor that is to be written: row-major, little endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TensorView<'a> {
    /// Number type to store.
    pub dtype: Dtype,
    /// Dimensions, outermost first.
    pub shape: &'a [usize],
    /// The numbers.
    pub bytes: &'a [u8],
}

/// Whether a key is a rotary table that early LLaMA conversions saved beside the weights.
///
/// It follows from the configuration, so readers leave it out.
pub fn is_rotary_buffer(name: &str) -> bool {
    name == "rotary_emb.inv_freq" || name.ends_with(".rotary_emb.inv_freq")
}
