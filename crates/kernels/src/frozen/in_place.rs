//! Weights in main memory that are copied to a device, in a build without such devices.

use std::convert::Infallible;

use burn::tensor::{Device, TensorData};
use simmer_blocks::Quantised;

use super::StoredWeight;

/// Main memory for weights that are copied to their device before they are used. This build computes with weights where they are.
pub struct HostMemory(Infallible);

impl HostMemory {
    /// `None`: the device computes with weights where they are.
    pub fn new(_: &Device) -> Option<Self> {
        None
    }

    /// A dense weight.
    pub fn dense(&mut self, _: &TensorData) -> StoredWeight {
        match self.0 {}
    }

    /// A quantised weight.
    pub fn quantised(&mut self, _: &Quantised) -> StoredWeight {
        match self.0 {}
    }

    /// A weight that is on its device.
    pub fn moved(&mut self, _: &StoredWeight) -> StoredWeight {
        match self.0 {}
    }
}

impl StoredWeight {
    /// Nothing: weights are where they are used.
    pub fn copy_ahead(_: &[Self]) {}

    /// Nothing: weights are where they are used.
    pub fn release(&self) {}

    /// No: weights are where they are used.
    pub fn is_ahead(&self) -> bool {
        false
    }
}
