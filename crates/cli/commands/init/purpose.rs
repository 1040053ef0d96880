//! What a training is for, and the values that follow from it.

use std::fmt;

use clap::ValueEnum;
use simmer_data::Format;

/// What the model shall learn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Purpose {
    /// Answer single questions or instructions: a task, a style, a format of answers
    Instruct,
    /// Hold conversations of several turns
    Chat,
    /// Know texts: continued pretraining on all of their tokens
    Domain,
}

impl Purpose {
    /// The purpose that rows of a format usually have.
    pub(super) fn of(format: Format) -> Self {
        match format {
            Format::Text => Self::Domain,
            Format::Messages | Format::Sharegpt | Format::Baize => Self::Chat,
            Format::Alpaca | Format::PromptCompletion => Self::Instruct,
        }
    }

    /// The purpose with a name.
    pub(super) fn named(name: &str) -> Option<Self> {
        <Self as ValueEnum>::from_str(name, true).ok()
    }

    /// What the model learns, after "learns to".
    pub(super) fn learns(self) -> &'static str {
        match self {
            Self::Instruct => "answer instructions as the rows do",
            Self::Chat => "answer in conversations as the rows do",
            Self::Domain => "predict every token of the rows (continued pretraining)",
        }
    }

    /// The peak learning rate of LoRA for a model with this hidden size.
    ///
    /// 2e-4 at 4096, as in the QLoRA paper for 7B, and in inverse proportion to the width: that gives its 1e-4 for 65B.
    /// Half of it if the model should stay close to what it is.
    pub(super) fn learning_rate(self, hidden_size: usize) -> f64 {
        let at_4096 = match self {
            Self::Instruct => 2e-4,
            Self::Chat | Self::Domain => 1e-4,
        };
        let rate: f64 = at_4096 * 4096.0 / hidden_size.max(1) as f64;
        let rate = rate.clamp(1e-5, 5e-3);
        // one digit
        format!("{rate:.0e}").parse().unwrap_or(rate)
    }

    /// Passes over this many rows. Few rows need more of them; from the third on, models overfit.
    pub(super) fn epochs(self, rows: usize) -> u32 {
        match (self, rows) {
            (Self::Domain, 2000..) | (_, 20_000..) => 1,
            (Self::Domain, _) | (_, 2000..) => 2,
            (_, ..2000) => 3,
        }
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Instruct => "instruct",
            Self::Chat => "chat",
            Self::Domain => "domain",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_option() {
        for purpose in Purpose::value_variants() {
            assert_eq!(Purpose::named(&purpose.to_string()), Some(*purpose));
        }
    }

    #[test]
    fn learning_rates_are_those_of_the_field() {
        // QLoRA: 7B and 65B; the quickstart
        let rate = |purpose: Purpose, size| format!("{:e}", purpose.learning_rate(size));
        let rates = [4096, 8192, 192].map(|size| rate(Purpose::Instruct, size));
        assert_eq!(rates, ["2e-4", "1e-4", "4e-3"]);
        let rates = [4096, 576, 1].map(|size| rate(Purpose::Domain, size));
        assert_eq!(rates, ["1e-4", "7e-4", "5e-3"]);
    }
}
