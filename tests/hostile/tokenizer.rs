//! Tokenizers: `tokenizer.json`, `tokenizer.model`, and the files beside them.

use serde_json::{Value, json};
use simmer_data::Tokenizer;

use super::{Folder, deep, shown};

#[test]
fn tokenizers() {
    let golden = || Folder::of("tied-gqa");
    let open = |folder: &Folder| folder.said(Tokenizer::from_folder(folder.path()));
    let file = |name: &str, content: &[u8]| open(&golden().with(name, content));
    let set = |key: &str, value: Value| open(&golden().with_key("tokenizer.json", key, value));
    let model = |bytes: &[u8]| open(&Folder::empty().with("tokenizer.model", bytes));
    let double = json!({"type": "Replace", "pattern": {"String": "a"}, "content": "aa"});
    let doubled = json!({"type": "Sequence", "normalizers": vec![double; 60]});
    let mut nested = json!({"type": "Lowercase"});
    for _ in 0..50 {
        nested = json!({"type": "Sequence", "normalizers": [nested]});
    }
    shown(
        "tokenizer::tokenizers",
        &[
            ("a million `[`", file("tokenizer.json", deep().as_bytes())),
            ("no object", file("tokenizer.json", b"[]")),
            (
                "a colon that is missing, where its library panics",
                file("tokenizer.json", b"{\"decoder\": {\"type\" \"Fuse\"}}"),
            ),
            (
                "invalid UTF-8",
                file("tokenizer.json", b"{\"model\": \"\xFF\"}"),
            ),
            (
                "a file of 5 GB",
                open(&golden().with_long("tokenizer.json", 5_000_000_000)),
            ),
            (
                "60 replacements that double a text",
                set("normalizer", doubled),
            ),
            ("normalizers in normalizers", set("normalizer", nested)),
            (
                "a prefix of subwords, which its library reads out of bounds",
                set("model.continuing_subword_prefix", json!("\u{20AC}")),
            ),
            (
                "a merge of tokens that are not there",
                set("model.merges", json!([["x", "yyyyy"]])),
            ),
            (
                "a token with the id 2^32",
                set("model.vocab", json!({"a": 1u64 << 32})),
            ),
            (
                "a pattern that is none",
                set(
                    "pre_tokenizer",
                    json!({"type": "Split", "pattern": {"Regex": "(("}, "behavior": "Isolated", "invert": false}),
                ),
            ),
            (
                "a post-processor with a token that it does not explain, where its library panics",
                set(
                    "post_processor",
                    json!({
                        "type": "TemplateProcessing",
                        "single": [{"SpecialToken": {"id": "<x>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                        "pair": [],
                        "special_tokens": {}
                    }),
                ),
            ),
            (
                "tokenizer_config.json: a million `[`",
                file("tokenizer_config.json", deep().as_bytes()),
            ),
            (
                "tokenizer_config.json: an end that is no token",
                file("tokenizer_config.json", b"{\"eos_token\": \"<nowhere>\"}"),
            ),
            (
                "generation_config.json: an end that is no id",
                file("generation_config.json", b"{\"eos_token_id\": -7}"),
            ),
            (
                "chat_template.jinja of 5 GB",
                open(&golden().with_long("chat_template.jinja", 5_000_000_000)),
            ),
            (
                "tokenizer.model: a tiktoken rank twice",
                model(b"YQ== 0\nYg== 0\n"),
            ),
            (
                "tokenizer.model: a field longer than the file",
                model(b"\x0A\xFF\xFF\xFF\x7F"),
            ),
            (
                "tokenizer.model: a pointer of Git LFS",
                model(b"version https://git-lfs.github.com/spec/v1\n"),
            ),
            (
                "tokenizer.model of 5 GB",
                open(&Folder::empty().with_long("tokenizer.model", 5_000_000_000)),
            ),
            #[cfg(unix)]
            (
                "a link to a device that never ends",
                open(&golden().with_link("tokenizer_config.json", "/dev/zero")),
            ),
        ],
    );
}

/// What a file asks for that is of no use here is left undone.
#[test]
fn padding_to_any_length_is_not_done() {
    let padding = json!({"strategy": {"Fixed": 1u64 << 40}, "direction": "Right", "pad_to_multiple_of": null,
        "pad_id": 0, "pad_type_id": 0, "pad_token": "<unk>"});
    let folder = Folder::of("tied-gqa").with_key("tokenizer.json", "padding", padding);
    let tokenizer = Tokenizer::from_folder(folder.path()).unwrap();
    assert!(tokenizer.encode("a text").unwrap().ids.len() < 10);
}
