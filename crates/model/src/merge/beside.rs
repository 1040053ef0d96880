//! The other files of a merged model: config.json, tokenizer and more.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use simmer_checkpoint::config::{ConfigError, RawObject};
use simmer_checkpoint::{Checkpoint, CheckpointError, Layout, ModelConfig};

use super::{MergeError, MergeOptions};
use crate::export::{TOKENIZER_FILES, tokenizer_files};

/// The config.json of the merged model. Unchanged keys keep their text and order.
pub(super) fn config_text(
    config: &ModelConfig,
    checkpoint: &Checkpoint,
    untied: bool,
    options: MergeOptions<'_>,
) -> Result<String, MergeError> {
    let mut config = config.clone();
    config.tie_word_embeddings &= !untied;
    if let Some(eos) = options.eos {
        config.eos_token_id = eos.to_vec();
    }
    let dtype = match (options.dtype, checkpoint.layout()) {
        // the file says it already
        (None, Layout::HuggingFace) => None,
        (None, Layout::Meta | Layout::Gguf) => {
            let embedding = config.family.embedding.weight();
            Some(checkpoint.info(&embedding)?.dtype)
        }
        (dtype, _) => dtype,
    };
    Ok(config.to_text(dtype))
}

/// The file of transformers' defaults for generation.
pub(super) const GENERATION_CONFIG: &str = "generation_config.json";
/// The generation_config.json of the merged model: that of the base model at `path`, if there is one, with these tokens
/// that end an answer.
pub(super) fn generation_config(path: &Path, eos: &[u32]) -> Result<String, MergeError> {
    let text = if path.exists() {
        fs::read_to_string(path).map_err(CheckpointError::io(path, "read"))?
    } else {
        "{}".to_owned()
    };
    let object = RawObject::parse(text).map_err(|source| ConfigError::Json {
        path: path.to_owned(),
        source,
    })?;
    Ok(object.with_changes(&[(vec!["eos_token_id"], ids(eos))]))
}

/// One id, or a list of them.
fn ids(ids: &[u32]) -> Value {
    match ids {
        [id] => (*id).into(),
        several => several.into(),
    }
}

/// The files of the base model's folder to copy: everything except weights, configuration and model card, such as
/// tokenizer, templates, generation defaults and licences. If `tokenizer` is set, the tokenizer's files are
/// taken from that folder instead.
///
/// # Errors
/// If a folder cannot be read.
pub fn files_beside(
    base: &Path,
    tokenizer: Option<&Path>,
) -> Result<Vec<PathBuf>, CheckpointError> {
    const WEIGHTS: [&str; 9] = [
        "safetensors",
        "bin",
        "pt",
        "pth",
        "gguf",
        "h5",
        "msgpack",
        "onnx",
        "ot",
    ];
    let io = |error| CheckpointError::io(base, "read")(error);
    let mut files = Vec::new();
    // other files next to a .gguf file do not belong to it
    let entries = base.is_dir().then(|| fs::read_dir(base).map_err(io));
    for entry in entries.transpose()?.into_iter().flatten() {
        let path = entry.map_err(io)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let extension = path.extension().unwrap_or_default().to_string_lossy();
        let skipped = name.starts_with('.')
            || name == "config.json"
            || name == "params.json"
            || name.eq_ignore_ascii_case("README.md")
            || name.ends_with(".index.json")
            || (tokenizer.is_some() && TOKENIZER_FILES.contains(&&*name))
            || WEIGHTS.contains(&&*extension);
        if !skipped && path.is_file() {
            files.push(path);
        }
    }
    files.extend(tokenizer.into_iter().flat_map(tokenizer_files));
    files.sort();
    Ok(files)
}
