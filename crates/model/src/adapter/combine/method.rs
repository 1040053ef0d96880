//! The methods of combining adapters.

use serde::Serialize;

/// What is computed from the updates Δᵢ and their weights wᵢ. The names are PEFT's.
///
/// Sources: Ilharco et al. 2022 (task arithmetic); Yadav et al. 2023 (TIES); Yu et al. 2023 (DARE);
/// PEFT 0.21, src/peft/utils/merge_utils.py.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// `Σ wᵢ Δᵢ`, at the lowest rank that holds it.
    Linear,
    /// `Σ wᵢ Δᵢ`, with the factors of all adapters one after another.
    Cat,
    /// `Σ wᵢ Δᵢ`, truncated to a rank.
    Svd,
    /// The largest elements of each update; of these, for each element, the weighted mean of those with the elected sign.
    Ties,
    /// Random elements of each update, divided by their share; the weighted sum.
    DareLinear,
    /// Random elements of each update, divided by their share; then as in TIES.
    DareTies,
    /// The largest elements of each update; the weighted sum.
    MagnitudePrune,
}

/// How the sign of an element is elected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MajoritySign {
    /// The sign of the sum.
    #[default]
    Total,
    /// The sign that more updates have.
    Frequency,
}

impl Method {
    /// All methods.
    pub const ALL: [Self; 7] = [
        Self::Linear,
        Self::Cat,
        Self::Svd,
        Self::Ties,
        Self::DareLinear,
        Self::DareTies,
        Self::MagnitudePrune,
    ];

    /// PEFT's name of it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Linear => "linear",
            Self::Cat => "cat",
            Self::Svd => "svd",
            Self::Ties => "ties",
            Self::DareLinear => "dare_linear",
            Self::DareTies => "dare_ties",
            Self::MagnitudePrune => "magnitude_prune",
        }
    }

    /// The method of a name; PEFT's names that end in `_svd` are the same method here.
    pub fn named(name: &str) -> Option<Self> {
        let plain = name.strip_suffix("_svd");
        let plain = plain.filter(|plain| Self::of(plain).is_some_and(Self::drops));
        Self::of(plain.unwrap_or(name))
    }

    fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.name() == name)
    }

    /// Whether it drops a part of each update. The result then has full rank, and is truncated.
    pub fn drops(self) -> bool {
        !matches!(self, Self::Linear | Self::Cat | Self::Svd)
    }

    /// Whether it needs updates as whole matrices.
    pub(super) fn is_dense(self) -> bool {
        self.drops()
    }

    /// Whether it drops random elements, and not the smallest ones.
    pub fn is_random(self) -> bool {
        matches!(self, Self::DareLinear | Self::DareTies)
    }

    /// Whether it elects a sign.
    pub fn elects(self) -> bool {
        matches!(self, Self::Ties | Self::DareTies)
    }
}

impl MajoritySign {
    /// PEFT's name of it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Total => "total",
            Self::Frequency => "frequency",
        }
    }
}
