//! What the fuzzers found worth keeping (`fuzz/corpus`): no input may do harm, nor may one with a few bytes changed.

#[path = "../fuzz/inputs/files.rs"]
mod files;
#[path = "../fuzz/inputs/settings.rs"]
mod settings;

use std::fs;
use std::path::Path;

/// Changes of each input that are tried besides.
const CHANGES: u64 = 20;

/// Feeds every input of a target, as it is and with changes; there are at least so many.
fn feed(target: &str, least: usize, read: impl Fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let mut fed = 0;
    for input in fs::read_dir(folder.join(target)).unwrap() {
        let input = fs::read(input.unwrap().path()).unwrap();
        read(&input);
        for seed in 0..CHANGES {
            read(&changed(&input, seed));
        }
        fed += 1;
    }
    assert!(fed >= least, "{target}: {fed} inputs");
}

/// The input with some of its bytes removed, repeated or replaced, the same every time.
fn changed(input: &[u8], seed: u64) -> Vec<u8> {
    const WORDS: [&[u8]; 12] = [
        b"\0",
        b"\xFF",
        b"[",
        b"{",
        b"\"",
        b"-1",
        b"1e999",
        b"99999999999999999999",
        b"null",
        b"../",
        b"\n",
        b"",
    ];
    // SplitMix64 (Steele et al. 2014)
    let mut state = seed;
    let mut draw = |below: usize| {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ (mixed >> 31)) % below.max(1) as u64) as usize
    };
    let mut bytes = input.to_vec();
    for _ in 0..=draw(3) {
        let begin = draw(bytes.len() + 1);
        let end = (begin + draw(9)).min(bytes.len());
        let word = WORDS[draw(WORDS.len())];
        match draw(3) {
            0 => drop(bytes.splice(begin..end, word.iter().copied())),
            1 => drop(bytes.splice(begin..begin, bytes[begin..end].to_vec())),
            _ => bytes[begin..end]
                .iter_mut()
                .for_each(|byte| *byte ^= 1 << draw(8)),
        }
    }
    bytes
}

/// A test for each target: the number of inputs that it has at least, and what reads them.
macro_rules! targets {
    ($($target:ident: $least:literal, $read:expr;)*) => {
        $(#[test] fn $target() { feed(stringify!($target), $least, $read); })*
    };
}

targets! {
    gguf: 200, files::gguf;
    safetensors_header: 200, files::safetensors_header;
    pickle: 400, files::pickle;
    tokenizer_model: 50, files::tokenizer_model;
    model_index: 3, files::model_index;
    config_json: 5, files::config_json;
    params_json: 5, files::params_json;
    tokenizer_json: 7, files::tokenizer_json;
    chat_template: 9, files::chat_template;
    plain_template: 13, files::plain_template;
    data_json: 4, |bytes: &[u8]| files::data("x.json", bytes);
    data_jsonl: 5, |bytes: &[u8]| files::data("x.jsonl", bytes);
    data_csv: 2, |bytes: &[u8]| files::data("x.csv", bytes);
    data_parquet: 6, |bytes: &[u8]| files::data("x.parquet", bytes);
    data_gz: 2, |bytes: &[u8]| files::data("x.jsonl.gz", bytes);
    data_zst: 1, |bytes: &[u8]| files::data("x.jsonl.zst", bytes);
    adapter_config: 10, settings::adapter_config;
    recipe: 28, settings::recipe;
    task: 6, settings::task;
    answers: 2, settings::answers;
}
