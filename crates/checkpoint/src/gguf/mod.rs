//! GGUF, the one-file layout of llama.cpp: header, metadata, where each tensor lies, the tensors.
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
pub mod llama;
mod metadata;
mod names;
mod reader;
mod rope;
pub mod split;
mod vocabulary;
mod writer;

pub use error::{Fault, GgufError};
pub use kind::GgmlType;
pub use metadata::{Array, Metadata, Value, ValueKind};
pub use reader::{Gguf, GgufTensor};
pub use vocabulary::{TokenKind, Vocabulary};
pub use writer::{GgufTensorSpec, GgufWriter};

/// What a file begins with.
pub const MAGIC: [u8; 4] = *b"GGUF";
/// The version that is written; 2 differs in nothing that is read here.
pub const VERSION: u32 = 3;
/// Tensors begin at multiples of this many bytes where `general.alignment` does not say otherwise.
pub const DEFAULT_ALIGNMENT: u64 = 32;

/// `general.alignment`, or its default.
fn alignment(metadata: &Metadata) -> Result<u64, GgufError> {
    let alignment = metadata.unsigned("general.alignment")?;
    let alignment = alignment.unwrap_or(DEFAULT_ALIGNMENT);
    // A bound keeps the padding that a writer adds small; no tool writes more than a page.
    if !alignment.is_power_of_two() || alignment > 1 << 16 {
        return Err(GgufError::Alignment { found: alignment });
    }
    Ok(alignment)
}
