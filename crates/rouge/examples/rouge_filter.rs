//! Which of many texts the filter of Self-Instruct keeps, and how long it takes: rouge_filter FILE.json, a list of texts.
//!
//! Prints the number of each text that is kept, from 0.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for measurements"
)]

use std::error::Error;
use std::time::Instant;

use simmer_rouge::Similarity;

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("a file is expected")?;
    let texts: Vec<String> = serde_json::from_str(&std::fs::read_to_string(path)?)?;
    let begin = Instant::now();
    let mut kept = Similarity::default();
    for (number, text) in texts.iter().enumerate() {
        let similar = kept.compare(text);
        if similar.max() <= 0.7 {
            similar.nearest(10);
            kept.push(text);
            println!("{number}");
        }
    }
    eprintln!(
        "{} texts, {} kept, {:.1} s",
        texts.len(),
        kept.len(),
        begin.elapsed().as_secs_f64()
    );
    Ok(())
}
