//! Converts any layout to a Hugging Face folder.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{ConvertError, Progress, stream};
use crate::checkpoint::Layout;
use crate::hugging_face::{CheckpointWriter, plan_shards};
use crate::numbers::torch_name;
use crate::{
    CheckpointError, ConfigError, Dtype, MAX_SHARD_BYTES, Pretrained, TensorSpec, is_rotary_buffer,
};

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
    let dtypes: Vec<Dtype> = specs.iter().map(|spec| spec.dtype).collect();
    let config = config_json(model, &dtypes)?;
    writer.folder().write("config.json", config.as_bytes())?;
    for file in beside {
        writer.folder().copy(file)?;
    }
    Ok(writer.finish()?)
}

/// The `config.json` of the output: the model's own, if it has one.
fn config_json(model: &Pretrained, dtypes: &[Dtype]) -> Result<String, ConvertError> {
    let mut config = model.config.to_json();
    if model.checkpoint.layout() == Layout::HuggingFace {
        let path = model.checkpoint.path().join("config.json");
        let text = std::fs::read(&path).map_err(CheckpointError::io(&path, "read"))?;
        config = serde_json::from_slice(&text)
            .map_err(|source| ConfigError::Json { path, source })
            .map_err(crate::PretrainedError::from)?;
    }
    let mut widest = [Dtype::F32, Dtype::BF16].into_iter();
    let widest = widest.find(|dtype| dtypes.contains(dtype));
    let name = torch_name(widest.unwrap_or(Dtype::F16));
    let key = match config.get("torch_dtype") {
        Some(_) => "torch_dtype",
        None => "dtype",
    };
    config[key] = Value::from(name);
    Ok(format!("{config:#}\n"))
}
