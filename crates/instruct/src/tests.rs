//! Runs with the completions for which `tests/reference/instruct.py` ran the original programs.

mod case;
#[path = "../../../tests/player.rs"]
mod player;

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use serde_json::Value;

use self::case::{Ahead, Case, Scores};
use super::*;

fn similar(kept: &Kept, expected: &Scores) {
    let found: Vec<f64> = kept.nearest.iter().map(|(_, score)| *score).collect();
    assert_eq!(found, expected.nearest, "{}", kept.text);
    // NumPy adds in another order
    assert!((kept.mean - expected.mean).abs() < 1e-12, "{}", kept.text);
}

#[test]
fn rows_of_stanford_alpaca_are_those_of_the_original() {
    let case = Case::new("alpaca");
    let mut player = case.player();
    let outcome = case.run(&mut player, "out").unwrap();
    assert_eq!(player.prompts.len(), case.golden.completions.len());
    let rows: Vec<Value> = serde_json::from_str(&case.written("data.json")).unwrap();
    assert_eq!(rows, case.golden.rows);
    for (kept, expected) in outcome.instructions.iter().zip(&case.golden.similar) {
        similar(kept, expected);
    }
    assert_eq!(case.written("provenance.jsonl").lines().count(), rows.len());
    let reasons: Vec<String> = outcome
        .dropped
        .iter()
        .map(|dropped| dropped.reason.to_string())
        .collect();
    for reason in [
        "format",
        "keyword: picture",
        "keyword: map",
        "keyword: go to",
        "not_ascii",
        "prefix: Write a program",
        "punctuation",
        "too_long",
        "too_short",
        "truncated",
        "similar: 1.000",
    ] {
        assert!(
            reasons.contains(&reason.to_owned()),
            "{reason}: {reasons:?}"
        );
    }
    let requirements = case.method.joint.as_ref().unwrap().prompt.get();
    for golden in &case.golden.prompts {
        let named = |name: &Value| {
            case.seeds
                .all
                .iter()
                .find(|seed| *name == seed.id)
                .unwrap()
                .example()
        };
        let examples: Vec<Example> = golden["examples"]
            .as_array()
            .unwrap()
            .iter()
            .map(named)
            .collect();
        let examples: Vec<&Example> = examples.iter().collect();
        assert_eq!(
            joint_prompt(requirements, &examples),
            golden["prompt"].as_str().unwrap()
        );
    }
}

#[test]
fn rows_of_self_instruct_are_those_of_the_original() {
    let case = Case::new("self-instruct");
    let mut player = case.player();
    let outcome = case.run(&mut player, "out").unwrap();
    assert_eq!(player.prompts.len(), case.golden.completions.len());
    for (kept, golden) in outcome.instructions.iter().zip(&case.golden.instructions) {
        assert_eq!(kept.text, golden["instruction"].as_str().unwrap());
        assert_eq!(
            kept.is_classification,
            golden["is_classification"].as_bool()
        );
        similar(kept, &serde_json::from_value(golden.clone()).unwrap());
    }
    assert_eq!(outcome.instructions.len(), case.golden.instructions.len());
    let mut rows: Vec<Value> = serde_json::from_str(&case.written("data.json")).unwrap();
    // the original has the instances of an instruction in the order of a set
    let key = |row: &Value| row.to_string();
    rows.sort_by_key(key);
    let mut expected = case.golden.rows;
    expected.sort_by_key(key);
    assert_eq!(rows, expected);
    let shown: Vec<&str> = case
        .seeds
        .all
        .iter()
        .take(8)
        .map(|seed| seed.instruction.as_str())
        .collect();
    let header = case
        .method
        .staged
        .as_ref()
        .unwrap()
        .instructions
        .prompt
        .get();
    assert_eq!(staged_prompt(header, &shown), case.golden.prompt);
}

#[test]
fn conversations_of_baize_are_those_of_the_original() {
    let mut case = Case::new("baize");
    (case.recipe.chat_format, case.recipe.target) = (ChatFormat::Baize, 100);
    let mut player = case.player();
    let outcome = case.run(&mut player, "out").unwrap();
    assert_eq!(outcome.ended, Ended::Seeds);
    let text = case.written("data.jsonl");
    let rows: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(rows, case.golden.rows);
    let first = Dialogue {
        topic: "t".into(),
        turns: vec![("q".into(), "a".into())],
    };
    case.recipe.chat_format = ChatFormat::Messages;
    assert!(first.baize().ends_with("[|AI|] a\n[|Human|] "));
    case.run(&mut player, "out").unwrap();
    let messages = case.written("data.jsonl");
    assert!(
        messages
            .starts_with(r#"{"messages":[{"role":"user","content":"How long does an egg take?"},"#),
        "{messages}"
    );
}

#[test]
fn a_run_that_ends_anywhere_is_resumed_with_equal_bytes() {
    for name in ["alpaca", "self-instruct", "baize"] {
        let case = Case::new(name);
        let mut player = case.player();
        case.run(&mut player, "whole").unwrap();
        let (expected, total) = (case.files("whole"), player.prompts.len());
        let whole = fs::read(case.journal("whole")).unwrap();
        for left in (0..total).step_by(3) {
            player.left = left;
            let out = format!("stopped {left}");
            let error = case.run(&mut player, &out).unwrap_err().to_string();
            assert_eq!(error, "the model cannot continue a prompt: gone");
            player.left = usize::MAX;
            player.prompts.clear();
            case.run(&mut player, &out).unwrap();
            assert_eq!(player.prompts.len(), total - left, "{name}");
            assert!(case.files(&out) == expected, "{name}: {out}");
        }
        for cut in (0..whole.len()).step_by(whole.len() / 7) {
            let out = format!("cut {cut}");
            fs::create_dir(case.folder.path().join(&out)).unwrap();
            fs::write(case.journal(&out), &whole[..cut]).unwrap();
            case.run(&mut player, &out).unwrap();
            assert!(case.files(&out) == expected, "{name}: {out}");
            assert!(
                fs::read(case.journal(&out)).unwrap() == whole,
                "{name}: {out}"
            );
        }
    }
}

/// Batches of conversations, Alpaca's instructions and instances of Self-Instruct are known before earlier ones are completed.
#[test]
fn later_batches_are_announced_as_they_are_asked_for() {
    for (name, least) in [("alpaca", 2), ("self-instruct", 2), ("baize", 1)] {
        let mut case = Case::new(name);
        case.recipe.batch = case.recipe.batch.min(2);
        case.recipe.target = case.recipe.target.max(3);
        let mut player = case.player();
        case.run(&mut player, "alone").unwrap();
        let mut ahead = Ahead {
            player,
            expected: Vec::new(),
            next: Vec::new(),
            announced: 0,
        };
        case.run(&mut ahead, "ahead").unwrap();
        assert!(ahead.announced >= least, "{name}: {}", ahead.announced);
        assert!(case.files("ahead") == case.files("alone"), "{name}");
    }
}

#[test]
fn a_run_ends_when_nothing_more_is_kept() {
    let mut case = Case::new("alpaca");
    (case.recipe.target, case.recipe.patience) = (1000, 3);
    let empty = player::completion(String::new());
    let mut player = case.player_then(vec![empty; 100]);
    let outcome = case.run(&mut player, "out").unwrap();
    assert_eq!(
        (outcome.ended, player.prompts.len()),
        (Ended::Patience, case.golden.completions.len() + 6)
    );
    case.recipe.max_batches = 2;
    // that would be fewer rows than the folder has
    let before = case.files("out");
    let error = case.run(&mut player, "out").unwrap_err().to_string();
    assert!(error.contains("data.json: has "), "{error}");
    assert!(case.files("out") == before);
    let outcome = case.run(&mut player, "fewer").unwrap();
    assert_eq!(outcome.ended, Ended::MaxBatches);
}

proptest! {
    /// Whatever a model writes.
    #[test]
    fn no_completion_is_a_fault(
        parts in prop::collection::vec(
            prop::sample::select(vec![
                "###", "4. Instruction:", "4.", "Input:", "4. Output:", "\n5. Input:", " Example 2.", "Output 1 :", "Class label:", "\n",
                "[Human]", "[AI]", "\n12 . ", "é", "ß", "İ", "\u{1c}", "春", "\"", "(", "go to", " ", ",", "write", "a list", ":", "given",
            ]),
            0..25,
        ),
        length in any::<bool>(),
    ) {
        let text = parts.concat();
        let finish = if length { Finish::Length } else { Finish::Stop };
        let completion = Completion { text, finish, prompt_tokens: None, completion_tokens: None };
        let method = Method::named("alpaca").unwrap();
        let filter = method.filter.as_ref().unwrap();
        for found in parse_joint(&completion, 3, filter) {
            let instruction = found.map_or_else(|(text, _)| text, |candidate| candidate.instruction);
            verb_and_noun(&instruction);
        }
        for found in parse_instructions(&completion, filter, true) {
            prop_assert!(found.is_err() || found.is_ok_and(|text| filter.reason(&text).is_none()));
        }
        for instances in [generated(&completion), classified(&completion)] {
            prop_assert!(instances.kept.iter().all(|(input, output)| !output.is_empty() && input != output));
        }
        if let Ok(turns) = turns(&completion, "[Human]", "[AI]") {
            prop_assert!(turns.iter().all(|(question, answer)| !question.contains("[Human]") && !answer.contains("[AI]")));
        }
    }
}

#[test]
fn seeds_that_cannot_be_used_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("seeds.jsonl");
    let error = |text: &str, read: fn(&Path) -> Result<Seeds, InstructError>| {
        fs::write(&path, text).unwrap();
        read(&path).unwrap_err().to_string()
    };
    let task =
        "{\"instruction\": \"Do it\", \"instances\": [{\"input\": \"\", \"output\": \"done\"}]}\n";
    let found = error(&format!("{task}\n{{\"instruction\": 1}}"), Seeds::tasks);
    assert!(
        found.contains("seeds.jsonl: line 3: invalid type"),
        "{found}"
    );
    let found = error(
        "{\"instruction\": \"Do it\", \"instances\": []}",
        Seeds::tasks,
    );
    assert!(
        found.ends_with("line 1: key `instances`: expected at least one, found none"),
        "{found}"
    );
    let found = error("What?\n{\"text\": \"x\"}", Seeds::questions);
    assert!(
        found.contains("line 2: expected text in `question`"),
        "{found}"
    );
    fs::write(&path, "What?\n{\"question\": \"What?\"}\nWhy?").unwrap();
    assert_eq!(Seeds::questions(&path).unwrap().all.len(), 2);
    fs::write(&path, task.repeat(2)).unwrap();
    let mut case = Case::new("alpaca");
    case.seeds = Seeds::tasks(&path).unwrap();
    let error = case.run(&mut case.player(), "out").unwrap_err().to_string();
    assert!(
        error.ends_with("expected at least 3 seeds, found 2"),
        "{error}"
    );
}
