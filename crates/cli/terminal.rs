//! The settings of the terminal, which a signal must not leave as a line editor has set them.

use std::io;

use rustyline::error::ReadlineError;

#[cfg(unix)]
pub(crate) use of_unix::{keep, restore};

/// What is reported of a line that [`is_not_utf8`].
pub(crate) const NOT_UTF8: &str = "error: what was typed is not UTF-8\n\
    hint: type it again; the terminal's encoding must be UTF-8";

/// Whether a line could not be read since its bytes are no UTF-8; the next one can be.
pub(crate) fn is_not_utf8(error: &ReadlineError) -> bool {
    matches!(error, ReadlineError::Io(error) if error.kind() == io::ErrorKind::InvalidData)
}

#[cfg(unix)]
mod of_unix {
    use std::io::{self, Write};
    use std::sync::{Mutex, MutexGuard, PoisonError};

    use nix::sys::termios::{SetArg, Termios, tcgetattr, tcsetattr};

    /// The settings to restore.
    static KEPT: Mutex<Option<Termios>> = Mutex::new(None);

    fn kept() -> MutexGuard<'static, Option<Termios>> {
        KEPT.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the settings of the terminal, before a line is edited.
    pub(crate) fn keep() {
        *kept() = tcgetattr(io::stdin()).ok();
    }

    /// Restores the settings that were kept, if there are any, on a new line.
    pub(crate) fn restore() {
        if let Some(settings) = kept().take() {
            // the program ends here, whatever the terminal says
            let _ = tcsetattr(io::stdin(), SetArg::TCSANOW, &settings);
            // the editor has switched bracketed paste on
            let _ = io::stderr().write_all(b"\x1b[?2004l\n");
        }
    }
}

/// Keeps the settings of the terminal, before a line is edited.
#[cfg(not(unix))]
pub(crate) fn keep() {}

/// Restores the settings that were kept.
#[cfg(not(unix))]
pub(crate) fn restore() {}
