//! The buffers of places, where several devices share the layers of a model.
//!
//! Axes: N elements of the buffer, M elements of the buffer of a place, P places.

use burn::tensor::{Device, Tensor};

use super::{Segment, SegmentGradients, Segments, trained_tensors};
use crate::llama::LlamaForCausalLM;
use crate::placement::on;

/// The segments of a place, in a buffer of their own.
#[derive(Debug, Clone)]
pub(super) struct OfPlace {
    device: Device,
    /// Their numbers among the segments of the model.
    numbers: Vec<usize>,
    /// The same segments, with their ranges in the buffer of the place.
    segments: Segments,
}

impl Segments {
    /// The same, with the segments of each place of the model, if it has several.
    pub(super) fn with_places(mut self, model: &LlamaForCausalLM) -> Self {
        let count = model.places();
        if count == 1 {
            return self;
        }
        let mut places = vec![0; trained_tensors(&model.model.embed_tokens)];
        for (index, layer) in model.model.layers.iter().enumerate() {
            let place = model.place_of(Some(index), false);
            places.extend(vec![place; trained_tensors(layer)]);
        }
        // the last normalisation and the head
        places.resize(self.visited.len(), count - 1);
        let mut of_segment = vec![0; self.all.len()];
        for (number, place) in self.visited.iter().zip(places) {
            of_segment[*number] = place;
        }
        self.places = (0..count)
            .map(|place| {
                let all = of_segment.iter().enumerate();
                let numbers = all.filter(|(_, of)| **of == place);
                let numbers: Vec<usize> = numbers.map(|(number, _)| number).collect();
                let of = numbers.iter().map(|number| &self.all[*number]);
                let shapes: Vec<_> = of
                    .map(|segment| (segment.name.clone(), segment.shape.clone()))
                    .collect();
                OfPlace {
                    device: model.device_of(place).without_autodiff(),
                    numbers,
                    segments: Self::of_shapes(&shapes),
                }
            })
            .collect();
        self
    }

    /// Whether several places have buffers of their own.
    pub fn are_placed(&self) -> bool {
        !self.places.is_empty()
    }

    /// The place of a segment, and the segment with its range in the buffer of the place.
    pub(super) fn in_place(&self, number: usize) -> (usize, &Segment) {
        for (place, of) in self.places.iter().enumerate() {
            if let Ok(at) = of.numbers.binary_search(&number) {
                return (place, &of.segments.all[at]);
            }
        }
        (0, &self.all[number])
    }

    /// The buffers of the places: copies of their parts of the buffer. If there is one place, the buffer itself.
    ///
    /// # Shapes
    /// `flat`: `[N]`. Result: `[M]` for each place.
    pub(super) fn spread(&self, flat: &Tensor<1>) -> Vec<Tensor<1>> {
        if !self.are_placed() {
            return vec![flat.clone()];
        }
        let here = flat.device();
        let places = self.places.iter().map(|of| {
            let parts = of.numbers.iter().map(|number| {
                let range = self.all[*number].range.clone();
                Some(flat.clone().slice(range))
            });
            on(of.segments.joined(parts.collect(), &here), &of.device)
        });
        places.collect()
    }

    /// The gradients of a micro-batch in the buffers of the places; zeros for segments without one.
    ///
    /// # Shapes
    /// Result: `[M]` for each place.
    pub fn joined_by_place(&self, mut gradients: SegmentGradients) -> Vec<Tensor<1>> {
        let places = self.places.iter().map(|of| {
            let numbers = of.numbers.iter();
            let own = numbers.map(|number| gradients[*number].take()).collect();
            of.segments.joined(own, &of.device)
        });
        places.collect()
    }

    /// The buffer on a device, from those of the places.
    ///
    /// # Shapes
    /// `places`: `[M]` for each place. Result: `[N]`.
    pub fn gathered(&self, places: Vec<Tensor<1>>, device: &Device) -> Tensor<1> {
        let places: Vec<Tensor<1>> = places.into_iter().map(|of| on(of, device)).collect();
        let parts = (0..self.all.len()).map(|number| {
            let (place, segment) = self.in_place(number);
            Some(places[place].clone().slice(segment.range.clone()))
        });
        self.joined(parts.collect(), device)
    }
}
