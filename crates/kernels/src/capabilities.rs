//! What a device can do.
//!
//! Code outside a backend's own forms asks this instead of the kind of a device. `backends.rs` fills it
//! in, and knows the kinds alone.

use burn::tensor::DType;

use crate::memory::Memory;
use crate::operation::Operations;

/// What a device can do.
#[derive(Debug, Clone, Copy, PartialEq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is an ability of its own"
)]
pub struct Capabilities {
    /// Its name without the index.
    pub(crate) kind: &'static str,
    /// Its index, for a device that a machine may have several of.
    pub(crate) index: Option<usize>,
    /// The operations with a fused form. The others run by their reference implementations.
    pub fused: Operations,
    /// Dtypes in which it holds weights.
    pub stores: &'static [DType],
    /// Dtypes of the activations that it computes with.
    pub computes: &'static [DType],
    /// The dtype of activations with which it multiplies weights in bf16 fastest.
    pub fastest: DType,
    /// The memory that it computes in.
    pub memory: Memory,
    /// Whether an operation returns before it has finished. Then only a result that is read tells that
    /// it has, inputs are copied from pinned memory, and a profile needs the device's own clock.
    pub is_asynchronous: bool,
    /// Whether the values of a tensor are read where they are, without a copy.
    pub reads_in_place: bool,
    /// Whether [`adamw`](crate::adamw) updates a buffer of parameters in place, so that tensors cut from it show the
    /// update. Elsewhere they are cut anew.
    pub updates_in_place: bool,
    /// The fraction of a micro-batch's tokens from which it pays to compute shared prefixes once. Rows that share one are
    /// excluded from a GPU's fastest attention, and their keys are gathered.
    pub shares_from: f64,
    /// Whether low-rank branches keep `x Aᵀ` for the backward pass, and a copy of A in the dtype of the activations.
    pub keeps_low: bool,
    /// What it costs beside the tensors of a model.
    pub overhead: Overhead,
    /// Bytes of weights that it reads per second when each is used once, as in generation: an order of
    /// magnitude.
    pub read_rate: f64,
}

/// What a device needs beside the tensors of a model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Overhead {
    /// Bytes of the program with the tables and threads of its libraries, or of a GPU's context.
    pub program: u64,
    /// Memory between tensors, and that operations copy: a fraction of activations and temporary
    /// buffers.
    pub fragmentation: f64,
    /// The most bytes of logits, with their gradients, that exist at a time.
    pub logits: u64,
}

impl Capabilities {
    /// The device's name, as in a recipe.
    pub fn name(&self) -> String {
        match self.index {
            None => self.kind.to_owned(),
            Some(index) => format!("{}:{index}", self.kind),
        }
    }

    /// The operations that run by their reference implementations.
    pub fn without_fused_form(&self) -> Operations {
        Operations::ALL.without(self.fused)
    }
}
