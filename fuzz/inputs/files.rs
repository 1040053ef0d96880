//! The functions of the fuzz targets and of `tests/corpus.rs` for files of models and data.

use std::cell::OnceCell;
use std::fs;
use std::path::{Path, PathBuf};

use simmer_checkpoint::gguf::{Gguf, Vocabulary, model};
use simmer_checkpoint::meta::Params;
use simmer_checkpoint::pickle::Pickle;
use simmer_checkpoint::pth::PthFile;
use simmer_checkpoint::{Bytes, Checkpoint, ModelConfig, layout, read_header};
use simmer_data::tokenizer::{sentencepiece, tiktoken};
use simmer_data::{Content, Conversation, Message, Role, Template, Tokenizer, TrainOn, format};
use tempfile::TempDir;

/// Writes these bytes to a file in a folder of this thread.
pub(super) fn file(name: &str, bytes: &[u8]) -> PathBuf {
    thread_local!(static FOLDER: OnceCell<TempDir> = const { OnceCell::new() });
    FOLDER.with(|folder| {
        let folder = folder.get_or_init(|| tempfile::tempdir().unwrap());
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    })
}

/// A GGUF file: container, configuration, tensors, vocabulary.
pub(super) fn gguf(bytes: &[u8]) {
    let Ok(gguf) = Gguf::parse(Bytes::copy_from_slice(bytes)) else {
        return;
    };
    for tensor in gguf.tensors() {
        assert!(tensor.range.end <= bytes.len());
    }
    let _ = Vocabulary::from_metadata(gguf.metadata());
    if let Ok(config) = model::config(&gguf, &[bytes]) {
        let _ = model::tensors(&gguf, &config);
    }
}

/// The header of a safetensors file.
pub(super) fn safetensors_header(bytes: &[u8]) {
    let mut source = bytes;
    let Ok(tensors) = read_header(&mut source, Path::new("x"), bytes.len() as u64) else {
        return;
    };
    // a header that is accepted describes every byte
    let described: usize = tensors
        .iter()
        .map(|(_, info)| info.shape.iter().product::<usize>() * info.dtype.bitsize() / 8)
        .sum();
    assert_eq!(described, source.len());
}

/// A torch file, and a bare pickle.
pub(super) fn pickle(bytes: &[u8]) {
    if let Ok(file) = PthFile::parse(bytes) {
        for tensor in file.tensors() {
            assert!(tensor.range.end <= bytes.len());
        }
    }
    if let Ok(pickle) = Pickle::read(bytes) {
        let _ = pickle.tensors();
    }
}

/// The index of a folder of weights.
pub(super) fn model_index(bytes: &[u8]) {
    let index = file("index/model.safetensors.index.json", bytes);
    let folder = index.parent().unwrap();
    if let Ok(checkpoint) = Checkpoint::open(folder) {
        // the folder has no other file
        assert_eq!(checkpoint.files(), 0);
    }
}

/// The configuration of a model in Hugging Face's format.
pub(super) fn config_json(bytes: &[u8]) {
    let config = file("config/config.json", bytes);
    let Ok(config) = ModelConfig::from_folder(config.parent().unwrap()) else {
        return;
    };
    let one = ModelConfig {
        num_hidden_layers: 1,
        ..config.clone()
    };
    let count = layout::parameter_count(&one) as u128;
    assert!(count * 4 * config.num_hidden_layers as u128 <= u64::MAX.into());
    let again = ModelConfig::from_json(&config.to_json(), Path::new("x")).unwrap();
    assert_eq!(again, config);
}

/// The configuration of a model in Meta's format.
pub(super) fn params_json(bytes: &[u8]) {
    if let Ok(json) = serde_json::from_slice(bytes)
        && let Ok(params) = Params::from_json(&json, Path::new("x"))
    {
        let _ = params.intermediate_size();
        let _ = params.to_json();
    }
}

/// A tokenizer.model: SentencePiece's and tiktoken's.
pub(super) fn tokenizer_model(bytes: &[u8]) {
    let _ = tiktoken::parse(bytes);
    let Ok(model) = sentencepiece::parse(bytes) else {
        return;
    };
    if let Ok(tokenizer) = Tokenizer::from_sentencepiece(&model, Path::new("x")) {
        let _ = tokenizer.encode("a text  of 12 characters");
    }
}

/// A tokenizer.json.
pub(super) fn tokenizer_json(bytes: &[u8]) {
    let path = file("tokenizer/tokenizer.json", bytes);
    let Ok(tokenizer) = Tokenizer::from_file(&path) else {
        return;
    };
    for text in ["", "a text  of 12 characters", "é\u{10348}\n</s> a"] {
        if let Ok(encoding) = tokenizer.encode(text) {
            assert_eq!(encoding.ids.len(), encoding.offsets.len());
            let _ = tokenizer.decode(&encoding.ids, true);
        }
        let _ = tokenizer.encode_plain(text);
    }
    let _ = tokenizer.check_vocabulary(9);
}

/// A data file of this format.
pub(super) fn data(name: &str, bytes: &[u8]) {
    let path = file(&format!("data/{name}"), bytes);
    let _ = simmer_data::file::rows(&path, None);
    let _ = format::read(&path, None);
}

/// A chat template and, after a NUL byte, the user's message.
pub(super) fn chat_template(bytes: &[u8]) {
    const TOKENIZER: &str = r#"{"version": "1.0", "added_tokens": [
        {"id": 0, "content": "</s>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true}],
        "model": {"type": "WordLevel", "vocab": {"</s>": 0, "a": 1}, "unk_token": "a"}}"#;
    let text = String::from_utf8_lossy(bytes);
    let (template, said) = text.split_once('\0').unwrap_or((&text, "Hi"));
    file("chat/chat_template.jinja", template.as_bytes());
    file("chat/tokenizer_config.json", br#"{"eos_token": "</s>"}"#);
    let tokenizer = file("chat/tokenizer.json", TOKENIZER.as_bytes());
    let tokenizer = Tokenizer::from_file(tokenizer).unwrap();
    let Ok(template) = Template::named("chat", &tokenizer) else {
        return;
    };
    let message = |role, content: &str| Message::new(role, content);
    let mut conversation = Conversation::new(Content::Messages(vec![
        message(Role::System, "Be brief."),
        message(Role::User, said),
        message(Role::Assistant, "Hello!"),
    ]));
    conversation.tools = Some(serde_json::json!([{"name": "f", "parameters": {"x": 1}}]));
    let _ = template.prompt(&Conversation::prompt(said));
    if let Ok(rendered) = template.render(&conversation, TrainOn::Answers) {
        for span in rendered.trained {
            assert!(rendered.text.get(span).is_some());
        }
    }
}

/// A user's template.
pub(super) fn plain_template(bytes: &[u8]) {
    let tokenizer = file("plain/tokenizer.json", br#"{"version": "1.0", "added_tokens": [], "model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}}"#);
    let tokenizer = Tokenizer::from_file(tokenizer).unwrap();
    let template = file("plain/t.toml", bytes);
    if let Ok(template) = Template::named(template.to_str().unwrap(), &tokenizer) {
        let _ = template.prompt(&Conversation::prompt("Hi"));
    }
}
