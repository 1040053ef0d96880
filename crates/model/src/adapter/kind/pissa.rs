//! PiSSA and OLoRA: a low-rank branch that starts at factors of the weight, which are subtracted from it.
//!
//! `y = x Wᵀ + s (x' Aᵀ Bᵀ - x A₀ᵀ B₀ᵀ)`, where A₀ and B₀ are the factors that A and B started with, and `x' = m∘x` with
//! dropout. PEFT writes `W - s·B₀A₀` over the weight; here the frozen weight stays as it is, mapped or quantised, and the
//! branch computes what has changed since the start.
//!
//! Without dropout it is one branch of twice the rank: `[A; A₀]` and `[B, -B₀]`. So it is also saved by default: a plain LoRA
//! adapter for the untouched base model.
//!
//! Source: Meng et al. 2024, equation 5; PEFT 0.21 `lora/layer.py`, `pissa_init`, `olora_init`, and `lora/model.py`,
//! `subtract_mutated_init`.
//!
//! Axes: T tokens, I input features, O output features, r rank.

#![expect(
    non_snake_case,
    reason = "fields are named after PEFT's lora_A and lora_B"
)]

use std::sync::Arc;

use burn::module::{Module, Param, ParamId};
use burn::tensor::{Tensor, TensorData};
use simmer_kernels::{FrozenWeight, LowRank, linear, lora_linear, residual};

use super::lora::{A, B};
use super::low_rank::LowRankChange;
use super::{BesideLinear, Costs, Form, Kind, LinearAdapter, Lora, PLAIN, Start, wide};
use crate::adapter::init::Factors;
use crate::parameters::trained;

/// PiSSA: the start is the largest singular values of the weight.
pub static PISSA: Kind = Kind {
    name: "PiSSA",
    ..SUBTRACTED
};

/// OLoRA: the start is the beginning of the weight's QR decomposition.
pub static OLORA: Kind = Kind {
    name: "OLoRA",
    ..SUBTRACTED
};

const SUBTRACTED: Kind = Kind {
    linear: Some(Form {
        tensors: &[A, B],
        start: |start| BesideLinear::Pissa(Pissa::new(start)),
        merged: |stored| Box::new(LowRankChange::since_start(stored)),
    }),
    beyond_low_rank: Some("a start that is subtracted from the base model"),
    costs: Costs {
        keeps_start: true,
        ..PLAIN.costs
    },
    ..PLAIN
};

/// The low-rank branch of a linear layer, and what it started with.
#[derive(Module, Debug)]
pub struct Pissa {
    /// A and B. `crate::parameters` leaves the name of this field out of keys.
    pub low_rank: Lora,
    /// A₀, `[r, I]`, f32, frozen
    pub start_A: Param<Tensor<2>>,
    /// B₀, `[O, r]`, f32, frozen
    pub start_B: Param<Tensor<2>>,
}

/// The fields of [`Pissa`] with the start.
pub(crate) const START: [&str; 2] = ["start_A", "start_B"];

impl Pissa {
    /// A new branch, which changes nothing.
    ///
    /// # Panics
    /// If the factors of the weight were not computed before.
    fn new(start: &Start<'_>) -> Self {
        let Some(Factors { a, b }) = start.factors else {
            unreachable!("{}: the factors of the weight are the start", start.module);
        };
        let [out, inner] = start.shape;
        let tensor = |values: &Vec<f32>, shape: [usize; 2]| {
            Tensor::from_data(TensorData::new(values.clone(), shape), start.device)
        };
        let frozen = |value| Param::initialized(ParamId::new(), value);
        let start_A: Tensor<2> = tensor(a, [start.rank, inner]);
        let start_B: Tensor<2> = tensor(b, [out, start.rank]);
        let mut low_rank = Lora::new(start);
        low_rank.lora_A = trained(start_A.clone());
        low_rank.lora_B = trained(start_B.clone());
        Self {
            low_rank,
            start_A: frozen(start_A),
            start_B: frozen(start_B),
        }
    }

    /// A₀ and -B₀ in the dtype of A and B.
    fn start(&self, branch: &LowRank) -> [Tensor<2>; 2] {
        let a = self.start_A.val().cast(branch.a.dtype());
        let b = self.start_B.val().cast(branch.b.dtype());
        [a, b.neg()]
    }

    /// Branch and start as one branch of twice the rank, without dropout.
    fn joined(&self, branch: LowRank) -> LowRank {
        let [a, b] = self.start(&branch);
        LowRank {
            a: Tensor::cat(vec![branch.a, a], 0), // [2r, I]
            b: Tensor::cat(vec![branch.b, b], 1), // [O, 2r]
            ..branch
        }
    }
}

impl LinearAdapter for Pissa {
    fn forward(
        &self,
        x: Tensor<2>,
        weight: FrozenWeight,
        dropout_keys: Option<&Arc<[u64]>>,
    ) -> Tensor<2> {
        let branch = self.low_rank.branch(dropout_keys);
        if branch.dropout.is_none() {
            return lora_linear(x, weight, self.joined(branch));
        }
        let [a, b] = self.start(&branch);
        let dtype = x.dtype();
        let subtracted = linear(linear(x.clone(), a), (b * branch.scale).cast(dtype)); // [T, O]
        residual(lora_linear(x, weight, branch), subtracted)
    }

    /// `[x, s x' Aᵀ, s x A₀ᵀ] [W, B, -B₀]ᵀ`
    fn operands(
        &self,
        x: Tensor<2>,
        weight: Tensor<2>,
        dropout_keys: Option<&Arc<[u64]>>,
    ) -> [Tensor<2>; 2] {
        let branch = self.low_rank.branch(dropout_keys);
        let dtype = x.dtype();
        let [a, b] = self.start(&branch);
        let x = wide(x);
        let low = linear(branch.input(x.clone()), branch.a.clone()) * branch.scale; // [T, r]
        let start = linear(x.clone(), a) * branch.scale; // [T, r]
        let columns = [weight, branch.b, b].map(|part| part.cast(dtype));
        [
            Tensor::cat(vec![x, low, start], 1).cast(dtype),
            Tensor::cat(columns.into(), 1),
        ]
    }

    fn has_dropout(&self) -> bool {
        self.low_rank.has_dropout()
    }
}
