//! A value of the recipe that is not allowed.

use std::fmt;

use simmer_hint::Hint;

/// A key of the recipe whose value is not allowed, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The key with its tables, such as `train.batch_size`.
    pub key: String,
    /// What is wrong with its value.
    pub why: String,
    /// What the user can do about it.
    pub hint: Option<String>,
}

impl Problem {
    /// A problem without a hint.
    pub fn new(key: impl Into<String>, why: impl Into<String>) -> Self {
        let (key, why) = (key.into(), why.into());
        let hint = None;
        Self { key, why, hint }
    }

    /// The same of a key in this table.
    #[must_use]
    pub fn below(self, table: &str) -> Self {
        let key = format!("{table}.{}", self.key);
        Self { key, ..self }
    }

    /// The same with a hint.
    #[must_use]
    pub fn with_hint(self, hint: Option<String>) -> Self {
        Self { hint, ..self }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: {}", self.key, self.why)
    }
}

impl std::error::Error for Problem {}

impl Hint for Problem {
    fn hint(&self) -> Option<String> {
        self.hint.clone()
    }
}

/// Why a count is out of range, if it is.
pub fn wrong_count(found: u64, least: u64, most: u64) -> Option<String> {
    let nearest = found.clamp(least, most);
    (found != nearest).then(|| {
        let expected = if found < least {
            format!("at least {least}")
        } else {
            format!("at most {most}")
        };
        format!("expected {expected}, found {found}; the nearest valid value is {nearest}")
    })
}

/// Why a number is not from `least` to `most`, both allowed, if it is not.
pub fn wrong_part(found: f64, least: f64, most: f64) -> Option<String> {
    let why = format!("expected a number from {least} to {most}, found {found}");
    match (found < least, found > most) {
        (true, _) => Some(format!("{why}; the nearest valid value is {least}")),
        (_, true) => Some(format!("{why}; the nearest valid value is {most}")),
        _ if found.is_nan() => Some(why),
        _ => None,
    }
}

/// Checks that a count is at least 1.
///
/// # Errors
/// The problem of this key.
pub fn at_least_one(key: &str, found: usize) -> Result<(), Problem> {
    wrong_count(found as u64, 1, u64::MAX).map_or(Ok(()), |why| Err(Problem::new(key, why)))
}
