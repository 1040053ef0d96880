//! What a config struct says of a value that it cannot take.

/// A key whose value cannot be, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The key with its tables: `train.batch_size`.
    pub key: String,
    /// What is wrong with its value.
    pub why: String,
}

impl Problem {
    pub(crate) fn new(key: impl Into<String>, why: impl Into<String>) -> Self {
        let (key, why) = (key.into(), why.into());
        Self { key, why }
    }
}
