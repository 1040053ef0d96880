//! Errors between ranks.

use simmer_files::size::counted;
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
    /// A connection that is lost.
    #[error("the connection to rank {rank} is lost: {why}")]
    Connection {
        /// The rank.
        rank: usize,
        /// What c10d says.
        why: String,
    },
    /// A rank whose end another one reports.
    #[error("another rank has ended")]
    Reported,
    /// Ranks that do not meet.
    #[error("rank {rank} does not meet the others at {at}: {why}")]
    Rendezvous {
        /// This rank.
        rank: usize,
        /// Address and port.
        at: String,
        /// What c10d says.
        why: String,
    },
    /// Two ranks that were started on one GPU.
    #[error("ranks {} and {} would compute on one GPU, {device} of {host}", ranks[0], ranks[1])]
    SameGpu {
        /// The ranks.
        ranks: [usize; 2],
        /// The name of the GPU, as the second one sees it.
        device: String,
        /// The machine.
        host: String,
    },
    /// GPUs that NCCL cannot connect.
    #[error("rank {rank}: NCCL cannot connect its GPU with the others: {why}")]
    Unconnected {
        /// The rank.
        rank: usize,
        /// What NCCL says.
        why: String,
    },
    /// A sum or a copy of NCCL that fails.
    #[error("rank {rank}: NCCL: {why}")]
    Nccl {
        /// The rank.
        rank: usize,
        /// What NCCL says.
        why: String,
    },
    /// A signal that ends the run.
    #[error("stopped by a signal")]
    Stopped,
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
    /// A rank whose device computes in another dtype, where the recipe leaves it open.
    #[error("rank {rank} has another dtype of activations: {theirs}, rank 0 has {ours}")]
    OtherCompute {
        /// The rank.
        rank: usize,
        /// What rank 0 computes in.
        ours: String,
        /// What the rank computes in.
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
    /// A step with fewer rows than ranks.
    #[error(
        "a step has {} (train.batch_size), and so at most as many micro-batches, for {ranks} ranks: some would have nothing to do", counted(*rows, "row")
    )]
    FewRows {
        /// Rows of a step.
        rows: usize,
        /// All ranks.
        ranks: usize,
    },
    /// A step with fewer micro-batches than ranks.
    #[error(
        "the first step has {} for {ranks} ranks: some would have nothing to do", counted(*micro_batches, "micro-batch")
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
    /// A launcher's variable with a wrong value.
    #[error("{variable}: expected {expected}, found {found:?}")]
    Variable {
        /// The variable.
        variable: &'static str,
        /// What it should have.
        expected: String,
        /// Its value.
        found: String,
    },
    /// A variable of `torchrun` that is not there.
    #[error("WORLD_SIZE is {size}, and {variable} is not set")]
    Missing {
        /// The variable.
        variable: &'static str,
        /// All ranks.
        size: usize,
    },
    /// Ranks of `torchrun` that this build cannot connect.
    #[error("torchrun has started {size} ranks, and this build of simmer has no libtorch")]
    NoLibtorch {
        /// All ranks.
        size: usize,
    },
    /// Ranks of MPI that this build cannot connect.
    #[error("{launcher} has started {size} ranks, and this build of simmer has no MPI")]
    NoMpi {
        /// What has started them.
        launcher: &'static str,
        /// All ranks.
        size: usize,
    },
    /// A rank of a launcher that does not say how many there are.
    #[error(
        "a launcher has started rank {rank} (variable PMIX_RANK), and this build of simmer has no MPI"
    )]
    Pmix {
        /// Its variable.
        rank: String,
    },
    /// A launcher whose processes MPI does not connect.
    #[error("{launcher} has started {size} ranks, and MPI connects {found}")]
    Launcher {
        /// What has started them.
        launcher: &'static str,
        /// The ranks that it has started.
        size: usize,
        /// The ranks that MPI has found.
        found: usize,
    },
    /// MPI in a process that has started it before.
    #[error("MPI has been started in this process before")]
    Started,
    /// Full fine-tuning.
    #[error(
        "full fine-tuning runs on one rank, not on {ranks}: the gradients of all weights would be held and sent several times"
    )]
    Full {
        /// All ranks.
        ranks: usize,
    },
}

impl RanksError {
    /// Whether a run is refused before its first step.
    pub(crate) fn is_refusal(&self) -> bool {
        !matches!(
            self,
            Self::Ended { .. }
                | Self::Stopped
                | Self::Silent { .. }
                | Self::Connection { .. }
                | Self::Message { .. }
                | Self::Nccl { .. }
                | Self::Reported
        )
    }
}

impl Hint for RanksError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Ended { .. } | Self::Silent { .. } | Self::Connection { .. } => Some(
                "its own message is above, or in the log of its machine; the run resumes with --resume, on any number of ranks"
                    .to_owned(),
            ),
            Self::FewRows { .. } => {
                Some("raise train.batch_size, or start fewer ranks".to_owned())
            }
            Self::TooMany { .. } => Some(
                "lower train.micro_batch_tokens or raise train.batch_size, or start fewer ranks".to_owned(),
            ),
            Self::Differs { .. } => {
                Some("start all ranks with the same program, recipe and base model".to_owned())
            }
            Self::OtherCompute { .. } => Some(
                "set base.compute in the recipe, so that all ranks compute in one dtype".to_owned(),
            ),
            Self::Sequential { .. } => Some("resume it on one rank".to_owned()),
            Self::Full { .. } => Some("start one rank, or train an adapter".to_owned()),
            Self::NoMpi { .. } | Self::Pmix { .. } => Some(
                "build it with MPI, and start the ranks with its mpirun: cargo build --release --features mpi".to_owned(),
            ),
            Self::Launcher { .. } => Some(
                "start the ranks with the mpirun of the MPI that simmer was built with, or with srun --mpi=pmix".to_owned(),
            ),
            Self::Variable { .. } => Some(
                "start the ranks with torchrun, mpirun or srun, or remove the variable to run on one".to_owned(),
            ),
            Self::Missing { .. } => Some(
                "start the ranks with torchrun, or set RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT as it does; to run on one, remove WORLD_SIZE".to_owned(),
            ),
            Self::NoLibtorch { .. } => Some(
                "build it with libtorch (docs/guide/gpu.md), or with MPI, and start the ranks with its mpirun: cargo build --release --features mpi".to_owned(),
            ),
            Self::Rendezvous { .. } => Some(
                "start all ranks within five minutes, with the address and a free port of rank 0's machine in MASTER_ADDR and MASTER_PORT; between machines, name the network's interface in GLOO_SOCKET_IFNAME".to_owned(),
            ),
            Self::Unconnected { .. } | Self::Nccl { .. } => Some(
                "NCCL_DEBUG=INFO prints what it does; with SIMMER_NCCL=0 gradients travel through main memory".to_owned(),
            ),
            Self::SameGpu { .. } => Some(
                "start as many ranks on a machine as it has GPUs: each takes the one whose number is its LOCAL_RANK".to_owned(),
            ),
            Self::Failed { .. }
            | Self::Message { .. }
            | Self::Reported
            | Self::Started
            | Self::Stopped => None,
        }
    }
}
