//! Users of a new user namespace.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::Path;

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid};

use super::{Refusal, Step};

/// The user and group without rights, whose number is the same inside and outside.
pub(super) const NOBODY: u32 = 65534;

/// Gives the new user namespace of process `id` root and `NOBODY`, which only root can. Whether that succeeded.
pub(super) fn map_with_nobody(id: u32) -> bool {
    let folder = Path::new("/proc").join(id.to_string());
    let both = format!("0 0 1\n{NOBODY} {NOBODY} 1\n");
    let write = |name: &str| {
        let mut file = File::options().write(true).open(folder.join(name))?;
        file.write_all(both.as_bytes())
    };
    let mapped = || -> io::Result<()> {
        write("uid_map")?;
        write("gid_map")
    };
    mapped().is_ok()
}

/// Whether this user is root outside all namespaces, too.
pub(super) fn is_root_of_the_machine() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let mut numbers = map.split_whitespace();
    Uid::effective().is_root() && numbers.next() == Some("0") && numbers.next() == Some("0")
}

/// Maps one user and group of the namespace that this process has just created. `proc` is the folder `/proc`.
pub(super) fn map_one(proc: impl AsFd, inside: u32, outside: (Uid, Gid)) -> Result<(), Refusal> {
    let write = |name: &str, text: String| {
        let step = format!("write /proc/self/{name}");
        let path = format!("self/{name}");
        let file = openat(
            &proc,
            path.as_str(),
            OFlag::O_WRONLY | OFlag::O_CLOEXEC,
            Mode::empty(),
        );
        let mut file = File::from(file.step(&step)?);
        file.write_all(text.as_bytes()).step(&step)
    };
    let (user, group) = outside;
    write("setgroups", "deny".to_owned())?;
    write("uid_map", format!("{inside} {user} 1"))?;
    write("gid_map", format!("{inside} {group} 1"))
}
