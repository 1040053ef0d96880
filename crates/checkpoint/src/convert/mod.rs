//! Converts models from one layout to another, a few rows at a time, so that a model may be larger than the memory.

mod report;
mod to_bitsandbytes;
mod to_gguf;
mod to_hugging_face;
mod to_meta;

use std::ops::Range;
use std::path::PathBuf;

use simmer_files::WriteError;
use simmer_hint::Hint;

pub use simmer_blocks::FourBitKind;

pub use report::{Instead, QuantisationReport, QuantisedModule, WeightError};
pub use to_bitsandbytes::{BitsAndBytes, Codes, to_bitsandbytes};
pub use to_gguf::to_gguf;
pub use to_hugging_face::to_hugging_face;
pub use to_meta::to_meta;

use crate::checkpoint::Checkpoint;
use crate::gguf::GgufError;
use crate::meta::MetaError;
use crate::numbers::{self, Number};
use crate::{CheckpointError, Dtype, PretrainedError, TensorSpec};

/// Rows are converted in blocks of about this many bytes.
const BLOCK_BYTES: usize = 8 << 20;

/// Why a model cannot be converted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConvertError {
    /// The model cannot be used.
    #[error(transparent)]
    Pretrained(#[from] PretrainedError),
    /// A file cannot be read or written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A file cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// GGUF cannot hold the model.
    #[error("{}: {source}", path.display())]
    Gguf {
        /// The output file.
        path: PathBuf,
        /// The cause.
        source: GgufError,
    },
    /// Meta's layout cannot hold the model.
    #[error(transparent)]
    Meta(#[from] MetaError),
    /// A weight that is NaN or infinite.
    #[error("{}: tensor `{tensor}`: {count} of the values from row {row} are NaN or infinite", path.display())]
    NotFinite {
        /// The model.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// The number of such values in the rows that were read together.
        count: usize,
        /// The first of these rows.
        row: usize,
    },
    /// The output head cannot be quantised alone.
    #[error("the output head is tied to the embedding, which bitsandbytes does not quantise")]
    TiedHead,
    /// A finite weight that is not finite in the requested dtype.
    #[error("tensor `{tensor}`: the weight {found:e} is too large for {dtype}")]
    TooLarge {
        /// The tensor.
        tensor: String,
        /// The weight.
        found: f32,
        /// The requested dtype.
        dtype: Dtype,
    },
}

impl Hint for ConvertError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Pretrained(error) => error.hint(),
            Self::Checkpoint(error) => error.hint(),
            Self::Write(error) => error.hint(),
            Self::Gguf { source, .. } => source.hint(),
            Self::Meta(error) => error.hint(),
            Self::NotFinite { .. } => Some(
                "download the model again; if it is one that you trained or converted, that has failed"
                    .to_owned(),
            ),
            Self::TiedHead => {
                Some("leave out --quantize-head, or quantise to a type of GGUF".to_owned())
            }
            Self::TooLarge { .. } => {
                Some("convert to bf16 or f32, which hold larger numbers than f16".to_owned())
            }
        }
    }
}

/// Receives the bytes written and the total.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64);

/// The rows of a tensor in blocks. Each block is a multiple of `together` rows; the last one holds the rest.
fn blocks(rows: usize, row_bytes: usize, together: usize) -> impl Iterator<Item = Range<usize>> {
    let together = together.max(1);
    let block = (BLOCK_BYTES / row_bytes.max(1)).max(1);
    let block = block.next_multiple_of(together);
    (0..rows)
        .step_by(block)
        .map(move |first| first..rows.min(first + block))
}

/// Rows of a tensor to write.
fn height(spec: &TensorSpec) -> usize {
    spec.shape.first().copied().unwrap_or(1)
}

/// Bytes of one row.
fn row_bytes(spec: &TensorSpec) -> usize {
    spec.shape.iter().skip(1).product::<usize>() * spec.dtype.bitsize() / 8
}

/// Reads tensors block by block, each in the dtype of its spec.
fn stream(
    checkpoint: &Checkpoint,
    specs: &[TensorSpec],
    progress: Progress<'_>,
    mut write: impl FnMut(&str, &[u8]) -> Result<(), CheckpointError>,
) -> Result<(), ConvertError> {
    let total = specs.iter().map(|spec| height(spec) * row_bytes(spec));
    let total = total.sum::<usize>() as u64;
    let mut written = 0;
    for spec in specs {
        for block in blocks(height(spec), row_bytes(spec), 1) {
            let bytes = rows(checkpoint, &spec.name, block, spec.dtype)?;
            write(&spec.name, &bytes)?;
            written += bytes.len() as u64;
            progress(written, total);
        }
    }
    Ok(())
}

/// Rows of a tensor in another dtype.
///
/// # Errors
/// If an element is not finite, in the model or in the dtype.
fn rows(
    checkpoint: &Checkpoint,
    name: &str,
    rows: Range<usize>,
    to: Dtype,
) -> Result<Vec<u8>, ConvertError> {
    let from = checkpoint.info(name)?.dtype;
    let bytes = checkpoint.rows(name, rows.clone())?;
    let count = numbers::count_not_finite(&bytes, from);
    if count > 0 {
        return Err(ConvertError::NotFinite {
            path: checkpoint.path().to_owned(),
            tensor: name.to_owned(),
            count,
            row: rows.start,
        });
    }
    let converted = if from == to {
        bytes.into_owned()
    } else {
        let converted = numbers::convert(&bytes, from, to);
        if to == Dtype::F16 {
            check_finite(name, &bytes, from, &converted)?;
        }
        converted
    };
    checkpoint.release(name, rows);
    Ok(converted)
}

/// Only f16 cannot hold all values of the other dtypes.
fn check_finite(name: &str, bytes: &[u8], from: Dtype, f16: &[u8]) -> Result<(), ConvertError> {
    let infinite = |bytes: &[u8]| bytes[1] & 0x7f == 0x7c && bytes[0] == 0;
    let Some(at) = f16.chunks_exact(2).position(infinite) else {
        return Ok(());
    };
    let width = from.bitsize() / 8;
    let wide = numbers::convert(&bytes[at * width..][..width], from, Dtype::F32);
    Err(ConvertError::TooLarge {
        tensor: name.to_owned(),
        found: <f32 as Number>::widen(&wide),
        dtype: Dtype::F16,
    })
}

#[cfg(test)]
mod quantising;
#[cfg(test)]
mod tests;
