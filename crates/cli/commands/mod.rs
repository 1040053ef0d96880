//! The commands, one file each: arguments, help and what they do.

mod adapter;
mod chat;
mod completions;
mod convert;
mod data;
mod estimate;
mod eval;
mod eval_contamination;
mod eval_ranks;
mod eval_tools;
mod fields;
mod generate;
mod init;
mod judge;
mod launch;
mod man;
mod merge;
mod recipes;
mod reference;
mod report;
mod row_hints;
mod score;
mod serve;
mod show;
mod tokenizer;
mod track;
mod train;

use std::env;
use std::fmt::Write as _;
use std::process::ExitCode;

pub(crate) use self::train::Train;
use clap::Subcommand;
use console::Term;

use crate::failure::Failure;

/// The commands in the order of a user's work, as `simmer --help` lists them. A new one needs a place here.
const GROUPS: [(&str, &[&str]); 4] = [
    (
        "Before a run",
        &["init", "recipes", "show", "data", "estimate", "tokenizer"],
    ),
    ("Train", &["train", "launch", "report", "track"]),
    (
        "After a run",
        &[
            "generate", "chat", "serve", "eval", "judge", "score", "merge", "convert", "adapter",
        ],
    ),
    ("Set up", &["completions"]),
];

/// The widest line of a help text.
pub(crate) const HELP_COLUMNS: usize = 100;

/// A command of the program. A new one needs a file in this folder, a variant here and a line in `run`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Init(init::Init),
    Train(train::Train),
    Launch(launch::Launch),
    Merge(merge::Merge),
    Adapter(adapter::Adapter),
    Convert(convert::Convert),
    Generate(generate::Generate),
    Chat(chat::Chat),
    Serve(serve::Serve),
    Score(score::Score),
    Eval(eval::Eval),
    Judge(judge::Judge),
    Data(data::Data),
    Estimate(estimate::Estimate),
    Show(show::Show),
    Report(report::Report),
    Track(track::TrackRun),
    Recipes(recipes::Recipes),
    Tokenizer(tokenizer::Tokenizer),
    Completions(completions::Completions),
    #[command(hide = true)]
    Man(man::Man),
    #[command(hide = true)]
    Reference(reference::Reference),
}

impl Command {
    /// The template of `simmer --help`, with the commands in groups.
    pub(crate) fn help_template() -> String {
        let commands = Self::augment_subcommands(clap::Command::new("simmer"));
        let mut text = "{about-with-newline}\n{usage-heading} {usage}\n".to_owned();
        for (group, names) in GROUPS {
            let _ = write!(text, "\n{}\n", heading(group));
            for name in names {
                let about = commands
                    .find_subcommand(name)
                    .and_then(clap::Command::get_about);
                let about = about.map(ToString::to_string).unwrap_or_default();
                text += &entry(name, &about, columns());
            }
        }
        let _ = write!(text, "\n{}\n{{options}}{{after-help}}", heading("Options"));
        text
    }

    /// Runs it; what it returns is the exit code of the program.
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        match self {
            Self::Init(command) => return command.run(),
            Self::Train(command) => return command.run(),
            Self::Launch(command) => return command.run(),
            Self::Merge(command) => command.run()?,
            Self::Adapter(command) => command.run()?,
            Self::Convert(command) => command.run()?,
            Self::Generate(command) => command.run()?,
            Self::Chat(command) => command.run()?,
            Self::Serve(command) => command.run()?,
            Self::Score(command) => command.run()?,
            Self::Eval(command) => return command.run(),
            Self::Judge(command) => return command.run(),
            Self::Data(command) => return command.run(),
            Self::Estimate(command) => command.run()?,
            Self::Show(command) => command.run()?,
            Self::Report(command) => command.run()?,
            Self::Track(command) => command.run()?,
            Self::Recipes(command) => command.run()?,
            Self::Tokenizer(command) => command.run()?,
            Self::Completions(command) => command.run()?,
            Self::Man(command) => command.run()?,
            Self::Reference(command) => command.run()?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// A heading as clap writes them; it removes the styles where colours are off.
fn heading(text: &str) -> String {
    format!("\u{1b}[1m\u{1b}[4m{text}:\u{1b}[0m")
}

/// A command with its description, broken into lines.
fn entry(name: &str, about: &str, columns: usize) -> String {
    const INDENT: usize = 15;
    let mut lines = vec![String::new()];
    for word in about.split_whitespace() {
        let line = lines.last().map_or(0, String::len);
        if line > 0 && INDENT + line + 1 + word.len() > columns {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    let about = lines.join(&format!("\n{:INDENT$}", ""));
    format!(
        "  \u{1b}[1m{name}\u{1b}[0m{:1$}{about}\n",
        "",
        INDENT - 2 - name.len()
    )
}

/// The columns for help texts.
fn columns() -> usize {
    let of_terminal = Term::stdout().size_checked();
    let of_terminal = of_terminal.map(|(_, columns)| usize::from(columns));
    let given = || env::var("COLUMNS").ok()?.parse().ok();
    let columns = of_terminal.or_else(given).unwrap_or(HELP_COLUMNS);
    columns.min(HELP_COLUMNS)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::{CommandFactory, Parser};

    use super::*;
    use crate::Cli;

    /// The words of a command line.
    fn words(line: &str) -> Vec<String> {
        let mut words = Vec::new();
        let mut quote = None;
        let mut word = String::new();
        for c in line.chars() {
            match (quote, c) {
                (None, ' ') => words.push(std::mem::take(&mut word)),
                (None, '\'' | '"') => quote = Some(c),
                (Some(open), c) if open == c => quote = None,
                (_, c) => word.push(c),
            }
        }
        assert_eq!(quote, None, "{line}");
        words.push(word);
        let redirection = words.iter().position(|word| word == ">");
        words.truncate(redirection.unwrap_or(words.len()));
        words
    }

    /// The commands without subcommands that must be given, each with its name.
    fn leaves(command: &clap::Command, name: &str, found: &mut Vec<(String, String)>) {
        for inner in command
            .get_subcommands()
            .filter(|inner| !inner.is_hide_set())
        {
            leaves(inner, &format!("{name} {}", inner.get_name()), found);
        }
        if !command.is_subcommand_required_set() {
            let examples = command.get_after_help();
            let examples = examples.map(ToString::to_string).unwrap_or_default();
            found.push((name.to_owned(), examples));
        }
    }

    #[test]
    fn examples_are_commands_of_the_program() {
        let mut commands = Vec::new();
        leaves(&Cli::command(), "simmer", &mut commands);
        assert!(commands.len() > 15, "{commands:?}");
        for (name, examples) in commands {
            let mut lines = examples.lines();
            assert_eq!(lines.next(), Some("Examples:"), "{name}");
            let mut count = 0;
            for line in lines {
                let line = line.strip_prefix("  ").unwrap();
                // the program may read what another one prints
                let line = line.rsplit("\" | ").next().unwrap();
                assert!(line.starts_with(&name), "{name}: {line}");
                let parsed = Cli::try_parse_from(words(line));
                assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
                count += 1;
            }
            assert!((1..=3).contains(&count), "{name}: {count} examples");
        }
    }

    #[test]
    fn every_command_is_in_a_group() {
        let cli = Cli::command();
        let commands = cli
            .get_subcommands()
            .filter(|command| !command.is_hide_set());
        let commands: BTreeSet<&str> = commands.map(clap::Command::get_name).collect();
        let grouped: Vec<&str> = GROUPS
            .iter()
            .flat_map(|(_, names)| *names)
            .copied()
            .collect();
        assert_eq!(grouped.len(), commands.len());
        assert_eq!(grouped.into_iter().collect::<BTreeSet<_>>(), commands);
    }

    #[test]
    fn descriptions_are_broken_into_lines() {
        let broken = entry("merge", "Merge an adapter into its base model", 36);
        let plain = console::strip_ansi_codes(&broken);
        assert_eq!(
            plain,
            "  merge        Merge an adapter into\n               its base model\n"
        );
    }
}
