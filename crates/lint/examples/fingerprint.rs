//! Hashes of evaluation sets, for the lint to find their texts by: `fingerprint FILE`, with `{"set": ..., "text": ...}` a line
//! on standard input, writes FILE. `tests/reference/evaluation_sets.py` is what runs it.

use std::io::stdin;

use serde::Deserialize;
use simmer_lint::fingerprint;

#[derive(Deserialize)]
struct Text {
    set: String,
    text: String,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("usage: fingerprint FILE")?;
    let mut texts: Vec<Text> = Vec::new();
    for line in stdin().lines() {
        texts.push(serde_json::from_str(&line?)?);
    }
    let texts = texts
        .iter()
        .map(|text| (text.set.as_str(), text.text.as_str()));
    Ok(std::fs::write(path, fingerprint(texts))?)
}
