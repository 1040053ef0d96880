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
    /// Whether it has products in fp8, as far as its kind tells; see [`Self::check_fp8`].
    pub(crate) fp8: bool,
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

/// Why a device does not multiply in fp8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoFp8 {
    /// It has no such kernels.
    Device,
    /// The GPU is of an older architecture.
    Capability {
        /// Its compute capability.
        major: i32,
        /// See `major`.
        minor: i32,
    },
}

/// The compute capability from which on GPUs multiply in fp8.
#[cfg(feature = "libtorch")]
const FP8_FROM: i32 = 89;

/// Whether a compute capability, 90 for 9.0, is enough, if it is known.
#[cfg(feature = "libtorch")]
fn enough_for_fp8(capability: Option<i32>) -> Result<(), NoFp8> {
    match capability {
        Some(capability) if capability < FP8_FROM => Err(NoFp8::Capability {
            major: capability / 10,
            minor: capability % 10,
        }),
        _ => Ok(()),
    }
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

    /// Whether it multiplies in fp8: libtorch does, slowly on a processor, and on GPUs from compute capability 8.9 on. A GPU
    /// that is not in this machine is taken to.
    ///
    /// # Errors
    /// Why it does not.
    pub fn check_fp8(&self) -> Result<(), NoFp8> {
        if !self.fp8 {
            return Err(NoFp8::Device);
        }
        #[cfg(feature = "libtorch")]
        if let Memory::Nvidia(gpu) = self.memory {
            return enough_for_fp8(crate::libtorch::cuda::capability(gpu));
        }
        Ok(())
    }

    /// The operations that run by their reference implementations.
    pub fn without_fused_form(&self) -> Operations {
        Operations::ALL.without(self.fused)
    }
}

#[cfg(all(test, feature = "libtorch"))]
mod tests {
    use super::*;

    #[test]
    fn gpus_multiply_in_fp8_from_ada_on() {
        let of = enough_for_fp8;
        assert_eq!(of(Some(86)), Err(NoFp8::Capability { major: 8, minor: 6 }));
        for capability in [Some(89), Some(90), Some(120), None] {
            assert_eq!(of(capability), Ok(()));
        }
        let check = |name: &str| Capabilities::named(name).unwrap().check_fp8();
        assert_eq!(check("cpu"), Err(NoFp8::Device));
        assert_eq!(check("libtorch"), Ok(()));
    }
}
