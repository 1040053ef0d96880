//! Where the parts of a model are: all of it on one device, or its layers on several.
//!
//! A place is one of the devices of a model, with layers that follow each other. The embedding is with the first layers, the last
//! normalisation and the head with the last ones. Only hidden states and their gradients go from a place to the next. The same
//! device may be several places.
//!
//! Axes: P places, L layers.

use std::ops::Range;

use burn::tensor::{Device, Tensor};
use simmer_checkpoint::family::ModuleKind;
use simmer_checkpoint::layout::tensors;
use simmer_kernels::Capabilities;

use crate::base::{Base, BaseError};
use crate::llama::LlamaForCausalLM;

/// The devices that a model is loaded to, with the layers of each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    devices: Vec<Device>,
    places: Places,
}

impl Placement {
    /// All of a model on one device.
    pub fn one(device: Device) -> Self {
        Self {
            devices: vec![device],
            places: Places::one(),
        }
    }

    /// Numbers of layers on devices: as many for each device as `counts` says.
    ///
    /// # Panics
    /// If there is not one number a device.
    pub fn of(devices: Vec<Device>, counts: &[usize]) -> Self {
        assert_eq!(devices.len(), counts.len(), "one number of layers a device");
        Self {
            devices,
            places: Places::of(counts),
        }
    }

    /// The devices, in the order of the layers.
    pub fn devices(&self) -> &[Device] {
        &self.devices
    }

    /// The device of the embedding and of the lowest layers, where the trained tensors of a run are, too.
    pub fn first(&self) -> &Device {
        &self.devices[0]
    }

    /// The device of the head.
    pub(crate) fn last(&self) -> &Device {
        &self.devices[self.devices.len() - 1]
    }

    /// The device of a layer.
    pub(crate) fn of_layer(&self, layer: usize) -> &Device {
        &self.devices[self.places.of_layer(layer)]
    }

    pub(crate) fn places(&self) -> &Places {
        &self.places
    }

    /// Which layers are where, as a text for people, if there are several places.
    pub fn text(&self) -> Option<String> {
        let starts = &self.places.starts;
        let (last, others) = self
            .devices
            .split_last()
            .filter(|(_, others)| !others.is_empty())?;
        let each = others
            .iter()
            .zip(starts.windows(2))
            .map(|(device, layers)| {
                let (first, last) = (layers[0], layers[1] - 1);
                let range = if first == last {
                    first.to_string()
                } else {
                    format!("{first} to {last}")
                };
                format!("{range} on {}", name(device))
            });
        let of_last = format!("{} and above on {}", starts.last()?, name(last));
        let all: Vec<String> = each.chain([of_last]).collect();
        Some(format!("layers by free memory: {}", all.join(", ")))
    }

    /// The same devices, which record gradients.
    pub(crate) fn autodiff(&self) -> Self {
        let devices = self.devices.iter();
        Self {
            devices: devices.map(|device| device.clone().autodiff()).collect(),
            places: self.places.clone(),
        }
    }
}

fn name(device: &Device) -> String {
    Capabilities::of(device).name()
}

/// The layers of each place of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Places {
    /// The first layer of each place, `[P]`.
    starts: Vec<usize>,
}

impl Places {
    fn one() -> Self {
        Self { starts: vec![0] }
    }

    /// Places with these numbers of layers.
    pub(crate) fn of(counts: &[usize]) -> Self {
        let starts = counts.iter().scan(0, |next, count| {
            let start = *next;
            *next += count;
            Some(start)
        });
        Self {
            starts: starts.collect(),
        }
    }

    /// P.
    pub(crate) fn count(&self) -> usize {
        self.starts.len()
    }

    /// The place of a layer.
    pub(crate) fn of_layer(&self, layer: usize) -> usize {
        self.starts.partition_point(|start| *start <= layer) - 1
    }

    /// The layers of a place, of `all` layers.
    fn layers(&self, place: usize, all: usize) -> Range<usize> {
        let end = self.starts.get(place + 1);
        self.starts[place]..end.copied().unwrap_or(all)
    }
}

impl LlamaForCausalLM {
    /// P, the number of places that the model's layers are in.
    pub fn places(&self) -> usize {
        self.places.count()
    }

    /// The layers of a place.
    pub(crate) fn layers_of(&self, place: usize) -> Range<usize> {
        self.places.layers(place, self.model.layers.len())
    }

    /// The device of a place.
    pub(crate) fn device_of(&self, place: usize) -> Device {
        let norm = if place + 1 == self.places.count() {
            &self.model.norm
        } else {
            &self.model.layers[self.layers_of(place).start].post_attention_layernorm
        };
        norm.weight.val().device()
    }

    /// The place of a layer; without a layer, that of the embedding, or of the head.
    pub(crate) fn place_of(&self, layer: Option<usize>, is_embedding: bool) -> usize {
        match layer {
            Some(layer) => self.places.of_layer(layer),
            None if is_embedding => 0,
            None => self.places.count() - 1,
        }
    }

    /// The device of a module of a layer; without a layer, of the embedding, or of the head.
    pub(crate) fn device_of_module(&self, layer: Option<usize>, is_embedding: bool) -> Device {
        self.device_of(self.place_of(layer, is_embedding))
    }

    /// Hidden states on the device of a place. A copy between GPUs is queued like a kernel, and the host continues.
    pub(crate) fn at(&self, place: usize, x: Tensor<2>) -> Tensor<2> {
        if self.places.count() == 1 {
            return x;
        }
        on(x, &self.device_of(place))
    }
}

/// A tensor on a device: itself if it is there.
pub(crate) fn on<const D: usize>(x: Tensor<D>, device: &Device) -> Tensor<D> {
    let bare = |device: Device| device.without_autodiff();
    if bare(x.device()) == bare(device.clone()) {
        return x;
    }
    x.to_device(device)
}

impl Base {
    /// How many layers each device gets, given its free memory in bytes: shares of the weights in proportion to it. The embedding
    /// counts for the first device, the head for the last.
    ///
    /// # Errors
    /// More devices than layers.
    pub fn layers_by_memory(&self, free: &[u64]) -> Result<Vec<usize>, BaseError> {
        let layers = self.config.num_hidden_layers;
        if free.len() > layers {
            return Err(BaseError::Devices {
                devices: free.len(),
                layers,
            });
        }
        let mut of_layers = vec![0; layers];
        let mut ends = [0; 2];
        for tensor in tensors(&self.config) {
            let bytes = self.bytes_of(&tensor);
            match tensor.layer {
                Some(layer) => of_layers[layer] += bytes,
                None if tensor.module.kind == ModuleKind::Embedding => {
                    ends[0] += bytes;
                    // the last device has a copy for the head
                    ends[1] += if self.config.tie_word_embeddings {
                        bytes
                    } else {
                        0
                    };
                }
                None => ends[1] += bytes,
            }
        }
        Ok(shares(&of_layers, ends, free))
    }

    /// The layers of the model on these devices, by their free memory; in equal shares if it is not known.
    ///
    /// # Errors
    /// As [`Base::layers_by_memory`].
    pub fn placed(&self, devices: Vec<Device>) -> Result<Placement, BaseError> {
        self.check_shared(devices.len())?;
        if devices.len() == 1 {
            return Ok(Placement {
                devices,
                places: Places::one(),
            });
        }
        let free: Option<Vec<u64>> = devices
            .iter()
            .map(|device| Some(Capabilities::of(device).memory.now()?.available))
            .collect();
        let free = free.unwrap_or_else(|| vec![1; devices.len()]);
        let counts = self.layers_by_memory(&free)?;
        Ok(Placement::of(devices, &counts))
    }
}

/// How many of the layers, with so many bytes each, each device gets. `ends`: the bytes beside the first and the last layers.
/// Minimises `Σ bytes² / free` over the devices, which would be least for shares in exact proportion to the free memory.
/// Each device gets a layer.
///
/// # Shapes
/// `layers`: `[L]`. `free` and result: `[P]`, where P is at most L.
fn shares(layers: &[u64], ends: [u64; 2], free: &[u64]) -> Vec<usize> {
    let (count, places) = (layers.len(), free.len());
    let mut before = vec![0.0];
    let mut sum = 0.0;
    for bytes in layers {
        sum += *bytes as f64;
        before.push(sum);
    }
    let cost = |place: usize, from: usize, to: usize| {
        let mut bytes = before[to] - before[from];
        if place == 0 {
            bytes += ends[0] as f64;
        }
        if place + 1 == places {
            bytes += ends[1] as f64;
        }
        bytes * bytes / free[place].max(1) as f64
    };
    // the least cost of the places so far with the layers below `to`, and where the last of them starts
    let mut least: Vec<Option<f64>> = (0..=count).map(|to| (to == 0).then_some(0.0)).collect();
    let mut starts = Vec::new();
    for place in 0..places {
        let mut next = vec![None; count + 1];
        let mut start = vec![0; count + 1];
        for to in 1..=count {
            for (from, below) in least[..to].iter().enumerate() {
                let Some(below) = *below else { continue };
                let all = below + cost(place, from, to);
                if next[to].is_none_or(|best| all < best) {
                    next[to] = Some(all);
                    start[to] = from;
                }
            }
        }
        least = next;
        starts.push(start);
    }
    let mut end = count;
    let mut counts = vec![0; places];
    for place in (0..places).rev() {
        let start = starts[place][end];
        counts[place] = end - start;
        end = start;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_shared_by_free_memory() {
        let equal = [10; 8];
        assert_eq!(shares(&equal, [0, 0], &[100]), [8]);
        assert_eq!(shares(&equal, [0, 0], &[100, 100]), [4, 4]);
        assert_eq!(shares(&equal, [0, 0], &[300, 100]), [6, 2]);
        assert_eq!(shares(&equal, [0, 0], &[100, 100, 200]), [2, 2, 4]);
        // the embedding and the head count for their devices
        assert_eq!(shares(&equal, [20, 0], &[100, 100]), [3, 5]);
        assert_eq!(shares(&equal, [20, 20], &[100, 100]), [4, 4]);
        // a device without free memory still gets a layer
        assert_eq!(shares(&equal, [0, 500], &[100, 0, 100]), [6, 1, 1]);
        assert_eq!(shares(&[10, 10, 40, 10], [0, 0], &[100, 100]), [2, 2]);
        assert_eq!(shares(&[1, 1, 1], [9, 9], &[1, 1, 1]), [1, 1, 1]);
    }

    #[test]
    fn places_have_layers_that_follow_each_other() {
        let places = Places::of(&[2, 1, 3]);
        assert_eq!(places.count(), 3);
        let of: Vec<usize> = (0..6).map(|layer| places.of_layer(layer)).collect();
        assert_eq!(of, [0, 0, 1, 2, 2, 2]);
        assert_eq!(places.layers(1, 6), 2..3);
        assert_eq!(places.layers(2, 6), 3..6);
        assert_eq!(Places::one().layers(0, 6), 0..6);
    }
}
