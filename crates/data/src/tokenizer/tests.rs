use std::path::Path;
use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;

const TEXTS: [&str; 4] = [
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.",
    "What is the capital of France? The capital of France is Paris.",
    "### Instruction:\n### Input:\n### Response:\n",
    "user assistant system Hello! Bye!",
];

fn options() -> TrainOptions {
    TrainOptions {
        vocab_size: 320,
        min_frequency: 2,
    }
}

/// A tokenizer of 320 tokens at most, with ChatML's special tokens and template.
pub(crate) fn tiny() -> Tokenizer {
    static TINY: LazyLock<Tokenizer> = LazyLock::new(|| {
        let folder = TempDir::new().unwrap();
        train(&TEXTS, &options(), folder.path()).unwrap()
    });
    TINY.clone()
}

/// The tiny tokenizer with another `tokenizer_config.json`.
pub(crate) fn with_config(config: &Value) -> Tokenizer {
    let folder = TempDir::new().unwrap();
    train(&TEXTS, &options(), folder.path()).unwrap();
    write(folder.path(), "tokenizer_config.json", config);
    Tokenizer::from_folder(folder.path()).unwrap()
}

fn write(folder: &Path, name: &str, value: &Value) {
    std::fs::write(folder.join(name), value.to_string()).unwrap();
}

/// A folder with only the tiny `tokenizer.json`, changed by `change`.
fn bare_folder(change: impl FnOnce(&mut Value)) -> TempDir {
    let folder = TempDir::new().unwrap();
    train(&TEXTS, &options(), folder.path()).unwrap();
    std::fs::remove_file(folder.path().join("tokenizer_config.json")).unwrap();
    let file = folder.path().join("tokenizer.json");
    let mut json = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    change(&mut json);
    write(folder.path(), "tokenizer.json", &json);
    folder
}

/// The tiny tokenizer without files that name its special tokens.
pub(crate) fn bare_tiny() -> Tokenizer {
    Tokenizer::from_folder(bare_folder(|_| {}).path()).unwrap()
}

/// LLaMA's post-processor: a BOS token before every text.
fn add_bos(json: &mut Value) {
    json["post_processor"] = json!({
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<|im_start|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<|im_start|>": {"id": "<|im_start|>", "ids": [1], "tokens": ["<|im_start|>"]}},
    });
}

/// The tiny tokenizer with a BOS token before every text, as in LLaMA's.
pub(crate) fn tiny_with_bos() -> Tokenizer {
    let folder = bare_folder(add_bos);
    let config = json!({"bos_token": "<|im_start|>", "eos_token": {"content": "<|im_end|>"}});
    write(folder.path(), "tokenizer_config.json", &config);
    Tokenizer::from_folder(folder.path()).unwrap()
}

#[test]
fn training_twice_gives_the_same_bytes() {
    let folders = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    let read = |folder: &TempDir, name| std::fs::read(folder.path().join(name)).unwrap();
    for folder in &folders {
        train(&TEXTS, &options(), folder.path()).unwrap();
    }
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        assert_eq!(read(&folders[0], name), read(&folders[1], name));
    }
}

#[test]
fn special_tokens_are_where_smollm2_has_them() {
    let tokenizer = tiny();
    assert_eq!(tokenizer.bos_id(), Some(1));
    assert_eq!(tokenizer.eos_ids(), [2]);
    assert!(tokenizer.prefix().is_empty());
    assert_eq!(tokenizer.token(0).as_deref(), Some("<|endoftext|>"));
    assert_eq!(tokenizer.token_id("<|im_end|>"), Some(2));
    assert_eq!(
        tokenizer.vocab_size(),
        tokenizer.max_token_id() as usize + 1
    );
    assert!(tokenizer.vocab_size() <= 320);
    assert_eq!(tokenizer.encode("<|im_start|>user").unwrap().ids[0], 1);
}

#[test]
fn a_vocabulary_smaller_than_the_bytes_is_refused() {
    let folder = TempDir::new().unwrap();
    let small = TrainOptions {
        vocab_size: 100,
        min_frequency: 2,
    };
    let error = train(&TEXTS, &small, folder.path())
        .unwrap_err()
        .to_string();
    assert!(
        error.ends_with("expected a vocabulary of at least 259 tokens (all bytes and the special tokens), found 100"),
        "{error}"
    );
}

#[test]
fn the_post_processor_decides_what_precedes_a_text() {
    assert_eq!(tiny_with_bos().prefix(), [1]);
    assert_eq!(tiny_with_bos().encode("a").unwrap().ids.len(), 1);
    let config = json!({"bos_token": "<|im_start|>", "add_bos_token": true});
    assert!(with_config(&config).prefix().is_empty());
}

#[test]
fn the_tokenizers_own_eos_takes_precedence() {
    let folder = bare_folder(|_| {});
    let path = folder.path();
    // As in early LLaMA conversions: wrong ids, and no other file names any.
    write(
        path,
        "config.json",
        &json!({"bos_token_id": 0, "eos_token_id": 1}),
    );
    assert_eq!(Tokenizer::from_folder(path).unwrap().eos_ids(), [1]);
    write(
        path,
        "special_tokens_map.json",
        &json!({"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}),
    );
    assert_eq!(Tokenizer::from_folder(path).unwrap().eos_ids(), [2]);
    // More EOS tokens may be named for generation; the BOS token, or an id without a token, is not one.
    write(
        path,
        "generation_config.json",
        &json!({"eos_token_id": [1, 0, 99999]}),
    );
    assert_eq!(Tokenizer::from_folder(path).unwrap().eos_ids(), [2, 0]);
}

#[test]
fn faults_name_the_file() {
    let folder = bare_folder(|_| {});
    let path = folder.path();
    let error = |path: &Path| {
        let text = Tokenizer::from_folder(path).unwrap_err().to_string();
        text.replace(&path.display().to_string(), "MODEL")
            .replace('\\', "/")
    };
    write(path, "tokenizer_config.json", &json!({"eos_token": "</s>"}));
    insta::assert_snapshot!(error(path), @"MODEL/tokenizer_config.json: eos_token is `</s>`, which is not in the vocabulary");
    write(path, "tokenizer_config.json", &json!({}));
    write(path, "config.json", &json!({"eos_token_id": "two"}));
    insta::assert_snapshot!(error(path), @r#"MODEL/config.json: eos_token_id: expected a token id or a list of them, found "two""#);
    std::fs::write(path.join("config.json"), "{\"eos_token_id\": ").unwrap();
    insta::assert_snapshot!(error(path), @"MODEL/config.json: EOF while parsing a value at line 1 column 17");
    std::fs::write(path.join("tokenizer.json"), "{}").unwrap();
    insta::assert_snapshot!(error(path), @"MODEL/tokenizer.json: not a tokenizer: Model missing. at line 1 column 2");
    std::fs::remove_file(path.join("tokenizer.json")).unwrap();
    insta::assert_snapshot!(error(path), @"cannot read MODEL/tokenizer.json: No such file or directory (os error 2)");
}

#[test]
fn a_tokenizer_without_eos_is_an_error() {
    let folder = bare_folder(|_| {});
    let tokenizer = Tokenizer::from_folder(folder.path()).unwrap();
    let error = tokenizer.eos_id().unwrap_err().to_string();
    assert!(
        error.ends_with("no EOS token: a model that is trained without one never stops"),
        "{error}"
    );
}

#[test]
fn named_chat_templates_are_found_and_files_take_precedence() {
    let folder = bare_folder(|_| {});
    let path = folder.path();
    write(
        path,
        "tokenizer_config.json",
        &json!({"chat_template": [
            {"name": "default", "template": "one"}, {"name": "rag", "template": "two"},
        ]}),
    );
    std::fs::write(path.join("chat_template.jinja"), "three").unwrap();
    let tokenizer = Tokenizer::from_folder(path).unwrap();
    assert_eq!(tokenizer.chat_template("default"), Some("three"));
    assert_eq!(tokenizer.chat_template("rag"), Some("two"));
    assert_eq!(tokenizer.chat_template("other"), None);
}

#[test]
fn the_tokens_of_one_character_come_out_together() {
    let tokenizer = tiny();
    let ids = tokenizer.encode("a🦙é").unwrap().ids;
    assert!(
        ids.len() > 3,
        "the vocabulary must not have these characters whole"
    );
    let mut stream = tokenizer.decode_stream(true);
    let pieces: Vec<String> = ids.iter().map(|&id| stream.push(id).unwrap()).collect();
    let said: Vec<&String> = pieces.iter().filter(|piece| !piece.is_empty()).collect();
    assert_eq!(said, ["a", "🦙", "é"]);
    assert_eq!(stream.finish().unwrap(), "");
}

#[test]
fn an_incomplete_character_becomes_a_replacement() {
    let tokenizer = tiny();
    let ids = tokenizer.encode("🦙").unwrap().ids;
    let mut stream = tokenizer.decode_stream(true);
    assert_eq!(stream.push(ids[0]).unwrap(), "");
    assert_eq!(stream.finish().unwrap(), "\u{FFFD}");
}

proptest! {
    #[test]
    fn text_survives_tokens(text: String) {
        let tokenizer = tiny();
        let encoding = tokenizer.encode(&text).unwrap();
        prop_assert_eq!(tokenizer.decode(&encoding.ids, false).unwrap(), text.clone());
        prop_assert_eq!(encoding.ids.len(), encoding.offsets.len());
        for range in encoding.offsets {
            prop_assert!(text.get(range).is_some());
        }
    }

    #[test]
    fn a_stream_gives_the_text_of_decoding(text: String) {
        let tokenizer = tiny();
        let ids = tokenizer.encode(&text).unwrap().ids;
        let mut stream = tokenizer.decode_stream(false);
        let mut said = String::new();
        for id in ids {
            said.push_str(&stream.push(id).unwrap());
        }
        said.push_str(&stream.finish().unwrap());
        prop_assert_eq!(said, text);
    }
}
