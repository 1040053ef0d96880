//! LLaMA-Adapter: prompts in the attention of upper layers, and gates.
//!
//! With trained prompts P of a layer, its frozen projections and the rotated queries q of a head:
//! `o += g · softmax(q (P Wₖᵀ)ᵀ / √D) (P Wᵥᵀ)`, before the output projection. The softmax over the prompts is apart from that over
//! the row, prompts have no norm and no positions, and every token sees all of them. The trained gate starts at 0, so that training
//! starts at the base model.
//!
//! In PEFT's form g is the gate of the layer. PEFT projects both terms apart, so that a bias of the output projection is added once
//! more. In the paper each head has a gate of its own, and `g = tanh(gate)`.
//!
//! Source: Zhang et al. 2023 (LLaMA-Adapter), section 3.2; PEFT 0.21 `adaption_prompt/layer.py`, `AdaptedAttention`;
//! github.com/OpenGVLab/LLaMA-Adapter, `alpaca_finetuning_v1/llama/model.py`, and `llama/model.py`, which has no tanh.
//!
//! Axes: T tokens, P prompts, N query heads, K key heads, G query heads of a key head, D head_dim, H hidden size.

use std::fmt;

use burn::module::{Module, Param};
use burn::tensor::activation::softmax;
use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use super::{Axis, BesideAttention, Costs, Kind, Neutral, PLAIN, Part, Trained, wide};
use crate::adapter::peft_type;
use crate::parameters::trained;
use crate::random::normal;

/// LLaMA-Adapter with one gate a layer.
pub static ADAPTION_PROMPT: Kind = Kind {
    name: "LLaMA-Adapter",
    peft: &peft_type::ADAPTION_PROMPT,
    attention: Some(AttentionForm {
        tensors: &[GATE, PROMPT],
        start: |start| BesideAttention::AdaptionPrompt(AdaptionPrompt::new(start)),
    }),
    ..PROMPTS
};

/// LLaMA-Adapter as published: one gate a head, through tanh.
pub static LLAMA_ADAPTER: Kind = Kind {
    name: "LLaMA-Adapter V1",
    peft: &peft_type::LLAMA_ADAPTER,
    attention: Some(AttentionForm {
        tensors: &[HEAD_GATES, PROMPT],
        start: |start| BesideAttention::LlamaAdapter(LlamaAdapter::new(start)),
    }),
    ..PROMPTS
};

/// What both have.
const PROMPTS: Kind = Kind {
    cannot_merge: Some("what attention adds for its prompts is no change of a weight"),
    beyond_low_rank: Some("prompts of attention"),
    costs: Costs {
        keeps_input: false,
        ..PLAIN.costs
    },
    ..PLAIN
};

pub(in crate::adapter) const PROMPT: Trained = Trained {
    field: "adaption_prompt",
    end: ".adaption_prompt",
    shape: &[Axis::One, Axis::Rank, Axis::Columns],
    part: Part::Alone(Neutral::Without),
    is_factor: false,
};

pub(in crate::adapter) const GATE: Trained = Trained {
    field: "adaption_gate",
    end: ".adaption_gate",
    shape: &[Axis::One],
    part: Part::Alone(Neutral::Zero),
    is_factor: false,
};

/// The same, of each head.
const HEAD_GATES: Trained = Trained {
    shape: &[Axis::Rows],
    ..GATE
};

/// A kind beside the attention of a layer.
pub struct AttentionForm {
    /// The tensors that are trained.
    pub tensors: &'static [Trained],
    /// A new adapter, which changes nothing yet.
    pub(crate) start: fn(&AttentionStart<'_>) -> BesideAttention,
}

/// What a new adapter of attention is made for.
pub(crate) struct AttentionStart<'a> {
    /// The path of the attention.
    pub(crate) module: &'a str,
    /// P
    pub(crate) prompts: usize,
    /// H
    pub(crate) hidden: usize,
    /// N
    pub(crate) heads: usize,
    /// What a gate passes through, if the kind has a choice.
    pub(crate) activation: GateActivation,
    pub(crate) seed: u64,
    pub(crate) device: &'a Device,
}

/// What a trained gate passes through before it scales what a head adds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GateActivation {
    /// tanh, as in the paper and in the training code of the original.
    #[default]
    Tanh,
    /// Nothing, as in the original's code for inference.
    None,
}

/// What an adapter adds to attention.
pub trait AttentionAdapter: fmt::Debug {
    /// What the keys and values of the prompts are projected from, f32.
    ///
    /// # Shapes
    /// Result: `[P, H]`.
    fn prompts(&self) -> Tensor<2>;

    /// The factors of what heads add, f32.
    ///
    /// # Shapes
    /// Result: `[N]`, or `[1]` for all heads.
    fn gates(&self) -> Tensor<1>;

    /// Whether the bias of the output projection is added once more.
    fn adds_output_bias(&self) -> bool;

    /// What is added to the mixed values of all heads, in the dtype of the queries.
    ///
    /// # Shapes
    /// `q`: `[T, N, D]`. `k`, `v`: `[P, K, D]`, of the prompts, f32. Result: `[T, N·D]`.
    fn added(&self, q: Tensor<3>, [k, v]: [Tensor<3>; 2], scale: f64) -> Tensor<2> {
        let dtype = q.dtype();
        let [t, n, d] = q.dims();
        let [p, heads, _] = k.dims();
        let group = n / heads;
        let q = wide(q.reshape([t, n * d])).reshape([t, n, d]);
        // [T, N, D] -> [K, G·T, D]: the query heads of a key head are one after the other
        let q = q.swap_dims(0, 1).reshape([heads, group * t, d]);
        let [k, v] = [k, v].map(|of| of.swap_dims(0, 1)); // [K, P, D]
        let weights = softmax(q.matmul(k.transpose()) * scale, 2); // [K, G·T, P]
        let gates = self.gates();
        let [gated_heads] = gates.dims();
        let weights = weights.reshape([n, t, p]) * gates.reshape([gated_heads, 1, 1]);
        weights
            .reshape([heads, group * t, p])
            .matmul(v) // [K, G·T, D]
            .reshape([n, t, d])
            .swap_dims(0, 1)
            .reshape([t, n * d])
            .cast(dtype)
    }
}

/// The prompts and the gate of a layer.
#[derive(Module, Debug)]
pub struct AdaptionPrompt {
    /// g, `[1]`, f32
    pub adaption_gate: Param<Tensor<1>>,
    /// P, `[1, P, H]`, f32
    pub adaption_prompt: Param<Tensor<3>>,
}

impl AttentionStart<'_> {
    /// Normal prompts, `[1, P, H]`.
    fn prompts(&self) -> Param<Tensor<3>> {
        let name = format!("{}.{}", self.module, PROMPT.field);
        let prompts = normal(self.seed, &name, self.prompts * self.hidden);
        let prompts = TensorData::new(prompts, [1, self.prompts, self.hidden]);
        trained(Tensor::from_data(prompts, self.device))
    }
}

impl AdaptionPrompt {
    /// Normal prompts, and a gate of 0.
    fn new(start: &AttentionStart<'_>) -> Self {
        Self {
            adaption_gate: trained(Tensor::zeros([1], start.device)),
            adaption_prompt: start.prompts(),
        }
    }
}

impl AttentionAdapter for AdaptionPrompt {
    fn prompts(&self) -> Tensor<2> {
        self.adaption_prompt.val().squeeze_dim::<2>(0)
    }

    fn gates(&self) -> Tensor<1> {
        self.adaption_gate.val()
    }

    fn adds_output_bias(&self) -> bool {
        true
    }
}

/// The prompts of a layer, and the gates of its heads.
#[derive(Module, Debug)]
pub struct LlamaAdapter {
    /// `[N]`, f32
    pub adaption_gate: Param<Tensor<1>>,
    /// P, `[1, P, H]`, f32
    pub adaption_prompt: Param<Tensor<3>>,
    /// Whether the gates pass through tanh.
    tanh: bool,
}

impl LlamaAdapter {
    /// Normal prompts, and gates of 0.
    fn new(start: &AttentionStart<'_>) -> Self {
        Self {
            adaption_gate: trained(Tensor::zeros([start.heads], start.device)),
            adaption_prompt: start.prompts(),
            tanh: start.activation == GateActivation::Tanh,
        }
    }
}

impl AttentionAdapter for LlamaAdapter {
    fn prompts(&self) -> Tensor<2> {
        self.adaption_prompt.val().squeeze_dim::<2>(0)
    }

    fn gates(&self) -> Tensor<1> {
        let gates = self.adaption_gate.val();
        if self.tanh { gates.tanh() } else { gates }
    }

    fn adds_output_bias(&self) -> bool {
        false
    }
}
