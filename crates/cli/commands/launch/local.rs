//! Ranks on this machine.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use simmer_files::size::counted;
use simmer_model::device;
use simmer_train::program;

use super::amount::Gpus;
use super::mpirun::{self, Mpirun, Share};
use super::{COMMAND, GRACE, PROCESS_FILE};
use crate::failure::{Context, Failure, bail};
use crate::interrupt;
use crate::output::note;

/// How long the launcher has to end the ranks before it is killed.
const LAST: Duration = Duration::from_secs(5);

/// Checks the numbers of ranks and GPUs.
///
/// # Errors
/// No rank, or another number of GPUs.
pub(super) fn check(ranks: usize, gpus: Option<&Gpus>) -> Result<(), Failure> {
    if ranks == 0 {
        bail!("--local: expected 1 rank or more, found 0");
    }
    if let Some(gpus) = gpus
        && gpus.count != ranks
    {
        let text = format!(
            "--gpus: expected {ranks}, one for each rank, found {}",
            gpus.count
        );
        return Err(Failure::new(text).with_hint("each rank computes on one GPU"));
    }
    Ok(())
}

/// Starts the ranks, waits for their end, and returns their exit code.
///
/// # Errors
/// Ranks that cannot be started.
pub(super) fn start(
    ranks: usize,
    gpus: Option<&Gpus>,
    grace: u32,
    train: &[String],
) -> Result<ExitCode, Failure> {
    if gpus.is_some() {
        // without this many the ranks would compute on the processor
        device::named(&format!("libtorch-cuda:{}", ranks - 1))?;
    }
    let program = env::current_exe()
        .map_err(Failure::foreign)
        .context("cannot find the program")?;
    let mut command = if ranks == 1 {
        Command::new(&program)
    } else {
        let mut command = started_by_mpi(ranks)?;
        command.args(mpirun::one_gpu(gpus)).arg(&program);
        command
    };
    let folder = tempfile::tempdir()?;
    let process = folder.path().join("process");
    command
        .arg("train")
        .args(train)
        .env(PROCESS_FILE, &process)
        .env(COMMAND, words(ranks, gpus, grace))
        .stdin(Stdio::null());
    // signals of the terminal reach this process alone
    own_group(&mut command);
    let signals = interrupt::passed();
    let child = interrupt::spawn(&mut command);
    let child = child.map_err(Failure::foreign).with_context(|| {
        let program: &OsStr = command.get_program();
        format!("cannot start {}", Path::new(program).display())
    })?;
    let grace = Duration::from_secs(grace.into());
    let code = wait(child, &process, &signals, grace)?;
    if code == 0 && !process.exists() {
        let program = Path::new(command.get_program()).display();
        return Err(
            Failure::new(format!("{program} has ended, and has started no rank")).with_hint(
                "the variable MPIRUN names the mpirun of the MPI that simmer was built with",
            ),
        );
    }
    Ok(ExitCode::from(code))
}

/// The words of the command before those of `simmer train`.
fn words(ranks: usize, gpus: Option<&Gpus>, grace: u32) -> String {
    let gpus = gpus.map(|gpus| format!(" --gpus {}", gpus.count));
    let grace = (grace != GRACE).then(|| format!(" --grace {grace}"));
    let [gpus, grace] = [gpus, grace].map(Option::unwrap_or_default);
    format!("simmer launch --local {ranks}{gpus}{grace}")
}

/// The command of the MPI, which says what it uses.
fn started_by_mpi(ranks: usize) -> Result<Command, Failure> {
    if !program::features().iter().any(|feature| feature == "mpi") {
        let text = format!(
            "cannot start {}: this build of simmer has no MPI, which connects them",
            counted(ranks, "rank")
        );
        return Err(Failure::new(text).with_hint(
            "build it with MPI: eval \"$(tools/mpi)\", then cargo build --release --features mpi",
        ));
    }
    let mpirun = Mpirun::find()?;
    let share = Share::of(ranks);
    if share.cores == 0 {
        note(&format!(
            "warning: {} on fewer processor cores: they wait for each other; start at most one for each core",
            counted(ranks, "rank")
        ));
    }
    note(&format!(
        "starting {}, {share}, with {} ({})",
        counted(ranks, "rank"),
        mpirun.path.display(),
        mpirun.version
    ));
    Ok(mpirun.command(ranks, share))
}

/// Waits for the end of the ranks, and returns their exit code. The first signal asks rank 0 to end the run; the second, or the end of the time, ends all.
fn wait(
    mut child: Child,
    process: &Path,
    signals: &Receiver<()>,
    grace: Duration,
) -> Result<u8, Failure> {
    const LOOK: Duration = Duration::from_millis(20);
    let mut asked: Option<Instant> = None;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(code(status));
        }
        let signal = match signals.recv_timeout(LOOK) {
            Ok(()) => true,
            Err(RecvTimeoutError::Timeout) => false,
            Err(RecvTimeoutError::Disconnected) => return Ok(code(child.wait()?)),
        };
        match asked {
            None if signal => {
                if !ask(process) {
                    // nothing is lost before the first step
                    return end(child);
                }
                asked = Some(Instant::now());
            }
            Some(_) if signal => return end(child),
            Some(since) if since.elapsed() > grace => {
                note(&format!(
                    "the run has not ended {} s after the signal (--grace): it is ended now; --resume goes on from its last checkpoint",
                    grace.as_secs()
                ));
                return end(child);
            }
            _ => {}
        }
    }
}

/// Asks rank 0 to write a checkpoint and end; `false` if there is none yet.
fn ask(process: &Path) -> bool {
    let text = fs::read_to_string(process).unwrap_or_default();
    text.trim().parse().is_ok_and(terminate)
}

/// Ends all ranks at once; the exit code is that of a program that SIGTERM ends.
fn end(mut child: Child) -> Result<u8, Failure> {
    const TERMINATED: u8 = 143;
    if terminate(child.id()) {
        let begin = Instant::now();
        while begin.elapsed() < LAST {
            if child.try_wait()?.is_some() {
                return Ok(TERMINATED);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    child.kill()?;
    child.wait()?;
    Ok(TERMINATED)
}

#[cfg(unix)]
fn own_group(command: &mut Command) {
    use std::os::unix::process::CommandExt;
    command.process_group(0);
}

#[cfg(not(unix))]
fn own_group(_: &mut Command) {}

/// Sends SIGTERM; `false` if there is no such process.
#[cfg(unix)]
fn terminate(process: u32) -> bool {
    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;
    kill(Pid::from_raw(process as i32), Signal::SIGTERM).is_ok()
}

#[cfg(not(unix))]
fn terminate(_: u32) -> bool {
    false
}

/// The exit code of a process, as shells have it.
fn code(status: ExitStatus) -> u8 {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return 128 + signal as u8;
    }
    status.code().map_or(1, |code| code as u8)
}
