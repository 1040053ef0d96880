//! Messages of a conversation: lines with editing and history on a terminal, plain lines elsewhere.

use std::io::{self, BufRead, IsTerminal};

use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

use crate::failure::{Context, Failure};
use crate::terminal;

/// The commands of a conversation.
pub(super) const COMMANDS: [&str; 3] = ["/help", "/reset", "/quit"];

/// What `/help` prints.
pub(super) const HELP: &str = "\
/reset   start a new conversation; the system message stays
/quit    end the program (also Ctrl-D)
/help    show this list
//TEXT   send a message that begins with `/`
Ctrl-C   end the answer
A line that ends with `\\` continues on the next line. Up and Down recall earlier messages.";

/// Where messages come from.
pub(super) enum Input {
    /// A terminal. The history is kept in memory only.
    Editor(Box<DefaultEditor>),
    /// A file or a pipe.
    Lines,
}

/// What was typed.
pub(super) enum Typed {
    Text(String),
    /// Ctrl-C.
    Interrupted,
    /// Ctrl-D, or the end of the file.
    End,
}

impl Input {
    pub(super) fn new() -> Result<Self, Failure> {
        if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
            return Ok(Self::Lines);
        }
        terminal::keep();
        let editor = DefaultEditor::new().map_err(Failure::foreign);
        let editor = editor.context("cannot read from the terminal")?;
        Ok(Self::Editor(Box::new(editor)))
    }

    pub(super) fn is_interactive(&self) -> bool {
        matches!(self, Self::Editor(_)) || io::stdin().is_terminal()
    }

    /// Reads a message.
    pub(super) fn read(&mut self) -> Result<Typed, Failure> {
        let Self::Editor(editor) = self else {
            let mut line = String::new();
            return Ok(match io::stdin().lock().read_line(&mut line)? {
                0 => Typed::End,
                _ => Typed::Text(line),
            });
        };
        let mut text = String::new();
        let mut prompt = "> ";
        loop {
            match editor.readline(prompt) {
                Ok(line) => {
                    let Some(begun) = line.strip_suffix('\\') else {
                        text.push_str(&line);
                        break;
                    };
                    text.push_str(begun);
                    text.push('\n');
                    prompt = "  ";
                }
                Err(ReadlineError::Interrupted) => return Ok(Typed::Interrupted),
                Err(ReadlineError::Eof) => return Ok(Typed::End),
                Err(error) => {
                    return Err(Failure::foreign(error)).context("cannot read from the terminal");
                }
            }
        }
        if !text.trim().is_empty() {
            let added = editor.add_history_entry(&text).map_err(Failure::foreign);
            added.context("cannot keep the message in the history")?;
        }
        Ok(Typed::Text(text))
    }
}

/// The message in what was typed, or the command.
pub(super) fn command(typed: &str) -> Result<&str, &str> {
    let typed = typed.trim();
    match typed.strip_prefix('/') {
        None => Ok(typed),
        Some(message) if message.starts_with('/') => Ok(message),
        Some(_) => Err(typed.split_whitespace().next().unwrap_or(typed)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_told_from_messages() {
        assert_eq!(command(" Hello /reset\n"), Ok("Hello /reset"));
        assert_eq!(command("\n"), Ok(""));
        assert_eq!(command("//etc/hosts?"), Ok("/etc/hosts?"));
        assert_eq!(command("/reset \n"), Err("/reset"));
        assert_eq!(command("/rest now"), Err("/rest"));
        assert_eq!(command("/"), Err("/"));
    }

    #[test]
    fn help_has_every_command() {
        for name in COMMANDS {
            assert!(HELP.lines().any(|line| line.starts_with(name)), "{name}");
        }
    }
}
