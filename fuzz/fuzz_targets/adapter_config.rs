//! An adapter_config.json of random bytes.
#![no_main]
#![allow(dead_code)]

#[path = "../inputs/files.rs"]
mod files;
#[path = "../inputs/panics.rs"]
mod panics;
#[path = "../inputs/settings.rs"]
mod settings;

libfuzzer_sys::fuzz_target!(init: panics::are_findings_unless_guarded(), |bytes: &[u8]| settings::adapter_config(bytes));
