//! `simmer data lint`: every example checked.

use anyhow::bail;
use clap::Args;
use simmer_lint::check;

use super::Named;
use crate::output::{self, note};
use crate::progress;

/// Check every example of a recipe's data
///
/// Shows what is wrong, with the first rows that have it. Exit code 1 where there are errors, which
/// would also stop `simmer train`; warnings alone leave it at 0. `data.lint` in the recipe says which
/// findings are errors.
#[derive(Debug, Args)]
pub(super) struct Lint {
    #[command(flatten)]
    named: Named,
    /// Exit with 1 where there are warnings, too
    #[arg(long)]
    strict: bool,
    /// Print the findings as JSON
    #[arg(long)]
    json: bool,
}

impl Lint {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let (recipe, tokenizer) = self.named.open()?;
        let spinner = progress::spinner("reading and checking");
        let checked = check(&recipe.data, &tokenizer);
        spinner.finish_and_clear();
        let (read, lint) = checked?;
        if self.json {
            output::json(&lint)?;
        } else {
            note(&read.to_string());
            output::line(&lint.to_string())?;
        }
        let (errors, warnings) = (lint.errors().count(), lint.warnings().count());
        if errors > 0 || (self.strict && warnings > 0) {
            bail!("the data has {errors} kinds of errors and {warnings} of warnings");
        }
        Ok(())
    }
}
