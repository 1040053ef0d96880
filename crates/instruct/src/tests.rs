//! Runs with the completions for which `tests/reference/instruct.py` ran the original programs.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::*;
use crate::dialogue::Dialogue;

#[derive(Deserialize)]
struct Golden {
    seeds: Vec<Value>,
    #[serde(default)]
    batch: usize,
    #[serde(default)]
    target: usize,
    completions: Vec<Recorded>,
    rows: Vec<Value>,
    #[serde(default)]
    similar: Vec<Scores>,
    #[serde(default)]
    instructions: Vec<Value>,
    #[serde(default)]
    prompts: Vec<Value>,
    #[serde(default)]
    prompt: String,
}

#[derive(Deserialize)]
struct Recorded {
    text: String,
    finish_reason: Finish,
}

#[derive(Deserialize)]
struct Scores {
    nearest: Vec<f64>,
    mean: f64,
}

/// Answers prompts in the order of the golden, and then by what it answered to each before.
struct Player {
    completions: Vec<Completion>,
    given: HashMap<String, Completion>,
    /// How many it answers before it fails.
    left: usize,
    answered: usize,
}

impl Completions for Player {
    fn name(&self) -> String {
        "player".to_owned()
    }

    fn computes_batches(&self) -> bool {
        false
    }

    fn complete(
        &mut self,
        requests: &[Request<'_>],
        _: Stop<'_>,
        done: &mut dyn FnMut(usize, Completion) -> Result<(), InstructError>,
    ) -> Result<(), InstructError> {
        for (number, request) in requests.iter().enumerate() {
            if self.left == 0 {
                return Err(InstructError::Model("gone".to_owned()));
            }
            self.left -= 1;
            self.answered += 1;
            let next = self.given.len();
            let given = self.given.entry(request.prompt.to_owned());
            let completion = given.or_insert_with(|| self.completions[next].clone()).clone();
            done(number, completion)?;
        }
        Ok(())
    }
}

/// A folder with the seeds and the recipe of a golden.
struct Case {
    golden: Golden,
    folder: tempfile::TempDir,
    recipe: GenerateRecipe,
    method: Method,
    seeds: Seeds,
}

impl Case {
    fn new(name: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../tests/goldens/instruct/{name}.json"));
        let golden: Golden = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let lines = golden.seeds.iter().map(|seed| seed.as_str().map_or_else(|| format!("{seed}\n"), |text| format!("{text}\n")));
        let seeds = folder.path().join("seeds.jsonl");
        fs::write(&seeds, lines.collect::<String>()).unwrap();
        let recipe = folder.path().join("recipe.toml");
        let (target, batch) = (golden.target.max(1), golden.batch.max(1));
        let text = format!(
            "method = \"{name}\"\nseeds = {seeds:?}\nout = {:?}\ntarget = {target}\nbatch = {batch}\n[model.local]\nbase = \"none\"\n",
            folder.path().join("out")
        );
        fs::write(&recipe, text).unwrap();
        let method = Method::named(name).unwrap();
        let read = if method.dialogue.is_some() { Seeds::questions } else { Seeds::tasks };
        Self {
            recipe: GenerateRecipe::from_file(&recipe).unwrap(),
            seeds: read(&seeds).unwrap(),
            method,
            golden,
            folder,
        }
    }

    fn player(&self) -> Player {
        let completion = |recorded: &Recorded| Completion {
            text: recorded.text.clone(),
            finish: recorded.finish_reason,
            prompt_tokens: None,
            completion_tokens: None,
        };
        Player {
            completions: self.golden.completions.iter().map(completion).collect(),
            given: HashMap::new(),
            left: usize::MAX,
            answered: 0,
        }
    }

    fn journal(&self, out: &str) -> PathBuf {
        self.folder.path().join(out).join("journal.jsonl")
    }

    /// Runs, and writes the files.
    fn run(&self, player: &mut Player, out: &str) -> Result<Outcome, InstructError> {
        let about = About::new(&self.recipe, &self.method, &self.seeds, &player.name());
        let mut journal = Journal::open(&self.journal(out), &about)?;
        let outcome = Run {
            recipe: &self.recipe,
            method: &self.method,
            seeds: &self.seeds,
            journal: &mut journal,
            completions: player,
            watch: Watch { progress: &mut |_, _, _| (), stop: &|| false },
        }
        .run()?;
        let report = Report::new(&self.recipe, "player", &outcome, journal.completions());
        write(&self.folder.path().join(out), &outcome, self.recipe.chat_format, &report)?;
        Ok(outcome)
    }

    /// The files that a run has written, except the journal.
    fn files(&self, out: &str) -> Vec<(String, String)> {
        let mut files = Vec::new();
        for entry in fs::read_dir(self.folder.path().join(out)).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            if name != "journal.jsonl" {
                files.push((name, fs::read_to_string(path).unwrap()));
            }
        }
        files.sort();
        files
    }

    fn written(&self, name: &str) -> String {
        fs::read_to_string(self.folder.path().join("out").join(name)).unwrap()
    }
}

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
    assert_eq!(player.answered, case.golden.completions.len());
    let rows: Vec<Value> = serde_json::from_str(&case.written("data.json")).unwrap();
    assert_eq!(rows, case.golden.rows);
    for (kept, expected) in outcome.instructions.iter().zip(&case.golden.similar) {
        similar(kept, expected);
    }
    assert_eq!(case.written("provenance.jsonl").lines().count(), rows.len());
    let reasons: Vec<String> = outcome.dropped.iter().map(|dropped| dropped.reason.to_string()).collect();
    for reason in [
        "format", "keyword: picture", "keyword: map", "keyword: go to", "not_ascii", "prefix: Write a program", "punctuation",
        "too_long", "too_short", "truncated", "similar: 1.000",
    ] {
        assert!(reasons.contains(&reason.to_owned()), "{reason}: {reasons:?}");
    }
    let requirements = case.method.joint.as_ref().unwrap().prompt.get();
    for golden in &case.golden.prompts {
        let named = |name: &Value| case.seeds.all.iter().find(|seed| *name == seed.id).unwrap().example();
        let examples: Vec<Example> = golden["examples"].as_array().unwrap().iter().map(named).collect();
        let examples: Vec<&Example> = examples.iter().collect();
        assert_eq!(joint_prompt(requirements, &examples), golden["prompt"].as_str().unwrap());
    }
}

#[test]
fn rows_of_self_instruct_are_those_of_the_original() {
    let case = Case::new("self-instruct");
    let mut player = case.player();
    let outcome = case.run(&mut player, "out").unwrap();
    assert_eq!(player.answered, case.golden.completions.len());
    for (kept, golden) in outcome.instructions.iter().zip(&case.golden.instructions) {
        assert_eq!(kept.text, golden["instruction"].as_str().unwrap());
        assert_eq!(kept.is_classification, golden["is_classification"].as_bool());
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
    let shown: Vec<&str> = case.seeds.all.iter().take(8).map(|seed| seed.instruction.as_str()).collect();
    let header = case.method.staged.as_ref().unwrap().instructions.prompt.get();
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
    let rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows, case.golden.rows);
    let first = Dialogue {
        topic: "t".into(),
        turns: vec![("q".into(), "a".into())],
    };
    case.recipe.chat_format = ChatFormat::Messages;
    assert!(first.baize().ends_with("[|AI|] a\n[|Human|] "));
    case.run(&mut player, "out").unwrap();
    let messages = case.written("data.jsonl");
    assert!(messages.starts_with(r#"{"messages":[{"role":"user","content":"How long does an egg take?"},"#), "{messages}");
}

#[test]
fn a_run_that_ends_anywhere_is_resumed_with_equal_bytes() {
    for name in ["alpaca", "self-instruct", "baize"] {
        let case = Case::new(name);
        let mut player = case.player();
        case.run(&mut player, "whole").unwrap();
        let (expected, total) = (case.files("whole"), player.answered);
        let whole = fs::read(case.journal("whole")).unwrap();
        for left in (0..total).step_by(3) {
            player.left = left;
            let out = format!("stopped {left}");
            let error = case.run(&mut player, &out).unwrap_err().to_string();
            assert_eq!(error, "the model cannot continue a prompt: gone");
            (player.left, player.answered) = (usize::MAX, 0);
            case.run(&mut player, &out).unwrap();
            assert_eq!(player.answered, total - left, "{name}");
            assert!(case.files(&out) == expected, "{name}: {out}");
        }
        for cut in (0..whole.len()).step_by(whole.len() / 7) {
            let out = format!("cut {cut}");
            fs::create_dir(case.folder.path().join(&out)).unwrap();
            fs::write(case.journal(&out), &whole[..cut]).unwrap();
            case.run(&mut player, &out).unwrap();
            assert!(case.files(&out) == expected, "{name}: {out}");
            assert!(fs::read(case.journal(&out)).unwrap() == whole, "{name}: {out}");
        }
    }
}

#[test]
fn a_run_ends_when_nothing_more_is_kept() {
    let mut case = Case::new("alpaca");
    (case.recipe.target, case.recipe.patience) = (1000, 3);
    let mut player = case.player();
    let empty = Completion { text: String::new(), finish: Finish::Stop, prompt_tokens: None, completion_tokens: None };
    player.completions.extend(vec![empty; 100]);
    let outcome = case.run(&mut player, "out").unwrap();
    assert_eq!((outcome.ended, player.answered), (Ended::Patience, case.golden.completions.len() + 6));
    case.recipe.max_batches = 2;
    let outcome = case.run(&mut player, "out").unwrap();
    assert_eq!(outcome.ended, Ended::MaxBatches);
}

#[test]
fn seeds_that_cannot_be_used_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("seeds.jsonl");
    let error = |text: &str, read: fn(&Path) -> Result<Seeds, InstructError>| {
        fs::write(&path, text).unwrap();
        read(&path).unwrap_err().to_string()
    };
    let task = "{\"instruction\": \"Do it\", \"instances\": [{\"input\": \"\", \"output\": \"done\"}]}\n";
    let found = error(&format!("{task}\n{{\"instruction\": 1}}"), Seeds::tasks);
    assert!(found.contains("seeds.jsonl: line 3: invalid type"), "{found}");
    let found = error("{\"instruction\": \"Do it\", \"instances\": []}", Seeds::tasks);
    assert!(found.ends_with("line 1: key `instances`: expected at least one, found none"), "{found}");
    let found = error("What?\n{\"text\": \"x\"}", Seeds::questions);
    assert!(found.contains("line 2: expected text in `question`"), "{found}");
    fs::write(&path, "What?\n{\"question\": \"What?\"}\nWhy?").unwrap();
    assert_eq!(Seeds::questions(&path).unwrap().all.len(), 2);
    fs::write(&path, task.repeat(2)).unwrap();
    let mut case = Case::new("alpaca");
    case.seeds = Seeds::tasks(&path).unwrap();
    let error = case.run(&mut case.player(), "out").unwrap_err().to_string();
    assert!(error.ends_with("expected at least 3 seeds, found 2"), "{error}");
}
