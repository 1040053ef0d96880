//! Errors between ranks.

use simmer_hint::Hint;
use thiserror::Error;

/// What went wrong between ranks.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RanksError {
    /// A rank that has ended.
    #[error("rank {rank} has ended")]
    Ended {
        /// The rank.
        rank: usize,
    },
    /// A rank that sent nothing.
    #[error("rank {rank} has sent nothing for {seconds} seconds")]
    Silent {
        /// The rank.
        rank: usize,
        /// How long it was waited for.
        seconds: u64,
    },
    /// A rank that cannot take part.
    #[error("rank {rank}: {why}")]
    Failed {
        /// The rank.
        rank: usize,
        /// Its error.
        why: String,
    },
    /// A rank that was started with other files or another program.
    #[error("rank {rank} has another {what}: {theirs}, rank 0 has {ours}")]
    Differs {
        /// The rank.
        rank: usize,
        /// What differs.
        what: &'static str,
        /// What rank 0 has.
        ours: String,
        /// What the rank has.
        theirs: String,
    },
    /// Bytes that are no message.
    #[error("rank {rank} has sent something that is no message: {why}")]
    Message {
        /// The rank.
        rank: usize,
        /// What is wrong.
        why: String,
    },
    /// A step with fewer micro-batches than ranks.
    #[error(
        "the first step has {micro_batches} micro-batches for {ranks} ranks: some would have nothing to do"
    )]
    TooMany {
        /// Micro-batches of the step.
        micro_batches: usize,
        /// All ranks.
        ranks: usize,
    },
    /// A run that began before there were ranks.
    #[error(
        "the run began with an earlier version, which added micro-batches one after another: that runs on one rank, and {ranks} were started"
    )]
    Sequential {
        /// All ranks.
        ranks: usize,
    },
    /// Full fine-tuning.
    #[error(
        "full fine-tuning runs on one rank, and {ranks} were started: its gradients are not one buffer"
    )]
    Full {
        /// All ranks.
        ranks: usize,
    },
}

impl Hint for RanksError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Ended { .. } | Self::Silent { .. } => Some(
                "its own message is above, or in the log of its machine; the run resumes with --resume, on any number of ranks"
                    .to_owned(),
            ),
            Self::TooMany { .. } => Some(
                "lower train.micro_batch_tokens or raise train.batch_size, or start fewer ranks".to_owned(),
            ),
            Self::Differs { .. } => {
                Some("start all ranks with the same program, recipe and base model".to_owned())
            }
            Self::Sequential { .. } => Some("resume it on one rank".to_owned()),
            Self::Full { .. } => Some("start one rank, or train an adapter".to_owned()),
            Self::Failed { .. } | Self::Message { .. } => None,
        }
    }
}
