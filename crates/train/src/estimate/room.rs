//! The memory of a device.

use std::fmt;

use serde::Serialize;
use simmer_files::size::readable;
use simmer_kernels::{Capabilities, Memory};
use simmer_model::base::{Base, Offload};

/// A device's memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Room {
    /// Total memory.
    pub total: u64,
    /// Memory that no process uses.
    pub available: u64,
}

impl Room {
    /// A device on which all memory is free.
    pub(super) fn of(bytes: u64) -> Room {
        Room {
            total: bytes,
            available: bytes,
        }
    }

    /// The memory of a device of this machine; `None` if the system does not report it.
    pub(super) fn here(device: &Capabilities) -> Option<Room> {
        let now = device.memory.now()?;
        Some(Room {
            total: now.total,
            available: now.available,
        })
    }
}

/// Frozen weights in main memory (`base.offload = "host"`), for a device with memory of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct InHost {
    /// Their size.
    pub bytes: u64,
    /// Main memory, if it is known.
    pub room: Option<Room>,
}

impl InHost {
    /// Those of a base model; `here`: for a device of this machine.
    pub(super) fn of(
        offload: Option<Offload>,
        base: &Base,
        device: &Capabilities,
        here: bool,
    ) -> Option<Self> {
        let needed = offload == Some(Offload::Host) && !device.memory.is_main();
        let room = || {
            let now = Memory::Main.now()?;
            Some(Room {
                total: now.total,
                available: now.available,
            })
        };
        needed.then(|| Self {
            bytes: base.bytes_in_host(),
            room: here.then(room).flatten(),
        })
    }

    /// Whether they fit, as far as main memory is known.
    pub(super) fn fits(self) -> bool {
        self.room.is_none_or(|room| self.bytes <= room.available)
    }
}

impl fmt::Display for InHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = readable(self.bytes);
        write!(
            f,
            "{:<12} {bytes:>12}  frozen layers in main memory",
            "host"
        )?;
        if let Some(room) = self.room {
            let [available, total] = [room.available, room.total].map(readable);
            write!(f, ", {available} free of {total}")?;
        }
        Ok(())
    }
}

/// A plain number of bytes below this is more likely one of GiB or MiB.
const LEAST: f64 = 1024.0 * 1024.0;

/// Parses a number of bytes: "24GiB", "24GB", "512 MiB" or a plain number from a MiB on.
///
/// # Errors
/// What is wrong, in a sentence.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.find(|c: char| !(c.is_ascii_digit() || c == '.'));
    let (number, unit) = text.split_at(digits.unwrap_or(text.len()));
    let factor = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "kb" => 1e3,
        "kib" | "k" => 1024.0,
        "mb" => 1e6,
        "mib" | "m" => 1024.0 * 1024.0,
        "gb" => 1e9,
        "gib" | "g" => 1024.0 * 1024.0 * 1024.0,
        _ => {
            return Err(format!(
                "expected a size such as 24GiB or 24GB, found `{text}`"
            ));
        }
    };
    let number: f64 = number
        .parse()
        .map_err(|_| format!("expected a size such as 24GiB or 24GB, found `{text}`"))?;
    if unit.trim().is_empty() && number < LEAST {
        return Err(format!(
            "`{text}` has no unit: write {text}GiB or {text}MiB"
        ));
    }
    Ok((number * factor) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(parse_bytes("24GiB"), Ok(24 << 30));
        assert_eq!(parse_bytes("1.5 MB"), Ok(1_500_000));
        assert_eq!(parse_bytes("25769803776"), Ok(24 << 30));
        assert_eq!(
            parse_bytes("24").unwrap_err(),
            "`24` has no unit: write 24GiB or 24MiB"
        );
        for wrong in ["", "GiB", "12 parsecs", "-3", "24"] {
            parse_bytes(wrong).unwrap_err();
        }
    }
}
