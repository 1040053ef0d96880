//! `simmer recipes`: the shipped recipes.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use simmer_instruct::GenerateRecipe;
use simmer_judge::{JudgeRecipe, Mode};
use simmer_train::Recipe;

use super::train::quoted;
use crate::embedded::is_embedded;
use crate::failure::Failure;
use crate::{new_file, output};

/// Names and texts of files in recipes/.
macro_rules! shipped {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../../recipes/", $name, ".toml")))),*]
    };
}

/// The shipped recipes: name and text. A new one needs a file in recipes/ and a line here.
const SHIPPED: &[(&str, &str)] = shipped![
    "quickstart",
    "tiny-base",
    "alpaca-smollm2-135m",
    "tinyllama-1.1b-lora",
    "alpaca-7b",
    "alpaca-13b",
    "alpaca-lora-7b",
    "alpaca-lora-7b-official",
    "llama-adapter-7b",
    "llama-7b-alpaca-lora",
    "llama-13b-alpaca-lora",
    "llama-33b-alpaca-lora",
    "llama-65b-alpaca-lora",
    "vicuna-7b",
    "vicuna-13b",
    "vicuna-7b-lora",
    "vicuna-13b-lora",
    "koala-13b",
    "baize-7b",
    "baize-13b",
    "baize-30b",
    "gpt4all-lora",
    "chatdoctor-7b-stage1",
    "chatdoctor-7b-stage2",
    "chatdoctor-lora-7b",
    "llama-2-7b-lora",
    "llama-2-7b-q4_k-gguf",
    "llama-3-8b-lora",
    "llama-3-8b-qlora",
    "qwen3-0.6b",
    "qwen2.5-1.5b",
    "mistral-7b",
    "gemma-2-2b",
    "smollm3-3b",
    "phi-4-mini",
    "pretrain-small",
    "generate/kitchen",
    "generate/self-instruct",
    "generate/alpaca",
    "generate/baize",
    "judge/kitchen",
    "judge/mt-bench",
];

/// What a shipped recipe is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Training,
    Generation,
    Judging,
}

impl Kind {
    /// By the folder in the recipe's name.
    fn of(name: &str) -> Self {
        match name.split_once('/') {
            Some(("generate", _)) => Self::Generation,
            Some(("judge", _)) => Self::Judging,
            _ => Self::Training,
        }
    }

    /// The command that runs it, without `simmer`.
    fn command(self) -> &'static str {
        match self {
            Self::Training => "train",
            Self::Generation => "data generate",
            Self::Judging => "judge",
        }
    }
}

/// The recipe that needs nothing but the program.
pub(super) const QUICKSTART: &str = "quickstart";

/// The text of the recipe `quickstart`.
pub(super) fn quickstart() -> &'static str {
    let found = SHIPPED.iter().find(|(name, _)| *name == QUICKSTART);
    found.map_or("", |(_, text)| without_schema(text))
}

/// List the shipped recipes, or copy one
///
/// A recipe of `simmer train` has a plain name; those of `simmer data generate` and of `simmer judge` are below `generate/` and
/// `judge/`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  simmer recipes
  simmer recipes copy quickstart my.toml")]
pub(crate) struct Recipes {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Copy(Copy),
    Schema(Schema),
}

/// Print the JSON schema of recipes, for editors
///
/// Editors with TOML support (taplo, Even Better TOML) complete and check a recipe that begins with the line
/// `#:schema recipe.schema.json`, the file that this is written to.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  simmer recipes schema > recipe.schema.json")]
struct Schema {}

/// Write a shipped recipe to a file
///
/// An existing file is not overwritten. The base model and the data of `quickstart` are part of the program, so the copy
/// runs in any folder.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  simmer recipes copy quickstart
  simmer recipes copy alpaca-smollm2-135m my.toml")]
struct Copy {
    /// Name of the recipe, as listed by `simmer recipes`
    name: String,
    /// File to write. Default: NAME.toml in the current folder, without what stands before a slash
    #[arg(value_name = "FILE")]
    out: Option<PathBuf>,
}

impl Recipes {
    pub(crate) fn run(self) -> Result<(), Failure> {
        match self.command {
            None => list(),
            Some(Command::Copy(copy)) => copy.run(),
            Some(Command::Schema(Schema {})) => output::line(&super::reference::schema()?),
        }
    }
}

fn list() -> Result<(), Failure> {
    for (name, text) in SHIPPED {
        let text = without_schema(text);
        output::text(&format!(
            "{name} (simmer {})\n  {}\n  {}",
            Kind::of(name).command(),
            summary(text),
            needs(name, text)?
        ))?;
    }
    output::note(
        "\n`simmer recipes copy NAME my.toml` writes one to a file; `simmer show my.toml` explains one of `simmer train`",
    );
    Ok(())
}

/// A recipe's text for the file `out`: its header has the command for that file.
fn copied(name: &str, text: &str, out: &Path) -> String {
    let command = Kind::of(name).command();
    let shipped = format!("simmer {command} recipes/{name}.toml");
    let command = format!("simmer {command} {}", quoted(&out.display().to_string()));
    without_schema(text).replace(&shipped, &command)
}

/// The files and models that a recipe names.
fn named(name: &str, text: &str) -> Result<Vec<PathBuf>, Failure> {
    let path = Path::new(name);
    Ok(match Kind::of(name) {
        Kind::Training => {
            let recipe = Recipe::parse(path, text, &[])?;
            let models = [&recipe.base.path, &recipe.base.tokenizer];
            let sources = recipe.data.sources().map(|source| &source.path);
            models
                .into_iter()
                .flatten()
                .chain(sources)
                .cloned()
                .collect()
        }
        Kind::Generation => {
            let recipe = GenerateRecipe::parse(path, text, &[])?;
            let method = Some(&recipe.method).filter(|method| is_file(method));
            let method = method.map(PathBuf::from);
            let local = match recipe.model {
                simmer_instruct::ModelConfig::Local(local) => Some(local.base),
                simmer_instruct::ModelConfig::Endpoint(_) => None,
            };
            method
                .into_iter()
                .chain([recipe.seeds])
                .chain(local)
                .collect()
        }
        Kind::Judging => {
            let recipe = JudgeRecipe::parse(path, text, &[])?;
            let of_models = recipe
                .models
                .into_iter()
                .flat_map(|model| [model.answers, model.local.map(|local| local.base)]);
            let judge = recipe.judge.local.map(|local| local.base);
            let all = [Some(recipe.questions), recipe.references];
            all.into_iter()
                .chain(of_models)
                .chain([judge])
                .flatten()
                .collect()
        }
    })
}

/// The files of a recipe that are part of the program, each once.
fn embedded(name: &str, text: &str) -> Result<Vec<String>, Failure> {
    let mut found: Vec<String> = Vec::new();
    for path in named(name, text)? {
        let path_shown = path.display().to_string();
        if is_embedded(&path) && !found.contains(&path_shown) {
            found.push(path_shown);
        }
    }
    Ok(found)
}

/// Whether the name of a method is that of a file.
fn is_file(method: &str) -> bool {
    Path::new(method)
        .extension()
        .is_some_and(|end| end == "toml")
}

/// What a recipe does with which model and data, on one line.
fn needs(name: &str, text: &str) -> Result<String, Failure> {
    match Kind::of(name) {
        Kind::Training => needs_of_training(name, text),
        Kind::Generation => {
            let recipe = GenerateRecipe::parse(Path::new(name), text, &[])?;
            let model = match &recipe.model {
                simmer_instruct::ModelConfig::Local(local) => local.base.display().to_string(),
                simmer_instruct::ModelConfig::Endpoint(server) => {
                    format!("{} of a server", server.model)
                }
            };
            Ok(format!(
                "method {}; model {model}; seeds {}",
                recipe.method,
                recipe.seeds.display()
            ))
        }
        Kind::Judging => {
            let recipe = JudgeRecipe::parse(Path::new(name), text, &[])?;
            let mode = match recipe.mode {
                Mode::Pairwise => "comparison of",
                Mode::Single => "ratings of",
            };
            let models: Vec<&str> = recipe
                .models
                .iter()
                .map(simmer_judge::ModelConfig::shown)
                .collect();
            Ok(format!(
                "{mode} {}; questions {}",
                models.join(" and "),
                recipe.questions.display()
            ))
        }
    }
}

/// The method, base model and data of a recipe of training.
fn needs_of_training(name: &str, text: &str) -> Result<String, Failure> {
    let recipe = Recipe::parse(Path::new(name), text, &[])?;
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
    Ok(format!("{method}; base {base}; data {first}{more}"))
}

/// A recipe without the line that names its schema, a file of the repository.
fn without_schema(text: &str) -> &str {
    match text.split_once('\n') {
        Some((first, rest)) if first.starts_with("#:schema ") => rest,
        _ => text,
    }
}

/// The first line of a recipe's header.
fn summary(text: &str) -> &str {
    let first = text.lines().next().unwrap_or_default();
    first.trim_start_matches('#').trim()
}

/// The names of the shipped recipes.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    SHIPPED.iter().map(|(name, _)| *name)
}

/// The error of a name that no shipped recipe has.
fn unknown(name: &str) -> Failure {
    let stem = name.trim_end_matches(".toml");
    let near = names().find(|known| *known == stem).map(str::to_owned);
    let near = near.or_else(|| simmer_checkpoint::nearest(stem, names()));
    match near {
        Some(near) => Failure::new(format!("unknown recipe `{name}`; did you mean `{near}`?"))
            .and_hint("`simmer recipes` lists them all"),
        None => Failure::new(format!(
            "unknown recipe `{name}`; recipes: {}",
            names().collect::<Vec<_>>().join(", ")
        )),
    }
}

impl Copy {
    fn run(self) -> Result<(), Failure> {
        let Some((name, text)) = SHIPPED.iter().find(|(name, _)| *name == self.name) else {
            return Err(unknown(&self.name));
        };
        let last = name.rsplit('/').next().unwrap_or(name);
        let out = self.out.unwrap_or_else(|| format!("{last}.toml").into());
        let text = copied(name, text, &out);
        let hint = format!("name another file: simmer recipes copy {name} FILE");
        new_file::write(&out, &text, &format!("{last}.toml"), &hint)?;
        output::note(&format!("wrote {}", out.display()));
        let embedded = embedded(name, &text)?;
        if !embedded.is_empty() {
            output::note(&format!(
                "part of simmer, if the current folder does not have them: {}",
                embedded.join(", ")
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_recipe_says_what_it_is() {
        for (name, text) in SHIPPED {
            assert!(text.starts_with("#:schema recipe.schema.json\n"), "{name}");
            let text = without_schema(text);
            assert!(text.starts_with('#') && summary(text).len() > 20, "{name}");
            let kind = Kind::of(name).command();
            let command = format!("#   simmer {kind} recipes/{name}.toml");
            assert!(text.lines().any(|line| line == command), "{name}");
            needs(name, text).unwrap();
            let copy = copied(name, text, Path::new("my own.toml"));
            let command = format!("#   simmer {kind} 'my own.toml'\n");
            assert!(copy.contains(&command), "{name}");
            assert!(!copy.contains(&format!("recipes/{name}.toml")), "{name}");
        }
    }

    #[test]
    fn the_recipes_of_this_project_need_nothing_else() {
        let files = |name: &str| {
            let (_, text) = SHIPPED.iter().find(|(known, _)| *known == name).unwrap();
            embedded(name, without_schema(text)).unwrap()
        };
        assert_eq!(
            quickstart().lines().next(),
            Some(
                "# Quickstart: LoRA on a tiny model that is part of simmer, offline, in about 15 seconds on two cores."
            )
        );
        assert_eq!(
            files(QUICKSTART),
            [
                "data/tiny-base",
                "data/kitchen/instructions.json",
                "data/kitchen/heldout.json"
            ]
        );
        assert_eq!(files("tiny-base").len(), 2);
        assert!(files("alpaca-7b").is_empty());
    }

    #[test]
    fn every_file_is_shipped() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes");
        for part in ["", "generate/", "judge/"] {
            for file in folder.join(part).read_dir().unwrap() {
                let path = file.unwrap().path();
                let name = path.file_stem().unwrap().to_str().unwrap();
                // a method is part of a recipe, and schemas and data are no recipes
                let is_recipe = path.extension().is_some_and(|end| end == "toml");
                if is_recipe && !name.ends_with("-method") {
                    let name = format!("{part}{name}");
                    assert!(names().any(|known| known == name), "{name}");
                }
            }
        }
    }
}
