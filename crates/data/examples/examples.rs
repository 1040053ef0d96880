//! Prints the examples of a data file, to compare with other programs:
//!
//! ```text
//! examples TOKENIZER TEMPLATE FILE '{"max_tokens": 512, "overlong": "truncate", "train_on": "answers"}'
//! ```
//!
//! prints a line `{"row": 1, "ids": [...], "trained": [...]}` for every example. `trained` are ranges of tokens. A row
//! without a token to train on has only `row`.

use std::io::{BufWriter, Write};

use serde::Deserialize;
use serde_json::json;
use simmer_data::{Limits, Outcome, Overlong, Template, Tokenizer, TrainOn, examples, format};

#[derive(Deserialize)]
struct Settings {
    max_tokens: usize,
    overlong: Overlong,
    train_on: TrainOn,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [tokenizer, template, file, settings] = args.as_slice() else {
        return Err("usage: examples TOKENIZER TEMPLATE FILE SETTINGS".into());
    };
    let tokenizer = Tokenizer::from_path(tokenizer)?;
    let template = Template::named(template, &tokenizer)?;
    let settings: Settings = serde_json::from_str(settings)?;
    let limits = Limits {
        max_tokens: settings.max_tokens,
        overlong: settings.overlong,
        train_on: settings.train_on,
    };
    let mut out = BufWriter::new(std::io::stdout().lock());
    for row in &format::read(file.as_ref(), None)? {
        for outcome in examples(row, &template, &tokenizer, &limits)? {
            let row = row.origin.row;
            let line = match outcome {
                Outcome::Kept { example, .. } => {
                    json!({"row": row, "ids": example.tokens, "trained": ranges(&example.trained)})
                }
                _ => json!({"row": row}),
            };
            writeln!(out, "{line}")?;
        }
    }
    Ok(out.flush()?)
}

/// The ranges in which the marks are set.
fn ranges(marks: &[bool]) -> Vec<[usize; 2]> {
    let mut ranges: Vec<[usize; 2]> = Vec::new();
    for (index, _) in marks.iter().enumerate().filter(|(_, marked)| **marked) {
        match ranges.last_mut() {
            Some(last) if last[1] == index => last[1] += 1,
            _ => ranges.push([index, index + 1]),
        }
    }
    ranges
}
