//! Where the frozen weights are while they are not used.

use burn::tensor::DType;
use serde::{Deserialize, Serialize};
use simmer_checkpoint::family::ModuleKind;
use simmer_checkpoint::layout::{Part, TensorLayout, tensors};
use simmer_checkpoint::{Layout, Pages};
use simmer_kernels::Capabilities;

use super::{Base, BaseError};
use crate::offload::LayerPages;
use crate::tensor_file::burn_dtype;

/// Where the frozen weights are while they are not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[derive(schemars::JsonSchema)]
pub enum Offload {
    /// In main memory, for a device with memory of its own. The layers are copied to the device while the layer before
    /// computes, forward and backward, so that two layers are in its memory at a time. The losses are the same as without.
    Host,
    /// In their files, for a device that computes in main memory. The layers are read in the same way.
    Disk,
}

/// Bytes of a tensor in memory, and how many of them are pages of its file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) bytes: u64,
    pub(super) mapped: u64,
}

impl Offload {
    /// Its name in a recipe.
    pub fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Disk => "disk",
        }
    }

    /// The one that a device has.
    pub fn of(device: &Capabilities) -> Self {
        if device.reads_in_place {
            Self::Disk
        } else {
            Self::Host
        }
    }
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
    /// A device without such a place. For `"disk"` also random weights, and weights that are converted when they are loaded:
    /// a converted copy is in memory.
    pub fn check_offload(&self, can: &Capabilities) -> Result<(), BaseError> {
        let Some(offload) = self.offload else {
            return Ok(());
        };
        if offload != Offload::of(can) {
            return Err(BaseError::OffloadDevice {
                device: can.name(),
                offload,
            });
        }
        if offload == Offload::Host {
            return Ok(());
        }
        let Some(checkpoint) = &self.checkpoint else {
            return Err(BaseError::OffloadRandom);
        };
        let mut layers = tensors(&self.config).into_iter();
        let copied = layers.find(|tensor| {
            let size = self.size(tensor);
            tensor.layer.is_some() && is_large(tensor) && size.mapped < size.bytes / 2
        });
        match copied {
            None => Ok(()),
            Some(tensor) => Err(BaseError::OffloadCopy {
                path: checkpoint.path().to_owned(),
                stored: checkpoint.encoding(&tensor.name)?.to_owned(),
                precision: self.precision.map(super::BasePrecision::name),
                tensor: tensor.name,
            }),
        }
    }

    /// Checks that so many devices may share the model.
    ///
    /// # Errors
    /// Several devices with `base.offload`, whose thread reads ahead for one.
    pub(crate) fn check_shared(&self, devices: usize) -> Result<(), BaseError> {
        if devices > 1 && self.offload.is_some() {
            return Err(BaseError::OffloadShared { devices });
        }
        Ok(())
    }

    /// The `base.offload` that is possible on a device.
    pub fn possible_offload(&self, device: &Capabilities) -> Option<Offload> {
        let offload = Some(Offload::of(device));
        let base = Self {
            offload,
            ..self.clone()
        };
        base.check_offload(device).ok().and(offload)
    }

    /// The bytes of weights that `base.offload` keeps in main memory for a device with memory of its own: those of all layers.
    pub fn bytes_in_host(&self) -> u64 {
        let layers = tensors(&self.config).into_iter();
        let layers = layers.filter(|tensor| tensor.layer.is_some() && is_large(tensor));
        layers.map(|tensor| self.size(&tensor).bytes).sum()
    }

    /// The most bytes of weights that are in memory at a time with `base.offload`: those of two layers, of the head, and of
    /// the embedding.
    pub fn bytes_at_a_time(&self) -> u64 {
        let mut layers = vec![0; self.config.num_hidden_layers];
        let mut outside = 0;
        for tensor in tensors(&self.config) {
            let bytes = self.size(&tensor).bytes;
            match tensor.layer {
                Some(layer) => layers[layer] += bytes,
                None => outside += bytes,
            }
        }
        let two = layers.windows(2).map(|pair| pair[0] + pair[1]).max();
        two.or(layers.first().copied()).unwrap_or(0) + outside
    }

    /// Bytes of a tensor in memory; none of one that loading reports.
    pub(super) fn size(&self, tensor: &TensorLayout) -> Size {
        let wanted = self.dtype();
        if let Some(bytes) = self.fp8_bytes(tensor) {
            return Size { bytes, mapped: 0 };
        }
        if let Some([bytes, mapped]) = self.bytes_as_stored(tensor) {
            return Size { bytes, mapped };
        }
        if let Some(bytes) = self.encoded_bytes(tensor) {
            return Size { bytes, mapped: 0 };
        }
        let elements = |shape: &[usize]| shape.iter().product::<usize>() as u64;
        let Some(checkpoint) = &self.checkpoint else {
            let dtype = wanted.unwrap_or(DType::F32);
            return Size {
                bytes: elements(&tensor.shape) * dtype.size() as u64,
                mapped: 0,
            };
        };
        let Ok(info) = checkpoint.info(&tensor.name) else {
            return Size::default();
        };
        let stored = burn_dtype(info.dtype).unwrap_or(DType::F32);
        let dtype = wanted.unwrap_or(stored);
        // with new rows it is another tensor than the stored one
        let grows = tensor.module.is_outermost() && !self.new_rows.is_empty();
        let shape = if grows { &tensor.shape } else { &info.shape };
        let bytes = elements(shape) * dtype.size() as u64;
        // a converted tensor is a copy in memory, and its mapped source is dropped
        let plain = checkpoint.layout() == Layout::HuggingFace && dtype == stored && !grows;
        let plain = plain && checkpoint.shares_pages(&tensor.name).unwrap_or(false);
        Size {
            bytes,
            mapped: if plain { bytes } else { 0 },
        }
    }

    /// The pages of the layers in their files; `None` for random weights.
    ///
    /// # Errors
    /// If the system starts no thread.
    pub(super) fn layer_pages(&self) -> Result<Option<LayerPages>, BaseError> {
        let Some(checkpoint) = &self.checkpoint else {
            return Ok(None);
        };
        let all = tensors(&self.config);
        let pages = |wanted: &dyn Fn(&TensorLayout) -> bool| -> Result<Pages, BaseError> {
            let of = all.iter().filter(|tensor| {
                is_large(tensor) && wanted(tensor) && self.size(tensor).mapped > 0
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
