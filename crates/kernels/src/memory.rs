//! The memory of a device: how much it has, how much is free, and the most that was used.

use std::fs;
use std::process::Command;

/// Which memory a device computes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    /// Main memory. Weights can stay mapped from their files.
    Main,
    /// That of an NVIDIA GPU, counted from 0.
    Nvidia(usize),
}

/// Amounts of memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Amounts {
    /// Total memory.
    pub total: u64,
    /// Memory that no process uses.
    pub available: u64,
}

impl Memory {
    /// Whether it is the memory of the program itself.
    pub fn is_main(self) -> bool {
        self == Self::Main
    }

    /// How much there is now: main memory as Linux reports it, within the limit of the control group;
    /// a GPU's memory as `nvidia-smi` reports it. `None` if they do not.
    pub fn now(self) -> Option<Amounts> {
        match self {
            Self::Main => main(),
            Self::Nvidia(index) => nvidia(index),
        }
    }

    /// The most that this process has used, in bytes: in main memory its largest resident size, as
    /// Linux reports it. `None` elsewhere.
    pub fn peak(self) -> Option<u64> {
        if !self.is_main() {
            return None;
        }
        let status = fs::read_to_string("/proc/self/status").ok()?;
        of_key(&status, "VmHWM:")
    }
}

/// A line `KEY  1234 kB`, in bytes.
fn of_key(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

fn main() -> Option<Amounts> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let mut found = Amounts {
        total: of_key(&text, "MemTotal:")?,
        available: of_key(&text, "MemAvailable:")?,
    };
    let number = |file: &str| -> Option<u64> { fs::read_to_string(file).ok()?.trim().parse().ok() };
    if let Some(limit) = number("/sys/fs/cgroup/memory.max").filter(|limit| *limit < found.total) {
        let used = number("/sys/fs/cgroup/memory.current").unwrap_or(0);
        found.total = limit;
        found.available = found.available.min(limit.saturating_sub(used));
    }
    Some(found)
}

fn nvidia(index: usize) -> Option<Amounts> {
    let query = [
        "--query-gpu=memory.total,memory.free",
        "--format=csv,noheader,nounits",
        "-i",
        &index.to_string(),
    ];
    let output = Command::new("nvidia-smi").args(query).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let (total, free) = text.lines().next()?.split_once(',')?;
    let mib = |text: &str| text.trim().parse::<u64>().ok().map(|mib| mib << 20);
    Some(Amounts {
        total: mib(total)?,
        available: mib(free)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_has_memory() {
        if cfg!(target_os = "linux") {
            let now = Memory::Main.now().unwrap();
            assert!(now.available > 0 && now.available <= now.total);
            let peak = Memory::Main.peak().unwrap();
            assert!(peak > 1 << 20 && peak <= now.total);
        }
    }
}
