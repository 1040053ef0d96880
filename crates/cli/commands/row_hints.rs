//! Hints about rows for commands that read them without a recipe: they name options, not a recipe's keys.

use simmer_data::{DataError, RowError, hint_of_table};
use simmer_hint::Hint;

use super::fields::Names;
use super::train::quoted;
use crate::failure::Failure;

/// The keys of a row that fits no format, if `fields` names none that it lacks.
pub(crate) fn unknown_keys(error: &DataError) -> Option<&[String]> {
    let DataError::Row { error, .. } = error else {
        return None;
    };
    match &**error {
        RowError::UnknownFormat {
            keys,
            null: None,
            absent,
            ..
        } if absent.is_empty() => Some(keys),
        _ => None,
    }
}

/// The names with which rows of an unknown format can be read, if an error suggests them.
pub(crate) fn suggested(error: &DataError) -> Option<Names> {
    let DataError::Row { error, .. } = error else {
        return None;
    };
    match &**error {
        // as text around the line, which is in backticks
        RowError::UnknownFormat { reading, .. } => {
            Names::of_line(reading.as_deref()?.split('`').nth(1)?)
        }
        _ => None,
    }
}

/// An error of reading rows, with a hint that needs no recipe.
pub(crate) fn hinted(error: DataError) -> Failure {
    let hint = hint(&error);
    let failure = Failure::from(error);
    match hint {
        Some(hint) => failure.with_hint(hint),
        None => failure,
    }
}

fn hint(error: &DataError) -> Option<String> {
    if let (Some(keys), DataError::Row { origin, .. }) = (unknown_keys(error), error) {
        let such_as = |named: String| format!("name the keys, such as {}", option(&named));
        let named = suggested(error).map(|names| names.option());
        if let Some(named) = named.or_else(|| Names::like_questions(keys)) {
            return Some(such_as(named));
        }
        let guess = Names::guess(keys).map(such_as);
        let hint = guess.unwrap_or_else(|| {
            "name the keys that hold questions and answers: --fields instruction=KEY,output=KEY"
                .to_owned()
        });
        return Some(hint_of_table(&origin.file, hint));
    }
    match error {
        DataError::Unusable(bad) => {
            hint(&bad.error).or_else(|| Some("change or remove the row".to_owned()))
        }
        DataError::Row { error, .. } => of_row(error).or_else(|| error.hint()),
        other => other.hint(),
    }
}

/// The hint of an error whose own hint is about a recipe.
fn of_row(error: &RowError) -> Option<String> {
    Some(match error {
        RowError::MissingKey {
            format,
            expected,
            fields: Some(line),
            ..
        } => format!(
            "add the key, or name another: {}; a row of format {format} has {expected}",
            option(&Names::of_line(line)?.option())
        ),
        RowError::NoMessageKey { missing, .. } => {
            format!("if another key has it, name that key: --fields {missing}=NAME")
        }
        RowError::Weight { .. } => {
            "remove the row or its weight; if the key means something else, rename it".to_owned()
        }
        RowError::OtherFormat { .. } => "move these rows to another file".to_owned(),
        RowError::Misplaced { .. } if error.hint().is_some() => {
            "remove the answers before the first user message".to_owned()
        }
        _ => return None,
    })
}

fn option(names: &str) -> String {
    format!("--fields {}", quoted(names))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use simmer_data::format::{Reader, Reading};

    use super::*;

    /// The hint for the first row that cannot be read.
    fn of(rows: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.jsonl");
        fs::write(&path, rows).unwrap();
        let read = Reader::open(&[path], &Reading::default()).and_then(Reader::rest);
        let text = hinted(read.unwrap_err()).text();
        text.lines().last().unwrap().to_owned()
    }

    #[test]
    fn a_table_may_lack_the_names_of_its_columns() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.CSV");
        fs::write(&path, "who?,me\nwhere?,here\n").unwrap();
        let read = Reader::open(&[path], &Reading::default()).and_then(Reader::rest);
        let text = hinted(read.unwrap_err()).text();
        insta::assert_snapshot!(text.lines().last().unwrap(), @"hint: if the first line of the file is a row, add a line with the names of the columns before it; else name the keys, such as --fields 'instruction=who?,output=me'");
    }

    #[test]
    fn hints_name_options() {
        let turns = |from: &str, key: &str| {
            format!("{{\"conversations\": [{{\"from\": \"{from}\", \"{key}\": \"a\"}}]}}\n")
        };
        let hints = [
            // what an error suggests comes before a guess by the order of the keys
            of(r#"{"source": "web", "problem": "a", "solution": "b"}"#),
            of(r#"{"id": 1, "thema": "a", "text ": "b"}"#),
            of(r#"{"question_id": 1, "category": "a", "turns": ["b"], "reference": "c"}"#),
            of(r#"{"id": 1, "dialog": [{"role": "user", "content": "a"}]}"#),
            of(r#"{"prompt": "a", "answer": "b"}"#),
            of(&turns("human", "words")),
            of(&turns("gpt", "value")),
            of(&format!(
                "{}{}",
                r#"{"prompt": "a", "completion": "b"}"#.to_owned() + "\n",
                turns("human", "value")
            )),
            of(r#"{"prompt": "a", "completion": "b", "weight": 3}"#),
        ];
        insta::assert_snapshot!(hints.join("\n"), @"
        hint: name the keys, such as --fields instruction=problem,output=solution
        hint: name the keys, such as --fields 'instruction=thema,output=text '
        hint: name the keys that hold questions and answers: --fields instruction=KEY,output=KEY
        hint: name the keys, such as --fields messages=dialog
        hint: add the key, or name another: --fields completion=answer; a row of format prompt_completion has `prompt` and `completion` (or `response`)
        hint: if another key has it, name that key: --fields value=NAME
        hint: remove the answers before the first user message
        hint: move these rows to another file
        hint: remove the row or its weight; if the key means something else, rename it
        ");
    }
}
