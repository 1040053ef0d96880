//! `simmer recipes`: the shipped recipes.

mod kind;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use kind::Kind;

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
        let kind = Kind::of(name);
        output::text(&format!(
            "{name} (simmer {})\n  {}\n  {}",
            kind.command,
            summary(text),
            kind.needs(name, text)?.summary
        ))?;
    }
    output::note(
        "\n`simmer recipes copy NAME my.toml` writes one to a file; `simmer show my.toml` explains one of `simmer train`",
    );
    Ok(())
}

/// A recipe's text for the file `out`: its header has the command for that file.
fn copied(name: &str, text: &str, out: &Path) -> String {
    let command = Kind::of(name).command;
    let shipped = format!("simmer {command} recipes/{name}.toml");
    let command = format!("simmer {command} {}", quoted(&out.display().to_string()));
    without_schema(text).replace(&shipped, &command)
}

/// The files of a recipe that are part of the program, each once.
fn embedded(name: &str, text: &str) -> Result<Vec<String>, Failure> {
    let mut found: Vec<String> = Vec::new();
    for path in Kind::of(name).needs(name, text)?.files {
        let path_shown = path.display().to_string();
        if is_embedded(&path) && !found.contains(&path_shown) {
            found.push(path_shown);
        }
    }
    Ok(found)
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
            let kind = Kind::of(name);
            kind.needs(name, text).unwrap();
            let kind = kind.command;
            let command = format!("#   simmer {kind} recipes/{name}.toml");
            assert!(text.lines().any(|line| line == command), "{name}");
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
        for kind in &kind::KINDS {
            let part = match kind.folder {
                "" => String::new(),
                folder => format!("{folder}/"),
            };
            for file in folder.join(&part).read_dir().unwrap() {
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
