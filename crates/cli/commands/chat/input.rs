//! Messages of a conversation: lines with editing and history on a terminal, plain lines elsewhere.

use std::io::{self, BufRead, IsTerminal};

use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

use crate::failure::{Context, Failure, bail};
use crate::output::note;
use crate::terminal::{self, is_not_utf8};

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
    Lines {
        /// The lines that were read.
        read: usize,
    },
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
            return Ok(Self::Lines { read: 0 });
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
        let editor = match self {
            Self::Editor(editor) => editor,
            Self::Lines { read } => {
                *read += 1;
                return line(&mut io::stdin().lock(), *read);
            }
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
                Err(error) if is_not_utf8(&error) => note(terminal::NOT_UTF8),
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

/// The next line of a file, the line `number`.
fn line(file: &mut impl BufRead, number: usize) -> Result<Typed, Failure> {
    let mut bytes = Vec::new();
    if file.read_until(b'\n', &mut bytes)? == 0 {
        return Ok(Typed::End);
    }
    match String::from_utf8(bytes) {
        Ok(line) => Ok(Typed::Text(line)),
        Err(_) => bail!("standard input: line {number}: not UTF-8"),
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
    fn a_line_that_is_not_utf8_is_named() {
        let mut file = &b"Hi\n\xff\n"[..];
        assert!(matches!(line(&mut file, 1), Ok(Typed::Text(text)) if text == "Hi\n"));
        let failure = line(&mut file, 2).err().unwrap();
        assert_eq!(failure.to_string(), "standard input: line 2: not UTF-8");
        assert!(matches!(line(&mut file, 3), Ok(Typed::End)));
    }

    #[test]
    fn help_has_every_command() {
        for name in COMMANDS {
            assert!(HELP.lines().any(|line| line.starts_with(name)), "{name}");
        }
    }
}
