//! LoRA: the low-rank branch of a frozen weight.
//!
//! `y += scale · (m∘x) Aᵀ Bᵀ`, with the dropout mask m. A is initialised uniformly in `±1/√I` and B to zero, so
//! that training starts at the base model.
//!
//! Source: Hu et al. 2021; PEFT `lora/layer.py`, `reset_lora_parameters`.
//!
//! Axes: T tokens, I input features, O output features, r rank.

#![expect(
    non_snake_case,
    reason = "fields have PEFT's names, which are keys in its files"
)]

use std::sync::Arc;

use burn::module::{Module, Param};
use burn::tensor::{Tensor, TensorData};
use simmer_kernels::{Dropout, FrozenWeight, LowRank, linear, lora_linear};

use super::low_rank::LowRankChange;
use super::{
    Axis, BesideLinear, Form, Kind, LinearAdapter, PLAIN, Part, Start, Trained, embedding, wide,
};
use crate::parameters::trained;
use crate::random::{stream, uniform};

/// LoRA, and rank-stabilised LoRA, which is LoRA with another scale.
pub static LORA: Kind = Kind {
    name: "LoRA",
    linear: Some(Form {
        tensors: &[A, B],
        start: |start| BesideLinear::Lora(Lora::new(start)),
        merged: |stored| Box::new(LowRankChange::of_linear(stored)),
    }),
    embedding: Some(embedding::FORM),
    ..PLAIN
};

pub(super) const A: Trained = Trained {
    field: "lora_A",
    end: ".lora_A.weight",
    shape: &[Axis::Rank, Axis::Columns],
    part: Part::A,
    is_factor: true,
};

pub(super) const B: Trained = Trained {
    field: "lora_B",
    end: ".lora_B.weight",
    shape: &[Axis::Rows, Axis::Rank],
    part: Part::B,
    is_factor: true,
};

/// The low-rank branch of a linear layer.
#[derive(Module, Debug)]
pub struct Lora {
    /// `[r, I]`, f32
    pub lora_A: Param<Tensor<2>>,
    /// `[O, r]`, f32
    pub lora_B: Param<Tensor<2>>,
    /// `alpha / r`, or `alpha / √r`
    scale: f64,
    /// Dropout probability of the branch's input.
    dropout: f64,
    /// Random stream of this layer's dropout masks.
    site: u64,
}

impl Lora {
    /// A new branch, which adds zero.
    pub(super) fn new(start: &Start<'_>) -> Self {
        let [out, inner] = start.shape;
        let rank = start.rank;
        let bound = 1.0 / (inner as f64).sqrt();
        let stream_of_a = format!("{}.{}", start.module, A.field);
        let a = uniform(start.seed, &stream_of_a, rank * inner, bound);
        let a = TensorData::new(a, [rank, inner]);
        Self {
            lora_A: trained(Tensor::from_data(a, start.device)),
            lora_B: trained(Tensor::zeros([out, rank], start.device)),
            scale: start.scale,
            dropout: start.dropout,
            site: stream(0, start.module),
        }
    }

    /// The branch for a forward pass; with dropout if `dropout_keys`, `[T]`, are given.
    pub(super) fn branch(&self, dropout_keys: Option<&Arc<[u64]>>) -> LowRank {
        let keys = dropout_keys.filter(|_| self.has_dropout());
        let dropout = keys.map(|keys| Dropout {
            keys: keys.clone(),
            site: self.site,
            probability: self.dropout,
        });
        LowRank {
            a: self.lora_A.val(),
            b: self.lora_B.val(),
            scale: self.scale,
            dropout,
        }
    }
}

impl LinearAdapter for Lora {
    fn forward(
        &self,
        x: Tensor<2>,
        weight: FrozenWeight,
        dropout_keys: Option<&Arc<[u64]>>,
    ) -> Tensor<2> {
        lora_linear(x, weight, self.branch(dropout_keys))
    }

    /// `x Wᵀ + s (m∘x) Aᵀ Bᵀ` is one matrix multiplication: `[x, s (m∘x) Aᵀ] [W, B]ᵀ`.
    fn operands(
        &self,
        x: Tensor<2>,
        weight: Tensor<2>,
        dropout_keys: Option<&Arc<[u64]>>,
    ) -> [Tensor<2>; 2] {
        let branch = self.branch(dropout_keys);
        let dtype = x.dtype();
        let x = wide(x);
        let low = linear(branch.input(x.clone()), branch.a) * branch.scale; // [T, r]
        let x = Tensor::cat(vec![x, low], 1).cast(dtype); // [T, I + r]
        let weight = Tensor::cat(vec![weight.cast(dtype), branch.b.cast(dtype)], 1); // [O, I + r]
        [x, weight]
    }

    fn low_rank(&self, dropout_keys: Option<&Arc<[u64]>>) -> Option<LowRank> {
        Some(self.branch(dropout_keys))
    }

    fn has_dropout(&self) -> bool {
        self.dropout > 0.0
    }
}
