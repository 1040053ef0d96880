//! Starts the outer stage, and says how a program ended.

use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::unistd::Uid;

use super::job::Job;
use super::{OUTER, code, mounts, names};
use crate::{Limits, Outcome, Python, SandboxError};

/// How long the stages may take until a program begins, and how long to end it, on a busy machine.
pub(super) const GRACE: Duration = Duration::from_secs(30);

/// The only variable that the stages keep: where the libraries of this program are. Python does not get it.
const KEPT: &str = "LD_LIBRARY_PATH";

/// A running program, as its readers see it.
struct Watched {
    /// The pipe that keeps the program alive: when it closes, the outer stage ends the program.
    stdin: Mutex<Option<ChildStdin>>,
    /// When the program began: its first output.
    begun: OnceLock<Instant>,
    /// The bytes that it may still write.
    left: AtomicUsize,
}

impl Watched {
    fn end(&self) {
        if let Ok(mut stdin) = self.stdin.lock() {
            *stdin = None;
        }
    }
}

pub(crate) fn run(
    program: &Path,
    python: &Python,
    limits: &Limits,
    code: &str,
) -> Result<Outcome, SandboxError> {
    let start = |source: io::Error| SandboxError::Start { source };
    let mut command = Command::new(program);
    command.arg(OUTER).env_clear().current_dir("/");
    if let Some(value) = std::env::var_os(KEPT) {
        command.env(KEPT, value);
    }
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut outer = command.spawn().map_err(start)?;
    let (Some(mut stdin), Some(mut stdout), Some(stderr)) =
        (outer.stdin.take(), outer.stdout.take(), outer.stderr.take())
    else {
        return Err(start(io::ErrorKind::BrokenPipe.into()));
    };
    let mut ready = [0];
    let is_ready = stdout.read_exact(&mut ready).is_ok();
    let has_nobody = is_ready && Uid::effective().is_root() && names::map_with_nobody(outer.id());
    if is_ready && !has_nobody && names::is_root_of_the_machine() {
        return Err(SandboxError::Refused {
            step: format!(
                "map the user {}; processes of root cannot be counted",
                names::NOBODY
            ),
        });
    }
    let job = Job {
        python: python.clone(),
        limits: *limits,
        code: code.to_owned(),
        begin: secret(),
        end: secret(),
        has_nobody,
        system: mounts::SYSTEM.map(Into::into).to_vec(),
    };
    if is_ready {
        // if it has ended already, it has said why
        let _ = stdin.write_all(&job.to_line().map_err(start)?);
    }
    let watched = Watched {
        stdin: Mutex::new(Some(stdin)),
        begun: OnceLock::new(),
        left: AtomicUsize::new(limits.output),
    };
    let ends = thread::scope(|scope| {
        let said = scope.spawn(|| read(stdout, &watched, true));
        let complained = scope.spawn(|| read(stderr, &watched, false));
        let ended = wait(&mut outer, limits, &watched);
        watched.end();
        let texts = [said, complained].map(|reader| reader.join().unwrap_or_default());
        ended.map(|ended| (ended, texts))
    });
    let ((status, is_late), [said, complained]) = ends.map_err(start)?;
    let too_much = watched.left.load(Ordering::Relaxed) == 0;
    let limit = match (too_much, is_late) {
        (true, _) => Some(Outcome::TooMuchOutput),
        (false, true) => Some(Outcome::TimedOut),
        (false, false) => None,
    };
    outcome(status, &said, &complained, limit, &job)
}

fn outcome(
    status: ExitStatus,
    said: &[u8],
    complained: &[u8],
    limit: Option<Outcome>,
    job: &Job,
) -> Result<Outcome, SandboxError> {
    let complained = String::from_utf8_lossy(complained);
    let last = complained
        .lines()
        .map(str::trim)
        .rfind(|line| !line.is_empty());
    let status = status.code().map(|code| code.clamp(0, 255) as u8);
    let Some(said) = said.strip_prefix(job.begin.as_bytes()) else {
        return Err(SandboxError::Refused {
            step: last
                .unwrap_or("it ended before the program began")
                .to_owned(),
        });
    };
    if let Some(limit) = limit {
        return Ok(limit);
    }
    Ok(match status {
        Some(code::MEMORY) => Outcome::TooMuchMemory,
        _ if said.ends_with(job.end.as_bytes()) => Outcome::Passed,
        Some(code::KILLED | code::TIME) | None => Outcome::Failed("killed".to_owned()),
        Some(code) => Outcome::Failed(match last {
            Some(line) => line.chars().take(500).collect(),
            None => format!("exit code {code}"),
        }),
    })
}

/// Reads to the end, and keeps what is within the limit; above it, the program is ended.
fn read(mut from: impl Read, watched: &Watched, begins: bool) -> Vec<u8> {
    let mut kept = Vec::new();
    let mut piece = [0; 16 << 10];
    loop {
        match from.read(&mut piece) {
            Ok(0) => return kept,
            Ok(read) => {
                if begins {
                    watched.begun.get_or_init(Instant::now);
                }
                let left = &watched.left;
                let before = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                    Some(left.saturating_sub(read))
                });
                let is_within = before.unwrap_or(0) > read;
                // The other stream may use up the limit before this one is read; that the program has begun is kept.
                if is_within || (begins && kept.is_empty()) {
                    kept.extend_from_slice(&piece[..read]);
                }
                if !is_within {
                    watched.end();
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return kept,
        }
    }
}

/// Waits for the end of the outer stage, and has the program ended when its time is up; whether it was. The time runs from the
/// program's begin. An outer stage that does not end is killed, and its own end kills the program.
fn wait(outer: &mut Child, limits: &Limits, watched: &Watched) -> io::Result<(ExitStatus, bool)> {
    let latest = limits.time().saturating_add(2 * GRACE);
    let start = Instant::now();
    let mut is_late = false;
    loop {
        if let Some(status) = outer.try_wait()? {
            return Ok((status, is_late));
        }
        let begun = watched.begun.get();
        if !is_late && begun.is_some_and(|begun| begun.elapsed() >= limits.time()) {
            is_late = true;
            watched.end();
        }
        if start.elapsed() > latest {
            outer.kill()?;
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// A text that a program cannot guess: from the seeds that the system gives hash maps.
fn secret() -> String {
    use std::hash::{BuildHasher, RandomState};
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let [a, b] = [0, 1].map(|half| RandomState::new().hash_one((half, now)));
    format!("{a:016x}{b:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watched(left: usize) -> Watched {
        Watched {
            stdin: Mutex::new(None),
            begun: OnceLock::new(),
            left: AtomicUsize::new(left),
        }
    }

    #[test]
    fn the_begin_is_kept_when_the_other_stream_has_used_up_the_limit() {
        let watched = watched(4);
        assert_eq!(read(&b"error"[..], &watched, false), b"");
        assert_eq!(read(&b"begin"[..], &watched, true), b"begin");
        assert!(watched.begun.get().is_some());
    }

    #[test]
    fn output_above_the_limit_is_dropped() {
        let watched = watched(10);
        let two = (&b"begin"[..]).chain(&b"more than is left"[..]);
        assert_eq!(read(two, &watched, true), b"begin");
        assert_eq!(watched.left.load(Ordering::Relaxed), 0);
    }
}
