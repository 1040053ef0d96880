//! The files of a run, each written at once: rows, where each comes from, what was dropped, and the report.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Value, json};
use simmer_files::{WriteError, write_file};

use crate::dialogue::Dialogue;
use crate::error::InstructError;
use crate::journal::Key;
use crate::recipe::ChatFormat;
use crate::report::Report;
use crate::run::{Kept, Made, Outcome, Row};

/// Writes the result of a run into a folder, and returns the file with the rows.
///
/// # Errors
/// If a file cannot be written, or the folder has a file with more rows: a smaller target shortens no file.
pub fn write(
    folder: &Path,
    outcome: &Outcome,
    format: ChatFormat,
    report: &Report,
) -> Result<PathBuf, InstructError> {
    let rows = match &outcome.made {
        Made::Rows(_) => folder.join("data.json"),
        Made::Dialogues(_) => folder.join("data.jsonl"),
    };
    let (data, origins) = match &outcome.made {
        Made::Rows(rows) => (
            alpaca(rows),
            rows.iter().map(|row| origin(row, outcome)).collect(),
        ),
        Made::Dialogues(all) => {
            let lines = all.iter().map(|(dialogue, _)| chat(dialogue, format));
            let origins = all
                .iter()
                .map(|(dialogue, key)| json!({"topic": dialogue.topic, "prompt": place(*key)}));
            (lines_of(lines), origins.collect::<Vec<Value>>())
        }
    };
    let origin_lines = folder.join("provenance.jsonl");
    let found = rows_before(&rows, &origin_lines)?;
    if found > origins.len() {
        return Err(InstructError::Fewer {
            path: rows,
            found,
            made: origins.len(),
        });
    }
    let dropped = outcome.dropped.iter().map(|dropped| {
        json!({"reason": dropped.reason.to_string(), "prompt": place(dropped.key), "text": dropped.text})
    });
    let report = pretty(report);
    for (path, text) in [
        (origin_lines, lines_of(origins.into_iter())),
        (folder.join("dropped.jsonl"), lines_of(dropped)),
        (folder.join("report.json"), report),
        // last, so that it is there when all is
        (rows.clone(), data),
    ] {
        write_file(&path, |file| file.write_all(text.as_bytes()))
            .map_err(|error: WriteError| InstructError::from(error))?;
    }
    Ok(rows)
}

/// The number of rows that an earlier run wrote: the lines of its `provenance.jsonl`; 0 if the rows are not there.
fn rows_before(rows: &Path, origins: &Path) -> Result<usize, InstructError> {
    if !rows.exists() {
        return Ok(0);
    }
    let file = match File::open(origins) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(InstructError::read(origins)(error)),
    };
    let lines = BufReader::new(file).split(b'\n');
    lines
        .map(|line| line.map(|_| 1).map_err(InstructError::read(origins)))
        .sum()
}

/// Rows as Stanford Alpaca's file has them: a list, indented by four spaces.
fn alpaca(rows: &[Row]) -> String {
    let rows: Vec<Value> = rows
        .iter()
        .map(
            |row| json!({"instruction": row.instruction, "input": row.input, "output": row.output}),
        )
        .collect();
    pretty(&rows)
}

fn pretty(value: &impl Serialize) -> String {
    let mut text = Vec::new();
    let indent = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut writer = serde_json::Serializer::with_formatter(&mut text, indent);
    // maps have text as keys, and numbers are finite
    let _ = value.serialize(&mut writer);
    String::from_utf8(text).unwrap_or_default() + "\n"
}

fn lines_of(values: impl Iterator<Item = Value>) -> String {
    let mut lines = String::new();
    for value in values {
        let _ = writeln!(lines, "{value}");
    }
    lines
}

/// A conversation as a row that `simmer train` reads.
fn chat(dialogue: &Dialogue, format: ChatFormat) -> Value {
    if format == ChatFormat::Baize {
        return json!({"topic": dialogue.topic, "input": dialogue.baize()});
    }
    let messages = dialogue.turns.iter().flat_map(|(question, answer)| {
        [
            json!({"role": "user", "content": question}),
            json!({"role": "assistant", "content": answer}),
        ]
    });
    json!({"messages": messages.collect::<Vec<Value>>()})
}

/// Where a row comes from.
fn origin(row: &Row, outcome: &Outcome) -> Value {
    let Some(kept) = row.of.and_then(|number| outcome.instructions.get(number)) else {
        return json!({"source": "seed"});
    };
    let Kept {
        key,
        part,
        examples,
        nearest,
        mean,
        is_classification,
        ..
    } = kept;
    let nearest: Vec<Value> = nearest
        .iter()
        .map(|(text, score)| json!([text, score]))
        .collect();
    let mut value = json!({
        "source": "generated",
        "prompt": place(*key),
        "part": part,
        "examples": examples,
        "most_similar": nearest,
        "avg_similarity_score": mean,
    });
    if let Some(yes) = is_classification {
        value["is_classification"] = (*yes).into();
        value["instance_prompt"] = row.key.map_or(Value::Null, place);
    }
    value
}

/// A prompt of the journal.
fn place(key: Key) -> Value {
    json!(key)
}
