//! The file system of a program: what it may read, and one folder in memory that it may write.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, openat};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::Mode;
use nix::unistd::{chdir, pivot_root};

use super::job::Job;
use super::{Refusal, Step};

/// The folder that a program may write.
pub(super) const SCRATCH: &str = "/tmp";

/// Where the new root is built. Every Linux has this folder, and nothing that is shown is below it.
const NEW: &str = "/proc";

/// The folders and files of the system that programs need: libraries, and how they are found.
pub(super) const SYSTEM: [&str; 9] = [
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/etc/ld.so.cache",
    "/etc/alternatives",
    "/nix/store",
];

const DEVICES: [&str; 4] = ["/dev/null", "/dev/zero", "/dev/random", "/dev/urandom"];

const NOTHING: Option<&str> = None;

/// Changes the root to a file system that has only what a program needs. `proc` is the folder `/proc`.
pub(super) fn new_root(proc: impl AsFd, job: &Job) -> Result<(), Refusal> {
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(NOTHING, "/", NOTHING, private, NOTHING).step("make mounts private")?;
    let safe = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    in_memory(NEW, safe, "size=1m,mode=0755")?;
    for device in DEVICES {
        show(Path::new(device))?;
    }
    let shown = job.system.iter().chain(&job.python.folders);
    let mut done: Vec<&PathBuf> = Vec::new();
    for path in shown {
        if !done.iter().any(|above| path.starts_with(above)) {
            show(path)?;
            done.push(path);
        }
    }
    read_only(&proc)?;
    let scratch = format!("{NEW}{SCRATCH}");
    fs::create_dir(&scratch).step("create the scratch folder")?;
    let size = format!("size={},nr_inodes=1024,mode=0777", job.limits.scratch);
    in_memory(&scratch, safe | MsFlags::MS_NOEXEC, &size)?;
    chdir(NEW).step("enter the new root")?;
    pivot_root(".", ".").step("change the root")?;
    umount2(".", MntFlags::MNT_DETACH).step("leave the old root")?;
    chdir("/").step("enter the new root")?;
    let root = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | safe;
    mount(NOTHING, "/", NOTHING, root, NOTHING).step("make the root read-only")
}

fn in_memory(path: &str, flags: MsFlags, options: &str) -> Result<(), Refusal> {
    let mounted = mount(Some("tmpfs"), path, Some("tmpfs"), flags, Some(options));
    mounted.step("mount a file system in memory")
}

/// Shows a file or folder of the machine at the same path, with what is mounted in it. A symbolic link stays one.
fn show(path: &Path) -> Result<(), Refusal> {
    let Ok(kind) = path.symlink_metadata() else {
        return Ok(());
    };
    let step = format!("show {}", path.display());
    let inside = Path::new(NEW).join(path.strip_prefix("/").unwrap_or(path));
    if let Some(parent) = inside.parent() {
        fs::create_dir_all(parent).step(&step)?;
    }
    if kind.is_symlink() {
        return symlink(fs::read_link(path).step(&step)?, &inside).step(&step);
    }
    if kind.is_dir() {
        fs::create_dir_all(&inside).step(&step)?;
    } else {
        File::create(&inside).step(&step)?;
    }
    let all = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some(path), &inside, NOTHING, all, NOTHING).step(&step)
}

/// Makes all mounts below the new root read-only, except devices.
fn read_only(proc: impl AsFd) -> Result<(), Refusal> {
    let step = "list mounts";
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    let file = openat(&proc, "self/mountinfo", flags, Mode::empty()).step(step)?;
    let mut text = String::new();
    File::from(file).read_to_string(&mut text).step(step)?;
    for (path, options) in text.lines().filter_map(mounted) {
        let Ok(inside) = path.strip_prefix(NEW) else {
            continue;
        };
        if inside.as_os_str().is_empty() {
            continue;
        }
        let mut flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_NOSUID;
        if inside.starts_with("dev") {
            flags |= MsFlags::MS_NOEXEC;
        } else {
            flags |= MsFlags::MS_NODEV | MsFlags::MS_RDONLY;
        }
        // flags that the machine's own mounts have cannot be removed
        for (name, flag) in [("noexec", MsFlags::MS_NOEXEC), ("ro", MsFlags::MS_RDONLY)] {
            if options.split(',').any(|option| option == name) {
                flags |= flag;
            }
        }
        let what = format!("make {} read-only", path.display());
        mount(NOTHING, &path, NOTHING, flags, NOTHING).step(&what)?;
    }
    Ok(())
}

/// The path and the options of a line of `mountinfo`.
fn mounted(line: &str) -> Option<(PathBuf, &str)> {
    let mut fields = line.split(' ').skip(4);
    let (path, options) = (fields.next()?, fields.next()?);
    // spaces and the like are octal numbers
    let mut plain = Vec::new();
    let mut rest = path.as_bytes();
    while let [first, after @ ..] = rest {
        let number = after
            .get(..3)
            .and_then(|digits| std::str::from_utf8(digits).ok());
        let number = number.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        if let (b'\\', Some(number)) = (first, number) {
            plain.push(number);
            rest = &after[3..];
        } else {
            plain.push(*first);
            rest = after;
        }
    }
    Some((PathBuf::from(String::from_utf8(plain).ok()?), options))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_mountinfo_is_read() {
        let line = r"36 35 98:0 /mnt1 /proc/my\040files rw,noatime master:1 - ext3 /dev/root rw";
        let expected = (PathBuf::from("/proc/my files"), "rw,noatime");
        assert_eq!(mounted(line), Some(expected));
        assert_eq!(mounted("36 35"), None);
    }
}
