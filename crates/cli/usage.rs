//! Reads the command line: negative numbers are values, and options that are keys of a recipe are explained.

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, Args, Command, CommandFactory, Error, FromArgMatches};
use simmer_train::recipe::option_here;

use crate::Cli;
use crate::commands::Train;

/// Commands that read a recipe.
const OF_RECIPES: [&str; 4] = ["train", "estimate", "show", "data"];

/// The value of an option that counts something.
pub(crate) fn one_or_more(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| "expected a number from 1 on".to_owned())
}

/// The command line; ends the program if it is wrong, or asks for help.
pub(crate) fn parse() -> Cli {
    let read = negative_numbers(Cli::command()).try_get_matches();
    let cli = read.and_then(|matches| Cli::from_arg_matches(&matches));
    let command = std::env::args().nth(1).unwrap_or_default();
    cli.unwrap_or_else(|error| explained(error, &command).exit())
}

/// The arguments of `simmer train` that another command has, with the recipe; ends the program if they are wrong.
pub(crate) fn train(words: &[String]) -> Train {
    let command = negative_numbers(Train::augment_args(Command::new("simmer train")));
    let program = ["simmer train".to_owned()];
    let read = command.try_get_matches_from(program.iter().chain(words));
    let train = read.and_then(|matches| Train::from_arg_matches(&matches));
    train.unwrap_or_else(|error| explained(error, "train").exit())
}

/// The options of a command, such as `--grace`.
pub(crate) fn options(command: &str) -> Vec<String> {
    let program = Cli::command();
    let found = program.find_subcommand(command);
    let options = found.into_iter().flat_map(Command::get_arguments);
    options.filter_map(long).collect()
}

/// The options of a command that this process was started with.
pub(crate) fn given(command: &str) -> Vec<String> {
    let program = negative_numbers(Cli::command());
    // the program runs, so that they can be read
    let Ok(matches) = program.clone().try_get_matches() else {
        return Vec::new();
    };
    let (Some(found), Some(matches)) = (
        program.find_subcommand(command),
        matches.subcommand_matches(command),
    ) else {
        return Vec::new();
    };
    let is_given =
        |arg: &&Arg| matches.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine);
    let given = found.get_arguments().filter(is_given);
    given.filter_map(long).collect()
}

/// An option as it is written; `None` for an argument without a name.
fn long(arg: &Arg) -> Option<String> {
    arg.get_long().map(|name| format!("--{name}"))
}

/// Lets values such as `-1` reach the check of their range.
fn negative_numbers(command: Command) -> Command {
    command
        .mut_args(|arg| {
            let takes = arg.get_action().takes_values();
            if takes {
                arg.allow_negative_numbers(true)
            } else {
                arg
            }
        })
        .mut_subcommands(negative_numbers)
}

/// An error about an unknown option, with what the option is in a recipe, or about a recipe in place of a command.
fn explained(mut error: Error, command: &str) -> Error {
    if error.kind() == ErrorKind::InvalidSubcommand && command == "recipes" {
        let tip = "`simmer recipes` lists the recipes; `simmer recipes copy NAME` copies one";
        suggest(&mut error, tip.into());
        return error;
    }
    if let Some(whole) = error.get(ContextKind::InvalidSubcommand).and_then(whole) {
        error.remove(ContextKind::SuggestedSubcommand);
        suggest(&mut error, format!("the command is `simmer {whole}`"));
        return error;
    }
    if error.kind() != ErrorKind::UnknownArgument {
        return error;
    }
    // clap's own, which is about values that begin with `-`; no argument here has such values
    let is_value = matches!(
        error.get(ContextKind::Suggested),
        Some(ContextValue::StyledStrs(tips)) if tips.iter().any(|tip| tip.to_string().contains("as a value"))
    );
    if is_value {
        error.remove(ContextKind::Suggested);
    }
    if command == "launch" {
        error.remove(ContextKind::SuggestedArg);
        let tip = "arguments of `simmer train` stand after the recipe";
        suggest(&mut error, tip.into());
        return error;
    }
    if !OF_RECIPES.contains(&command) {
        return error;
    }
    let Some(ContextValue::String(option)) = error.get(ContextKind::InvalidArg) else {
        return error;
    };
    if let Some(hint) = option_here(option) {
        error.remove(ContextKind::SuggestedArg);
        suggest(&mut error, hint);
    }
    error
}

/// The words of the command that has this one: `data lint` for `lint`.
fn whole(command: &ContextValue) -> Option<String> {
    let ContextValue::String(command) = command else {
        return None;
    };
    let program = Cli::command();
    let mut outer = program
        .get_subcommands()
        .filter(|outer| !outer.is_hide_set());
    let found = outer.find(|outer| outer.find_subcommand(command).is_some())?;
    Some(format!("{} {command}", found.get_name()))
}

/// Gives an error a tip.
fn suggest(error: &mut Error, tip: String) {
    error.insert(
        ContextKind::Suggested,
        ContextValue::StyledStrs(vec![tip.into()]),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tip(command: &str) -> String {
        let error = Cli::command().try_get_matches_from(["simmer", command]);
        let text = explained(error.unwrap_err(), command).to_string();
        let tip = text.lines().find(|line| line.contains("tip:"));
        tip.unwrap_or_default().trim().to_owned()
    }

    #[test]
    fn a_word_of_a_longer_command_is_known() {
        assert_eq!(tip("lint"), "tip: the command is `simmer data lint`");
        assert_eq!(
            tip("inspect"),
            "tip: the command is `simmer adapter inspect`"
        );
        assert_eq!(
            tip("estimat"),
            "tip: a similar subcommand exists: 'estimate'"
        );
    }
}
