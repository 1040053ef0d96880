//! `simmer recipes`: the shipped ones.

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};

use crate::output;

/// The shipped recipes: name and text. Adding one: a file in recipes/ and a line here.
const SHIPPED: &[(&str, &str)] = &[
    (
        "quickstart",
        include_str!("../../../recipes/quickstart.toml"),
    ),
    ("tiny-base", include_str!("../../../recipes/tiny-base.toml")),
    (
        "alpaca-smollm2-135m",
        include_str!("../../../recipes/alpaca-smollm2-135m.toml"),
    ),
    (
        "alpaca-lora-7b",
        include_str!("../../../recipes/alpaca-lora-7b.toml"),
    ),
];

/// List the shipped recipes, or copy one to start from
#[derive(Debug, Args)]
pub(crate) struct Recipes {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Copy(Copy),
}

/// Write a shipped recipe to a file
#[derive(Debug, Args)]
struct Copy {
    /// Name of the recipe, as `simmer recipes` lists it
    name: String,
    /// File to write; NAME.toml in the current folder without it
    #[arg(value_name = "FILE")]
    out: Option<PathBuf>,
}

impl Recipes {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        match self.command {
            None => list(),
            Some(Command::Copy(copy)) => copy.run(),
        }
    }
}

fn list() -> anyhow::Result<()> {
    let width = SHIPPED
        .iter()
        .map(|(name, _)| name.len())
        .max()
        .unwrap_or(0);
    for (name, text) in SHIPPED {
        output::line(&format!("{name:width$}  {}", summary(text)))?;
    }
    Ok(())
}

/// The first line of a recipe's header.
fn summary(text: &str) -> &str {
    let first = text.lines().next().unwrap_or_default();
    first.trim_start_matches('#').trim()
}

impl Copy {
    fn run(self) -> anyhow::Result<()> {
        let Some((name, text)) = SHIPPED.iter().find(|(name, _)| *name == self.name) else {
            let names: Vec<&str> = SHIPPED.iter().map(|(name, _)| *name).collect();
            bail!(
                "no recipe is called {}; there are {}",
                self.name,
                names.join(", ")
            );
        };
        let out = self.out.unwrap_or_else(|| format!("{name}.toml").into());
        let mut file = std::fs::File::create_new(&out)
            .with_context(|| format!("cannot create {}", out.display()))?;
        std::io::Write::write_all(&mut file, text.as_bytes())
            .with_context(|| format!("cannot write {}", out.display()))?;
        output::note(&format!("{name} is in {}", out.display()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_recipe_says_what_it_is() {
        for (name, text) in SHIPPED {
            assert!(text.starts_with('#') && summary(text).len() > 20, "{name}");
        }
    }
}
