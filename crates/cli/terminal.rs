//! The settings of the terminal, which a signal must not leave as a line editor has set them.

#[cfg(unix)]
pub(crate) use of_unix::{keep, restore};

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
