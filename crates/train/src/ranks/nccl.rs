//! Ranks whose GPUs NCCL connects. Everything else travels as before.

use std::rc::Rc;

use burn::tensor::{Device, Tensor};
use simmer_kernels::{Capabilities, Communicator, Memory, Nccl};

use super::gpus::{Gpus, meet};
use super::{Ranks, RanksError, SILENCE};

/// The variable that names the library, or is 0 if NCCL shall not be used.
const LIBRARY: &str = "SIMMER_NCCL";

/// Ranks with a GPU each.
#[derive(Debug)]
pub(super) struct OnNccl {
    ranks: Rc<dyn Ranks>,
    communicator: Rc<Communicator>,
}

/// The library: that of torch's CUDA wheel, or the one that the variable names.
///
/// # Errors
/// Why there is none.
pub(super) fn loaded() -> Result<Nccl, String> {
    let named = std::env::var_os(LIBRARY);
    if named.as_deref().is_some_and(|value| value == "0") {
        return Err(format!("{LIBRARY} is 0"));
    }
    let named = named.filter(|value| !value.is_empty());
    Nccl::load(named.as_deref()).map_err(|error| error.to_string())
}

impl OnNccl {
    /// Connects this rank's GPU with those of the others, and waits for them.
    ///
    /// # Errors
    /// Why they cannot be connected.
    pub(super) fn join(ranks: Rc<dyn Ranks>, id: &[u8], device: &Device) -> Result<Self, String> {
        let device = Capabilities::of(device);
        let Memory::Nvidia(gpu) = device.memory else {
            return Err(format!("{} is no GPU", device.name()));
        };
        let joined = loaded()?.join(id, ranks.rank(), ranks.size(), gpu);
        let communicator = Rc::new(joined.map_err(|error| error.to_string())?);
        Ok(Self {
            ranks,
            communicator,
        })
    }

    fn failed(&self, error: &std::io::Error) -> RanksError {
        RanksError::Nccl {
            rank: self.rank(),
            why: error.to_string(),
        }
    }
}

impl Gpus for OnNccl {
    fn sum(&self, values: Tensor<1>) -> Result<Tensor<1>, RanksError> {
        meet(&*self.ranks)?;
        let summed = self.communicator.sum(values, SILENCE);
        summed.map_err(|error| self.failed(&error))
    }

    fn copy_of_first(&self, values: Tensor<1>) -> Result<Tensor<1>, RanksError> {
        meet(&*self.ranks)?;
        let copied = self.communicator.copy_of_first(values, SILENCE);
        copied.map_err(|error| self.failed(&error))
    }
}

impl Ranks for OnNccl {
    fn rank(&self) -> usize {
        self.ranks.rank()
    }

    fn size(&self) -> usize {
        self.ranks.size()
    }

    fn send(&self, to: usize, bytes: Vec<u8>) -> Result<(), RanksError> {
        self.ranks.send(to, bytes)
    }

    fn receive(&self, from: usize) -> Result<Vec<u8>, RanksError> {
        self.ranks.receive(from)
    }

    fn gpus(&self) -> Option<&dyn Gpus> {
        Some(self)
    }

    fn end(&self) {
        self.ranks.end();
    }
}
