//! The texts of evaluation sets that a recipe names.

use std::path::Path;

use serde_json::Value;

use crate::error::DataError;

/// The keys under which a row has what it asks, whatever their case.
const ASKING: [&str; 12] = [
    "question",
    "prompt",
    "instruction",
    "input",
    "query",
    "problem",
    "goal",
    "sentence",
    "text",
    "turns",
    "messages",
    "conversations",
];

/// The keys under which a message has its words, and who says them.
const SAYS: [&str; 2] = ["content", "value"];
const WHO: [&str; 2] = ["role", "from"];

/// The most bytes of a file.
const MOST_BYTES: u64 = 1 << 28;

/// What the rows of a JSON or JSONL file ask.
///
/// # Errors
/// [`DataError`] when the file cannot be read, and when a row asks nothing.
pub(super) fn questions(path: &Path) -> Result<Vec<String>, DataError> {
    let read = |source| DataError::Read {
        path: path.into(),
        source,
    };
    let wrong = |problem: String| DataError::Config {
        key: "lint.against",
        problem: format!("{}: {problem}", path.display()),
    };
    if std::fs::metadata(path).map_err(read)?.len() > MOST_BYTES {
        return Err(wrong(format!("more than {} MiB", MOST_BYTES >> 20)));
    }
    let text = std::fs::read_to_string(path).map_err(read)?;
    let text = text.trim_start_matches('\u{FEFF}');
    let rows = if text.trim_start().starts_with('[') {
        serde_json::from_str(text).map_err(|error| DataError::json(path, &error, 1, 1))?
    } else {
        let lines = text
            .lines()
            .zip(1..)
            .filter(|(line, _)| !line.trim().is_empty());
        let row = |(line, number): (&str, usize)| {
            serde_json::from_str(line).map_err(|error| DataError::json(path, &error, number, 1))
        };
        lines.map(row).collect::<Result<Vec<Value>, _>>()?
    };
    let mut questions = Vec::new();
    for (row, number) in rows.iter().zip(1..) {
        let before = questions.len();
        asked(row, &mut questions);
        if questions.len() == before {
            let known = ASKING.join(", ");
            return Err(wrong(format!(
                "row {number} asks nothing under any of {known}"
            )));
        }
    }
    if rows.is_empty() {
        return Err(DataError::Empty { path: path.into() });
    }
    Ok(questions)
}

/// Collects the texts of a row that ask. An instruction and its input are one.
fn asked(row: &Value, questions: &mut Vec<String>) {
    let Value::Object(row) = row else { return };
    let mut texts: Vec<&str> = Vec::new();
    for (key, value) in row {
        let key = key.to_ascii_lowercase();
        if !ASKING.contains(&key.as_str()) {
            continue;
        }
        match value {
            Value::String(text) => texts.push(text),
            Value::Array(turns) => questions.extend(turns.iter().filter_map(turn)),
            _ => {}
        }
    }
    let text = texts.join("\n");
    if !text.trim().is_empty() {
        questions.push(text);
    }
}

/// A turn that is text alone, or what a user's message says.
fn turn(turn: &Value) -> Option<String> {
    if let Value::String(text) = turn {
        return Some(text.clone());
    }
    let under = |keys: [&str; 2]| keys.iter().find_map(|key| turn.get(*key)?.as_str());
    matches!(under(WHO), Some("user" | "human")).then(|| under(SAYS).map(str::to_owned))?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<String>, String> {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("eval.jsonl");
        std::fs::write(&path, text).unwrap();
        let shown = |error: DataError| {
            let folder = folder.path().display().to_string();
            error.to_string().replace(&folder, "DIR")
        };
        questions(&path).map_err(shown)
    }

    #[test]
    fn questions_are_read_from_the_usual_layouts() {
        let jsonl = r#"{"question": "one?", "answer": "a"}
{"instruction": "two", "input": "it", "output": "b"}

{"turns": ["three", "four"], "id": 5}
{"messages": [{"role": "user", "content": "five"}, {"role": "assistant", "content": "c"}]}
{"conversations": [{"from": "human", "value": "six"}, {"from": "gpt", "value": "d"}]}
{"Question": "seven", "choices": ["e", "f"]}"#;
        let all = ["one?", "two\nit", "three", "four", "five", "six", "seven"];
        assert_eq!(read(jsonl).unwrap(), all);
        assert_eq!(
            read("\u{FEFF}[{\"prompt\": \"eight\"}]").unwrap(),
            ["eight"]
        );
    }

    #[test]
    fn rows_that_ask_nothing_are_errors() {
        insta::assert_snapshot!(read("{\"prompt\": \"one\"}\n{\"title\": \"two\"}").unwrap_err(), @"data.lint.against: DIR/eval.jsonl: row 2 asks nothing under any of question, prompt, instruction, input, query, problem, goal, sentence, text, turns, messages, conversations");
        insta::assert_snapshot!(read("{\"prompt\": \"one\"}\n{\"prompt\": 2}").unwrap_err(), @"data.lint.against: DIR/eval.jsonl: row 2 asks nothing under any of question, prompt, instruction, input, query, problem, goal, sentence, text, turns, messages, conversations");
        insta::assert_snapshot!(read("{\"prompt\": \"one\"}\n{\"prompt\"").unwrap_err(), @"DIR/eval.jsonl: invalid JSON at line 2 column 9: EOF while parsing an object");
        insta::assert_snapshot!(read("").unwrap_err(), @"DIR/eval.jsonl: no rows");
        insta::assert_snapshot!(read("[3]").unwrap_err(), @"data.lint.against: DIR/eval.jsonl: row 1 asks nothing under any of question, prompt, instruction, input, query, problem, goal, sentence, text, turns, messages, conversations");
    }
}
