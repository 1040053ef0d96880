//! The share of a model that each device holds, if several devices share its layers.

use std::fmt;
use std::ops::Range;

use serde::Serialize;
use simmer_files::size::readable;
use simmer_kernels::Capabilities;
use simmer_model::base::{Base, BaseError};

use super::memory::Parts;
use super::room::Room;

/// What one device holds.
#[derive(Debug, Clone)]
pub(super) struct Share {
    pub(super) device: Capabilities,
    pub(super) layers: Range<usize>,
    /// Its place among all devices, and their number.
    pub(super) place: usize,
    pub(super) places: usize,
    /// Bytes of its frozen weights, and of the part that stays mapped.
    pub(super) weights: [u64; 2],
    /// Its trained parameters.
    pub(super) trained: usize,
}

/// Trained parameters by their place in the model.
#[derive(Debug, Clone, Default)]
pub(super) struct TrainedParameters {
    /// Of each layer.
    layers: Vec<usize>,
    /// Of the embedding, and of the last normalisation and the head.
    ends: [usize; 2],
}

impl TrainedParameters {
    /// From the keys and sizes of trained tensors.
    pub(super) fn of<'a>(layers: usize, tensors: impl Iterator<Item = (&'a str, usize)>) -> Self {
        let mut found = Self {
            layers: vec![0; layers],
            ends: [0; 2],
        };
        for (key, size) in tensors {
            let layer = key.split_once("layers.").and_then(|(_, rest)| {
                let (number, _) = rest.split_once('.')?;
                number.parse::<usize>().ok()
            });
            match layer.and_then(|layer| found.layers.get_mut(layer)) {
                Some(of_layer) => *of_layer += size,
                None => found.ends[usize::from(!key.contains("embed"))] += size,
            }
        }
        found
    }

    fn in_share(&self, layers: &Range<usize>, is_first: bool, is_last: bool) -> usize {
        let of_layers = self.layers.get(layers.clone()).unwrap_or_default();
        let [embedding, head] = self.ends;
        of_layers.iter().sum::<usize>()
            + if is_first { embedding } else { 0 }
            + if is_last { head } else { 0 }
    }
}

impl Share {
    /// The shares of devices, by their free memory.
    ///
    /// # Errors
    /// More devices than layers.
    pub(super) fn all(
        base: &Base,
        devices: &[Capabilities],
        rooms: &[Option<Room>],
        trained: &TrainedParameters,
    ) -> Result<Vec<Self>, BaseError> {
        let free: Option<Vec<u64>> = rooms.iter().map(|room| Some((*room)?.available)).collect();
        let free = free.unwrap_or_else(|| vec![1; devices.len()]);
        let counts = base.layers_by_memory(&free)?;
        let weights = base.bytes_of_places(&counts);
        let places = devices.len();
        let mut start = 0;
        let shares = devices.iter().zip(counts).zip(weights).enumerate();
        let shares = shares.map(|(place, ((device, count), weights))| {
            let layers = start..start + count;
            start = layers.end;
            Self {
                device: *device,
                place,
                places,
                weights,
                trained: trained.in_share(&layers, place == 0, place + 1 == places),
                layers,
            }
        });
        Ok(shares.collect())
    }

    pub(super) fn is_first(&self) -> bool {
        self.place == 0
    }

    pub(super) fn is_last(&self) -> bool {
        self.place + 1 == self.places
    }

    /// The micro-batches whose activations it holds at a time, of so many in a step.
    pub(super) fn in_flight(&self, micro_batches: usize) -> usize {
        (self.places - self.place).min(micro_batches.max(1))
    }
}

/// The memory of one of several devices that share the layers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OnDevice {
    /// The device.
    pub device: String,
    /// Its first layer.
    pub first_layer: usize,
    /// Number of its layers.
    pub layers: usize,
    /// Memory by part, in bytes.
    pub parts: Parts,
    /// The most memory at one time, in bytes.
    pub peak: u64,
    /// The device's memory, if it is known.
    pub room: Option<Room>,
}

impl OnDevice {
    pub(super) fn of(share: &Share, parts: Parts, room: Option<Room>) -> Self {
        Self {
            device: share.device.name(),
            first_layer: share.layers.start,
            layers: share.layers.len(),
            peak: parts.peak(),
            parts,
            room,
        }
    }
}

impl fmt::Display for OnDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let last = self.first_layer + self.layers - 1;
        let peak = readable(self.peak);
        let Self {
            device,
            first_layer,
            ..
        } = self;
        write!(
            f,
            "{:<12} {peak:>12}  on {device}, layers {first_layer} to {last}",
            ""
        )?;
        if let Some(room) = self.room {
            let [free, total] = [room.available, room.total].map(readable);
            write!(f, ", {free} free of {total}")?;
        }
        Ok(())
    }
}

/// Whether devices have room for these parts, up to this fraction of their free memory. Several that are the processor have one
/// memory. A device whose memory is not known has room.
pub(super) fn fit(shares: &[Share], parts: &[Parts], rooms: &[Option<Room>], up_to: f64) -> bool {
    let within = |needed: u64, room: Option<Room>| {
        room.is_none_or(|room| needed as f64 <= up_to * room.available as f64)
    };
    if shares.iter().any(|share| share.device.memory.is_main()) {
        let needed = parts.iter().map(Parts::needed).sum();
        return within(needed, rooms.first().copied().flatten());
    }
    let pairs = parts.iter().zip(rooms);
    pairs
        .into_iter()
        .all(|(parts, room)| within(parts.needed(), *room))
}

/// The memory of all devices together.
pub(super) fn together(shares: &[Share], rooms: &[Option<Room>]) -> Option<Room> {
    let first = rooms.first().copied().flatten()?;
    if shares.iter().any(|share| share.device.memory.is_main()) {
        return Some(first);
    }
    let all: Option<Vec<Room>> = rooms.iter().copied().collect();
    let all = all?;
    Some(Room {
        total: all.iter().map(|room| room.total).sum(),
        available: all.iter().map(|room| room.available).sum(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trained_parameters_are_where_their_layers_are() {
        let tensors = [
            ("base_model.model.model.embed_tokens.lora_embedding_A", 1),
            (
                "base_model.model.model.layers.0.mlp.up_proj.lora_A.weight",
                10,
            ),
            (
                "base_model.model.model.layers.2.mlp.up_proj.lora_A.weight",
                100,
            ),
            ("base_model.model.model.norm.weight", 1000),
            ("base_model.model.lm_head.lora_A.weight", 10_000),
        ];
        let found = TrainedParameters::of(3, tensors.into_iter());
        assert_eq!(found.in_share(&(0..3), true, true), 11_111);
        assert_eq!(found.in_share(&(0..2), true, false), 11);
        assert_eq!(found.in_share(&(2..3), false, true), 11_100);
    }
}
