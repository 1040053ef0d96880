//! A chat template of any bytes, over a conversation.
#![no_main]
#![allow(dead_code)]

#[path = "../inputs/files.rs"]
mod files;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| files::chat_template(bytes));
