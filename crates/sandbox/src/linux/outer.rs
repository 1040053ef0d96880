//! The outer stage: creates namespaces, starts the inner stage in them, and watches the time.

use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::time::Instant;

use nix::fcntl::{OFlag, open};
use nix::poll::{PollFd, PollFlags, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid, close};

use super::job::Job;
use super::run::GRACE;
use super::{INNER, Refusal, Step, code, memory, names};

/// How often the inner stage is looked at, in milliseconds.
const TICK: u16 = 3;

pub(super) fn outer() -> Result<ExitCode, Refusal> {
    close_inherited()?;
    let user = (Uid::effective(), Gid::effective());
    unshare(CloneFlags::CLONE_NEWUSER).step("create a user namespace")?;
    // the one who started this now maps users, and then says what to do
    let mut output = io::stdout();
    let said = output.write_all(b".").and_then(|()| output.flush());
    said.step("write to the program")?;
    let input = fs::File::from(
        io::stdin()
            .as_fd()
            .try_clone_to_owned()
            .step("read the job")?,
    );
    let job = Job::read(&mut &input).step("read the job")?;
    if !job.has_nobody {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let proc = open("/proc", flags, Mode::empty()).step("open /proc")?;
        names::map_one(&proc, 0, user)?;
    }
    let spaces = CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS;
    unshare(spaces).step("create process, network and IPC namespaces")?;
    let begin = Instant::now();
    let mut inner = Command::new("/proc/self/exe")
        .arg(INNER)
        .stdin(Stdio::piped())
        .spawn()
        .step("start the inner stage")?;
    if let (Some(mut stdin), Ok(line)) = (inner.stdin.take(), job.to_line()) {
        // if it has ended already, its exit code says why
        let _ = stdin.write_all(&line);
    }
    watch(&mut inner, begin, &job, input.as_fd())
}

/// Waits for the end, the time, too much memory, or the end of the program that started this one. The inner stage is process 1 of its
/// namespace: when it is killed, the kernel kills all others, before `wait` returns.
fn watch(
    inner: &mut Child,
    begin: Instant,
    job: &Job,
    input: BorrowedFd<'_>,
) -> Result<ExitCode, Refusal> {
    // whoever started this ends the program in time, by its own clock
    let latest = job.limits.time().saturating_add(GRACE);
    let ended = loop {
        if let Some(status) = inner.try_wait().step("wait")? {
            break exit_code(status);
        }
        let is_late = begin.elapsed() >= latest;
        let mut fds = [PollFd::new(input, PollFlags::empty())];
        let hung_up = poll(&mut fds, TICK).is_ok_and(|ready| ready > 0);
        let is_large = memory::is_above(inner.id(), job.limits.total_memory);
        if is_late || hung_up || is_large {
            inner.kill().step("end the program")?;
            inner.wait().step("wait")?;
            break match (is_large, is_late) {
                (true, _) => code::MEMORY,
                (false, true) => code::TIME,
                (false, false) => code::KILLED,
            };
        }
    };
    Ok(ExitCode::from(ended))
}

fn exit_code(status: ExitStatus) -> u8 {
    match (status.code(), status.signal()) {
        (Some(code), _) if code == i32::from(code::REFUSED) => code::REFUSED,
        (Some(code), _) => u8::try_from(code)
            .unwrap_or(code::LARGEST)
            .min(code::LARGEST),
        (None, _) => code::KILLED,
    }
}

/// Closes the files that were inherited: what another library left open is not for the program.
fn close_inherited() -> Result<(), Refusal> {
    let listed = fs::read_dir("/proc/self/fd").step("list /proc/self/fd")?;
    let numbers = listed
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let numbers: Vec<i32> = numbers.collect();
    for number in numbers.into_iter().filter(|number| *number > 2) {
        // the one that lists them is closed already
        let _ = close(number);
    }
    Ok(())
}
