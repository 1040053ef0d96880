//! `base.offload = "host"`: the frozen weights of the layers are in main memory, and copied to the device ahead of their use.
//! Head and embedding stay on the device.

use std::sync::Arc;

use simmer_kernels::StoredWeight;

use super::Part;
use crate::decoder::DecoderLayer;

/// The weights of each layer in main memory, the lowest first. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct LayerCopies(Arc<[Vec<StoredWeight>]>);

impl LayerCopies {
    /// Those of these layers.
    pub(crate) fn of(layers: &[DecoderLayer]) -> Self {
        let layers = layers.iter().map(|layer| {
            let weights = layer.linears().map(|linear| &linear.weight);
            weights
                .filter_map(|weight| weight.stored().cloned())
                .collect()
        });
        Self(layers.collect())
    }

    /// See [`super::Offloaded::enter`]. The copies of `next` are written when the device has finished its work so far, so
    /// that they may take the memory of those that are released here.
    pub(super) fn enter(&self, now: Part, next: Option<Part>) {
        let layer = |part| match part {
            Part::Layer(layer) => Some(layer),
            Part::Head => None,
        };
        let wanted = [layer(now), next.and_then(layer)];
        for (index, weights) in self.0.iter().enumerate() {
            if !wanted.contains(&Some(index)) {
                weights.iter().for_each(StoredWeight::release);
            }
        }
        for index in wanted.into_iter().flatten() {
            StoredWeight::copy_ahead(&self.0[index]);
        }
    }

    /// The layers that are on the device.
    #[cfg(all(test, feature = "libtorch"))]
    pub(super) fn ahead(&self) -> Vec<usize> {
        let layers = self.0.iter().enumerate();
        let there = layers.filter(|(_, weights)| weights.iter().any(StoredWeight::is_ahead));
        there.map(|(index, _)| index).collect()
    }
}
