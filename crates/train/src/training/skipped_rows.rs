//! The rows of a step without an update, written to the run's folder for the user to look at.

use std::fs;
use std::path::Path;

use serde::Serialize;
use simmer_data::{Example, Tokenizer};
use simmer_files::write_file;

use crate::error::TrainError;

/// The folder of these files, in a run's folder.
const FOLDER: &str = "aside";

/// One row of such a step: a line of the file.
#[derive(Serialize)]
struct SkippedRow<'a> {
    file: &'a Path,
    row: usize,
    line: usize,
    /// The row's own loss before the step (nats per token); `None` if it is not finite.
    loss: Option<f64>,
    tokens: usize,
    targets: usize,
    text: String,
}

/// Writes the rows of a step, each with its own loss, and returns the file's path below the run's folder.
pub(super) fn write(
    folder: &Path,
    step: u64,
    examples: &[Example],
    losses: &[f64],
    tokenizer: &Tokenizer,
) -> Result<String, TrainError> {
    let name = format!("{FOLDER}/step-{step:06}.jsonl");
    let path = folder.join(&name);
    let parent = folder.join(FOLDER);
    fs::create_dir_all(&parent).map_err(TrainError::io(&parent, "create"))?;
    let mut text = String::new();
    for (example, loss) in examples.iter().zip(losses) {
        let row = SkippedRow {
            file: &example.origin.file,
            row: example.origin.row,
            line: example.origin.line,
            loss: Some(*loss).filter(|loss| loss.is_finite()),
            tokens: example.tokens.len(),
            targets: example.targets(),
            text: tokenizer.decode(&example.tokens, false)?,
        };
        let json = serde_json::to_string(&row)
            .map_err(|error| TrainError::io(&path, "write")(error.into()))?;
        text.push_str(&json);
        text.push('\n');
    }
    write_file(&path, |file| file.write_all(text.as_bytes()))?;
    Ok(name)
}
