//! Compares verdicts with the reference's, on responses written by tests/reference/ifeval.py.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Accuracy, Instruction, InstructionError, Outcome};

#[derive(Deserialize)]
struct Golden {
    id: String,
    kwargs: Map<String, Value>,
    response: String,
    strict: bool,
    loose: bool,
}

#[test]
fn verdicts_are_the_references() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/goldens/eval/ifeval.jsonl"
    );
    let text = std::fs::read_to_string(path).unwrap();
    let mut wrong = Vec::new();
    for line in text.lines() {
        let golden: Golden = serde_json::from_str(line).unwrap();
        let instruction = Instruction::new(&golden.id, &golden.kwargs).unwrap();
        let outcome = Outcome::of(&[instruction], &golden.response);
        if outcome.strict != [golden.strict] || outcome.loose != [golden.loose] {
            wrong.push(format!("{outcome:?} {line}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(text.lines().count() >= 500);
}

fn error(id: &str, kwargs: Value) -> String {
    let Value::Object(kwargs) = kwargs else {
        panic!("{kwargs}");
    };
    let error: InstructionError = Instruction::new(id, &kwargs).unwrap_err();
    error.to_string()
}

#[test]
fn what_is_wrong_is_named() {
    assert_eq!(
        error("keywords:nonsense", json!({})),
        "unknown instruction `keywords:nonsense`"
    );
    assert_eq!(
        error(
            "detectable_format:number_bullet_lists",
            json!({"num_bullets": 0})
        ),
        "instruction `detectable_format:number_bullet_lists`: `num_bullets` is missing"
    );
    assert_eq!(
        error(
            "length_constraints:number_words",
            json!({"num_words": 9, "relation": "about"})
        ),
        "instruction `length_constraints:number_words`: `relation` must be `less than` or `at least`"
    );
}

#[test]
fn what_is_wrong_with_an_argument_is_named() {
    assert_eq!(
        error(
            "punctuation:no_comma",
            json!({"letter": "a", "num_words": null})
        ),
        "instruction `punctuation:no_comma`: `letter` is not an argument of this instruction"
    );
    assert_eq!(
        error(
            "detectable_content:number_placeholders",
            json!({"num_placeholders": -1})
        ),
        "instruction `detectable_content:number_placeholders`: `num_placeholders` must be a whole number above 0"
    );
    assert!(
        error("keywords:existence", json!({"keywords": ["(a"]})).starts_with(
            "instruction `keywords:existence`: `keywords` is not a valid regular expression: "
        )
    );
    assert_eq!(
        error("language:response_language", json!({"language": "tlh"})),
        "instruction `language:response_language`: `language` must be the code of one of IFEval's 30 languages"
    );
}

#[test]
fn accuracy_is_over_prompts_and_over_instructions() {
    let outcome = |strict: &[bool], loose: &[bool]| Outcome {
        strict: strict.into(),
        loose: loose.into(),
    };
    let accuracy = Accuracy::of(&[
        outcome(&[true, false, true], &[true, true, true]),
        outcome(&[true], &[true]),
        outcome(&[false], &[false]),
        outcome(&[], &[]),
    ]);
    let expected = Accuracy {
        prompt_strict: 0.5,
        instruction_strict: 0.6,
        prompt_loose: 0.75,
        instruction_loose: 0.8,
    };
    assert_eq!(accuracy, Some(expected));
    assert_eq!(Accuracy::of(&[]), None);
}
