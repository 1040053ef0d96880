//! A torch file of random bytes, and a bare pickle of random bytes.
#![no_main]
#![allow(dead_code)]

#[path = "../inputs/files.rs"]
mod files;
#[path = "../inputs/panics.rs"]
mod panics;

libfuzzer_sys::fuzz_target!(init: panics::are_findings_unless_guarded(), |bytes: &[u8]| files::pickle(bytes));
