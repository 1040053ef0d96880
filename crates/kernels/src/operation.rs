//! The operations of a model, and sets of them.

/// An operation of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// A matrix multiplication with a weight in its stored dtype.
    Linear,
    /// The low-rank branch beside a weight.
    LowRank,
    /// Attention.
    Attention,
    /// Output head and loss.
    LinearCrossEntropy,
    /// Root mean square normalisation.
    RmsNorm,
    /// Rotary position embedding.
    Rope,
    /// The gated activation.
    Gated,
    /// Dropout masks, which the low-rank branch draws.
    Dropout,
}

impl Operation {
    /// The operations that a backend can have a fused form of. Dropout masks are part of the low-rank
    /// branch's form.
    pub const WITH_FORMS: [Self; 7] = [
        Self::Linear,
        Self::LowRank,
        Self::Attention,
        Self::LinearCrossEntropy,
        Self::RmsNorm,
        Self::Rope,
        Self::Gated,
    ];

    /// The name in profiles and in `SIMMER_REFERENCE`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Linear => "linear",
            Self::LowRank => "low_rank",
            Self::Attention => "attention",
            Self::LinearCrossEntropy => "linear_cross_entropy",
            Self::RmsNorm => "rms_norm",
            Self::Rope => "rope",
            Self::Gated => "gated",
            Self::Dropout => "dropout",
        }
    }
}

/// A set of operations.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Operations(u8);

impl Operations {
    /// No operation.
    pub const NONE: Self = Self(0);

    /// The operations of [`Operation::WITH_FORMS`].
    pub const ALL: Self = {
        let mut all = Self::NONE;
        let mut place = 0;
        while place < Operation::WITH_FORMS.len() {
            all = all.with(Operation::WITH_FORMS[place]);
            place += 1;
        }
        all
    };

    /// The set and one operation more.
    #[must_use]
    pub const fn with(self, operation: Operation) -> Self {
        Self(self.0 | (1 << operation as u8))
    }

    /// The operations of both sets.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The set without the operations of another.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether the operation is in the set.
    pub const fn contains(self, operation: Operation) -> bool {
        self.0 & (1 << operation as u8) != 0
    }

    /// Whether the set is empty.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The names of the operations, separated by commas.
    pub fn names(self) -> String {
        let list = Operation::WITH_FORMS.into_iter();
        let names: Vec<&str> = list
            .filter(|operation| self.contains(*operation))
            .map(Operation::name)
            .collect();
        names.join(", ")
    }

    /// Parses `all`, or names separated by commas.
    ///
    /// # Errors
    /// The first name that is not the name of an operation.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut found = Self::NONE;
        for name in text
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty())
        {
            let mut list = Operation::WITH_FORMS.into_iter();
            match list.find(|operation| operation.name() == name) {
                Some(operation) => found = found.with(operation),
                None if name == "all" => found = Self::ALL,
                None => return Err(name.to_owned()),
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_have_names() {
        let set = Operations::NONE
            .with(Operation::Rope)
            .with(Operation::Linear);
        assert_eq!(set.names(), "linear, rope");
        assert_eq!(Operations::parse(&set.names()), Ok(set));
        assert_eq!(Operations::parse(" all"), Ok(Operations::ALL));
        assert_eq!(Operations::parse(""), Ok(Operations::NONE));
        assert_eq!(
            Operations::parse("rope,atention"),
            Err("atention".to_owned())
        );
        let rest = Operations::ALL.without(set);
        assert!(!rest.contains(Operation::Rope) && rest.contains(Operation::Gated));
        assert!(set.without(set).is_empty());
    }
}
