//! `simmer data`: what a recipe's data looks like to the model, and what is wrong with it.

mod lint;
mod page;
mod preview;
mod shown;

use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, Subcommand};
use simmer_data::Tokenizer;
use simmer_train::{Observer, Recipe, recipe_tokenizer};

use crate::failure::Failure;
use crate::{hub, output};

/// Look at a recipe's data as the model sees it, or check it
#[derive(Debug, Args)]
pub(crate) struct Data {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Preview(preview::Preview),
    Lint(lint::Lint),
}

impl Data {
    pub(crate) fn run(self) -> Result<(), Failure> {
        match self.command {
            Command::Preview(preview) => preview.run(),
            Command::Lint(lint) => lint.run(),
        }
    }
}

/// Says what a person should know.
struct Notes;

impl Observer for Notes {
    fn on_notice(&mut self, text: &str) {
        output::note(text);
    }
}

/// The recipe whose data is meant.
#[derive(Debug, Args)]
struct Named {
    /// The recipe
    #[arg(value_name = "RECIPE")]
    recipe: PathBuf,
    /// Change a key: data.max_tokens=512
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

impl Named {
    /// The recipe, its files on this disk, and its tokenizer. The weights of the base are not needed.
    fn open(&self) -> Result<(Recipe, Arc<Tokenizer>), Failure> {
        let mut recipe = Recipe::from_file(&self.recipe, &self.set)?;
        hub::locate_tokenizer(&mut recipe.base)?;
        hub::locate_data(&mut recipe.data)?;
        let tokenizer = recipe_tokenizer(&recipe, &mut Notes)?;
        Ok((recipe, tokenizer))
    }
}
