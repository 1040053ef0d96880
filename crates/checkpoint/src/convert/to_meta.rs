//! Converts any layout to Meta's.

use std::path::{Path, PathBuf};

use super::{ConvertError, Progress, stream};
use crate::meta::{MetaOptions, MetaWriter, Split};
use crate::{CheckpointError, Dtype, Pretrained, TensorSpec, layout};

/// Vocabulary size above which the embedding is split by rows, as in Llama 3.
const LLAMA_3_VOCABULARY: usize = 100_000;

/// Writes a model as `params.json` and `shards` files `consolidated.NN.pth`, and copies of the
/// files `beside`.
///
/// Without `dtype`, weights keep their dtype. The embedding is split as in Meta's models: by rows for vocabularies of Llama
/// 3's size, by columns for smaller ones.
///
/// # Errors
/// If the model cannot be read, Meta's layout cannot express it, the output exists, or a weight is too large for `dtype`.
/// No partial output remains.
pub fn to_meta(
    model: &Pretrained,
    out: &Path,
    dtype: Option<Dtype>,
    shards: usize,
    beside: &[PathBuf],
    progress: Progress<'_>,
) -> Result<(), ConvertError> {
    let config = &model.config;
    let specs = layout::tensors(config).into_iter().map(|tensor| {
        let stored = model.checkpoint.info(&tensor.name)?.dtype;
        Ok(TensorSpec {
            dtype: dtype.unwrap_or(stored),
            name: tensor.name,
            shape: tensor.shape,
        })
    });
    let specs: Vec<TensorSpec> = specs.collect::<Result<_, CheckpointError>>()?;
    let options = MetaOptions {
        shards,
        embedding: if config.vocab_size > LLAMA_3_VOCABULARY {
            Split::Rows
        } else {
            Split::Columns
        },
    };
    let mut writer = MetaWriter::create(out, config, &specs, options)?;
    stream(&model.checkpoint, &specs, progress, |name, bytes| {
        writer.append(name, bytes)
    })?;
    for file in beside {
        writer.folder().copy(file)?;
    }
    Ok(writer.finish()?)
}
