//! A line at the bottom of the terminal that is drawn again and again, below the messages.

use std::env;
use std::io::{self, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use console::{Term, measure_text_width};

use crate::output::is_terminal;

/// Time between two looks at what the line shows and at the size of the terminal.
const TICK: Duration = Duration::from_millis(100);

/// The line that this process shows, if it shows one.
static SHOWN: Mutex<Option<Shown>> = Mutex::new(None);

/// What is drawn, and what the screen has.
struct Shown {
    render: Box<dyn Fn(usize) -> String + Send>,
    screen: Screen,
}

/// Shows a line on standard error until it is dropped; nothing if that is not a terminal. A process has one at a time: a
/// second one is not shown.
#[derive(Debug)]
pub(crate) struct LiveLine {
    ticker: Option<JoinHandle<()>>,
}

impl LiveLine {
    /// Draws what `render` returns for a number of columns, which must be shorter than that, whenever it changes.
    pub(crate) fn show(render: impl Fn(usize) -> String + Send + 'static) -> Self {
        let variable = |name: &str| env::var(name).ok();
        if !is_terminal() || variable("TERM").is_some_and(|term| term == "dumb") {
            return Self { ticker: None };
        }
        let mut shown = shown();
        if shown.is_some() {
            return Self { ticker: None };
        }
        *shown = Some(Shown {
            render: Box::new(render),
            screen: Screen {
                text: String::new(),
                columns: 0,
                reflows: reflows(variable),
            },
        });
        drop(shown);
        Self {
            ticker: Some(thread::spawn(tick)),
        }
    }

    /// Whether it is on a terminal.
    pub(crate) fn is_shown(&self) -> bool {
        self.ticker.is_some()
    }
}

impl Drop for LiveLine {
    fn drop(&mut self) {
        if let Some(ticker) = self.ticker.take() {
            hide();
            ticker.thread().unpark();
            // it has only drawn; a panic of it must not end the work
            let _ = ticker.join();
        }
    }
}

/// Draws the line until there is none.
fn tick() {
    loop {
        match shown().as_mut() {
            Some(line) => line.draw(),
            None => return,
        }
        thread::park_timeout(TICK);
    }
}

/// Removes the line from the screen for good.
pub(crate) fn hide() {
    if let Some(mut line) = shown().take() {
        line.clear();
    }
}

/// Calls `write`, which writes whole lines to standard error, above the line.
pub(crate) fn above(write: impl FnOnce()) {
    let mut shown = shown();
    if let Some(line) = shown.as_mut() {
        line.clear();
    }
    write();
    if let Some(line) = shown.as_mut() {
        line.draw();
    }
}

fn shown() -> MutexGuard<'static, Option<Shown>> {
    SHOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shown {
    fn draw(&mut self) {
        let columns = columns();
        let text = (self.render)(columns);
        if let Some(bytes) = self.screen.show(&text, columns) {
            put(&bytes);
        }
    }

    fn clear(&mut self) {
        put(&self.screen.hide(columns()));
    }
}

fn columns() -> usize {
    let (_, columns) = Term::stderr().size();
    usize::from(columns)
}

fn put(bytes: &str) {
    let mut stderr = io::stderr().lock();
    // a line that cannot be drawn must not stop the work
    let _ = stderr
        .write_all(bytes.as_bytes())
        .and_then(|()| stderr.flush());
}

/// What the terminal shows, and the control sequences that change it.
#[derive(Debug, Default)]
struct Screen {
    /// The line, with the cursor at its end.
    text: String,
    /// The columns that it was drawn for.
    columns: usize,
    /// Whether the terminal breaks a line that has become too long for it into several.
    reflows: bool,
}

impl Screen {
    /// What replaces the line; `None` if nothing has changed.
    fn show(&mut self, text: &str, columns: usize) -> Option<String> {
        if self.text == text && self.columns == columns {
            return None;
        }
        let bytes = self.hide(columns) + text;
        text.clone_into(&mut self.text);
        self.columns = columns;
        Some(bytes)
    }

    /// What removes the line from a terminal of so many columns.
    fn hide(&mut self, columns: usize) -> String {
        if self.text.is_empty() {
            return String::new();
        }
        let width = measure_text_width(&self.text);
        self.text.clear();
        let rows = if self.reflows {
            width.div_ceil(columns.max(1))
        } else {
            1
        };
        let up = match rows.saturating_sub(1) {
            0 => String::new(),
            up => format!("\x1b[{up}A"),
        };
        format!("\r{up}\x1b[J")
    }
}

/// Whether a terminal breaks long lines again when it becomes narrower. Most do; xterm, GNU screen and the Linux console
/// cut them off, and there the rows above the line are not its own.
fn reflows(variable: impl Fn(&str) -> Option<String>) -> bool {
    let term = variable("TERM").unwrap_or_default();
    let is_screen = term.starts_with("screen") && variable("TMUX").is_none();
    variable("XTERM_VERSION").is_none() && !is_screen && term != "linux"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_changes_are_drawn() {
        let mut screen = Screen::default();
        assert_eq!(screen.hide(80), "");
        assert_eq!(screen.show("1/9", 80).unwrap(), "1/9");
        assert_eq!(screen.show("1/9", 80), None);
        assert_eq!(screen.show("2/9", 80).unwrap(), "\r\x1b[J2/9");
        assert_eq!(screen.hide(80), "\r\x1b[J");
        assert_eq!(screen.show("3/9", 80).unwrap(), "3/9");
    }

    #[test]
    fn a_line_that_a_narrower_terminal_has_broken_is_removed_as_a_whole() {
        let long = "x".repeat(100);
        let drawn = |reflows| {
            let mut screen = Screen {
                reflows,
                ..Screen::default()
            };
            screen.show(&long, 120).unwrap();
            screen.show("short", 40).unwrap()
        };
        assert_eq!(drawn(true), "\r\x1b[2A\x1b[Jshort");
        assert_eq!(drawn(false), "\r\x1b[Jshort");
    }

    #[test]
    fn terminals_that_cut_lines_off_are_known() {
        let of = |variables: &[(&str, &str)]| {
            reflows(|name| {
                let found = variables.iter().find(|(given, _)| *given == name);
                found.map(|(_, value)| (*value).to_owned())
            })
        };
        assert!(of(&[("TERM", "xterm-256color")]));
        assert!(of(&[("TERM", "screen-256color"), ("TMUX", "/tmp/tmux")]));
        assert!(!of(&[("TERM", "screen")]));
        assert!(!of(&[("TERM", "xterm"), ("XTERM_VERSION", "XTerm(390)")]));
        assert!(!of(&[("TERM", "linux")]));
    }
}
