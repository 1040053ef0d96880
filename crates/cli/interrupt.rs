//! Ctrl-C, and the signals that ask a program to end: SIGTERM, and SIGHUP of a terminal that is closed.

use std::io;
use std::process::{self, Child, Command, ExitCode};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use crate::failure::{Context, Failure};
use crate::output::note;
use crate::{live_line, terminal};

/// What ends a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Signal {
    /// SIGINT: Ctrl-C.
    Interrupt,
    /// SIGTERM.
    #[cfg_attr(not(unix), expect(dead_code, reason = "a signal of Unix"))]
    Terminate,
    /// SIGHUP.
    #[cfg_attr(not(unix), expect(dead_code, reason = "a signal of Unix"))]
    HangUp,
}

/// Work that a signal stops, instead of ending the program.
#[derive(Clone)]
struct Work {
    /// Printed when it is stopped, unless empty.
    message: &'static str,
    /// Whether it runs.
    runs: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    /// Whether Ctrl-C alone stops it.
    only_ctrl_c: bool,
}

/// Where signals go instead.
static PASSED: Mutex<Option<Sender<()>>> = Mutex::new(None);
/// The work of this process.
static WORK: Mutex<Option<Work>> = Mutex::new(None);

impl Signal {
    /// The exit code of a program that it ends: 128 + its number, as shells have it.
    const fn exit_code(self) -> u8 {
        128 + match self {
            Self::HangUp => 1,
            Self::Interrupt => 2,
            Self::Terminate => 15,
        }
    }
}

impl Work {
    /// Asks the work to stop; `false` if the program ends instead.
    fn heeds(&self, signal: Signal) -> bool {
        self.runs.load(Ordering::SeqCst)
            && (signal == Signal::Interrupt || !self.only_ctrl_c)
            && !self.stop.swap(true, Ordering::SeqCst)
    }
}

/// What a command returns that was stopped and has saved its work.
pub(crate) fn exit_code() -> ExitCode {
    ExitCode::from(Signal::Interrupt.exit_code())
}

/// Ends the program at a signal, with the terminal as it was, unless [`flag`] or [`flag_of_ctrl_c`] names work that it stops.
/// Must be called before other threads start.
pub(crate) fn listen() -> Result<(), Failure> {
    #[cfg(unix)]
    of_unix::listen()?;
    ctrlc::set_handler(|| on(Signal::Interrupt))
        .map_err(Failure::foreign)
        .context("cannot listen for Ctrl-C")
}

/// A flag that Ctrl-C (or another signal) sets while `runs` is true: while work runs that checks the flag and has a result to
/// save. `message` is printed then. A second signal ends the program, and so does one while `runs` is false.
pub(crate) fn flag(message: &'static str, runs: Arc<AtomicBool>) -> Arc<AtomicBool> {
    keep(message, runs, false)
}

/// The same for work that Ctrl-C alone stops; the other signals end the program.
pub(crate) fn flag_of_ctrl_c(runs: Arc<AtomicBool>) -> Arc<AtomicBool> {
    keep("", runs, true)
}

/// Passes every signal on, and ends the program at none: for a program that has started others.
pub(crate) fn passed() -> Receiver<()> {
    let (sender, receiver) = channel();
    *PASSED.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
    receiver
}

/// Starts another program, which gets the signals that this one waits for on a thread.
pub(crate) fn spawn(command: &mut Command) -> io::Result<Child> {
    #[cfg(unix)]
    return of_unix::spawn(command);
    #[cfg(not(unix))]
    command.spawn()
}

fn keep(message: &'static str, runs: Arc<AtomicBool>, only_ctrl_c: bool) -> Arc<AtomicBool> {
    let stop = Arc::new(AtomicBool::new(false));
    let work = Work {
        message,
        runs,
        stop: Arc::clone(&stop),
        only_ctrl_c,
    };
    *WORK.lock().unwrap_or_else(PoisonError::into_inner) = Some(work);
    stop
}

fn on(signal: Signal) {
    let passed = PASSED.lock().unwrap_or_else(PoisonError::into_inner);
    if passed.as_ref().is_some_and(|to| to.send(()).is_ok()) {
        return;
    }
    drop(passed);
    let work = WORK.lock().unwrap_or_else(PoisonError::into_inner).clone();
    match work {
        Some(work) if work.heeds(signal) => {
            if !work.message.is_empty() {
                note(work.message);
            }
        }
        _ => {
            live_line::hide();
            terminal::restore();
            process::exit(signal.exit_code().into());
        }
    }
}

#[cfg(unix)]
mod of_unix {
    use std::process::{Child, Command};
    use std::{fs, io, thread};

    use nix::sys::signal::{SigSet, Signal as Number};

    use super::{Signal, on};
    use crate::failure::Failure;

    /// Waits for SIGTERM and SIGHUP on a thread. Every thread that starts later inherits that they are blocked elsewhere.
    pub(super) fn listen() -> Result<(), Failure> {
        let signals = signals();
        signals.thread_block().map_err(Failure::foreign)?;
        thread::spawn(move || {
            while let Ok(number) = signals.wait() {
                on(match number {
                    Number::SIGHUP => Signal::HangUp,
                    _ => Signal::Terminate,
                });
            }
        });
        Ok(())
    }

    /// A program inherits which signals are blocked on the thread that starts it.
    pub(super) fn spawn(command: &mut Command) -> io::Result<Child> {
        let signals = signals();
        signals.thread_unblock()?;
        let child = command.spawn();
        signals.thread_block()?;
        child
    }

    fn signals() -> SigSet {
        let mut signals = SigSet::empty();
        signals.add(Number::SIGTERM);
        if !hang_up_is_ignored() {
            signals.add(Number::SIGHUP);
        }
        signals
    }

    /// Whether the program shall outlive its terminal, as `nohup` has it. Where that cannot be told, the system's default
    /// stays.
    fn hang_up_is_ignored() -> bool {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        ignores_hang_up(&status).unwrap_or(true)
    }

    /// The same, from the kernel's description of a process.
    pub(super) fn ignores_hang_up(status: &str) -> Option<bool> {
        let mut lines = status.lines();
        let ignored = lines.find_map(|line| line.strip_prefix("SigIgn:"))?;
        let ignored = u64::from_str_radix(ignored.trim(), 16).ok()?;
        Some(ignored & (1 << (Number::SIGHUP as u32 - 1)) != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_stops_work_once() {
        let work = |runs, only_ctrl_c| Work {
            message: "",
            runs: Arc::new(AtomicBool::new(runs)),
            stop: Arc::default(),
            only_ctrl_c,
        };
        let run = work(true, false);
        assert!(run.heeds(Signal::Terminate) && run.stop.load(Ordering::SeqCst));
        // the second ends the program
        assert!(!run.heeds(Signal::Interrupt));
        assert!(!work(false, false).heeds(Signal::Interrupt));
        let answer = work(true, true);
        assert!(!answer.heeds(Signal::Terminate) && !answer.stop.load(Ordering::SeqCst));
        assert!(answer.heeds(Signal::Interrupt));
        let codes = [Signal::Interrupt, Signal::Terminate, Signal::HangUp].map(Signal::exit_code);
        assert_eq!(codes, [130, 143, 129]);
    }

    #[cfg(unix)]
    #[test]
    fn nohup_is_respected() {
        let of = of_unix::ignores_hang_up;
        assert_eq!(of("Name:\tsimmer\nSigIgn:\t0000000000001005\n"), Some(true));
        assert_eq!(
            of("SigBlk:\t0000000000000001\nSigIgn:\t0000000000001004\n"),
            Some(false)
        );
        assert_eq!(of(""), None);
    }
}
