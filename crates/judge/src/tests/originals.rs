//! Verdicts, prompts and numbers as FastChat, SciPy and scikit-learn have them (`tests/reference/judge.py`).

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::*;

fn golden(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens/judge");
    serde_json::from_str(&fs::read_to_string(path.join(name)).unwrap()).unwrap()
}

#[test]
fn verdicts_are_those_of_fastchat() {
    let golden = golden("fastchat.json");
    for case in golden["verdicts"].as_array().unwrap() {
        let text = case["text"].as_str().unwrap();
        assert_eq!(rating(text), case["rating"].as_f64(), "{text:?}");
        let winner = match preference(text) {
            Some(Preference::A) => "A",
            Some(Preference::B) => "B",
            Some(Preference::Tie) => "tie",
            None => "error",
        };
        assert_eq!(winner, case["winner"], "{text:?}");
    }
    // where the original stops with an error, other digits are no number, and a zero before a number means nothing
    let errors = golden["errors"].as_array().unwrap();
    let found = errors.iter().map(|text| rating(text.as_str().unwrap()));
    let found: Vec<Option<f64>> = found.collect();
    assert_eq!(found, [Some(5.0), None, None, None]);
}

#[test]
fn prompts_are_those_of_fastchat() {
    let golden = golden("fastchat.json");
    let prompts = Prompts::named("mt-bench").unwrap();
    let value = |blank: &str| {
        let text = match blank {
            "question" | "question_1" => "Add {x} and {{y}}?",
            "question_2" => "Now {answer_a}.\n\nReally?",
            "answer" | "answer_1" | "answer_a" | "answer_a_1" => "{answer_b} & <b>\n",
            "answer_2" | "answer_a_2" => "second of A {question_1}",
            "answer_b" | "answer_b_1" => "first of B }",
            "answer_b_2" => "{ second of B",
            "ref_answer_1" => "reference {ref_answer_2}",
            "ref_answer_2" => "reference two",
            other => panic!("{other}"),
        };
        text.to_owned()
    };
    let sets = [Mode::Single, Mode::Pairwise].map(|mode| prompts.set(mode).unwrap());
    let places = [(0, false), (0, true), (1, false), (1, true)];
    let all: Vec<&JudgePrompt> = sets
        .iter()
        .flat_map(|set| places.map(|(turn, reference)| set.prompt(turn, reference).unwrap()))
        .collect();
    let golden = golden["prompts"].as_array().unwrap();
    assert_eq!(golden.len(), all.len());
    for case in golden {
        let prompt = all
            .iter()
            .find(|prompt| case["name"] == prompt.name)
            .unwrap();
        assert_eq!(prompt.system, case["system"], "{}", prompt.name);
        assert_eq!(prompt.filled(value), case["user"], "{}", prompt.name);
    }
}

#[test]
fn wins_losses_and_ties_are_those_of_fastchat() {
    let golden = &golden("fastchat.json")["shares"];
    let winner = |value: &Value| match value.as_str().unwrap() {
        "model_1" => Some(Winner::First),
        "model_2" => Some(Winner::Second),
        "tie" => Some(Winner::Tie),
        _ => None,
    };
    let pairs = golden["verdicts"].as_array().unwrap().iter().enumerate();
    let pairs = pairs.map(|(question, both)| Pair {
        question,
        turn: 0,
        repeat: 1,
        first_second: winner(&both[0]),
        second_first: winner(&both[1]),
    });
    let pairs: Vec<Pair> = pairs.collect();
    let results: Vec<f64> = pairs.iter().filter_map(Pair::result).collect();
    let count = |wanted: f64| results.iter().filter(|result| **result == wanted).count();
    let counts = [count(1.0), count(0.0), count(0.5)];
    assert_eq!(
        json!(counts),
        json!([golden["wins"], golden["losses"], golden["ties"]])
    );
    let rate = wilson(&results).unwrap().value;
    assert!((rate - golden["win_rate"].as_f64().unwrap()).abs() < 1e-12);
    let position = Position::of(&pairs);
    assert_eq!(position.pairs, results.len());
    assert!(position.changed >= position.first_wins + position.second_wins);
}

#[test]
fn intervals_are_those_of_scipy() {
    let golden = golden("statistics.json");
    let number = |value: &Value| value.as_f64().unwrap();
    for case in golden["wilson"].as_array().unwrap() {
        let (wins, count) = (
            number(&case["wins"]) as usize,
            number(&case["count"]) as usize,
        );
        let values: Vec<f64> = (0..count)
            .map(|row| f64::from(u8::from(row < wins)))
            .collect();
        let found = wilson(&values).unwrap().interval.unwrap();
        for (end, expected) in found.iter().zip(case["interval"].as_array().unwrap()) {
            // the same formula, in another order
            assert!((end - number(expected)).abs() < 1e-12, "{case}: {found:?}");
        }
    }
    for case in golden["means"].as_array().unwrap() {
        let values: Vec<Vec<f64>> = serde_json::from_value(case["values"].clone()).unwrap();
        let found = mean_interval(&values).unwrap();
        assert!((found.value - number(&case["mean"])).abs() < 1e-12);
        for (end, expected) in found
            .interval
            .unwrap()
            .iter()
            .zip(case["interval"].as_array().unwrap())
        {
            // a 2.5% quantile of 10,000 draws varies by √(0.025 · 0.975 / 10,000) / 0.058 = 0.027 standard errors
            let within = 0.1 * number(&case["standard_error"]);
            assert!(
                (end - number(expected)).abs() < within,
                "{found:?}: {expected}"
            );
        }
    }
    // halves vary less than whole wins, and are allowed
    assert_eq!(wilson(&[0.5; 4]).unwrap().value, 0.5);
    assert_eq!(wilson(&[1.0]).unwrap().interval, None);
    assert!(wilson(&[]).is_none() && mean_interval(&[vec![]]).is_none());
}

#[test]
fn the_rate_at_equal_length_is_that_of_scikit_learn() {
    for case in golden("statistics.json")["lengths"].as_array().unwrap() {
        let characters: Vec<[usize; 2]> =
            serde_json::from_value(case["characters"].clone()).unwrap();
        let results: Vec<f64> = serde_json::from_value(case["results"].clone()).unwrap();
        let compared = characters.iter().zip(&results).enumerate();
        let compared = compared.map(|(question, (characters, result))| Compared {
            question,
            result: *result,
            characters: *characters,
        });
        let compared: Vec<Compared> = compared.collect();
        let found = length_control(&compared).unwrap().win_rate.unwrap();
        // scikit-learn stops when the gradient is below 1e-8 or so
        assert!(
            (found.value - case["rate"].as_f64().unwrap()).abs() < 1e-6,
            "{found:?}"
        );
        let [low, high] = found.interval.unwrap();
        assert!(low < found.value && found.value < high);
    }
    let one = |result, first| Compared {
        question: 0,
        result,
        characters: [first, 10],
    };
    // nothing to fit: the same result everywhere, or no difference in length
    assert_eq!(
        length_control(&[one(1.0, 20), one(1.0, 30)])
            .unwrap()
            .win_rate,
        None
    );
    let same = length_control(&[one(1.0, 20), one(0.0, 20)]).unwrap();
    assert_eq!((same.win_rate, same.longer_wins), (None, Some(0.5)));
}
