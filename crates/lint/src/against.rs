//! The evaluation sets that a recipe lists in `data.lint.against`.

use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use super::fingerprint::Fingerprint;
use simmer_data::DataError;
use simmer_data::file::{Records, files};

/// The keys of a row's questions; upper and lower case are the same.
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

/// The keys of a message's text and of its role.
const SAYS: [&str; 2] = ["content", "value"];
const WHO: [&str; 2] = ["role", "from"];

/// The maximum number of hashes kept, about 16 bytes each.
const MOST_HASHES: usize = 30_000_000;

/// Adds the questions of a file or folder to `sets`, as a set with its name.
///
/// # Errors
/// [`DataError`] if a file cannot be read, or a row has no question.
pub(super) fn read(path: &Path, sets: &mut Fingerprint) -> Result<(), DataError> {
    let wrong = |problem| DataError::Config {
        key: "lint.against",
        problem,
    };
    let set = sets.name(path.display().to_string());
    for file in files(path)? {
        let mut records = Records::open(&file, &Arc::default())?;
        let mut rows = 0;
        while let Some(record) = records.next()? {
            rows += 1;
            let at = &record.origin;
            let asked = asked(&record.value()?);
            if asked.is_empty() {
                let known = ASKING.join(", ");
                return Err(wrong(format!(
                    "{at} has no question; its key must be one of {known}"
                )));
            }
            for text in &asked {
                sets.add(set, text);
            }
            if sets.len() > MOST_HASHES {
                let most = MOST_HASHES / 1_000_000;
                return Err(wrong(format!(
                    "{at}: the evaluation sets have more than {most} million words"
                )));
            }
        }
        if rows == 0 {
            return Err(DataError::Empty { path: file });
        }
    }
    Ok(())
}

/// The questions of a row. An instruction and its input are one question.
pub(super) fn asked(row: &Value) -> Vec<String> {
    let mut questions = Vec::new();
    let mut texts: Vec<&str> = Vec::new();
    for (key, value) in row.as_object().into_iter().flatten() {
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
    questions.push(texts.join("\n"));
    questions.retain(|text| !text.trim().is_empty());
    questions
}

/// The text of a turn that is a string or a user's message.
fn turn(turn: &Value) -> Option<String> {
    if let Value::String(text) = turn {
        return Some(text.clone());
    }
    let value = |keys: [&str; 2]| keys.iter().find_map(|key| turn.get(*key)?.as_str());
    matches!(value(WHO), Some("user" | "human")).then(|| value(SAYS).map(str::to_owned))?
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a file with this text.
    fn reading(name: &str, text: &str) -> Result<Fingerprint, String> {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        let mut sets = Fingerprint::default();
        let shown = |error: DataError| {
            let folder = folder.path().display().to_string();
            error.to_string().replace(&folder, "DIR")
        };
        read(&path, &mut sets).map_err(shown)?;
        Ok(sets)
    }

    fn has(sets: &Fingerprint, text: &str) -> bool {
        sets.has(&super::super::words::words(text)).is_some()
    }

    #[test]
    fn questions_are_read_from_the_usual_layouts() {
        let jsonl = r#"{"question": "one?", "answer": "a"}
{"instruction": "two", "input": "it", "output": "b"}

{"turns": ["three", "four"], "id": 5}
{"messages": [{"role": "user", "content": "five"}, {"role": "assistant", "content": "c"}]}
{"conversations": [{"from": "human", "value": "six"}, {"from": "gpt", "value": "d"}]}
{"Question": "seven", "choices": ["e", "f"]}"#;
        let sets = reading("eval.jsonl", jsonl).unwrap();
        assert_eq!(sets.len(), 7);
        for text in ["one", "two it", "three", "four", "five", "six", "seven"] {
            assert!(has(&sets, text), "{text}");
        }
        assert!(has(
            &reading("eval.json", "[{\"prompt\": \"eight\"}]").unwrap(),
            "eight"
        ));
        assert!(has(
            &reading("eval.csv", "id,Question\n1,nine?\n").unwrap(),
            "nine"
        ));
    }

    #[test]
    fn rows_without_a_question_are_errors() {
        let wrong = |text| reading("eval.jsonl", text).unwrap_err();
        insta::assert_snapshot!(wrong("{\"prompt\": \"one\"}\n{\"title\": \"two\"}"), @"data.lint.against: DIR/eval.jsonl: row 2 (line 2) has no question; its key must be one of question, prompt, instruction, input, query, problem, goal, sentence, text, turns, messages, conversations");
        insta::assert_snapshot!(wrong("{\"prompt\": \"one\"}\n{\"prompt\": 2}"), @"data.lint.against: DIR/eval.jsonl: row 2 (line 2) has no question; its key must be one of question, prompt, instruction, input, query, problem, goal, sentence, text, turns, messages, conversations");
        insta::assert_snapshot!(wrong("{\"prompt\": \"one\"}\n{\"prompt\""), @"DIR/eval.jsonl: invalid JSON at line 2 column 9: EOF while parsing an object");
        insta::assert_snapshot!(wrong(""), @"DIR/eval.jsonl: no rows");
        insta::assert_snapshot!(wrong("[3]"), @"data.lint.against: DIR/eval.jsonl: row 1 (line 1) has no question; its key must be one of question, prompt, instruction, input, query, problem, goal, sentence, text, turns, messages, conversations");
    }
}
