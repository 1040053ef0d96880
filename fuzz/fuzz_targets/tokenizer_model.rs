//! A tokenizer.model of any bytes: SentencePiece's and tiktoken's.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use simmer_data::Tokenizer;
use simmer_data::tokenizer::{sentencepiece, tiktoken};

fuzz_target!(|bytes: &[u8]| {
    let _ = tiktoken::parse(bytes);
    let Ok(model) = sentencepiece::parse(bytes) else {
        return;
    };
    if let Ok(tokenizer) = Tokenizer::from_sentencepiece(&model, Path::new("x")) {
        let _ = tokenizer.encode("a text  of 12 characters");
    }
});
