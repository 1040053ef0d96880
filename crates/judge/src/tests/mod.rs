//! Judgements by a judge that plays its part.

mod files;
mod originals;
#[path = "../../../../tests/player.rs"]
mod player;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};
use simmer_instruct::{About, Journal};
use simmer_recipe::RecipeError;

use self::player::{Player, completion};
use super::*;

/// A judge that says what a function says.
fn judge_that(says: &dyn Fn(&str, u64) -> String) -> Player<'_> {
    Player::new(|prompt, seed| completion(says(prompt, seed)))
}

/// Files of a judgement.
struct Case {
    folder: tempfile::TempDir,
}

const QUESTIONS: &str = r#"{"question_id": 1, "category": "math", "turns": ["1 + 1?", "And 2 + 2?"], "reference": ["2", "4"]}
{"question_id": 2, "category": "writing", "turns": ["A {word}?"]}
"#;

const MODELS: &str = r#"
[[model]]
name = "one"
answers = "one.jsonl"
[[model]]
name = "two"
answers = "two.jsonl"
"#;

impl Case {
    fn new() -> Self {
        let case = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        case.write("questions.jsonl", QUESTIONS);
        case.write("one.jsonl", "{\"question_id\": 1, \"choices\": [{\"index\": 0, \"turns\": [\"two\", \"four\"]}]}\n{\"id\": \"2\", \"answer\": \"a & <b>word</b>\"}\n");
        case.write("two.jsonl", "{\"instruction\": \"A {word}?\", \"output\": \"long words\"}\n{\"question_id\": \"1\", \"answers\": [\"11\", \"22\"]}\n");
        case
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        fs::write(self.path(name), text).unwrap();
        self.path(name)
    }

    /// A recipe with the first keys, and keys of the judge.
    fn recipe(&self, keys: &str, judge: &str) -> Result<JudgeRecipe, RecipeError> {
        self.recipe_of(keys, MODELS, judge)
    }

    fn recipe_of(&self, keys: &str, models: &str, judge: &str) -> Result<JudgeRecipe, RecipeError> {
        let text = format!(
            "questions = \"questions.jsonl\"\nout = \"out\"\n{keys}\n{models}\n[judge]\n{judge}\nlocal = {{ base = \"none\" }}\n"
        );
        JudgeRecipe::from_file(&self.write("recipe.toml", &text), &[])
    }

    fn questions(&self) -> Vec<Question> {
        read_questions(&self.path("questions.jsonl"), 0).unwrap()
    }

    fn answers(&self, questions: &[Question]) -> Vec<Vec<Answer>> {
        ["one.jsonl", "two.jsonl"]
            .map(|name| read_answers(&self.path(name), questions).unwrap().answers)
            .into()
    }

    /// Judges, with the journal of this name.
    fn judge(
        &self,
        recipe: &JudgeRecipe,
        player: &mut Player<'_>,
        journal: &str,
    ) -> Result<(Report, String), JudgeError> {
        let questions = self.questions();
        let answers = self.answers(&questions);
        let prompts = Prompts::named(&recipe.prompts)?;
        let judging = Judging {
            recipe,
            questions: &questions,
            answers: &answers[..recipe.models.len()],
            prompts: &prompts,
        };
        let mut journal = Journal::open(&self.path(journal), &about())?;
        let watch = Watch {
            stop: &|| false,
            progress: &mut |done, of| assert!(done <= of, "{done} of {of}"),
        };
        let judgements = judging.run(&mut journal, player, watch)?;
        let without = judging.without_reference();
        let report = Report::new(
            recipe,
            "player",
            &questions,
            judging.answers,
            &judgements,
            without,
        );
        let results = Results::new(&report, &questions, judging.answers, &judgements);
        write(self.folder.path(), &results, &questions, judging.answers)?;
        Ok((report.clone(), html(&results)?))
    }
}

fn about() -> About {
    About {
        journal: 1,
        method: "judge".to_owned(),
        model: "player".to_owned(),
        sha256: BTreeMap::new(),
    }
}

/// The first answer is better if it has the word `two`, else the second.
fn says(prompt: &str, _: u64) -> String {
    let (before, _) = prompt.split_once("Assistant B").unwrap_or((prompt, ""));
    let a = before.split_once("Assistant A").map_or("", |(_, a)| a);
    let verdict = if a.contains("two") { "[[A]]" } else { "[[B]]" };
    format!("It is better: {verdict}")
}

#[test]
fn two_models_are_compared_in_both_orders() {
    let case = Case::new();
    let recipe = case.recipe("", "").unwrap();
    let mut player = judge_that(&says);
    let (report, page) = case.judge(&recipe, &mut player, "journal.jsonl").unwrap();
    assert_eq!(player.prompts.len(), 6);
    let versus = report.pairwise.as_ref().unwrap();
    // `two` is in the first answer of model one alone, and in the context of the second turn; of the words, the second wins
    assert_eq!((versus.wins, versus.losses, versus.ties), (2, 0, 1));
    assert_eq!(versus.win_rate.unwrap().value, 0.75);
    assert_eq!(versus.turns["2"].value, 1.0);
    assert_eq!(versus.categories["writing"].value, 0.5);
    let position = versus.position;
    assert_eq!(
        (position.pairs, position.changed, position.second_wins),
        (3, 1, 1)
    );
    // references for math, in both turns; none for the question that has none
    assert!(
        player.prompts[0].contains("[The Start of Reference Answer]\n2\n"),
        "{}",
        player.prompts[0]
    );
    assert!(
        player.prompts[2].contains("### Reference answer:\n4\n"),
        "{}",
        player.prompts[2]
    );
    assert!(
        !player.prompts[4].contains("Reference"),
        "{}",
        player.prompts[4]
    );
    assert!(player.prompts[5].contains("Assistant A's Answer]\nlong words\n"));
    assert!(page.contains("a &amp; &lt;b&gt;word&lt;/b&gt;") && !page.contains("<b>word"));
    assert!(page.contains("no result") == (versus.no_verdict > 0));
    let text = report.text();
    assert!(
        text.contains("one against two: wins 2, losses 0, ties 1, without two verdicts 0"),
        "{text}"
    );
    let verdicts = fs::read_to_string(case.path("verdicts.json")).unwrap();
    let verdicts: Value = serde_json::from_str(&verdicts).unwrap();
    let turn = &verdicts["questions"][0]["turns"][0];
    assert_eq!(turn["results"], json!(["one"]));
    assert_eq!(
        (
            &turn["verdicts"][1]["winner"],
            &turn["verdicts"][1]["verdict"]
        ),
        (&json!("one"), &json!("B"))
    );
    // what was answered is a file of answers
    let again = read_answers(&case.path("answers.2.jsonl"), &case.questions())
        .unwrap()
        .answers;
    assert_eq!(again[0].turns, ["11", "22"]);
}

#[test]
fn ratings_have_means_and_a_text_without_one_is_asked_again() {
    let case = Case::new();
    let recipe = case
        .recipe(
            "mode = \"single\"",
            "repeats = 2\nretries = 1\nsystem_in_prompt = true",
        )
        .unwrap();
    let calls = std::cell::Cell::new(0);
    let judge = |prompt: &str, seed: u64| {
        calls.set(calls.get() + 1);
        if prompt.contains("long words") {
            return "[[12]] is outside of the scale".to_owned();
        }
        if prompt.contains("word</b>") && calls.get() <= 12 {
            return "<think>[[7]], or".to_owned();
        }
        format!("<think>[[12]]?</think>\n\n[[{}]]", 4 + seed % 2)
    };
    let mut player = judge_that(&judge);
    let (report, _) = case.judge(&recipe, &mut player, "journal.jsonl").unwrap();
    assert_eq!(
        (report.verdicts, report.no_verdict, report.asked_again),
        (12, 2, 2)
    );
    // two of each of the two texts are asked again
    assert_eq!(player.prompts.len(), 16);
    assert!(
        player
            .prompts
            .iter()
            .all(|prompt| prompt.starts_with("user: [Instruction]\n"))
    );
    let single = report.single.as_ref().unwrap();
    assert_eq!(single.models[0].mean.unwrap().questions, 2);
    assert_eq!(single.models[1].mean.unwrap().questions, 1);
    assert!(!single.models[1].categories.contains_key("writing"));
    let agreement = report.agreement.unwrap();
    assert_eq!(agreement.pairs, 5);
    let text = report.text();
    assert!(
        text.contains("no verdict: 2 of 12, left out of every number"),
        "{text}"
    );
    assert!(
        text.contains("agreement of the judge with itself: "),
        "{text}"
    );
}

#[test]
fn a_judge_that_fails_loses_no_verdict() {
    let case = Case::new();
    let recipe = case.recipe("", "retries = 1").unwrap();
    let hard = |prompt: &str, seed: u64| {
        if prompt.contains("word") {
            "nothing".to_owned()
        } else {
            says(prompt, seed)
        }
    };
    let mut player = judge_that(&hard);
    let whole = case.judge(&recipe, &mut player, "whole.jsonl").unwrap();
    let requests = player.prompts.len();
    assert_eq!((requests, whole.0.no_verdict), (8, 2));
    assert!(whole.1.contains("no result") && whole.1.contains("no verdict"));
    for left in 0..requests {
        let mut player = judge_that(&hard);
        player.left = left;
        let journal = format!("journal-{left}.jsonl");
        let error = case.judge(&recipe, &mut player, &journal).unwrap_err();
        assert!(error.to_string().ends_with("gone"), "{error}");
        player.left = usize::MAX;
        let resumed = case.judge(&recipe, &mut player, &journal).unwrap();
        assert_eq!(player.prompts.len(), requests, "after {left}");
        assert!(resumed == whole);
    }
}

#[test]
fn models_answer_turn_by_turn() {
    let case = Case::new();
    let models = "[[model]]\nsystem = \"Be brief.\"\nlocal = { base = \"some/base\" }\n";
    let recipe = case.recipe_of("mode = \"single\"", models, "").unwrap();
    assert_eq!(recipe.models[0].shown(), "some/base");
    let questions = case.questions();
    let prompts = Prompts::named("mt-bench").unwrap();
    let echo = |prompt: &str, _: u64| format!("{} words", prompt.split_whitespace().count());
    let mut player = judge_that(&echo);
    player.left = 2;
    let run = |player: &mut Player<'_>| {
        let mut journal = Journal::open(&case.path("answers.journal.jsonl"), &about()).unwrap();
        let (recipe, model) = (&recipe, &recipe.models[0]);
        Answering {
            recipe,
            model,
            questions: &questions,
            prompts: &prompts,
            journal: &mut journal,
            completions: player,
            stop: &|| false,
            progress: &mut |_, _| (),
        }
        .run()
    };
    assert!(run(&mut player).is_err());
    player.left = usize::MAX;
    let answers = run(&mut player).unwrap();
    assert_eq!(answers[0].turns, ["7 words", "15 words"]);
    assert_eq!(
        player.prompts,
        [
            "system: Be brief.\nuser: 1 + 1?\n",
            "system: Be brief.\nuser: A {word}?\n",
            "system: Be brief.\nuser: 1 + 1?\nassistant: 7 words\nuser: And 2 + 2?\n"
        ]
    );
    assert_eq!(prompts.temperature(Some("math")), 0.0);
    assert_eq!(prompts.temperature(None), 0.7);
}
