//! A data file of any bytes, called x.parquet.
#![no_main]
#![allow(dead_code)]

#[path = "../inputs/files.rs"]
mod files;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| files::data("x.parquet", bytes));
