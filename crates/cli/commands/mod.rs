//! The commands, one file each: arguments, help and what they do.

mod adapter;
mod chat;
mod convert;
mod data;
mod estimate;
mod eval;
mod generate;
mod merge;
mod recipes;
mod reference;
mod report;
mod score;
mod show;
mod tokenizer;
mod train;

use std::process::ExitCode;

use clap::Subcommand;

use crate::failure::Failure;

/// A command of the program. A new one needs a file in this folder, a variant here and a line in `run`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Train(train::Train),
    Merge(merge::Merge),
    Adapter(adapter::Adapter),
    Convert(convert::Convert),
    Generate(generate::Generate),
    Chat(chat::Chat),
    Score(score::Score),
    Eval(eval::Eval),
    Data(data::Data),
    Estimate(estimate::Estimate),
    Show(show::Show),
    Report(report::Report),
    Recipes(recipes::Recipes),
    Tokenizer(tokenizer::Tokenizer),
    #[command(hide = true)]
    Reference(reference::Reference),
}

impl Command {
    /// Runs it; what it returns is the exit code of the program.
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        match self {
            Self::Train(command) => return command.run(),
            Self::Merge(command) => command.run()?,
            Self::Adapter(command) => command.run()?,
            Self::Convert(command) => command.run()?,
            Self::Generate(command) => command.run()?,
            Self::Chat(command) => command.run()?,
            Self::Score(command) => command.run()?,
            Self::Eval(command) => return command.run(),
            Self::Data(command) => command.run()?,
            Self::Estimate(command) => command.run()?,
            Self::Show(command) => command.run()?,
            Self::Report(command) => command.run()?,
            Self::Recipes(command) => command.run()?,
            Self::Tokenizer(command) => command.run()?,
            Self::Reference(command) => command.run()?,
        }
        Ok(ExitCode::SUCCESS)
    }
}
