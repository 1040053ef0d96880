//! `simmer reference`: parts of the documentation that are derived from the program. `cargo xtask generate` puts them into
//! their pages.

mod arguments;
mod keys;

use clap::{Args, Subcommand};
use simmer_train::Recipe;

use crate::failure::Failure;
use crate::output;

/// Print a part of the documentation that is derived from the program
#[derive(Debug, Args)]
pub(crate) struct Reference {
    #[command(subcommand)]
    part: Part,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// The keys of a recipe's table
    Recipe {
        /// As in `train.guard`; `recipe` for the keys outside of any table
        table: String,
    },
    /// The arguments of a command
    Command {
        /// As in `data preview`
        words: Vec<String>,
    },
    /// The JSON schema of a recipe
    Schema,
}

impl Reference {
    pub(crate) fn run(self) -> Result<(), Failure> {
        match self.part {
            Part::Recipe { table } => output::line(&keys::table(&table)?),
            Part::Command { words } => output::line(&arguments::table(&words)?),
            Part::Schema => output::line(&schema()?),
        }
    }
}

/// The JSON schema of a recipe, as a file.
pub(crate) fn schema() -> Result<String, Failure> {
    serde_json::to_string_pretty(&Recipe::schema()).map_err(Failure::foreign)
}

/// Text for a cell of a table.
fn cell(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.replace('|', "\\|")
}
