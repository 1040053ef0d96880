//! Amounts on the command line: memory, times, GPUs.

use std::fmt;
use std::str::FromStr;

/// Memory in MiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Memory(u64);

/// Seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Time(u64);

/// A number of GPUs, of a type if one is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Gpus {
    pub(super) kind: Option<String>,
    pub(super) count: usize,
}

/// What was expected instead.
#[derive(Debug)]
pub(super) struct Expected(&'static str);

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {}", self.0)
    }
}

impl std::error::Error for Expected {}

impl Memory {
    /// As Slurm has it: `64G`, `1536M`.
    pub(super) fn slurm(self) -> String {
        self.with_units("M", "G")
    }

    /// As Kubernetes has it: `64Gi`, `1536Mi`.
    pub(super) fn kubernetes(self) -> String {
        self.with_units("Mi", "Gi")
    }

    /// In whole GiB, rounded up.
    pub(super) fn gib(self) -> u64 {
        self.0.div_ceil(1 << 10)
    }

    fn with_units(self, mib: &str, gib: &str) -> String {
        if self.0.is_multiple_of(1 << 10) {
            format!("{}{gib}", self.0 >> 10)
        } else {
            format!("{}{mib}", self.0)
        }
    }
}

impl FromStr for Memory {
    type Err = Expected;

    fn from_str(text: &str) -> Result<Self, Expected> {
        let expected = Expected("a whole number of M, G or T (MiB, GiB, TiB), such as 64G");
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let shift = match text[digits.len()..].to_ascii_lowercase().as_str() {
            "m" | "mi" | "mib" => 0,
            "g" | "gi" | "gib" => 10,
            "t" | "ti" | "tib" => 20,
            _ => return Err(expected),
        };
        let number: u64 = digits.parse().map_err(|_| Expected(expected.0))?;
        match number.checked_mul(1 << shift) {
            Some(mib) if mib > 0 => Ok(Self(mib)),
            _ => Err(expected),
        }
    }
}

impl Time {
    pub(super) fn seconds(self) -> u64 {
        self.0
    }

    /// As Slurm has it: `1-12:00:00`.
    pub(super) fn slurm(self) -> String {
        let (minutes, seconds) = (self.0 / 60, self.0 % 60);
        let (hours, minutes) = (minutes / 60, minutes % 60);
        let (days, hours) = (hours / 24, hours % 24);
        let days = if days > 0 {
            format!("{days}-")
        } else {
            String::new()
        };
        format!("{days}{hours:02}:{minutes:02}:{seconds:02}")
    }
}

impl FromStr for Time {
    type Err = Expected;

    fn from_str(text: &str) -> Result<Self, Expected> {
        let expected = || Expected("a time such as 90m, 24h, 2d, 12:00:00 or 1-12:00:00");
        let number = |text: &str| text.parse::<u64>().map_err(|_| expected());
        let (digits, unit) =
            text.split_at(text.len() - text.chars().last().map_or(0, char::len_utf8));
        let seconds = match unit {
            "m" => number(digits)?.checked_mul(60),
            "h" => number(digits)?.checked_mul(60 * 60),
            "d" => number(digits)?.checked_mul(24 * 60 * 60),
            _ => {
                let (days, clock) = text.split_once('-').unwrap_or(("0", text));
                let parts: Vec<&str> = clock.split(':').collect();
                let [hours, minutes, seconds] = parts[..] else {
                    return Err(expected());
                };
                let (days, hours) = (number(days)?, number(hours)?);
                let (minutes, seconds) = (number(minutes)?, number(seconds)?);
                let hours = days.checked_mul(24).and_then(|all| all.checked_add(hours));
                let whole = hours.and_then(|all| all.checked_mul(60 * 60));
                whole
                    .filter(|_| minutes < 60 && seconds < 60)
                    .and_then(|all| all.checked_add(60 * minutes + seconds))
            }
        };
        seconds
            .filter(|all| *all > 0)
            .map(Self)
            .ok_or_else(expected)
    }
}

impl FromStr for Gpus {
    type Err = Expected;

    fn from_str(text: &str) -> Result<Self, Expected> {
        let expected = Expected("a number of GPUs, or a type and a number, such as H100:4");
        let (kind, count) = match text.rsplit_once(':') {
            Some((kind, count)) => (Some(kind), count),
            None => (None, text),
        };
        let plain = |kind: &str| {
            let letters = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            !kind.is_empty() && kind.chars().all(letters)
        };
        match count.parse() {
            Ok(count) if count > 0 && kind.is_none_or(plain) => Ok(Self {
                kind: kind.map(str::to_owned),
                count,
            }),
            _ => Err(expected),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_and_written() {
        let memory = |text: &str| text.parse::<Memory>().ok().map(Memory::slurm);
        assert_eq!(memory("64G").as_deref(), Some("64G"));
        assert_eq!(memory("65536MiB").as_deref(), Some("64G"));
        assert_eq!(memory("1T").as_deref(), Some("1024G"));
        assert_eq!(memory("1500m").as_deref(), Some("1500M"));
        for wrong in [
            "", "64", "G", "0G", "-1G", "1.5G", "64 G", "64GB", "9e9T", "é",
        ] {
            assert_eq!(memory(wrong), None, "{wrong}");
        }
        let of = "1500M".parse::<Memory>().unwrap();
        assert_eq!((of.kubernetes().as_str(), of.gib()), ("1500Mi", 2));

        let time = |text: &str| text.parse::<Time>().ok().map(Time::slurm);
        assert_eq!(time("90m").as_deref(), Some("01:30:00"));
        assert_eq!(time("24h").as_deref(), Some("1-00:00:00"));
        assert_eq!(time("2d").as_deref(), Some("2-00:00:00"));
        assert_eq!(time("12:00:05").as_deref(), Some("12:00:05"));
        assert_eq!(time("1-12:00:00").as_deref(), Some("1-12:00:00"));
        for wrong in [
            "",
            "90",
            "h",
            "0h",
            "12:00",
            "1:60:00",
            "99999999999999999999d",
            "é",
        ] {
            assert_eq!(time(wrong), None, "{wrong}");
        }

        let gpus = |text: &str| {
            text.parse::<Gpus>()
                .ok()
                .map(|gpus| (gpus.kind, gpus.count))
        };
        assert_eq!(gpus("4"), Some((None, 4)));
        assert_eq!(gpus("H100:8"), Some((Some("H100".to_owned()), 8)));
        for wrong in ["", "0", ":4", "H100:", "H 100:4", "H100"] {
            assert_eq!(gpus(wrong), None, "{wrong}");
        }
    }
}
