//! `simmer data lint`: checks every example.

use clap::Args;
use simmer_files::size::counted;
use simmer_lint::check;

use super::Named;
use crate::failure::{Failure, bail};
use crate::output::{self, note};
use crate::progress;

/// Check every example of a recipe's data
///
/// Lists the problems, each with the first rows that have it, and all rows that cannot be read or used.
/// Errors give exit code 1 and also stop `simmer train`; warnings give exit code 0. `data.lint` in the
/// recipe sets which problems are errors, `data.bad_rows` whether rows that cannot be used are.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  simmer data lint my.toml
  simmer data lint my.toml --strict --json")]
pub(super) struct Lint {
    #[command(flatten)]
    named: Named,
    /// Number of rows to list of each kind
    #[arg(long, short = 'n', default_value_t = simmer_data::bad::LISTED, value_name = "N")]
    rows: usize,
    /// Exit with code 1 on warnings too
    #[arg(long)]
    strict: bool,
    /// Print the problems as JSON
    #[arg(long)]
    json: bool,
}

impl Lint {
    pub(super) fn run(self) -> Result<(), Failure> {
        let (recipe, tokenizer) = self.named.open()?;
        let spinner = progress::spinner("reading and checking");
        let checked = check(&recipe.data, &tokenizer, self.rows);
        spinner.finish_and_clear();
        let (read, lint) = checked?;
        if self.json {
            output::json(&lint)?;
        } else {
            note(&read.to_string());
            output::text(&lint.to_string())?;
        }
        let [errors, warnings] = lint.counts();
        if errors > 0 || (self.strict && warnings > 0) {
            let [errors, warnings] = [errors, warnings].map(|count| counted(count, "kind"));
            bail!("the data has {errors} of errors and {warnings} of warnings");
        }
        Ok(())
    }
}
