//! Weights in main memory that are copied to a device of libtorch before they are used (`base.offload = "host"`).
//!
//! The weights of a layer are copied together, while the layer before computes. A weight that was not copied ahead is copied
//! for each use.
//!
//! Axes: R rows, C columns.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use burn::tensor::{Device, TensorData};
use simmer_blocks::Quantised;
use tch::Tensor;

use super::StoredWeight;
use super::libtorch::{Matrix, TorchWeight, kind};
use crate::libtorch::{Arrival, Slabs, copies_ahead, fill, fresh, queued_copy};

/// Main memory for weights that are copied to their device before they are used. A GPU reads it while the host continues.
pub struct HostMemory {
    slabs: Slabs,
    device: tch::Device,
}

impl HostMemory {
    /// Memory for the weights of a device; `None` for one that computes with them where they are.
    pub fn new(device: &Device) -> Option<Self> {
        let device = crate::backends::torch_device(device)?;
        let slabs = Slabs::new(device);
        Some(Self { slabs, device })
    }

    /// A dense weight.
    ///
    /// # Shapes
    /// `weight`: `[R, C]`, f32, bf16 or f16.
    pub fn dense(&mut self, weight: &TensorData) -> StoredWeight {
        let [rows, columns]: [usize; 2] = weight.shape().dims();
        let room = self
            .slabs
            .room(&[rows as i64, columns as i64], kind(weight));
        fill(&room, weight.as_bytes());
        self.copied(TorchWeight::Dense(fresh(room)))
    }

    /// A quantised weight.
    pub fn quantised(&mut self, matrix: &Quantised) -> StoredWeight {
        let matrix = Matrix::on(tch::Device::Cpu, matrix);
        self.copy_of(&TorchWeight::Quantised(matrix))
    }

    /// A weight that is on its device, for products in fp8.
    ///
    /// # Panics
    /// If it is elsewhere.
    pub fn moved(&mut self, weight: &StoredWeight) -> StoredWeight {
        self.copy_of(&weight.torch())
    }

    fn copy_of(&mut self, weight: &TorchWeight) -> StoredWeight {
        let kept = weight.with_tensors(&mut |x| self.slabs.copy_of(x));
        self.copied(kept)
    }

    fn copied(&self, kept: TorchWeight) -> StoredWeight {
        StoredWeight::copied(CopiedWeight {
            kept,
            device: self.device,
            ahead: Mutex::new(None),
        })
    }
}

/// A weight in main memory, and its copy on the device.
pub(super) struct CopiedWeight {
    kept: TorchWeight,
    device: tch::Device,
    ahead: Mutex<Option<Ahead>>,
}

/// A copy that was made before it is used.
struct Ahead {
    weight: Arc<TorchWeight>,
    /// When the device has it.
    arrival: Arc<Arrival>,
}

impl CopiedWeight {
    /// The weight in main memory.
    pub(super) fn kept(&self) -> &TorchWeight {
        &self.kept
    }

    /// The weight on its device.
    pub(super) fn there(&self) -> Arc<TorchWeight> {
        match &*self.ahead() {
            Some(Ahead { weight, arrival }) => {
                arrival.wait();
                weight.clone()
            }
            None => Arc::new(self.copied()),
        }
    }

    fn copied(&self) -> TorchWeight {
        let copy = &mut |x: &Tensor| queued_copy(x, self.device);
        self.kept.with_tensors(copy)
    }

    fn ahead(&self) -> MutexGuard<'_, Option<Ahead>> {
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StoredWeight {
    /// Starts to copy those of some weights to their device that are in main memory, beside the work that the device was given
    /// so far.
    pub fn copy_ahead(weights: &[Self]) {
        let copied = weights.iter().filter_map(Self::as_copied);
        let missing: Vec<_> = copied.filter(|weight| weight.ahead().is_none()).collect();
        let Some(first) = missing.first() else { return };
        let (copies, arrival) = copies_ahead(first.device, || {
            missing
                .iter()
                .map(|weight| weight.copied())
                .collect::<Vec<_>>()
        });
        let arrival = Arc::new(arrival);
        for (weight, copy) in missing.into_iter().zip(copies) {
            *weight.ahead() = Some(Ahead {
                weight: Arc::new(copy),
                arrival: arrival.clone(),
            });
        }
    }

    /// Drops the copy of a weight in main memory.
    pub fn release(&self) {
        if let Some(weight) = self.as_copied() {
            *weight.ahead() = None;
        }
    }

    /// Whether it is in main memory and was [copied ahead](Self::copy_ahead).
    pub fn is_ahead(&self) -> bool {
        self.as_copied()
            .is_some_and(|weight| weight.ahead().is_some())
    }
}
