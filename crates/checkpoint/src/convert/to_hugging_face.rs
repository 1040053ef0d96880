//! Converts any layout to a Hugging Face folder.

use std::path::{Path, PathBuf};

use super::{ConvertError, Progress, stream};
use crate::hugging_face::{CheckpointWriter, plan_shards};
use crate::{Dtype, MAX_SHARD_BYTES, Pretrained, TensorSpec, is_rotary_buffer};

/// Writes a model as a Hugging Face folder: weights, `config.json`, and copies of the files
/// `beside`.
///
/// Without `dtype`, weights keep their dtype, and quantised weights become f32, which holds them exactly. The keys of an
/// existing `config.json` are kept.
///
/// # Errors
/// If the model cannot be read, the output exists, a weight is too large for `dtype`, or a file cannot be copied. No
/// partial output remains.
pub fn to_hugging_face(
    model: &Pretrained,
    out: &Path,
    dtype: Option<Dtype>,
    max_shard_bytes: Option<u64>,
    beside: &[PathBuf],
    progress: Progress<'_>,
) -> Result<(), ConvertError> {
    let checkpoint = &model.checkpoint;
    let stored = checkpoint.shards().iter().flat_map(|shard| &shard.tensors);
    let specs: Vec<TensorSpec> = stored
        .filter(|tensor| !is_rotary_buffer(&tensor.name))
        .map(|tensor| TensorSpec {
            dtype: dtype.unwrap_or(tensor.dtype),
            ..tensor.clone()
        })
        .collect();
    let limit = max_shard_bytes.unwrap_or(MAX_SHARD_BYTES);
    let mut writer = CheckpointWriter::create(out, plan_shards(specs.clone(), limit))?;
    stream(checkpoint, &specs, progress, |name, bytes| {
        writer.append(name, bytes)
    })?;
    let mut widest = [Dtype::F32, Dtype::BF16].into_iter();
    let widest = widest.find(|dtype| specs.iter().any(|spec| spec.dtype == *dtype));
    let config = model.config.to_text(Some(widest.unwrap_or(Dtype::F16)));
    writer.folder().write("config.json", config.as_bytes())?;
    for file in beside {
        writer.folder().copy(file)?;
    }
    Ok(writer.finish()?)
}
