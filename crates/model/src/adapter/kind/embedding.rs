//! LoRA of an embedding, without dropout, as in PEFT.
//!
//! `y = W[tokens] + scale · A[:, tokens]ᵀ Bᵀ`. Here A starts at zero, and B is normal.
//!
//! Source: PEFT `lora/layer.py`, `Embedding`.
//!
//! Axes: T tokens, V vocabulary, H hidden size, r rank.

#![expect(
    non_snake_case,
    reason = "fields have PEFT's names, which are keys in its files"
)]

use burn::module::{Module, Param};
use burn::tensor::{Int, Tensor, TensorData};
use simmer_kernels::linear;

use super::low_rank::LowRankChange;
use super::{Axis, BesideEmbedding, EmbeddingAdapter, Form, Part, Start, Trained};
use crate::parameters::trained;
use crate::random::normal;

/// LoRA beside an embedding.
pub(super) const FORM: Form<BesideEmbedding> = Form {
    tensors: &[A, B],
    start: |start| BesideEmbedding::EmbeddingLora(EmbeddingLora::new(start)),
    merged: |stored| Box::new(LowRankChange::of_embedding(stored)),
};

const A: Trained = Trained {
    field: "lora_embedding_A",
    end: ".lora_embedding_A",
    shape: &[Axis::Rank, Axis::Rows],
    part: Part::A,
    is_factor: false,
};

const B: Trained = Trained {
    field: "lora_embedding_B",
    end: ".lora_embedding_B",
    shape: &[Axis::Columns, Axis::Rank],
    part: Part::B,
    is_factor: false,
};

/// The low-rank branch of an embedding.
#[derive(Module, Debug)]
pub struct EmbeddingLora {
    /// `[r, V]`, f32
    pub lora_embedding_A: Param<Tensor<2>>,
    /// `[H, r]`, f32
    pub lora_embedding_B: Param<Tensor<2>>,
    /// `alpha / r`, or `alpha / √r`
    scale: f64,
}

impl EmbeddingLora {
    /// A new branch, which adds zero.
    fn new(start: &Start<'_>) -> Self {
        let ([vocab, hidden], rank) = (start.shape, start.rank);
        let stream_of_b = format!("{}.{}", start.module, B.field);
        let b = normal(start.seed, &stream_of_b, hidden * rank);
        let b = TensorData::new(b, [hidden, rank]);
        Self {
            lora_embedding_A: trained(Tensor::zeros([rank, vocab], start.device)),
            lora_embedding_B: trained(Tensor::from_data(b, start.device)),
            scale: start.scale,
        }
    }
}

impl EmbeddingAdapter for EmbeddingLora {
    fn forward(&self, tokens: Tensor<1, Int>, rows: Tensor<2>) -> Tensor<2> {
        let low = self.lora_embedding_A.val().select(1, tokens).transpose(); // [T, r]
        rows + linear(low * self.scale, self.lora_embedding_B.val())
    }
}
