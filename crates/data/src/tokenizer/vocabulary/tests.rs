use super::super::pieces::SPACE;
use super::super::sentencepiece::tests::{Golden, file, goldens};
use super::super::tests::{tiny, tiny_with_bos};
use super::*;

fn tokenizer(name: &str) -> Tokenizer {
    Tokenizer::from_file(file(&format!("{name}.model"))).unwrap()
}

/// Checks that the tokenizer of the vocabulary gives the same ids.
fn round_trip(tokenizer: &Tokenizer, texts: &str) -> Vocabulary {
    round_trip_of(tokenizer, &goldens(texts))
}

fn round_trip_of(tokenizer: &Tokenizer, goldens: &[Golden]) -> Vocabulary {
    let vocabulary = tokenizer.vocabulary().unwrap();
    let again = Tokenizer::from_vocabulary(&vocabulary, "model.gguf").unwrap();
    for golden in goldens {
        let ids = |tokenizer: &Tokenizer| tokenizer.encode(&golden.text).unwrap().ids;
        assert_eq!(ids(&again), ids(tokenizer), "{:?}", golden.text);
        let plain = |tokenizer: &Tokenizer| tokenizer.encode_plain(&golden.text).unwrap().ids;
        assert_eq!(plain(&again), plain(tokenizer), "{:?}", golden.text);
    }
    assert_eq!(again.prefix(), tokenizer.prefix());
    assert_eq!(again.eos_ids(), tokenizer.eos_ids());
    assert_eq!(again.bos_id(), tokenizer.bos_id());
    assert_eq!(again.special_tokens(), tokenizer.special_tokens());
    assert_eq!(
        again.chat_template("default"),
        tokenizer.chat_template("default")
    );
    assert_eq!(again.vocabulary().unwrap(), vocabulary);
    vocabulary
}

#[test]
fn sentencepieces_vocabulary_there_and_back() {
    let vocabulary = round_trip(&tokenizer("llama"), "llama");
    assert_eq!(vocabulary.model, "llama");
    assert_eq!(vocabulary.pre, None);
    assert_eq!(vocabulary.tokens[3], "<0x00>");
    assert_eq!(
        vocabulary.kinds[..4],
        [Kind::Unknown, Kind::Control, Kind::Control, Kind::Byte]
    );
    assert_eq!(
        (
            vocabulary.bos,
            vocabulary.eos,
            vocabulary.unk,
            vocabulary.pad
        ),
        (Some(1), Some(2), Some(0), None)
    );
    assert_eq!(
        (vocabulary.add_bos, vocabulary.add_eos),
        (Some(true), Some(false))
    );
    assert_eq!(vocabulary.add_space_prefix, Some(true));
    assert!(vocabulary.merges.is_empty());
}

#[test]
fn gemmas_tokenizer_as_transformers_writes_it_there_and_back() {
    let gemma = Tokenizer::from_folder(file("gemma")).unwrap();
    let mut texts = goldens("gemma/tokens");
    for golden in &texts {
        assert_eq!(gemma.encode(&golden.text).unwrap().ids, golden.ids);
    }
    // transformers looks for the tokens of several spaces in a text that has the character itself
    texts.retain(|golden| !golden.text.contains(SPACE));
    assert!(texts.len() > 100);
    let vocabulary = round_trip_of(&gemma, &texts);
    assert_eq!(vocabulary.model, "llama");
    assert_eq!(vocabulary.add_space_prefix, Some(false));
    let kind = |token: &str| {
        let id = vocabulary.tokens.iter().position(|of| of == token);
        vocabulary.kinds[id.unwrap_or_else(|| panic!("no token {token:?}"))]
    };
    assert_eq!(kind("<unk>"), Kind::Unknown);
    assert_eq!(kind("<start_of_turn>"), Kind::Control);
    assert_eq!(kind("\n\n"), Kind::UserDefined);
    // llama.cpp looks for these in the text as it is
    assert_eq!(kind("   "), Kind::UserDefined);
    assert_eq!(kind("<0x09>"), Kind::Byte);
    assert!(!vocabulary.tokens.contains(&"\t".to_owned()));
}

#[test]
fn gemmas_model_there_and_back() {
    round_trip(&tokenizer("gemma"), "gemma");
    // as in the files of llama.cpp's converter
    let mut vocabulary = tokenizer("gemma").vocabulary().unwrap();
    vocabulary.kinds[3] = Kind::Control;
    let again = Tokenizer::from_vocabulary(&vocabulary, "m").unwrap();
    assert_eq!(again.specials()["unk_token"], "<unk>");
    for golden in goldens("gemma") {
        assert_eq!(again.encode_plain(&golden.text).unwrap().ids, golden.ids);
    }
}

#[test]
fn the_end_of_a_turn_is_known_by_its_text() {
    let mut vocabulary = Tokenizer::from_folder(file("gemma"))
        .unwrap()
        .vocabulary()
        .unwrap();
    assert_eq!(vocabulary.eot, None);
    let ends = |vocabulary: &Vocabulary| {
        let gemma = Tokenizer::from_vocabulary(vocabulary, "m").unwrap();
        let texts = gemma.eos_ids().iter().map(|&id| gemma.token(id).unwrap());
        texts.collect::<Vec<_>>()
    };
    assert_eq!(ends(&vocabulary), ["<eos>"]);
    vocabulary.chat_template = Some("{{ messages[0].content }}<end_of_turn>".into());
    assert_eq!(ends(&vocabulary), ["<eos>", "<end_of_turn>"]);
}

#[test]
fn qwens_normalisation_is_read_back() {
    let mut qwen = tokenizer("tiktoken").vocabulary().unwrap();
    qwen.pre = Some("qwen2".into());
    let qwen = Tokenizer::from_vocabulary(&qwen, "m").unwrap();
    let ids = |text: &str| qwen.encode(text).unwrap().ids;
    assert_eq!(ids("e\u{301}"), ids("\u{e9}"));
    let vocabulary = qwen.vocabulary().unwrap();
    assert_eq!(vocabulary.pre.as_deref(), Some("qwen2"));
    insta::assert_snapshot!(vocabulary.notes.join("\n"), @"llama.cpp does not normalise text to NFC: a letter that is written with a separate accent has other tokens there");
}

#[test]
fn phi_3s_special_tokens_absorb_spaces() {
    let mut vocabulary = tokenizer("llama").vocabulary().unwrap();
    vocabulary.rstrip = true;
    vocabulary
        .tokens
        .extend(["<|endoftext|>", "<|user|>"].map(String::from));
    vocabulary.kinds.extend([Kind::Control; 2]);
    vocabulary.scores.extend([-1000.0; 2]);
    let phi = Tokenizer::from_vocabulary(&vocabulary, "m").unwrap();
    let ids = |text: &str| phi.encode(text).unwrap().ids;
    assert_eq!(ids("<|user|>\n the"), ids("<|user|>the"));
    assert_ne!(ids("<|endoftext|> the"), ids("<|endoftext|>the"));
    assert_ne!(ids("<s> the"), ids("<s>the"));
}

#[test]
fn scores_are_in_the_order_of_the_models() {
    let model =
        super::super::sentencepiece::parse(&std::fs::read(file("llama.model")).unwrap()).unwrap();
    let vocabulary = tokenizer("llama").vocabulary().unwrap();
    let merged = |text: &str| text.chars().nth(1).is_some();
    let order = |scores: Vec<f32>| {
        let mut ids: Vec<usize> = (0..model.pieces.len())
            .filter(|&id| model.pieces[id].kind == Kind::Normal && merged(&model.pieces[id].text))
            .collect();
        ids.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
        ids
    };
    let original = model.pieces.iter().map(|piece| piece.score).collect();
    assert_eq!(order(vocabulary.scores), order(original));
}

#[test]
fn byte_level_vocabularies_there_and_back() {
    let vocabulary = round_trip(&tokenizer("tiktoken"), "tiktoken");
    assert_eq!(vocabulary.model, "gpt2");
    assert_eq!(vocabulary.pre.as_deref(), Some("llama-bpe"));
    assert_eq!(vocabulary.kinds[500], Kind::Control);
    assert!(vocabulary.scores.is_empty());
    let vocabulary = round_trip(&tiny(), "tiktoken");
    assert_eq!(vocabulary.pre.as_deref(), Some("gpt-2"));
    assert_eq!(vocabulary.add_bos, Some(false));
    assert!(vocabulary.chat_template.is_some());
    assert_eq!(round_trip(&tiny_with_bos(), "tiktoken").add_bos, Some(true));
}

#[test]
fn added_tokens_go_along() {
    let mut llama = tokenizer("llama");
    llama.add_tokens(&["[PAD]"], true).unwrap();
    llama.add_tokens(&["<tool>"], false).unwrap();
    let vocabulary = round_trip(&llama, "llama");
    assert_eq!(vocabulary.kinds[600..], [Kind::Control, Kind::UserDefined]);
    let again = Tokenizer::from_vocabulary(&vocabulary, "m").unwrap();
    for text in ["a<tool>b", "<tool>", "[PAD] x[PAD]y"] {
        assert_eq!(again.encode(text).unwrap(), llama.encode(text).unwrap());
    }
}

#[test]
fn a_vocabulary_grows_to_the_rows_of_the_embedding() {
    for name in ["llama", "tiktoken"] {
        let tokenizer = tokenizer(name);
        let mut vocabulary = tokenizer.vocabulary().unwrap();
        let rows = vocabulary.tokens.len() + 3;
        vocabulary.pad_to(rows);
        assert_eq!(vocabulary.tokens.len(), rows);
        assert_eq!(vocabulary.tokens[rows - 1], format!("[PAD{}]", rows - 1));
        let padded = Tokenizer::from_vocabulary(&vocabulary, "m").unwrap();
        padded.check_vocabulary(rows).unwrap();
        for golden in goldens(name) {
            assert_eq!(padded.encode_plain(&golden.text).unwrap().ids, golden.ids);
        }
    }
}

#[test]
fn a_vocabulary_that_contradicts_itself_is_refused() {
    let error = |name: &str, change: &dyn Fn(&mut Vocabulary)| {
        let mut vocabulary = tokenizer(name).vocabulary().unwrap();
        change(&mut vocabulary);
        Tokenizer::from_vocabulary(&vocabulary, "m.gguf")
            .unwrap_err()
            .to_string()
    };
    insta::assert_snapshot!(error("llama", &|v| v.model = "bert".into()), @"m.gguf: tokenizer.ggml.model: expected `llama` or `gpt2`, found `bert`");
    insta::assert_snapshot!(error("llama", &|v| v.tokens.clear()), @"m.gguf: tokenizer.ggml.tokens is empty");
    insta::assert_snapshot!(error("llama", &|v| v.scores.clear()), @"m.gguf: tokenizer.ggml.scores: expected 600 entries, one per token, found 0");
    insta::assert_snapshot!(error("llama", &|v| v.kinds.truncate(7)), @"m.gguf: tokenizer.ggml.token_type: expected 600 entries, one per token, found 7");
    insta::assert_snapshot!(error("llama", &|v| v.eos = Some(600)), @"m.gguf: tokenizer.ggml.eos_token_id: expected an id below 600, found 600");
    insta::assert_snapshot!(error("llama", &|v| v.tokens[5] = "x".into()), @"m.gguf: piece 5 `x` has type byte, but does not name one");
    insta::assert_snapshot!(error("tiktoken", &|v| v.pre = Some("gpt-5".into())), @"m.gguf: tokenizer.ggml.pre: unknown pattern `gpt-5`; known are llama-bpe, smaug-bpe, gpt-2, smollm, qwen2, deepseek-r1-qwen, qwen35, gpt-4o, tekken, deepseek-coder, deepseek-llm, falcon, seed-coder, deepseek-v3, bailingmoe, exaone-moe, jais-2, minicpm5, laguna, tiny_aya, superbpe, poro-chat, viking, default, and llama.cpp's other names for the same");
    insta::assert_snapshot!(error("tiktoken", &|v| v.tokens[7] = "!".into()), @"m.gguf: token 33 `!` is empty or a duplicate");
    insta::assert_snapshot!(error("tiktoken", &|v| v.merges[0] = "a".into()), @"m.gguf: `a` is not a merge of two tokens to a third");
    insta::assert_snapshot!(error("tiktoken", &|v| v.merges[0] = "Q Q".into()), @"m.gguf: `Q Q` is not a merge of two tokens to a third");
}

#[test]
fn without_a_pattern_the_default_is_used() {
    let mut vocabulary = tokenizer("tiktoken").vocabulary().unwrap();
    vocabulary.pre = None;
    let tokenizer = Tokenizer::from_vocabulary(&vocabulary, "m").unwrap();
    assert_eq!(
        tokenizer.notes(),
        ["no tokenizer.ggml.pre: text is split by llama.cpp's default pattern"]
    );
}

#[test]
fn what_gguf_does_not_support_is_refused() {
    let error = |tokenizer: &Tokenizer, change: &dyn Fn(&mut Value)| {
        let mut json = serde_json::to_value(&tokenizer.inner).unwrap();
        change(&mut json);
        let mut changed = tokenizer.clone();
        changed.inner = serde_json::from_value(json).unwrap();
        changed.path = "folder".into();
        changed.vocabulary().err().unwrap().to_string()
    };
    let (llama, tiktoken) = (tokenizer("llama"), tokenizer("tiktoken"));
    insta::assert_snapshot!(error(&tokenizer("squeezed"), &|_| {}), @"folder: cannot write this tokenizer as GGUF: it has neither byte_fallback nor byte-level tokens, for characters without a token");
    insta::assert_snapshot!(error(&llama, &|json| { json["model"]["merges"].as_array_mut().unwrap().remove(7); }), @"folder: cannot write this tokenizer as GGUF: its merges are not those that scores imply: `▁` and `c` are not merged");
    let apart = |json: &mut Value| {
        let merges = json["model"]["merges"].as_array_mut().unwrap();
        let merged =
            |pair: &Value| format!("{}{}", pair[0].as_str().unwrap(), pair[1].as_str().unwrap());
        let same = merges
            .windows(2)
            .position(|two| merged(&two[0]) == merged(&two[1]))
            .unwrap();
        merges[..=same].rotate_right(1);
    };
    insta::assert_snapshot!(error(&llama, &apart), @"folder: cannot write this tokenizer as GGUF: the merges to `▁the` are not consecutive");
    insta::assert_snapshot!(error(&llama, &|json| json["normalizer"] = json!({"type": "NFC"})), @r#"folder: cannot write this tokenizer as GGUF: it does not normalise text as SentencePiece does ({"type":"NFC"}, null)"#);
    insta::assert_snapshot!(error(&tiktoken, &|json| json["normalizer"] = json!({"type": "Lowercase"})), @r#"folder: cannot write this tokenizer as GGUF: expected no normalizer or NFC, found Lowercase"#);
    insta::assert_snapshot!(error(&tiktoken, &|json| json["pre_tokenizer"] = json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true})), @r#"folder: cannot write this tokenizer as GGUF: unknown pre-tokenizer (ignore_merges true, {"type":"ByteLevel","add_prefix_space":true,"trim_offsets":true,"use_regex":true}); known are llama-bpe, smaug-bpe, gpt-2, smollm, qwen2, deepseek-r1-qwen, qwen35, gpt-4o, tekken, deepseek-coder, deepseek-llm, falcon, seed-coder, deepseek-v3, bailingmoe, exaone-moe, jais-2, minicpm5, laguna, tiny_aya, superbpe, poro-chat, viking, default, and llama.cpp's other names for the same"#);
    let mut twice = llama.clone();
    twice.prefix = vec![1, 1];
    insta::assert_snapshot!(error(&twice, &|_| {}), @"folder: cannot write this tokenizer as GGUF: it adds other tokens than BOS before a text and EOS after it");
}

#[test]
fn differences_of_llama_cpp_are_reported() {
    let llama = tokenizer("llama");
    let mut json = serde_json::to_value(&llama.inner).unwrap();
    json["normalizer"] = Value::Null;
    json["pre_tokenizer"] = json!({"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "first", "split": false});
    json["added_tokens"][1]["rstrip"] = json!(true);
    let mut changed = llama.clone();
    changed.inner = serde_json::from_value(json).unwrap();
    insta::assert_snapshot!(changed.vocabulary().unwrap().notes.join("\n"), @r"
    lstrip, rstrip and single_word of added tokens (`<s>`) are lost; llama.cpp knows Phi-3's rstrip by the model's name
    llama.cpp adds a space in front of a text that follows a special token or starts with a space
    ");
}
