//! Results on standard output, messages on standard error.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use console::{Style, Term};
use serde::Serialize;

use crate::failure::Failure;
use crate::fitted::fitted;
use crate::folded::{folded, printable};
use crate::live_line;

/// Writes a result as it is.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()?;
    Ok(())
}

/// Writes a result and ends the line.
pub(crate) fn line(text: &str) -> Result<(), Failure> {
    print(&format!("{text}\n"))
}

/// Writes a result that people read, and ends the line. On a terminal, lines are broken between words, and
/// texts in wide tables are shortened.
pub(crate) fn text(text: &str) -> Result<(), Failure> {
    let stdout = Term::stdout();
    if stdout.is_term() {
        let columns = columns(&stdout);
        line(&folded(&fitted(text, columns), columns))
    } else {
        line(text)
    }
}

/// Writes what a model answers, piece by piece. On a terminal, control characters are shown.
pub(crate) fn answer(piece: &str) -> Result<(), Failure> {
    if io::stdout().is_terminal() {
        print(&printable(piece))
    } else {
        print(piece)
    }
}

/// Writes a result for other programs: one line of JSON.
pub(crate) fn json(value: &impl Serialize) -> Result<(), Failure> {
    line(&serde_json::to_string(value).map_err(Failure::foreign)?)
}

/// Whether this process is one of several, of which another writes the messages.
static SILENT: AtomicBool = AtomicBool::new(false);

/// Leaves the messages of this process out; errors are still written.
pub(crate) fn silence() {
    SILENT.store(true, Ordering::Relaxed);
}

/// Writes a message for the user, above a live line. Control characters are shown. On a terminal, lines are broken between
/// words, and `error:`, `warning:` and `hint:` have a colour if it has colours.
pub(crate) fn note(text: &str) {
    if !SILENT.load(Ordering::Relaxed) {
        error(text);
    }
}

/// The same for an error.
pub(crate) fn error(text: &str) {
    let mut text = printable(text);
    let stderr = Term::stderr();
    if stderr.is_term() {
        let columns = columns(&stderr);
        text = folded(&fitted(&text, columns), columns);
    }
    if console::colors_enabled_stderr() {
        text = coloured(&text);
    }
    note_as_it_is(&text);
}

/// Writes a message whose lines and colours stay as they are.
pub(crate) fn note_as_it_is(text: &str) {
    // a message that cannot be written must not stop the work
    live_line::above(|| {
        let _ = writeln!(io::stderr(), "{text}");
    });
}

fn columns(terminal: &Term) -> usize {
    let (_, columns) = terminal.size();
    usize::from(columns)
}

/// A message whose lines begin with a coloured word.
fn coloured(text: &str) -> String {
    let line = |line: &str| {
        let words = [
            ("error:", Style::new().red().bold()),
            ("warning:", Style::new().yellow().bold()),
            ("hint:", Style::new().cyan().bold()),
            ("because:", Style::new().bold()),
        ];
        let rest = line.trim_start();
        let indent = &line[..line.len() - rest.len()];
        for (word, style) in words {
            if let Some(rest) = rest.strip_prefix(word) {
                return format!("{indent}{}{rest}", style.force_styling(true).apply_to(word));
            }
        }
        line.to_owned()
    };
    text.split('\n').map(line).collect::<Vec<_>>().join("\n")
}

/// Whether messages go to a terminal.
pub(crate) fn is_terminal() -> bool {
    io::stderr().is_terminal()
}

/// Whether the reader of the results has closed the pipe, as `head` does after its last line.
pub(crate) fn is_closed_pipe(failure: &Failure) -> bool {
    failure
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_word_of_a_line_is_coloured() {
        assert_eq!(
            coloured("error: a warning: b\n  because: c\nhint: d\ne"),
            "\u{1b}[31m\u{1b}[1merror:\u{1b}[0m a warning: b\n  \u{1b}[1mbecause:\u{1b}[0m c\n\
             \u{1b}[36m\u{1b}[1mhint:\u{1b}[0m d\ne"
        );
        assert_eq!(coloured("loss 1.0"), "loss 1.0");
    }
}
