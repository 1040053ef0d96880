//! `simmer reference`: parts of the documentation that are derived from the program. `cargo xtask generate` puts them into
//! their pages.

mod arguments;
mod keys;

use clap::{Args, Subcommand};
use simmer_instruct::GenerateRecipe;
use simmer_judge::JudgeRecipe;
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
    /// The JSON schema of a recipe of `simmer data generate`
    GenerateSchema,
    /// The JSON schema of a recipe of `simmer judge`
    JudgeSchema,
}

impl Reference {
    pub(crate) fn run(self) -> Result<(), Failure> {
        match self.part {
            Part::Recipe { table } => output::line(&keys::table(&table)?),
            Part::Command { words } => output::line(&arguments::table(&words)?),
            Part::Schema => output::line(&schema()?),
            Part::GenerateSchema => {
                let schema = serde_json::to_string_pretty(&GenerateRecipe::schema());
                output::line(&schema.map_err(Failure::foreign)?)
            }
            Part::JudgeSchema => {
                let schema = serde_json::to_string_pretty(&JudgeRecipe::schema());
                output::line(&schema.map_err(Failure::foreign)?)
            }
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

/// A description without its sentence `Default: ...`, which has a column of its own, and without `Required.`; and what
/// that sentence says.
fn without_default(text: &str) -> (String, Option<String>) {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let text = text.replace(" Required.", "");
    let Some((before, rest)) = text.split_once("Default: ") else {
        return (text, None);
    };
    let (default, after) = rest.split_once(". ").unwrap_or((rest, ""));
    let default = default.trim_end_matches('.').to_owned();
    let meaning = format!("{} {after}", before.trim());
    (meaning.trim().to_owned(), Some(default))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_has_a_column_of_its_own() {
        let text = "How many to keep, at least 1.\nDefault: 0.5. The best is kept as well.";
        let (meaning, default) = without_default(text);
        assert_eq!(
            meaning,
            "How many to keep, at least 1. The best is kept as well."
        );
        assert_eq!(default.as_deref(), Some("0.5"));
        assert_eq!(
            without_default("The peak. Required."),
            ("The peak.".to_owned(), None)
        );
    }
}
