//! Questions, answers, recipes and prompts that are read, or cannot be used.

use std::fs;
use std::path::Path;

use super::{Case, MODELS, judge_that, says};
use crate::*;

#[test]
fn every_published_form_is_read() {
    let case = Case::new();
    for (row, id, turn, category) in [
        (
            r#"{"question_id": 81, "category": "writing", "turns": ["Write.", "Again."]}"#,
            "81",
            "Write.",
            Some("writing"),
        ),
        (
            r#"{"question_id": 1, "text": "Why?", "category": "generic"}"#,
            "1",
            "Why?",
            Some("generic"),
        ),
        (
            r#"{"id": "koala_0", "prompt": "List films."}"#,
            "koala_0",
            "List films.",
            None,
        ),
        (
            r#"{"id": "user_oriented_task_0", "motivation_app": "Grammarly", "instruction": "Shorten.", "instances": [{"input": "A b.", "output": "B."}]}"#,
            "user_oriented_task_0",
            "Shorten.\n\nA b.",
            Some("Grammarly"),
        ),
        (
            r#"{"id": "t", "motivation_app": "Excel", "instruction": "Sum.", "instances": [{"input": "", "output": "B."}]}"#,
            "t",
            "Sum.",
            Some("Excel"),
        ),
        (
            r#"{"instruction": "Sing.", "output": "la", "dataset": "koala"}"#,
            "1",
            "Sing.",
            Some("koala"),
        ),
        (r#"{"question": "Mine?", "id": "m"}"#, "m", "Mine?", None),
    ] {
        let path = case.write("form.jsonl", row);
        let read = &read_questions(&path, 0).unwrap()[0];
        assert_eq!(
            (
                read.id.as_str(),
                read.turns[0].as_str(),
                read.category.as_deref()
            ),
            (id, turn, category)
        );
    }
    let mut questions = case.questions();
    let file = case.write(
        "gpt-4.jsonl",
        "{\"question_id\": 1, \"choices\": [{\"turns\": [\"zwei\", \"vier\"]}]}\n{\"question_id\": 9, \"choices\": [{\"turns\": [\"x\"]}]}\n",
    );
    with_references(&mut questions, &file).unwrap();
    assert_eq!(questions[0].references, ["zwei", "vier"]);
}

/// The message of an error, without the folder.
fn said<T>(case: &Case, found: Result<T, impl std::error::Error>) -> String {
    let error = found.err().unwrap();
    let folder = format!("{}/", case.folder.path().display());
    error.to_string().replace(&folder, "")
}

#[test]
fn questions_that_cannot_be_used_are_named() {
    let case = Case::new();
    let read = |text: &str| said(&case, read_questions(&case.write("q.jsonl", text), 0));
    for (text, expected) in [
        (
            "{\"turns\": [\"a\"]}\n{\"turns\": [\"a\", \" \"]}\n",
            "q.jsonl: row 2 (line 2): MT-bench question: key `turns`: expected text, found an empty one in turn 2",
        ),
        (
            "{\"prompt\": \"a\"}\n{\"promt\": \"b\"}\n",
            "q.jsonl: row 2 (line 2): Koala question: key `prompt`: expected text, found nothing",
        ),
        (
            "{\"turns\": [\"a\", 3]}\n",
            "q.jsonl: row 1 (line 1): MT-bench question: key `turns`: expected text, found a number",
        ),
        (
            "{\"turns\": [\"a\", \"b\", \"c\"]}\n",
            "q.jsonl: row 1 (line 1): MT-bench question: key `turns`: expected one or two messages, found 3",
        ),
        (
            "{\"turns\": [\"a\", \"b\"], \"reference\": [\"c\"]}\n",
            "q.jsonl: row 1 (line 1): MT-bench question: key `reference`: expected a reference answer for each turn, 2, found 1",
        ),
        (
            "{\"id\": 7, \"prompt\": \"a\"}\n{\"id\": \"7\", \"prompt\": \"b\"}\n",
            "q.jsonl: row 2 (line 2): expected a name that no other question has, found `7`, the name of row 1",
        ),
        (
            "{\"id\": [], \"prompt\": \"a\"}\n",
            "q.jsonl: row 1 (line 1): Koala question: key `id`: expected text or a number, found a list",
        ),
        (
            "{\"words\": \"a\"}\n",
            "q.jsonl: row 1 (line 1): expected the text of a question under one of the keys `turns`, `instruction`, `prompt`, \
             `question`, `text`, found the keys `words`",
        ),
    ] {
        assert_eq!(read(text), expected);
    }
}

#[test]
fn answers_that_cannot_be_used_are_named() {
    let case = Case::new();
    let questions = case.questions();
    let read = |text: &str| {
        said(
            &case,
            read_answers(&case.write("a.jsonl", text), &questions),
        )
    };
    for (text, expected) in [
        (
            "{\"id\": 2, \"answer\": \"a\"}\n",
            "a.jsonl: expected an answer to each of 2 questions, found none to 1: 1",
        ),
        (
            "{\"question_id\": 1, \"choices\": [{\"turns\": [\"a\"]}]}\n{\"id\": 2, \"answer\": \"a\"}\n",
            "a.jsonl: row 1 (line 1): key `choices[0].turns`: expected 2 answers, one for each turn of question `1`, found 1",
        ),
        (
            "{\"id\": 2, \"answer\": \"a\"}\n{\"id\": 2, \"answer\": \"b\"}\n",
            "a.jsonl: row 2 (line 2): expected one answer to a question, found a second one to `2`; row 1 has the first",
        ),
        (
            "{\"answer\": \"a\"}\n",
            "a.jsonl: row 1 (line 1): expected the name of a question under `question_id` or `id`, or its text under \
             `instruction`, `question` or `prompt`, found none of these keys",
        ),
        (
            "{\"id\": 2, \"answer\": 5}\n",
            "a.jsonl: row 1 (line 1): key `answer`: expected text, found a number",
        ),
        (
            "{\"id\": 2, \"said\": \"a\"}\n",
            "a.jsonl: row 1 (line 1): expected an answer under one of the keys `choices[0].turns`, `turns`, `answers`, `answer`, \
             `output`, `response`, `completion`, `text`, found none",
        ),
    ] {
        assert_eq!(read(text), expected);
    }
}

#[test]
fn recipes_that_cannot_be_used_are_named() {
    let case = Case::new();
    let one = "[[model]]\nanswers = \"one.jsonl\"\n";
    for (keys, models, judge, expected) in [
        (
            "mode = \"pair\"",
            MODELS,
            "",
            "line 3, column 8: `mode`: unknown value `pair`",
        ),
        (
            "mod = \"single\"",
            MODELS,
            "",
            "line 3, column 1: unknown key `mod` in the recipe; did you mean `mode`?",
        ),
        (
            "",
            one,
            "",
            "`model`: expected two tables [[model]], to compare two models, found 1",
        ),
        (
            "",
            &[one, one].concat(),
            "",
            "`model.1.name`: expected another name than that of the first model, found `one`",
        ),
        (
            "",
            "[[model]]\nname = \"a\"\n[[model]]\n",
            "",
            "`model.0`: expected one of the keys `answers`, `local`, `endpoint`, found none",
        ),
        (
            "",
            MODELS,
            "endpoint = { url = \"http://x\", model = \"m\" }",
            "`judge`: expected one of the keys `local`, `endpoint`, found `local` and `endpoint`",
        ),
        (
            "",
            MODELS,
            "repeats = 0",
            "`judge.repeats`: expected at least 1, found 0",
        ),
        (
            "",
            MODELS,
            "temperature = 3.0",
            "`judge.temperature`: expected a number from 0 to 2, found 3",
        ),
        (
            "mode = \"single\"",
            "[[model]]\nendpoint = { url = \"x\", model = \"m\" }\n",
            "",
            "`model.0.endpoint.url`: expected http:// or https://, found \"x\"",
        ),
        (
            "mode = \"single\"",
            "[[model]]\nanswers = \"one.jsonl\"\ntemperature = 0.5\n",
            "",
            "line 6, column 1: `model.0.temperature`: expected no such key beside `answers`, which does not use it",
        ),
        (
            "mode = \"single\"",
            "[[model]]\ntemplate = \"alpaca\"\nendpoint = { url = \"http://x\", model = \"m\" }\n",
            "",
            "`model.0.template`: expected no such key beside `endpoint`",
        ),
    ] {
        let text = said(&case, case.recipe_of(keys, models, judge));
        assert!(
            text.starts_with("recipe.toml: ") && text.contains(expected),
            "{text}"
        );
    }
}

#[test]
fn prompts_that_cannot_be_used_are_named() {
    let case = Case::new();
    let read = |first: &str| {
        let text = format!(
            "about = \"mine\"\n[single.first]\nname = \"n\"\nsystem = \"\"\nprompt = \"{first}\"\n"
        );
        Prompts::named(case.write("mine.toml", &text).to_str().unwrap())
    };
    for (first, expected) in [
        (
            "{question} {answr}",
            "[single.first]: `prompt`: expected blanks of {question}, {answer}, found {answr}",
        ),
        (
            "{question}",
            "[single.first]: `prompt`: expected {answer}, found no such blank",
        ),
        (
            "{answer} } x",
            "[single.first]: `prompt`: expected {NAME}, or {{ and }} for braces, found a single brace before \" x\"",
        ),
    ] {
        let text = said(&case, read(first));
        assert!(text.ends_with(expected), "{text}");
    }
    let unknown = said(&case, Prompts::named("mtbench"));
    assert_eq!(
        unknown,
        "prompts `mtbench`: expected one of mt-bench, or a file that ends in .toml"
    );
    // a mode or a turn for which they have none
    read("{{{answer}}}").unwrap();
    let keys = |mode: &str| format!("mode = \"{mode}\"\nprompts = {:?}", case.path("mine.toml"));
    for (mode, expected) in [
        ("pairwise", "a table [pairwise]"),
        (
            "single",
            "a table [single.second] for questions of two turns",
        ),
    ] {
        let recipe = case.recipe(&keys(mode), "").unwrap();
        let text = said(
            &case,
            case.judge(&recipe, &mut judge_that(&says), "none.jsonl"),
        );
        assert!(
            text.ends_with(&format!("expected {expected}, found none")),
            "{text}"
        );
    }
}

#[test]
fn every_shipped_recipe_can_be_read() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes/judge");
    let mut count = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|end| end != "toml") {
            continue;
        }
        let recipe = JudgeRecipe::from_file(&path, &[]).unwrap();
        Prompts::named(&recipe.prompts).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let text = fs::read_to_string(&path).unwrap();
        assert!(
            text.contains(&format!("#   simmer judge recipes/judge/{name}\n")),
            "{name}"
        );
        count += 1;
    }
    assert!(count >= 2, "{count}");
}
