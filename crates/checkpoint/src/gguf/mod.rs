//! GGUF, the one-file layout of llama.cpp: header, metadata, table of tensors, tensors.
//!
//! ```text
//! "GGUF"  version: u32  tensors: u64  keys: u64
//! keys    times  key: string  type: u32  value
//! tensors times  name: string  dimensions: u32, innermost first: u64 each  type: u32  offset: u64
//! padding to the alignment, then the tensors, each padded to the alignment
//! ```
//!
//! Everything is little endian; a string is its length as u64 and UTF-8. Source: docs/gguf.md of
//! ggml.

pub mod adapter;
pub mod blocks;
mod error;
mod kind;
mod metadata;
pub mod model;
mod reader;
pub mod split;
mod vocabulary;
mod writer;

pub use error::{Fault, GgufError};
pub use kind::GgmlType;
pub use metadata::{Array, Metadata, Value, ValueKind};
pub use reader::{Gguf, GgufTensor};
pub use vocabulary::{TokenKind, Vocabulary};
pub use writer::{GgufTensorSpec, GgufWriter};

/// The first bytes of a file.
pub const MAGIC: [u8; 4] = *b"GGUF";
/// The version that is written. Version 2 is read the same way.
pub const VERSION: u32 = 3;
/// Default of `general.alignment`: tensors start at multiples of this many bytes.
pub const DEFAULT_ALIGNMENT: u64 = 32;

/// `general.alignment`, or its default.
fn alignment(metadata: &Metadata) -> Result<u64, GgufError> {
    let alignment = metadata.unsigned("general.alignment")?;
    let alignment = alignment.unwrap_or(DEFAULT_ALIGNMENT);
    // the limit keeps the writer's padding small; no tool uses more than a page
    if !alignment.is_power_of_two() || alignment > 1 << 16 {
        return Err(GgufError::Alignment { found: alignment });
    }
    Ok(alignment)
}
