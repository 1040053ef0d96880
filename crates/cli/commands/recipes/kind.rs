//! The kinds of shipped recipes: which command runs them, and what they need.

use std::path::{Path, PathBuf};

use simmer_instruct::{GenerateRecipe, ModelConfig};
use simmer_judge::{JudgeRecipe, Mode};
use simmer_train::Recipe;

use crate::failure::Failure;

/// A kind of recipe. A new one is a function below and an entry of [`KINDS`].
#[derive(Debug)]
pub(super) struct Kind {
    /// The folder in the names of its recipes; empty if they have none.
    pub(super) folder: &'static str,
    /// The command that runs it, without `simmer`.
    pub(super) command: &'static str,
    read: fn(&Path, &str) -> Result<Needs, Failure>,
}

/// What a recipe needs.
#[derive(Debug)]
pub(super) struct Needs {
    /// What it does with which model and data, on one line.
    pub(super) summary: String,
    /// The files and models that it names.
    pub(super) files: Vec<PathBuf>,
}

/// All kinds.
pub(super) static KINDS: [Kind; 3] = [
    Kind {
        folder: "",
        command: "train",
        read: training,
    },
    Kind {
        folder: "generate",
        command: "data generate",
        read: generation,
    },
    Kind {
        folder: "judge",
        command: "judge",
        read: judging,
    },
];

impl Kind {
    /// By the folder in the recipe's name.
    pub(super) fn of(name: &str) -> &'static Self {
        let folder = name.split_once('/').map_or("", |(folder, _)| folder);
        let found = KINDS.iter().find(|kind| kind.folder == folder);
        found.unwrap_or(&KINDS[0])
    }

    /// Reads the text of the recipe `name`.
    pub(super) fn needs(&self, name: &str, text: &str) -> Result<Needs, Failure> {
        (self.read)(Path::new(name), text)
    }
}

fn training(path: &Path, text: &str) -> Result<Needs, Failure> {
    let recipe = Recipe::parse(path, text, &[])?;
    let base = match &recipe.base.path {
        Some(path) => path.display().to_string(),
        None => "random initialisation".to_owned(),
    };
    let method = match recipe.method.adapter() {
        None => "full fine-tuning".to_owned(),
        Some(table) => match table.rank() {
            Some(rank) => format!("{}, rank {rank}", table.kind().name),
            None => table.kind().name.to_owned(),
        },
    };
    let first = recipe.data.train[0].path.display().to_string();
    let more = match recipe.data.train.len() {
        1 => String::new(),
        files => format!(" and {} more", files - 1),
    };
    let models = [&recipe.base.path, &recipe.base.tokenizer];
    let sources = recipe.data.sources().map(|source| &source.path);
    Ok(Needs {
        summary: format!("{method}; base {base}; data {first}{more}"),
        files: models
            .into_iter()
            .flatten()
            .chain(sources)
            .cloned()
            .collect(),
    })
}

fn generation(path: &Path, text: &str) -> Result<Needs, Failure> {
    let recipe = GenerateRecipe::parse(path, text, &[])?;
    let (model, local) = match recipe.model {
        ModelConfig::Local(local) => (local.base.display().to_string(), Some(local.base)),
        ModelConfig::Endpoint(server) => (format!("{} of a server", server.model), None),
    };
    let summary = format!(
        "method {}; model {model}; seeds {}",
        recipe.method,
        recipe.seeds.display()
    );
    // other methods are part of the program, and have a name
    let method = Some(PathBuf::from(recipe.method));
    let method = method.filter(|method| method.extension().is_some_and(|end| end == "toml"));
    let files = method.into_iter().chain([recipe.seeds]).chain(local);
    Ok(Needs {
        summary,
        files: files.collect(),
    })
}

fn judging(path: &Path, text: &str) -> Result<Needs, Failure> {
    let recipe = JudgeRecipe::parse(path, text, &[])?;
    let mode = match recipe.mode {
        Mode::Pairwise => "comparison of",
        Mode::Single => "ratings of",
    };
    let models = recipe.models.iter().map(simmer_judge::ModelConfig::shown);
    let models: Vec<&str> = models.collect();
    let summary = format!(
        "{mode} {}; questions {}",
        models.join(" and "),
        recipe.questions.display()
    );
    let of_models = recipe
        .models
        .into_iter()
        .flat_map(|model| [model.answers, model.local.map(|local| local.base)]);
    let judge = recipe.judge.local.map(|local| local.base);
    let all = [Some(recipe.questions), recipe.references];
    let all = all.into_iter().chain(of_models).chain([judge]);
    Ok(Needs {
        summary,
        files: all.flatten().collect(),
    })
}
