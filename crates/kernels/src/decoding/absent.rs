//! Without libtorch no device has such steps.

use std::convert::Infallible;

use burn::tensor::{Device, Int, Tensor};

use super::NewestToken;
use crate::Scores;

/// The fixed memory of decoding steps. This build has no device with such steps.
#[derive(Debug)]
pub struct Decoding(Infallible);

/// What a step reads.
#[derive(Debug, Clone, Copy)]
pub struct StepInputs(Infallible);

#[expect(missing_docs, reason = "as in `present.rs`, where they can be called")]
impl Decoding {
    pub fn is_default(_device: &Device) -> bool {
        false
    }

    pub fn new(
        _rows: &[NewestToken<'_>],
        _room: usize,
        _vocabulary: usize,
        _device: &Device,
    ) -> Option<Self> {
        None
    }

    pub fn room(&self) -> usize {
        match self.0 {}
    }

    pub fn replace(&mut self, _row: usize, _next: &NewestToken<'_>) {
        match self.0 {}
    }

    pub fn run(
        &mut self,
        _rows: &[NewestToken<'_>],
        _compute: &mut dyn FnMut(&StepInputs) -> Tensor<2>,
    ) -> &[f32] {
        match self.0 {}
    }

    pub fn record_no_step(&mut self, _reason: &str) {
        match self.0 {}
    }

    pub fn not_recorded(&self) -> Option<&str> {
        match self.0 {}
    }
}

#[expect(missing_docs, reason = "as in `present.rs`, where they can be called")]
impl StepInputs {
    pub fn tokens(&self) -> Tensor<1, Int> {
        match self.0 {}
    }

    pub fn positions(&self) -> Tensor<1, Int> {
        match self.0 {}
    }

    pub fn attend(
        &self,
        _qkv: [Tensor<3>; 3],
        _rotary: Option<[Tensor<2>; 2]>,
        _cache: [Tensor<3>; 2],
        _scores: Scores,
    ) -> Tensor<3> {
        match self.0 {}
    }
}
