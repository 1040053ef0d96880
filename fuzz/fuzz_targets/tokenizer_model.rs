//! A tokenizer.model of any bytes: SentencePiece's and tiktoken's.
#![no_main]
#![allow(dead_code)]

#[path = "../inputs/files.rs"]
mod files;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| files::tokenizer_model(bytes));
