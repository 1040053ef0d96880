//! The arguments of a command, from its definition.

use std::fmt::Write as _;

use clap::{Command as ClapCommand, CommandFactory};

use super::{cell, without_default};
use crate::failure::{Context, Failure};

/// A row for each argument and option of a command: name, default, meaning.
pub(super) fn table(words: &[String]) -> Result<String, Failure> {
    let mut root = crate::Cli::command();
    root.build();
    let mut command: &ClapCommand = &root;
    for word in words {
        let found = command.find_subcommand(word);
        command = found.with_context(|| format!("there is no command `{}`", words.join(" ")))?;
    }
    let mut rows = String::from("| argument | default | meaning |\n|---|---|---|");
    for argument in command.get_arguments() {
        if argument.get_id() == "help" || argument.is_hide_set() {
            continue;
        }
        let defaults = argument.get_default_values().iter();
        let defaults: Vec<_> = defaults.map(|value| value.to_string_lossy()).collect();
        let help = argument.get_long_help().or_else(|| argument.get_help());
        let help = help.map(ToString::to_string).unwrap_or_default();
        let (meaning, said) = without_default(&help);
        let default = if defaults.is_empty() || !argument.get_action().takes_values() {
            said.unwrap_or_default()
        } else {
            format!("`{}`", defaults.join(" "))
        };
        let _ = write!(
            rows,
            "\n| `{}` | {} | {} |",
            usage(argument),
            cell(&default),
            cell(&meaning)
        );
    }
    Ok(rows)
}

/// An argument as it is written on a command line.
fn usage(argument: &clap::Arg) -> String {
    let values = argument.get_value_names().unwrap_or_default();
    let values: Vec<&str> = values.iter().map(AsRef::as_ref).collect();
    let many = argument
        .get_num_args()
        .is_some_and(|range| range.max_values() > 1);
    let values = format!("{}{}", values.join(" "), if many { "..." } else { "" });
    let name = match (argument.get_short(), argument.get_long()) {
        (_, Some(long)) => format!("--{long}"),
        (Some(short), None) => format!("-{short}"),
        (None, None) => return values,
    };
    if argument.get_action().takes_values() {
        format!("{name} {values}")
    } else {
        name
    }
}
