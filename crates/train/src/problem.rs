//! A value of the recipe that is not allowed.

/// A key of the recipe whose value is not allowed, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The key with its tables, such as `train.batch_size`.
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
