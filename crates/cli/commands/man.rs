//! `simmer man`: the manual pages, for packages of the program.

use std::fs;
use std::path::PathBuf;

use clap::{Args, Command, CommandFactory};
use clap_mangen::Man as Page;
use clap_mangen::roff::{Roff, roman};
use simmer_files::write_file;
use simmer_train::program;

use crate::failure::{Context, Failure};
use crate::output;

/// Write the manual pages, one for each command
#[derive(Debug, Args)]
pub(crate) struct Man {
    /// Folder to write simmer.1, simmer-train.1, ... to; pages of the same names are replaced
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
}

impl Man {
    pub(crate) fn run(self) -> Result<(), Failure> {
        fs::create_dir_all(&self.out)
            .with_context(|| format!("cannot create {}", self.out.display()))?;
        for (name, text) in pages().map_err(Failure::foreign)? {
            let path = self.out.join(name);
            write_file(&path, |file| file.write_all(&text))?;
            output::line(&path.display().to_string())?;
        }
        Ok(())
    }
}

/// The pages: names of files and their texts.
fn pages() -> std::io::Result<Vec<(String, Vec<u8>)>> {
    // the instructions of this processor, in the long version, are not those of the reader's
    let mut root = crate::Cli::command()
        .version(program::VERSION)
        .long_version(None::<&str>)
        .disable_help_subcommand(true);
    root.build();
    let mut commands = vec![root];
    let mut pages = Vec::new();
    while let Some(command) = commands.pop() {
        let inner = command.get_subcommands();
        commands.extend(inner.filter(|inner| !inner.is_hide_set()).cloned());
        pages.push(page(command)?);
    }
    pages.sort();
    Ok(pages)
}

/// The page of one command.
fn page(command: Command) -> std::io::Result<(String, Vec<u8>)> {
    let after = command.get_after_help().map(ToString::to_string);
    let has_commands = command
        .get_subcommands()
        .any(|command| !command.is_hide_set());
    let date = match program::COMMIT_DATE {
        "unknown" => "",
        date => date,
    };
    let page = Page::new(command)
        .date(date)
        .source(format!("simmer {}", program::VERSION))
        .manual("simmer");
    let mut text = Vec::new();
    page.render_title(&mut text)?;
    page.render_name_section(&mut text)?;
    page.render_synopsis_section(&mut text)?;
    page.render_description_section(&mut text)?;
    page.render_options_section(&mut text)?;
    if has_commands {
        page.render_subcommands_section(&mut text)?;
    }
    if let Some(after) = after {
        notes(&after).to_writer(&mut text)?;
    }
    Ok((page.get_filename(), text))
}

/// What follows the options of a help text: examples line by line, or notes.
fn notes(after: &str) -> Roff {
    let mut roff = Roff::new();
    if let Some(examples) = after.strip_prefix("Examples:\n") {
        roff.control("SH", ["EXAMPLES"]);
        roff.control("nf", []);
        for line in examples.lines() {
            roff.text([roman(line.trim())]);
        }
        roff.control("fi", []);
    } else {
        roff.control("SH", ["NOTES"]);
        roff.text([roman(after)]);
    }
    roff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_with_its_examples() {
        let pages = pages().unwrap();
        let page = |name: &str| {
            let (_, text) = pages.iter().find(|(known, _)| known == name).unwrap();
            String::from_utf8(text.clone()).unwrap()
        };
        for name in ["simmer.1", "simmer-data-preview.1", "simmer-recipes-copy.1"] {
            assert!(page(name).contains(".SH DESCRIPTION"), "{name}");
        }
        let train = page("simmer-train.1");
        let examples = train.split(".SH EXAMPLES\n.nf\n").nth(1).unwrap();
        assert!(examples.starts_with("simmer train my.toml\n"), "{examples}");
        assert!(train.contains("\\-\\-accept\\-changes"), "{train}");
        assert!(!pages.iter().any(|(name, _)| name.contains("reference")));
    }
}
