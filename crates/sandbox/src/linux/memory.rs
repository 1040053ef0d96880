//! The memory of a program's processes together.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Whether the kernel lists the children of a process, by which all processes of a program are found.
pub(crate) fn is_counted() -> bool {
    Path::new("/proc/thread-self/children").exists()
}

/// Whether process `first` and those that descend from it have more than `limit` bytes together.
///
/// Pages that several processes share count once, where the kernel says how many share them: after a fork, child and parent share
/// all. Reading that takes longer, so it is read only if the sum without it is above the limit. Orphans are children of `first`,
/// which is process 1 of its namespace.
pub(super) fn is_above(first: u32, limit: u64) -> bool {
    let all = family(first);
    if all.iter().filter_map(|id| resident(*id)).sum::<u64>() <= limit {
        return false;
    }
    let shared = |id: &u32| proportional(*id).or_else(|| resident(*id));
    all.iter().filter_map(shared).sum::<u64>() > limit
}

/// A process and its descendants.
fn family(first: u32) -> Vec<u32> {
    let mut all = vec![first];
    let mut next = 0;
    while let Some(&id) = all.get(next) {
        next += 1;
        let threads = fs::read_dir(of(id).join("task"));
        for thread in threads.into_iter().flatten().flatten() {
            let children = text(&thread.path().join("children")).unwrap_or_default();
            all.extend(
                children
                    .split_ascii_whitespace()
                    .filter_map(|id| id.parse::<u32>().ok()),
            );
        }
    }
    all
}

fn of(id: u32) -> PathBuf {
    Path::new("/proc").join(id.to_string())
}

/// A file of `/proc`; `None` if the process has ended, or does not let it be read.
fn text(path: &Path) -> Option<String> {
    let mut text = String::new();
    fs::File::open(path).ok()?.read_to_string(&mut text).ok()?;
    Some(text)
}

/// The bytes that a process has in memory, with all that it shares.
fn resident(id: u32) -> Option<u64> {
    kib(&text(&of(id).join("status"))?, "VmRSS:")
}

/// The same, with its part of what it shares.
fn proportional(id: u32) -> Option<u64> {
    kib(&text(&of(id).join("smaps_rollup"))?, "Pss:")
}

/// The value of a line `NAME 123 kB`, in bytes.
fn kib(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let number: u64 = line.split_ascii_whitespace().next()?.parse().ok()?;
    Some(number * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory() {
        let own = std::process::id();
        assert!(is_counted());
        assert!(family(own).contains(&own));
        let (all, part) = (resident(own).unwrap(), proportional(own).unwrap());
        assert!(
            1 << 20 < part && part <= all + (64 << 20),
            "{part} of {all}"
        );
        assert!(is_above(own, 1 << 20) && !is_above(own, 1 << 50));
        assert_eq!(kib("Name:\tx\nVmRSS:\t  12 kB\n", "VmRSS:"), Some(12 << 10));
        assert_eq!(kib("Name:\tx\n", "VmRSS:"), None);
    }
}
