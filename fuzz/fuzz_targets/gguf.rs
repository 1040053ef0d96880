//! A GGUF file of any bytes.
#![no_main]
#![allow(dead_code)]

#[path = "../inputs/files.rs"]
mod files;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| files::gguf(bytes));
