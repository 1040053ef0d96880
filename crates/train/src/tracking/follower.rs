//! Sends a run to a server from a thread of its own, so that no step waits for the server.
//!
//! The thread needs no queue: it reads `metrics.jsonl`, of which the service knows how many lines the server has.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use simmer_hint::Hint;

use super::{Ending, Tracker, Unsent};
use crate::error::TrainError;
use crate::metrics::Metrics;

/// A server that is sent a run.
pub(super) trait Service: Send + 'static {
    /// Sends what the server does not have yet.
    fn advance(&mut self) -> Result<(), Unsent>;

    /// Keeps on disk how the run ended.
    fn remember(&mut self, ending: Ending) -> Result<(), Unsent>;

    /// Tells the server that the run has ended as remembered.
    fn close(&mut self) -> Result<(), Unsent>;

    /// Messages for the user since the last call.
    fn notices(&mut self) -> Vec<String>;
}

/// The times of a follower.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// Between two requests, so that fast steps are sent together.
    pub(super) interval: Duration,
    /// Before a failed request is sent again; it doubles.
    pub(super) retry: Duration,
    /// The most that it doubles to.
    pub(super) longest: Duration,
    /// How long the end of the run waits for the server.
    pub(super) at_end: Duration,
    /// How much of that passes before the user is told what the program waits for.
    pub(super) unnoticed: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(1),
            retry: Duration::from_secs(2),
            longest: Duration::from_mins(1),
            at_end: Duration::from_secs(10),
            unnoticed: Duration::from_millis(500),
        }
    }
}

/// A thread that sends a run.
pub(super) struct Follower {
    name: &'static str,
    /// The command that sends what is left.
    later: String,
    pace: Pace,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Lines have been written since the last request.
    news: bool,
    ending: Option<Ending>,
    /// The thread is to end after its current request.
    quit: bool,
    /// The thread has ended, and whether the server has everything.
    done: Option<bool>,
    notices: Vec<String>,
}

/// Why the thread goes on.
enum Wake {
    /// There is something to send.
    News,
    /// The run has ended.
    Ended(Ending),
    /// Nobody waits for the thread any more.
    Quit,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    /// Waits for the thread to end, but no longer than `pause`; whether it has ended.
    fn is_done_within(&self, pause: Duration) -> bool {
        let waited = self
            .changed
            .wait_timeout_while(self.lock(), pause, |state| state.done.is_none());
        let state = waited.unwrap_or_else(PoisonError::into_inner).0;
        state.done.is_some()
    }

    /// Waits for news, but at least for `pause`, and for the end of the run. With `again`, the pause alone is enough.
    fn wait(&self, pause: Duration, again: bool) -> Wake {
        let until = Instant::now() + pause;
        let mut state = self.lock();
        loop {
            if state.quit {
                return Wake::Quit;
            }
            let left = until.saturating_duration_since(Instant::now());
            if state.ending.is_some() || (left.is_zero() && (state.news || again)) {
                state.news = false;
                return state.ending.map_or(Wake::News, Wake::Ended);
            }
            let left = if left.is_zero() {
                Duration::from_hours(1)
            } else {
                left
            };
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Follower {
    /// Starts the thread. `later` is the command that sends what is left when the run ends.
    ///
    /// # Errors
    /// The system has no thread.
    pub(super) fn start(
        name: &'static str,
        service: impl Service,
        later: String,
        pace: Pace,
    ) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        // what earlier starts left, and the start itself
        shared.lock().news = true;
        let of_thread = Arc::clone(&shared);
        let thread = thread::Builder::new().name(name.to_owned());
        thread.spawn(move || {
            let whole = follow(name, service, &of_thread, pace);
            of_thread.change(|state| state.done = Some(whole));
        })?;
        Ok(Self {
            name,
            later,
            pace,
            shared,
        })
    }
}

/// Sends until the run ends; whether the server then has everything.
fn follow(name: &str, mut service: impl Service, shared: &Shared, pace: Pace) -> bool {
    let (mut pause, mut failing) = (Duration::ZERO, false);
    loop {
        let ending = match shared.wait(pause, failing) {
            Wake::News => None,
            Wake::Ended(ending) => Some(ending),
            Wake::Quit => return false,
        };
        let sent = advance(&mut service, ending);
        shared.lock().notices.extend(service.notices());
        match sent {
            Ok(()) if ending.is_some() => return true,
            Ok(()) => {
                if failing {
                    shared
                        .lock()
                        .notices
                        .push(format!("{name}: reachable again"));
                }
                (pause, failing) = (pace.interval, false);
            }
            Err(why) => {
                if !failing || !why.is_transient() {
                    shared.lock().notices.push(warning(name, &why));
                }
                // at the end, a server that worked until then gets one more request
                if !why.is_transient() || (ending.is_some() && failing) {
                    return false;
                }
                pause = if failing { pause * 2 } else { pace.retry };
                pause = pause.min(pace.longest);
                failing = true;
                if ending.is_some() {
                    thread::sleep(pace.retry.min(pace.at_end / 4));
                }
            }
        }
    }
}

/// Sends what is new, and the end of the run.
fn advance(service: &mut impl Service, ending: Option<Ending>) -> Result<(), Unsent> {
    if let Some(ending) = ending {
        service.remember(ending)?;
    }
    service.advance()?;
    match ending {
        Some(_) => service.close(),
        None => Ok(()),
    }
}

/// The one warning about a server that does not take the run.
fn warning(name: &str, why: &Unsent) -> String {
    let hint = why.hint().map(|hint| format!("\nhint: {hint}"));
    format!(
        "warning: {name}: {why}; training continues, and metrics.jsonl keeps what is not sent{}",
        hint.unwrap_or_default()
    )
}

impl Tracker for Follower {
    fn name(&self) -> &'static str {
        self.name
    }

    fn record(&mut self, _line: &Metrics) -> Result<(), TrainError> {
        self.shared.change(|state| state.news = true);
        Ok(())
    }

    fn notices(&mut self) -> Vec<String> {
        std::mem::take(&mut self.shared.lock().notices)
    }

    fn end(&mut self, ending: Ending, notify: &mut dyn FnMut(&str)) {
        let Pace {
            at_end, unnoticed, ..
        } = self.pace;
        self.shared.change(|state| state.ending = Some(ending));
        if !self.shared.is_done_within(unnoticed) {
            notify(&format!(
                "{}: waiting up to {} s for the server to take the rest of the run",
                self.name,
                at_end.as_secs()
            ));
            self.shared.is_done_within(at_end.saturating_sub(unnoticed));
        }
        let mut state = self.shared.lock();
        state.quit = true;
        if state.done != Some(true) {
            let rest = format!(
                "{}: the server does not have the whole run; send the rest with: {}",
                self.name, self.later
            );
            state.notices.push(rest);
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.shared.change(|state| state.quit = true);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    const FAST: Pace = Pace {
        interval: Duration::from_millis(1),
        retry: Duration::from_millis(1),
        longest: Duration::from_millis(4),
        at_end: Duration::from_secs(20),
        unnoticed: Duration::from_secs(10),
    };

    /// A service that answers as a script says, and reports each call.
    struct Scripted {
        answers: Receiver<Result<(), Unsent>>,
        calls: Sender<&'static str>,
    }

    impl Service for Scripted {
        fn advance(&mut self) -> Result<(), Unsent> {
            let _ = self.calls.send("advance");
            self.answers.recv().unwrap_or(Ok(()))
        }

        fn remember(&mut self, _: Ending) -> Result<(), Unsent> {
            let _ = self.calls.send("remember");
            Ok(())
        }

        fn close(&mut self) -> Result<(), Unsent> {
            let _ = self.calls.send("close");
            Ok(())
        }

        fn notices(&mut self) -> Vec<String> {
            Vec::new()
        }
    }

    fn down() -> Unsent {
        Unsent::Unreachable {
            server: "http://here:1".to_owned(),
            reason: "connection refused".to_owned(),
        }
    }

    /// The calls and messages of a run whose first requests are answered so.
    fn run(script: Vec<Result<(), Unsent>>, pace: Pace) -> (Vec<&'static str>, Vec<String>) {
        let (answer, answers) = channel();
        let (calls, called) = channel();
        let service = Scripted { answers, calls };
        let later = "simmer track RUN".to_owned();
        let mut follower = Follower::start("Test", service, later, pace).unwrap();
        let wanted = script.len();
        for result in script {
            answer.send(result).unwrap();
        }
        let mut seen: Vec<&str> = Vec::new();
        for _ in 0..wanted {
            seen.push(called.recv().unwrap());
            follower.shared.change(|state| state.news = true);
        }
        // further requests succeed
        drop(answer);
        let mut notices = Vec::new();
        follower.end(Ending::Finished, &mut |text| notices.push(text.to_owned()));
        notices.extend(follower.notices());
        drop(follower);
        seen.extend(called.iter());
        (seen, notices)
    }

    #[test]
    fn a_server_that_is_down_is_warned_of_once_and_tried_again() {
        let (calls, notices) = run(vec![Err(down()), Err(down()), Err(down())], FAST);
        assert_eq!(calls[..3], ["advance"; 3]);
        assert_eq!(calls[calls.len() - 3..], ["remember", "advance", "close"]);
        insta::assert_snapshot!(notices[0], @"warning: Test: http://here:1 cannot be reached: connection refused; training continues, and metrics.jsonl keeps what is not sent");
        let warnings = notices.iter().filter(|text| text.starts_with("warning"));
        assert_eq!(warnings.count(), 1, "{notices:?}");
        assert!(!notices.iter().any(|text| text.contains("simmer track")));
    }

    #[test]
    fn what_a_server_refuses_is_not_sent_again() {
        let refused = Unsent::Status {
            url: "http://here:1/x".to_owned(),
            status: 401,
            said: None,
            code: None,
        };
        let (calls, notices) = run(vec![Err(refused)], FAST);
        assert_eq!(calls, ["advance"]);
        assert_eq!(
            notices.last().unwrap(),
            "Test: the server does not have the whole run; send the rest with: simmer track RUN"
        );
    }

    /// The last request is never answered.
    #[test]
    fn the_end_of_a_run_does_not_wait_for_a_server_that_hangs() {
        let (answer, answers) = channel();
        let (calls, called) = channel();
        let service = Scripted { answers, calls };
        let pace = Pace {
            at_end: Duration::from_secs(1),
            unnoticed: Duration::from_millis(10),
            ..FAST
        };
        let mut follower = Follower::start("Test", service, "later".to_owned(), pace).unwrap();
        called.recv().unwrap();
        let mut told = Vec::new();
        follower.end(Ending::Interrupted, &mut |text| told.push(text.to_owned()));
        assert_eq!(
            told,
            ["Test: waiting up to 1 s for the server to take the rest of the run"]
        );
        assert!(follower.notices()[0].contains("send the rest with: later"));
        drop(answer);
    }
}
