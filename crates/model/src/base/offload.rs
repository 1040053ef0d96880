//! Where the frozen weights are while they are not used.

use burn::tensor::{DType, Device};
use serde::{Deserialize, Serialize};
use simmer_checkpoint::family::ModuleKind;
use simmer_checkpoint::layout::{Part, TensorLayout, tensors};
use simmer_checkpoint::{Checkpoint, Layout, Pages};
use simmer_kernels::Capabilities;

use super::{Base, BaseError};
use crate::offload::LayerPages;
use crate::tensor_file::burn_dtype;

/// Where the frozen weights are while they are not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[derive(schemars::JsonSchema)]
pub enum Offload {
    /// In main memory, for a device with memory of its own.
    Host,
    /// In their files. The layers are read while the layer before computes, forward and backward, so that about two
    /// layers are in memory at a time. The losses are the same as without.
    Disk,
}

/// Bytes of a tensor in memory, and how many of them are pages of its file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) bytes: u64,
    pub(super) mapped: u64,
}

impl Base {
    /// Where the frozen weights are while they are not used; `None`: in the device's memory.
    pub fn offload(&self) -> Option<Offload> {
        self.offload
    }

    /// Sets where the frozen weights are while they are not used.
    pub fn set_offload(&mut self, offload: Option<Offload>) {
        self.offload = offload;
    }

    /// Checks that the frozen weights of the layers can be where `base.offload` says.
    ///
    /// # Errors
    /// A device that reads no weights from files, random weights, and weights that are converted when they are loaded: a
    /// converted copy is in memory.
    pub fn check_offload(&self, device: &Device) -> Result<(), BaseError> {
        let Some(offload) = self.offload else {
            return Ok(());
        };
        let can = Capabilities::of(device);
        if !can.reads_in_place || offload == Offload::Host {
            return Err(BaseError::OffloadDevice {
                device: can.name(),
                reads_in_place: can.reads_in_place,
                offload,
            });
        }
        let Some(checkpoint) = &self.checkpoint else {
            return Err(BaseError::OffloadRandom);
        };
        let mut layers = tensors(&self.config).into_iter();
        let copied = layers.find(|tensor| {
            let size = self.size(checkpoint, tensor);
            tensor.layer.is_some() && is_large(tensor) && size.mapped < size.bytes / 2
        });
        match copied {
            None => Ok(()),
            Some(tensor) => Err(BaseError::OffloadCopy {
                path: checkpoint.path().to_owned(),
                stored: checkpoint.encoding(&tensor.name)?.to_owned(),
                precision: self.precision.map(super::Precision::dtype),
                tensor: tensor.name,
            }),
        }
    }

    /// The most bytes of mapped weights that are in memory at a time with `base.offload = "disk"`: those of two layers,
    /// of the head, and of the embedding.
    pub fn mapped_at_a_time(&self) -> u64 {
        let Some(checkpoint) = &self.checkpoint else {
            return 0;
        };
        let mut layers = vec![0; self.config.num_hidden_layers];
        let mut outside = 0;
        for tensor in tensors(&self.config) {
            let mapped = self.size(checkpoint, &tensor).mapped;
            match tensor.layer {
                Some(layer) => layers[layer] += mapped,
                None => outside += mapped,
            }
        }
        let two = layers.windows(2).map(|pair| pair[0] + pair[1]).max();
        two.or(layers.first().copied()).unwrap_or(0) + outside
    }

    /// Bytes of a tensor of a checkpoint in memory; none of one that loading reports.
    pub(super) fn size(&self, checkpoint: &Checkpoint, tensor: &TensorLayout) -> Size {
        let Ok(info) = checkpoint.info(&tensor.name) else {
            return Size::default();
        };
        let stored = burn_dtype(info.dtype).unwrap_or(DType::F32);
        let matrix = tensor.part == Part::Weight && self.stays_quantised(tensor.module);
        let quantised = match matrix {
            true => checkpoint.quantised(&tensor.name).ok().flatten(),
            false => None,
        };
        if let Some(matrix) = quantised {
            return Size {
                bytes: matrix.bytes() as u64,
                mapped: matrix.codes().len() as u64,
            };
        }
        let dtype = self.precision.map_or(stored, super::Precision::dtype);
        let elements = info.shape.iter().product::<usize>() as u64;
        let bytes = elements * dtype.size() as u64;
        // a converted tensor is a copy in memory, and its mapped source is dropped
        let plain = checkpoint.layout() == Layout::HuggingFace && dtype == stored;
        let plain = plain && checkpoint.shares_pages(&tensor.name).unwrap_or(false);
        Size {
            bytes,
            mapped: if plain { bytes } else { 0 },
        }
    }

    /// The pages of the layers, for a base model with `base.offload = "disk"`.
    ///
    /// # Errors
    /// If the system starts no thread.
    pub(super) fn layer_pages(&self) -> Result<Option<LayerPages>, BaseError> {
        let (Some(Offload::Disk), Some(checkpoint)) = (self.offload, &self.checkpoint) else {
            return Ok(None);
        };
        let all = tensors(&self.config);
        let pages = |wanted: &dyn Fn(&TensorLayout) -> bool| -> Result<Pages, BaseError> {
            let of = all.iter().filter(|tensor| {
                is_large(tensor) && wanted(tensor) && self.size(checkpoint, tensor).mapped > 0
            });
            Ok(checkpoint.pages(of.map(|tensor| tensor.name.as_str()))?)
        };
        let layers = (0..self.config.num_hidden_layers)
            .map(|layer| pages(&|tensor| tensor.layer == Some(layer)))
            .collect::<Result<_, _>>()?;
        let of_kind = |kind| pages(&|tensor| tensor.module.kind == kind);
        let embedding = of_kind(ModuleKind::Embedding)?;
        let (head, embedding) = if self.config.tie_word_embeddings {
            (embedding, Pages::default())
        } else {
            (of_kind(ModuleKind::OutputHead)?, embedding)
        };
        let pages = LayerPages::new(layers, head, embedding).map_err(BaseError::Thread)?;
        Ok(Some(pages))
    }
}

/// Whether a tensor is a matrix; norms and biases are small, and may be copied.
fn is_large(tensor: &TensorLayout) -> bool {
    tensor.part == Part::Weight && tensor.module.kind != ModuleKind::Norm
}
