//! Data parallel training: the micro-batches of a step are computed by several processes, the ranks.
//!
//! Rank 0 is the run: it reads the data, packs each step, deals its micro-batches, adds up their gradients, updates the trained
//! tensors and writes all files. The other ranks hold a copy of the model ([`work`]): they get trained tensors and
//! micro-batches, and give back gradients. So a run writes the same files with any number of ranks, and can be resumed on
//! another number. The sum of a step has one order, which does not depend on the ranks either ([`Order::Tree`]).
//!
//! With an adapter only its gradients and tensors travel: twice the size of the flat buffer in f32 for each rank and step. Tensors go
//! down a binomial tree of ranks, gradients up the tree of the sum, so that no rank sends or receives more than log2(ranks) of them.
//!
//! Where each rank computes on a GPU of its own, NCCL copies the tensors and adds up the gradients ([`Gpus`]), in an order of its own.

mod alone;
mod broadcast;
#[cfg(feature = "libtorch")]
mod c10d;
mod deal;
mod enough;
mod error;
mod gpus;
mod hello;
mod launcher;
mod message;
#[cfg(feature = "mpi")]
mod mpi;
#[cfg(feature = "libtorch")]
mod nccl;
mod place;
mod pmix;
mod threads;
mod torchrun;
mod tree;
mod worker;

use std::fmt;
#[cfg(any(feature = "libtorch", feature = "mpi"))]
use std::time::Duration;

pub use self::alone::Alone;
pub(crate) use self::broadcast::{children, receive_down, send_down};
pub(crate) use self::deal::deal;
pub(crate) use self::enough::check_first_step;
pub use self::enough::{check, check_recipe};
pub use self::error::RanksError;
pub use self::gpus::Gpus;
pub(crate) use self::gpus::{connect, connect_all};
pub(crate) use self::hello::{Hello, hear};
pub use self::launcher::{join, launched_by};
pub(crate) use self::message::{Message, Part, Share};
pub use self::place::devices;
pub(crate) use self::place::{Place, described};
pub use self::pmix::is_another;
pub use self::threads::Threads;
pub use self::tree::Order;
pub(crate) use self::tree::{Held, TreeSum, additions, exchange, most_held};
pub use self::worker::{refuse, work};

/// How long a rank may be silent. A share of a step takes seconds; loading a model and hashing its files takes minutes.
#[cfg(any(feature = "libtorch", feature = "mpi"))]
const SILENCE: Duration = Duration::from_mins(30);
/// How long is waited after a signal: a launcher that ends a job sends it to all ranks, and kills them a second later or more.
#[cfg(any(feature = "libtorch", feature = "mpi"))]
const GRACE: Duration = Duration::from_millis(50);

/// The processes of a run, as one of them sees them.
pub trait Ranks: fmt::Debug {
    /// Which one this is, counted from 0.
    fn rank(&self) -> usize;

    /// How many there are.
    fn size(&self) -> usize;

    /// Sends bytes to another rank; they arrive in the order in which they were sent.
    ///
    /// # Errors
    /// If the rank has ended.
    fn send(&self, to: usize, bytes: Vec<u8>) -> Result<(), RanksError>;

    /// Waits for the next bytes from another rank.
    ///
    /// # Errors
    /// If the rank has ended, or sends nothing for too long.
    fn receive(&self, from: usize) -> Result<Vec<u8>, RanksError>;

    /// What their GPUs do together, if each has one and they are connected.
    fn gpus(&self) -> Option<&dyn Gpus> {
        None
    }

    /// The run has ended on all ranks. One that goes without it takes the others with it.
    fn end(&self) {}
}
