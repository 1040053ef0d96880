//! The other files of a merged model: config.json, tokenizer and more.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use serde_json::value::RawValue;
use simmer_checkpoint::config::ConfigError;
use simmer_checkpoint::numbers::torch_name;
use simmer_checkpoint::{Checkpoint, CheckpointError, Layout, ModelConfig};

use super::{MergeError, MergeOptions};
use crate::adapter::targets::Patterns;
use crate::export::{TOKENIZER_FILES, tokenizer_files};
use crate::llama::EMBEDDING;

/// The text of the base model's config.json; generated if its format has none.
pub(super) fn config_text(
    config: &ModelConfig,
    checkpoint: &Checkpoint,
) -> Result<String, MergeError> {
    if checkpoint.layout() == Layout::HuggingFace {
        let path = checkpoint.path().join("config.json");
        let text = fs::read_to_string(&path).map_err(CheckpointError::io(&path, "read"))?;
        return Ok(text);
    }
    let matrix = checkpoint.info(&format!("{EMBEDDING}.weight"))?.dtype;
    let mut json = config.to_json();
    json["dtype"] = torch_name(matrix).into();
    Ok(format!("{json:#}\n"))
}

/// The config.json of the merged model. Unchanged keys keep their text and order.
pub(super) fn config_json(
    text: String,
    base: &Path,
    untied: bool,
    vocab_size: Option<usize>,
    options: MergeOptions<'_>,
) -> Result<Vec<u8>, MergeError> {
    let mut changes: Vec<(&[&str], Value)> = Vec::new();
    if untied {
        changes.push((&["tie_word_embeddings"], Value::Bool(false)));
    }
    if let Some(vocab_size) = vocab_size {
        changes.push((&["vocab_size"], vocab_size.into()));
    }
    if let Some(dtype) = options.dtype {
        changes.push((&["torch_dtype", "dtype"], torch_name(dtype).into()));
    }
    if let Some(eos) = options.eos {
        changes.push((EOS, ids(eos)));
    }
    with_changes(text, &base.join("config.json"), &changes)
}

/// The file of transformers' defaults for generation.
pub(super) const GENERATION_CONFIG: &str = "generation_config.json";
/// The key of the tokens that end an answer.
const EOS: &[&str] = &["eos_token_id"];

/// The generation_config.json of the merged model: that of the base model at `path`, if there is one, with these tokens
/// that end an answer.
pub(super) fn generation_config(path: &Path, eos: &[u32]) -> Result<Vec<u8>, MergeError> {
    let text = if path.exists() {
        fs::read_to_string(path).map_err(CheckpointError::io(path, "read"))?
    } else {
        "{}".to_owned()
    };
    with_changes(text, path, &[(EOS, ids(eos))])
}

/// One id, or a list of them.
fn ids(ids: &[u32]) -> Value {
    match ids {
        [id] => (*id).into(),
        several => several.into(),
    }
}

/// A JSON object with other values of some keys, each given with its other names. Unchanged keys keep their text and order.
fn with_changes(
    text: String,
    path: &Path,
    changes: &[(&[&str], Value)],
) -> Result<Vec<u8>, MergeError> {
    if changes.is_empty() {
        return Ok(text.into_bytes());
    }
    let mut entries: Patterns<Box<RawValue>> =
        serde_json::from_str(&text).map_err(|source| ConfigError::Json {
            path: path.to_owned(),
            source,
        })?;
    for (keys, value) in changes {
        let mut found = false;
        for (key, entry) in &mut entries.0 {
            if keys.contains(&key.as_str()) {
                *entry = raw(value);
                found = true;
            }
        }
        if !found {
            entries.0.push((keys[0].to_owned(), raw(value)));
        }
    }
    let lines: Vec<String> = entries
        .iter()
        .map(|(key, value)| format!("  {}: {value}", Value::from(key.as_str())))
        .collect();
    Ok(format!("{{\n{}\n}}\n", lines.join(",\n")).into_bytes())
}

fn raw(value: &Value) -> Box<RawValue> {
    // the text of a value is always valid JSON
    RawValue::from_string(value.to_string()).unwrap_or_default()
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
