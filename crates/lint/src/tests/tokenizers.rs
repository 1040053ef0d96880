//! Tokenizers of a few hundred tokens, trained on the spot.

use std::path::Path;
use std::sync::LazyLock;

use serde_json::{Value, json};
use simmer_data::Tokenizer;
use simmer_data::tokenizer::{TrainOptions, train};
use tempfile::TempDir;

const TEXTS: [&str; 4] = [
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.",
    "What is the capital of France? The capital of France is Paris.",
    "### Instruction:\n### Input:\n### Response:\n",
    "user assistant system Hello! Bye!",
];

/// A tokenizer of 320 tokens at most, with ChatML's special tokens and template.
pub(crate) fn tiny() -> Tokenizer {
    static TINY: LazyLock<Tokenizer> = LazyLock::new(|| trained(TempDir::new().unwrap().path()));
    TINY.clone()
}

/// The tiny tokenizer with another `tokenizer_config.json`.
pub(crate) fn with_config(config: &Value) -> Tokenizer {
    let folder = TempDir::new().unwrap();
    trained(folder.path());
    write(folder.path(), "tokenizer_config.json", config);
    Tokenizer::from_folder(folder.path()).unwrap()
}

/// The tiny tokenizer that puts a BOS token before every text, as LLaMA's does.
pub(crate) fn tiny_with_bos() -> Tokenizer {
    let folder = TempDir::new().unwrap();
    trained(folder.path());
    let file = folder.path().join("tokenizer.json");
    let mut json: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    json["post_processor"] = json!({
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<|im_start|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<|im_start|>": {"id": "<|im_start|>", "ids": [1], "tokens": ["<|im_start|>"]}},
    });
    write(folder.path(), "tokenizer.json", &json);
    let config = json!({"bos_token": "<|im_start|>", "eos_token": {"content": "<|im_end|>"}});
    write(folder.path(), "tokenizer_config.json", &config);
    Tokenizer::from_folder(folder.path()).unwrap()
}

fn trained(folder: &Path) -> Tokenizer {
    let options = TrainOptions {
        vocab_size: 320,
        min_frequency: 2,
    };
    train(&TEXTS, &options, folder).unwrap()
}

fn write(folder: &Path, name: &str, value: &Value) {
    std::fs::write(folder.join(name), value.to_string()).unwrap();
}
