//! `simmer data`: shows a recipe's data as the model sees it, checks it, and generates data with a model.

mod generate;
mod lint;
mod page;
mod preview;
pub(crate) mod shown;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Subcommand};
use simmer_data::Tokenizer;
use simmer_train::{Observer, Recipe, recipe_tokenizer};

use crate::failure::Failure;
use crate::{hub, output};

/// Preview a recipe's data as the model sees it, check it, or generate data
#[derive(Debug, Args)]
pub(crate) struct Data {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Preview(preview::Preview),
    Lint(lint::Lint),
    Generate(generate::Generate),
}

impl Data {
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        match self.command {
            Command::Preview(preview) => preview.run()?,
            Command::Lint(lint) => lint.run()?,
            Command::Generate(generate) => return generate.run(),
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Prints notices.
struct Notes;

impl Observer for Notes {
    fn on_notice(&mut self, text: &str) {
        output::note(text);
    }
}

/// The recipe of a command.
#[derive(Debug, Args)]
struct Named {
    /// Recipe, a TOML file
    #[arg(value_name = "RECIPE")]
    recipe: PathBuf,
    /// Override a key of the recipe, such as data.max_tokens=512; repeatable
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

impl Named {
    /// The recipe, with its data on disk, and its tokenizer. Downloads no weights.
    fn open(&self) -> Result<(Recipe, Arc<Tokenizer>), Failure> {
        let mut recipe = Recipe::from_file(&self.recipe, &self.set)?;
        hub::locate_adapter(&mut recipe.method)?;
        hub::locate_tokenizer(&mut recipe.base)?;
        hub::locate_data(&mut recipe.data)?;
        let tokenizer = recipe_tokenizer(&recipe, &mut Notes)?;
        Ok((recipe, tokenizer))
    }
}
