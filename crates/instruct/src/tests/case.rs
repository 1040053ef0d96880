//! The goldens, and what plays their completions.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::player::Player;
use crate::*;

#[derive(Deserialize)]
pub(super) struct Golden {
    pub(super) seeds: Vec<Value>,
    #[serde(default)]
    pub(super) batch: usize,
    #[serde(default)]
    pub(super) target: usize,
    pub(super) completions: Vec<Recorded>,
    pub(super) rows: Vec<Value>,
    #[serde(default)]
    pub(super) similar: Vec<Scores>,
    #[serde(default)]
    pub(super) instructions: Vec<Value>,
    #[serde(default)]
    pub(super) prompts: Vec<Value>,
    #[serde(default)]
    pub(super) prompt: String,
}

#[derive(Deserialize)]
pub(super) struct Recorded {
    pub(super) text: String,
    pub(super) finish_reason: Finish,
}

#[derive(Deserialize)]
pub(super) struct Scores {
    pub(super) nearest: Vec<f64>,
    pub(super) mean: f64,
}

/// A player of three batches at once, which were announced as they are asked for.
pub(super) struct Ahead {
    pub(super) player: Player<'static>,
    /// The prompts that are asked for after the next ones.
    pub(super) expected: Vec<Vec<String>>,
    /// Those that were expected before, in the order in which they must be asked for.
    pub(super) next: Vec<Vec<String>>,
    /// How many batches were announced.
    pub(super) announced: usize,
}

impl Completions for Ahead {
    fn name(&self) -> String {
        self.player.name()
    }

    fn computes_batches(&self) -> bool {
        true
    }

    fn batches_at_once(&self) -> usize {
        3
    }

    fn expect(&mut self, batches: Vec<Vec<Request<'_>>>) {
        assert!(batches.len() < 3);
        self.next = std::mem::take(&mut self.expected);
        self.expected = batches.iter().map(|batch| prompts(batch)).collect();
    }

    fn complete(
        &mut self,
        requests: &[Request<'_>],
        stop: Stop<'_>,
        done: &mut dyn FnMut(usize, Completion) -> Result<(), InstructError>,
    ) -> Result<(), InstructError> {
        if let [first, rest @ ..] = &self.next[..] {
            assert_eq!(prompts(requests), *first);
            assert!(self.expected.starts_with(rest));
            self.announced += 1;
        }
        self.player.complete(requests, stop, done)
    }
}

fn prompts(batch: &[Request<'_>]) -> Vec<String> {
    let texts = batch.iter().map(|request| request.prompt.text());
    texts.map(std::borrow::Cow::into_owned).collect()
}

/// A folder with the seeds and the recipe of a golden.
pub(super) struct Case {
    pub(super) golden: Golden,
    pub(super) folder: tempfile::TempDir,
    pub(super) recipe: GenerateRecipe,
    pub(super) method: Method,
    pub(super) seeds: Seeds,
}

impl Case {
    pub(super) fn new(name: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join(format!("../../tests/goldens/instruct/{name}.json"));
        let golden: Golden = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let lines = golden.seeds.iter().map(|seed| {
            seed.as_str()
                .map_or_else(|| format!("{seed}\n"), |text| format!("{text}\n"))
        });
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
        let read = if method.dialogue.is_some() {
            Seeds::questions
        } else {
            Seeds::tasks
        };
        Self {
            recipe: GenerateRecipe::from_file(&recipe, &[]).unwrap(),
            seeds: read(&seeds).unwrap(),
            method,
            golden,
            folder,
        }
    }

    /// Answers prompts in the order of the golden, and then by what it answered to each before.
    pub(super) fn player(&self) -> Player<'static> {
        self.player_then(Vec::new())
    }

    /// The same with more completions behind those of the golden.
    pub(super) fn player_then(&self, more: Vec<Completion>) -> Player<'static> {
        let completion = |recorded: &Recorded| Completion {
            text: recorded.text.clone(),
            finish: recorded.finish_reason,
            prompt_tokens: None,
            completion_tokens: None,
        };
        let recorded = self.golden.completions.iter().map(completion);
        let completions: Vec<Completion> = recorded.chain(more).collect();
        let mut given: HashMap<String, Completion> = HashMap::new();
        Player::new(move |prompt, _| {
            let next = given.len();
            let known = given.entry(prompt.to_owned());
            known.or_insert_with(|| completions[next].clone()).clone()
        })
    }

    pub(super) fn journal(&self, out: &str) -> PathBuf {
        self.folder.path().join(out).join("journal.jsonl")
    }

    /// Runs, and writes the files.
    pub(super) fn run(
        &self,
        player: &mut dyn Completions,
        out: &str,
    ) -> Result<Outcome, InstructError> {
        let about = About::new(&self.recipe, &self.method, &self.seeds, &player.name());
        let mut journal = Journal::open(&self.journal(out), &about)?;
        let outcome = Run {
            recipe: &self.recipe,
            method: &self.method,
            seeds: &self.seeds,
            journal: &mut journal,
            completions: player,
            watch: Watch {
                progress: &mut |_, _, _| (),
                stop: &|| false,
            },
        }
        .run()?;
        let report = Report::new(&self.recipe, "player", &outcome, journal.completions());
        write(
            &self.folder.path().join(out),
            &outcome,
            self.recipe.chat_format,
            &report,
        )?;
        Ok(outcome)
    }

    /// The files that a run has written, except the journal.
    pub(super) fn files(&self, out: &str) -> Vec<(String, String)> {
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

    pub(super) fn written(&self, name: &str) -> String {
        fs::read_to_string(self.folder.path().join("out").join(name)).unwrap()
    }
}
