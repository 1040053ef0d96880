//! `simmer generate --file`: answers to the rows of a file.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::commands::simmer;

const BASE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data/tiny-base");
const HELD_OUT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data/kitchen/heldout.json");

/// The first rows of the kitchen's held-out file, in a file of their own.
fn rows(folder: &Path, count: usize) -> Vec<Value> {
    let mut rows: Vec<Value> = serde_json::from_slice(&fs::read(HELD_OUT).unwrap()).unwrap();
    rows.truncate(count);
    let lines: Vec<String> = rows.iter().map(|row| format!("{row}\n")).collect();
    fs::write(folder.join("rows.jsonl"), lines.concat()).unwrap();
    rows
}

/// Standard output of a command that succeeds.
fn said(folder: &Path, args: &[&str]) -> String {
    let base = [
        "generate",
        "--base",
        BASE,
        "--device",
        "cpu",
        "--max-new-tokens",
        "12",
    ];
    let output = simmer(folder, &[&base, args].concat());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// Standard error of a command that fails, from its error on.
fn failure(folder: &Path, args: &[&str]) -> String {
    let base = ["generate", "--base", BASE, "--device", "cpu"];
    let output = simmer(folder, &[&base, args].concat());
    assert!(!output.status.success(), "{args:?} succeeded");
    let text = String::from_utf8(output.stderr).unwrap();
    let error = text.find("error: ").unwrap();
    text[error..].replace(&folder.display().to_string(), "FOLDER")
}

fn lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn each_row_gets_the_answer_of_its_prompt() {
    let folder = tempfile::tempdir().unwrap();
    let rows = rows(folder.path(), 5);
    let greedy = ["--template", "alpaca", "--greedy", "--json"];
    let single: Vec<Value> = rows
        .iter()
        .map(|row| {
            let prompt = ["--prompt", row["instruction"].as_str().unwrap()];
            lines(&said(folder.path(), &[&greedy[..], &prompt].concat())).remove(0)
        })
        .collect();
    for batch in ["1", "2", "16"] {
        let file = ["--file", "rows.jsonl", "--batch", batch];
        let found = lines(&said(folder.path(), &[&greedy[..], &file].concat()));
        assert_eq!(found.len(), rows.len());
        for (number, (found, (row, single))) in
            found.iter().zip(rows.iter().zip(&single)).enumerate()
        {
            assert_eq!(found["row"], number + 1);
            assert_eq!(found["reference"], row["output"]);
            let prompt = found["prompt"].as_str().unwrap();
            assert!(
                prompt.contains(row["instruction"].as_str().unwrap())
                    && prompt.ends_with("### Response:")
            );
            for key in ["text", "prompt_ids", "ids", "stop"] {
                assert_eq!(found[key], single[key], "{key}, {batch} at a time");
            }
            assert_eq!(
                found["logprobs"].as_array().unwrap().len(),
                found["ids"].as_array().unwrap().len()
            );
        }
    }
}

#[test]
fn a_seed_gives_each_row_samples_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let row = json!({"prompt": "The soup", "completion": "is hot."}).to_string() + "\n";
    fs::write(folder.path().join("rows.jsonl"), row.repeat(4)).unwrap();
    let sampled = |seed, batch| {
        let args = ["--file", "rows.jsonl", "--temperature", "2", "--top-p", "1"];
        let text = said(
            folder.path(),
            &[&args[..], &["--seed", seed, "--batch", batch]].concat(),
        );
        let texts = lines(&text)
            .into_iter()
            .map(|line| line["text"].to_string());
        texts.collect::<Vec<_>>()
    };
    let texts = sampled("3", "4");
    assert_eq!(texts, sampled("3", "1"));
    assert_ne!(texts, sampled("4", "4"));
    for (at, text) in texts.iter().enumerate() {
        assert!(!texts[..at].contains(text), "{texts:?}");
    }
}

#[test]
fn a_line_of_a_text_file_is_a_prompt() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("prompts.txt"), "The soup\n\nThe honey\n").unwrap();
    let args = ["--file", "prompts.txt", "--greedy", "--output", "out.jsonl"];
    assert_eq!(said(folder.path(), &args), "");
    let found = lines(&fs::read_to_string(folder.path().join("out.jsonl")).unwrap());
    let prompts: Vec<&Value> = found.iter().map(|line| &line["prompt"]).collect();
    assert_eq!(prompts, ["The soup", "The honey"]);
    for line in &found {
        let keys: Vec<&String> = line.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["row", "prompt", "text", "stop"]);
        let prompt = ["--prompt", line["prompt"].as_str().unwrap(), "--greedy"];
        let single = said(folder.path(), &prompt);
        assert_eq!(single, format!("{}\n", line["text"].as_str().unwrap()));
    }
    let alpaca = said(
        folder.path(),
        &["--file", "prompts.txt", "--greedy", "--template", "alpaca"],
    );
    assert!(
        lines(&alpaca)[1]["prompt"]
            .as_str()
            .unwrap()
            .contains("The honey")
    );
}

/// Prompts alone, in the training split of a folder.
#[test]
fn rows_without_answers_are_answered() {
    let folder = tempfile::tempdir().unwrap();
    let rows = folder.path().join("rows");
    fs::create_dir(&rows).unwrap();
    let [first, second] = ["What is tea?", "Name a soup."];
    let text = format!(
        "{}\n{}\n",
        json!({"instruction": first}),
        json!({"instruction": second})
    );
    fs::write(rows.join("train.jsonl"), text).unwrap();
    fs::write(
        rows.join("test.jsonl"),
        json!({"instruction": "no"}).to_string(),
    )
    .unwrap();
    let template = ["--template", "alpaca", "--greedy"];
    let answers = lines(&said(
        folder.path(),
        &[&["--file", "rows"][..], &template].concat(),
    ));
    assert_eq!(answers.len(), 2);
    for (answer, prompt) in answers.iter().zip([first, second]) {
        let alone = said(
            folder.path(),
            &[&["--prompt", prompt][..], &template].concat(),
        );
        assert_eq!(answer["text"], alone.trim_end_matches('\n'));
        assert_eq!(answer.get("reference"), None);
    }
}

#[test]
fn rows_that_cannot_be_answered_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let write = |text: &str| fs::write(folder.path().join("rows.jsonl"), text).unwrap();
    let said = |args: &[&str]| failure(folder.path(), &[&["--file", "rows.jsonl"], args].concat());
    let good = "{\"prompt\": \"a\", \"completion\": \"b\"}\n";
    write(&format!(
        "{good}{}\n",
        json!({"prompt": "soup ".repeat(9000), "completion": "b"})
    ));
    insta::assert_snapshot!(said(&[]), @r"
    error: rows.jsonl: row 2 (line 2): cannot be answered
      because: the text has 9003 tokens, the model takes 1024 (max_position_embeddings)
    hint: shorten the text
    ");
    write("{\"instruction\": \"a\", \"output\": \"b\"}\n");
    insta::assert_snapshot!(said(&[]), @r"
    error: rows.jsonl: row 1 (line 1): a row of instruction/output needs a prompt template
    hint: use --chat or --template NAME
    ");
    write("{\"frage\": \"a\", \"antwort\": \"b\"}\n");
    insta::assert_snapshot!(said(&[]), @r"
    error: rows.jsonl: row 1 (line 1): unknown format; the row has `frage`, `antwort`
    hint: name the keys, such as --fields instruction=frage,output=antwort
    ");
    write(good);
    fs::write(folder.path().join("out.jsonl"), "mine").unwrap();
    insta::assert_snapshot!(said(&["--output", "out.jsonl"]), @r"
    error: out.jsonl exists already, and is not overwritten
    hint: name another file with --output
    ");
    assert_eq!(
        fs::read_to_string(folder.path().join("out.jsonl")).unwrap(),
        "mine"
    );
    insta::assert_snapshot!(said(&["--prompt", "x"]), @r"
    error: the argument '--file <FILE>' cannot be used with '--prompt <TEXT>'

    Usage: simmer generate --base <MODEL> --device <DEVICE> <--prompt <TEXT>|--file <FILE>>

    For more information, try '--help'.
    ");
    let prompted = |args: &[&str]| failure(folder.path(), &[&["--prompt", "x"], args].concat());
    insta::assert_snapshot!(prompted(&["--output", "new.jsonl"]), @r"
    error: the argument '--prompt <TEXT>' cannot be used with '--output <FILE>'

    Usage: simmer generate --base <MODEL> --device <DEVICE> <--prompt <TEXT>|--file <FILE>>

    For more information, try '--help'.
    ");
    insta::assert_snapshot!(failure(folder.path(), &[]), @r"
    error: the following required arguments were not provided:
      <--prompt <TEXT>|--file <FILE>>

    Usage: simmer generate --base <MODEL> --device <DEVICE> <--prompt <TEXT>|--file <FILE>>

    For more information, try '--help'.
    ");
    insta::assert_snapshot!(said(&["--batch", "0"]), @r"
    error: invalid value '0' for '--batch <N>': 0 is not in 1..=65535

    For more information, try '--help'.
    ");
}
