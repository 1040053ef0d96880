//! The trained tensors of a run, and the model that computes with them.
//!
//! They are one flat buffer in f32, and the model's tensors are cut from it. If the model computes in 16 bits, its low-rank
//! branches are cut from a copy of the buffer, which is made once a step. In full fine-tuning each tensor is by itself: the
//! buffer would be a second copy of the whole model for a moment.
//!
//! If several devices share the layers, the buffer and the optimizer are on the first, and the model's tensors are cut from copies
//! of its parts, which are made once a step.

use std::sync::Arc;

use burn::tensor::{DType, Device, Tensor, TensorData};
use simmer_kernels::{Capabilities, Operation, copy_again};
use simmer_model::{LlamaForCausalLM, Parameters, SegmentGradients, Segments};

use crate::gradient::Gradient;
use crate::optimizer::{AdamW, Rate};

/// A model, and its trained tensors in one buffer unless all of its tensors are trained.
#[derive(Debug)]
pub(crate) struct Trained {
    model: LlamaForCausalLM,
    segments: Arc<Segments>,
    buffer: Option<Buffer>,
}

#[derive(Debug)]
struct Buffer {
    /// `[N]`, f32
    value: Tensor<1>,
    half: Option<Half>,
    /// Whether updates are in place.
    in_place: bool,
    /// Whether the model's tensors show such an update, and need not be cut again.
    shows_updates: bool,
}

/// A copy of the buffer in 16 bits.
#[derive(Debug)]
struct Half {
    /// `[N]`
    value: Tensor<1>,
    /// The model with its low-rank branches cut from the copy.
    model: LlamaForCausalLM,
}

impl Trained {
    pub(crate) fn new(model: LlamaForCausalLM) -> Self {
        let segments = Arc::new(Segments::of(&model));
        let mut trained = Self {
            buffer: None,
            segments,
            model,
        };
        if !trained.segments.are_the_whole_model() {
            trained.hold(trained.segments.values(&trained.model));
        }
        trained
    }

    /// The model, with trained tensors in f32.
    pub(crate) fn model(&self) -> &LlamaForCausalLM {
        &self.model
    }

    pub(crate) fn into_model(self) -> LlamaForCausalLM {
        self.model
    }

    pub(crate) fn segments(&self) -> &Arc<Segments> {
        &self.segments
    }

    pub(crate) fn is_flat(&self) -> bool {
        self.buffer.is_some()
    }

    /// The model to compute losses and gradients with.
    pub(crate) fn computing(&self) -> &LlamaForCausalLM {
        let half = self.buffer.as_ref().and_then(|buffer| buffer.half.as_ref());
        half.map_or(&self.model, |half| &half.model)
    }

    /// The device of the trained tensors, without automatic differentiation; the first, if several share the layers.
    pub(crate) fn device(&self) -> Device {
        self.model.device().without_autodiff()
    }

    /// No gradient yet.
    pub(crate) fn no_gradient(&self) -> Gradient {
        Gradient::none(&self.segments, self.is_flat())
    }

    /// Replaces the trained tensors by those of a training checkpoint.
    pub(crate) fn put(&mut self, values: &Parameters) {
        if self.is_flat() {
            self.hold(self.segments.flat(values, &self.device()));
        } else {
            self.model = self.model.clone().with_trainable(values);
        }
    }

    /// The buffer of the trained tensors, if they are one: `[N]`.
    pub(crate) fn buffer(&self) -> Option<Tensor<1>> {
        Some(self.buffer.as_ref()?.value.clone())
    }

    /// Replaces the buffer of the trained tensors.
    pub(crate) fn put_flat(&mut self, values: Vec<f32>) {
        let length = values.len();
        self.put_buffer(Tensor::from_data(
            TensorData::new(values, [length]),
            &self.device(),
        ));
    }

    /// The same with a tensor on its device: `[N]`.
    pub(crate) fn put_buffer(&mut self, value: Tensor<1>) {
        self.hold(value);
    }

    /// Updates the trained tensors.
    pub(crate) fn update(&mut self, optimizer: &mut AdamW, gradient: Gradient, rate: Rate) {
        match gradient {
            Gradient::Flat { sum: None, .. } => {}
            Gradient::Flat {
                sum: Some(sum),
                found,
            } => self.update_buffer(optimizer, sum, &found, rate),
            Gradient::Placed { .. } => unreachable!("gathered before the update"),
            Gradient::Tensors(gradients) => self.update_tensors(optimizer, gradients, rate),
        }
    }

    fn update_buffer(
        &mut self,
        optimizer: &mut AdamW,
        gradient: Tensor<1>,
        found: &[bool],
        rate: Rate,
    ) {
        let Some(buffer) = &mut self.buffer else {
            unreachable!("a flat gradient is that of a buffer");
        };
        let rate = Rate {
            in_place: buffer.in_place,
            ..rate
        };
        let value = optimizer.update_flat(buffer.value.clone(), gradient, found, rate);
        if buffer.shows_updates {
            if let Some(half) = &mut buffer.half {
                half.value = copy_again(half.value.clone(), value.clone());
            }
            buffer.value = value;
        } else {
            self.hold(value);
        }
    }

    fn update_tensors(&mut self, optimizer: &mut AdamW, gradients: SegmentGradients, rate: Rate) {
        let values = optimizer.update_tensors(self.model.trainable(), gradients, rate);
        self.model = self.model.clone().with_trainable(&values);
    }

    /// Cuts the model's tensors from a buffer.
    fn hold(&mut self, value: Tensor<1>) {
        let device = Capabilities::of(&value.device());
        let dtype = self.model.computes_in();
        let in_place = device.updates_in_place;
        let halves = in_place && dtype != DType::F32 && device.fused.contains(Operation::LowRank);
        self.model = self.segments.cut(self.model.clone(), &value, None);
        let half = halves.then(|| {
            let half = value.clone().cast(dtype);
            Half {
                model: self.segments.cut(self.model.clone(), &value, Some(&half)),
                value: half,
            }
        });
        self.buffer = Some(Buffer {
            value,
            half,
            in_place,
            // the copies on other devices do not
            shows_updates: in_place && !self.segments.are_placed(),
        });
    }
}
