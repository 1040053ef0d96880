use std::fs;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::super::save::Added;
use super::super::sentencepiece::tests::{file, goldens};
use super::*;

/// A folder with this `tokenizer.model`.
fn folder(model: &str) -> TempDir {
    let folder = TempDir::new().unwrap();
    let from = file(&format!("{model}.model"));
    fs::copy(from, folder.path().join("tokenizer.model")).unwrap();
    folder
}

fn write(folder: &TempDir, name: &str, value: &Value) {
    fs::write(folder.path().join(name), value.to_string()).unwrap();
}

fn read(folder: &TempDir) -> Tokenizer {
    Tokenizer::from_folder(folder.path()).unwrap()
}

fn error(folder: &TempDir) -> String {
    let error = Tokenizer::from_folder(folder.path())
        .unwrap_err()
        .to_string();
    error
        .replace(&folder.path().display().to_string(), "MODEL")
        .replace('\\', "/")
}

#[test]
fn a_folder_with_either_kind_of_tokenizer_model() {
    assert_eq!(read(&folder("llama")).vocab_size(), 600);
    assert_eq!(read(&folder("tiktoken")).vocab_size(), 756);
    let both = folder("llama");
    read(&folder("marked")).save(both.path()).unwrap();
    let size = |path: &Path| Tokenizer::from_path(path).unwrap().vocab_size();
    assert_eq!(size(both.path()), 500);
    assert_eq!(size(&both.path().join("tokenizer.json")), 500);
    assert_eq!(size(&both.path().join("tokenizer.model")), 600);
}

#[test]
fn meta_keeps_it_one_level_up() {
    let above = folder("llama");
    let inside = above.path().join("7B");
    fs::create_dir(&inside).unwrap();
    assert!(Tokenizer::from_folder(&inside).is_err());
    fs::write(inside.join("params.json"), "{}").unwrap();
    let tokenizer = Tokenizer::from_folder(&inside).unwrap();
    assert_eq!(tokenizer.vocab_size(), 600);
    assert_eq!(tokenizer.path(), inside);
}

#[test]
fn scaled_positions_mean_llama_3_1() {
    let folder = folder("tiktoken");
    assert!(read(&folder).token_id("<|eom_id|>").is_none());
    write(&folder, "params.json", &json!({"use_scaled_rope": true}));
    let tokenizer = read(&folder);
    let eom = tokenizer.token_id("<|eom_id|>").unwrap();
    assert_eq!(tokenizer.eos_ids(), [501, eom, 509]);
    write(&folder, "params.json", &json!({}));
    write(
        &folder,
        "config.json",
        &json!({"rope_scaling": {"rope_type": "llama3"}}),
    );
    assert!(read(&folder).token_id("<|eom_id|>").is_some());
}

#[test]
fn other_files_add_tokens() {
    let folder = folder("llama");
    write(
        &folder,
        "added_tokens.json",
        &json!({"[PAD]": 600, "<x>": 601}),
    );
    write(
        &folder,
        "special_tokens_map.json",
        &json!({"pad_token": "[PAD]", "bos_token": "", "eos_token": "</s>"}),
    );
    write(
        &folder,
        "tokenizer_config.json",
        &json!({"add_bos_token": false, "add_eos_token": true}),
    );
    let tokenizer = read(&folder);
    assert_eq!(tokenizer.encode("[PAD]<x>").unwrap().ids, [600, 601]);
    assert_eq!(
        tokenizer.special_tokens(),
        ["<unk>", "<s>", "</s>", "[PAD]"]
    );
    assert!(tokenizer.prefix().is_empty());
    assert_eq!(tokenizer.bos_id(), Some(1));
    assert_eq!(tokenizer.suffix, [2]);

    let decoder = json!({"0": {"content": "<unk>", "special": true, "lstrip": false, "rstrip": false, "normalized": false, "single_word": false},
        "602": {"content": "<y>", "special": true, "lstrip": false, "rstrip": false, "normalized": false, "single_word": false}});
    write(
        &folder,
        "tokenizer_config.json",
        &json!({"added_tokens_decoder": decoder}),
    );
    assert_eq!(read(&folder).token_id("<y>"), Some(602));

    write(&folder, "added_tokens.json", &json!({"[PAD]": 700}));
    insta::assert_snapshot!(error(&folder), @"MODEL/tokenizer_config.json: the id of `<y>` is 602, but it can only be 600");
    write(&folder, "added_tokens.json", &json!({"[PAD]": "x"}));
    insta::assert_snapshot!(error(&folder), @"MODEL/added_tokens.json: the id of `[PAD]` is not a number");
    write(
        &folder,
        "tokenizer_config.json",
        &json!({"added_tokens_decoder": {"1": 5}}),
    );
    write(&folder, "added_tokens.json", &json!({}));
    insta::assert_snapshot!(error(&folder), @"MODEL/tokenizer_config.json: added_tokens_decoder: `1`: expected a token, found 5");
}

#[test]
fn the_tokenizer_takes_precedence_and_that_is_reported() {
    let folder = folder("llama");
    write(
        &folder,
        "config.json",
        &json!({"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": -1}),
    );
    write(
        &folder,
        "generation_config.json",
        &json!({"bos_token_id": 1, "eos_token_id": [1, 9000]}),
    );
    let tokenizer = read(&folder);
    assert_eq!(
        (tokenizer.bos_id(), tokenizer.eos_ids()),
        (Some(1), &[2][..])
    );
    let notes = tokenizer.notes().join("\n");
    insta::assert_snapshot!(notes.replace(&folder.path().display().to_string(), "MODEL").replace('\\', "/"), @"
        MODEL/config.json: bos_token_id is 0 (`<unk>`); simmer uses the tokenizer's, 1 (`<s>`)
        MODEL/generation_config.json: eos_token_id is 1 (`<s>`), 9000 (no token); simmer uses the tokenizer's, 2 (`</s>`)
        MODEL/config.json: eos_token_id is 1 (`<s>`); simmer uses the tokenizer's, 2 (`</s>`)
        ");
    write(
        &folder,
        "config.json",
        &json!({"bos_token_id": 1, "eos_token_id": 2}),
    );
    write(
        &folder,
        "generation_config.json",
        &json!({"eos_token_id": [2, 5]}),
    );
    let tokenizer = read(&folder);
    assert_eq!(tokenizer.eos_ids(), [2, 5]);
    assert!(tokenizer.notes().is_empty());
}

#[test]
fn faults_name_the_file() {
    let folder = folder("llama");
    write(
        &folder,
        "tokenizer_config.json",
        &json!({"eos_token": "<end>"}),
    );
    insta::assert_snapshot!(error(&folder), @"MODEL/tokenizer_config.json: eos_token is `<end>`, which is not in the vocabulary");
    fs::remove_file(folder.path().join("tokenizer_config.json")).unwrap();
    fs::write(folder.path().join("tokenizer.model"), "Ig== 1\n").unwrap();
    insta::assert_snapshot!(error(&folder), @"MODEL/tokenizer.model: line 1: expected the ranks 0, 1, 2, ... in order");
    fs::write(folder.path().join("tokenizer.model"), "\nversion").unwrap();
    insta::assert_snapshot!(error(&folder), @"MODEL/tokenizer.model: not a SentencePiece model: a field is longer than its message, 6 bytes before the end of the message");
    fs::write(
        folder.path().join("tokenizer.model"),
        "version https://git-lfs.github.com/spec/v1",
    )
    .unwrap();
    insta::assert_snapshot!(error(&folder), @"MODEL/tokenizer.model: a git-lfs pointer: the file itself was not downloaded");
    let large = fs::File::create(folder.path().join("tokenizer.model")).unwrap();
    large.set_len(LARGEST + 1).unwrap();
    insta::assert_snapshot!(error(&folder), @"MODEL/tokenizer.model: expected at most 33554432 bytes, found 33554433");
}

#[test]
fn more_tokens_than_rows_are_named() {
    let mut tokenizer = read(&folder("llama"));
    tokenizer.path = "MODEL".into();
    tokenizer.check_vocabulary(600).unwrap();
    tokenizer.check_vocabulary(704).unwrap();
    tokenizer.add_tokens(&["[PAD]"], true).unwrap();
    let error = |rows| tokenizer.check_vocabulary(rows).unwrap_err().to_string();
    insta::assert_snapshot!(error(600), @"MODEL: the tokenizer has token 600 `[PAD]`, but the model's embedding has 600 rows");
    insta::assert_snapshot!(error(590), @"MODEL: the tokenizer has tokens 590 `F`, 591 `q`, 592 `E`, 593 `0` and 7 more, but the model's embedding has 590 rows");
}

#[test]
fn special_tokens_without_a_row_or_a_use_are_text() {
    let mut tokenizer = read(&folder("llama"));
    tokenizer.path = "MODEL".into();
    tokenizer.add_tokens(&["<tool>"], false).unwrap();
    tokenizer.add_tokens(&["<image>"], true).unwrap();
    let fitted = tokenizer.clone().fitted_to(601).unwrap();
    fitted.check_vocabulary(601).unwrap();
    assert_eq!(
        fitted.notes(),
        [
            "MODEL: the model has 601 tokens, so these of the tokenizer are ordinary text: 601 `<image>`"
        ]
    );
    assert_eq!(
        fitted.encode("a<tool>").unwrap(),
        tokenizer.encode("a<tool>").unwrap()
    );
    let plain = tokenizer.encode_plain("<image>").unwrap();
    assert_eq!(fitted.encode("<image>").unwrap(), plain);
    // a token that texts may have, or that has a role, stays and is refused
    assert_eq!(
        tokenizer.clone().fitted_to(600).unwrap().max_token_id(),
        601
    );
    tokenizer.set_pad_token("<image>");
    assert_eq!(tokenizer.fitted_to(601).unwrap().max_token_id(), 601);
}

#[test]
fn the_models_configuration_says_how_many_tokens_it_has() {
    let folder = TempDir::new().unwrap();
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        fs::copy(file("gemma").join(name), folder.path().join(name)).unwrap();
    }
    let mut tokenizer = Tokenizer::from_folder(folder.path()).unwrap();
    tokenizer.add_tokens(&["<image_soft_token>"], true).unwrap();
    tokenizer.save(folder.path()).unwrap();
    write(&folder, "config.json", &json!({"vocab_size": 600}));
    assert_eq!(
        Tokenizer::from_folder(folder.path())
            .unwrap()
            .max_token_id(),
        599
    );
    write(&folder, "config.json", &json!({"vocab_size": 601}));
    assert_eq!(
        Tokenizer::from_folder(folder.path())
            .unwrap()
            .max_token_id(),
        600
    );
}

#[test]
fn turns_of_a_model_file_are_special_if_its_configuration_says_so() {
    let folder = folder("gemma");
    let text = "<start_of_turn>the";
    let turn = read(&folder).token_id("<start_of_turn>").unwrap();
    // in SentencePiece, it is text like any other
    assert_eq!(read(&folder).encode_plain(text).unwrap().ids[0], turn);
    let token = json!({
        "content": "<start_of_turn>", "special": true, "normalized": false, "lstrip": false, "rstrip": false, "single_word": false,
    });
    let decoder = json!({"added_tokens_decoder": {turn.to_string(): token}});
    write(&folder, "tokenizer_config.json", &decoder);
    assert_eq!(read(&folder).encode(text).unwrap().ids[0], turn);
    assert!(
        !read(&folder)
            .encode_plain(text)
            .unwrap()
            .ids
            .contains(&turn)
    );
}

#[test]
fn added_tokens_get_the_next_ids_and_stay() {
    let mut tokenizer = read(&folder("llama"));
    let added = tokenizer
        .add_tokens(&["[PAD]", "</s>", "[PAD]"], true)
        .unwrap();
    let said = |token: &str, id, new| Added {
        token: token.into(),
        id,
        new,
    };
    assert_eq!(
        added,
        [
            said("[PAD]", 600, true),
            said("</s>", 2, false),
            said("[PAD]", 600, false)
        ]
    );
    let added = tokenizer.add_tokens(&["<tool>", "he"], false).unwrap();
    assert_eq!(added[0], said("<tool>", 601, true));
    assert!(!added[1].new);
    assert_ne!(tokenizer.encode("the").unwrap().ids[0], added[1].id);
    assert!(tokenizer.add_tokens(&[""], true).is_err());

    assert_eq!(tokenizer.encode("[PAD]<tool>").unwrap().ids, [600, 601]);
    assert_eq!(tokenizer.encode_plain("<tool>").unwrap().ids, [601]);
    assert!(!tokenizer.encode_plain("[PAD]").unwrap().ids.contains(&600));
    assert_eq!(tokenizer.decode(&[600, 601], true).unwrap(), "<tool>");

    let out = TempDir::new().unwrap();
    tokenizer.save(out.path()).unwrap();
    let again = read(&out);
    assert_eq!(again.encode("[PAD]<tool>").unwrap().ids, [600, 601]);
    assert_eq!(again.special_tokens(), tokenizer.special_tokens());
}

#[test]
fn what_is_saved_reads_the_same() {
    for name in ["llama", "squeezed", "bare", "marked", "tiktoken"] {
        let tokenizer = read(&folder(name));
        let out = TempDir::new().unwrap();
        tokenizer.save(out.path()).unwrap();
        let again = read(&out);
        for golden in goldens(name) {
            let ids = |tokenizer: &Tokenizer| tokenizer.encode(&golden.text).unwrap();
            assert_eq!(ids(&again), ids(&tokenizer), "{name}: {:?}", golden.text);
            assert_eq!(
                again.decode(&golden.ids, false).unwrap(),
                tokenizer.decode(&golden.ids, false).unwrap()
            );
        }
        assert_eq!(again.prefix(), tokenizer.prefix());
        assert_eq!(again.eos_ids()[0], tokenizer.eos_ids()[0]);
        assert_eq!(again.specials(), tokenizer.specials());
    }
}

#[test]
fn settings_are_saved() {
    let folder = folder("llama");
    let config = json!({
        "model_max_length": 2048, "pad_token": "<unk>",
        "chat_template": [{"name": "default", "template": "a"}, {"name": "tools", "template": "b"}],
    });
    write(&folder, "tokenizer_config.json", &config);
    let out = TempDir::new().unwrap();
    read(&folder).save(out.path()).unwrap();
    let config = fs::read_to_string(out.path().join("tokenizer_config.json")).unwrap();
    insta::assert_snapshot!(config, @r#"
        {
          "tokenizer_class": "PreTrainedTokenizerFast",
          "bos_token": "<s>",
          "eos_token": "</s>",
          "pad_token": "<unk>",
          "unk_token": "<unk>",
          "add_bos_token": true,
          "add_eos_token": false,
          "clean_up_tokenization_spaces": false,
          "model_max_length": 2048,
          "chat_template": [
            {
              "name": "default",
              "template": "a"
            },
            {
              "name": "tools",
              "template": "b"
            }
          ]
        }
        "#);
    assert_eq!(read(&out).chat_template("tools"), Some("b"));
    assert_eq!(fs::read_dir(out.path()).unwrap().count(), 2);
}
