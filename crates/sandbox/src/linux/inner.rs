//! The inner stage: process 1 of its namespace, which gives up everything and becomes Python.

use std::convert::Infallible;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::fcntl::{OFlag, open};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid, chdir, setgroups, setresgid, setresuid};

use super::job::Job;
use super::names::NOBODY;
use super::{Refusal, Step, filter, mounts, names};

const RUNNER: &str = include_str!("runner.py");

/// Returns only if a step is refused.
pub(super) fn inner() -> Result<Infallible, Refusal> {
    die_with_the_outer_stage()?;
    let job = Job::read(&mut io::stdin().lock()).step("read the job")?;
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let proc = open("/proc", flags, Mode::empty()).step("open /proc")?;
    unshare(CloneFlags::CLONE_NEWNS).step("create a mount namespace")?;
    mounts::new_root(&proc, &job)?;
    write_programs(&job)?;
    let user = become_nobody(&job)?;
    // A second user namespace, in which the mounts are locked. It has no root, so Python starts without privileges.
    let spaces = CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS;
    unshare(spaces).step("create a second user namespace")?;
    prctl::set_dumpable(true).step("open /proc/self")?;
    names::map_one(&proc, NOBODY, user)?;
    drop(proc);
    // changing users has removed it
    die_with_the_outer_stage()?;
    limit(&job)?;
    filter::install()?;
    let error = Command::new(&job.python.executable)
        .args(["-B", "-s", "runner.py"])
        .env_clear()
        .envs([
            ("HOME", mounts::SCRATCH),
            ("LANG", "C.UTF-8"),
            ("PATH", "/usr/bin:/bin"),
            // the order of sets is the same in every run
            ("PYTHONHASHSEED", "0"),
            ("TMPDIR", mounts::SCRATCH),
        ])
        .exec();
    Err(format!(
        "start {}: {error}",
        job.python.executable.display()
    ))
}

fn die_with_the_outer_stage() -> Result<(), Refusal> {
    prctl::set_pdeathsig(Signal::SIGKILL).step("set the signal of the parent's end")
}

fn write_programs(job: &Job) -> Result<(), Refusal> {
    chdir(mounts::SCRATCH).step("enter the scratch folder")?;
    let filled = [
        ("MEMORY", job.limits.memory.to_string()),
        ("BEGIN", job.begin.clone()),
        ("END", job.end.clone()),
    ];
    let runner = filled
        .iter()
        .fold(RUNNER.to_owned(), |text, (name, value)| {
            text.replace(name, value)
        });
    fs::write("runner.py", runner).step("write the program")?;
    fs::write("program.py", &job.code).step("write the program")
}

/// Changes to a user without rights, if the namespace has one. Processes of the machine's root could not be counted.
fn become_nobody(job: &Job) -> Result<(Uid, Gid), Refusal> {
    if job.has_nobody {
        let (user, group) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
        setgroups(&[]).step("leave all groups")?;
        setresgid(group, group, group).step("change the group")?;
        setresuid(user, user, user).step("change the user")?;
        prctl::set_dumpable(true).step("open /proc/self")?;
    }
    Ok((Uid::effective(), Gid::effective()))
}

fn limit(job: &Job) -> Result<(), Refusal> {
    let limits = &job.limits;
    let all = [
        // with what the start of this process has taken
        (Resource::RLIMIT_CPU, limits.seconds.ceil() as u64 + 1),
        (Resource::RLIMIT_NPROC, limits.processes),
        (Resource::RLIMIT_NOFILE, limits.files),
        (Resource::RLIMIT_FSIZE, limits.scratch),
        (Resource::RLIMIT_CORE, 0),
        (Resource::RLIMIT_MEMLOCK, 0),
        (Resource::RLIMIT_MSGQUEUE, 0),
    ];
    for (resource, most) in all {
        setrlimit(resource, most, most).step("set limits")?;
    }
    Ok(())
}
