//! An adapter_config.json of any bytes.
#![no_main]
#![allow(dead_code)]

#[path = "../inputs/files.rs"]
mod files;
#[path = "../inputs/settings.rs"]
mod settings;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| settings::adapter_config(bytes));
