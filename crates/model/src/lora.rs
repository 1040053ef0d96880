//! LoRA: the low-rank branch of a frozen weight.
//!
//! `y += scale · (m∘x) Aᵀ Bᵀ`, with the dropout mask m. A is initialised uniformly in `±1/√I` and B to zero, so
//! that training starts at the base model.
//!
//! Source: Hu et al. 2021; PEFT `lora/layer.py`, `reset_lora_parameters`.
//!
//! Axes: T tokens, I input features, O output features, V vocabulary, H hidden size, r rank.

#![expect(
    non_snake_case,
    reason = "fields have PEFT's names, which are keys in its files"
)]

use std::sync::Arc;

use burn::module::{Module, Param};
use burn::tensor::{Device, Int, Tensor, TensorData};
use simmer_kernels::{Dropout, LowRank, linear};

use crate::parameters::trained;
use crate::random::{normal, stream, uniform};

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
    ///
    /// # Shapes
    /// `shape`: `[O, I]` of the frozen weight.
    pub(crate) fn new(
        module: &str,
        shape: [usize; 2],
        rank: usize,
        settings: Settings,
        device: &Device,
    ) -> Self {
        let [out, inner] = shape;
        let bound = 1.0 / (inner as f64).sqrt();
        let a = uniform(
            settings.seed,
            &format!("{module}.lora_A"),
            rank * inner,
            bound,
        );
        Self {
            lora_A: trained(Tensor::from_data(TensorData::new(a, [rank, inner]), device)),
            lora_B: trained(Tensor::zeros([out, rank], device)),
            scale: settings.scale,
            dropout: settings.dropout,
            site: stream(0, module),
        }
    }

    /// Whether the branch has dropout.
    pub(crate) fn has_dropout(&self) -> bool {
        self.dropout > 0.0
    }

    /// The branch for a forward pass; with dropout if `dropout_keys`, `[T]`, are given.
    pub(crate) fn branch(&self, dropout_keys: Option<&Arc<[u64]>>) -> LowRank {
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

/// The low-rank branch of an embedding; without dropout, as in PEFT.
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
    /// A new branch, which adds zero: here A is zero and B normal.
    ///
    /// # Shapes
    /// `shape`: `[V, H]` of the embedding.
    pub(crate) fn new(
        module: &str,
        shape: [usize; 2],
        rank: usize,
        settings: Settings,
        device: &Device,
    ) -> Self {
        let [vocab, hidden] = shape;
        let b = normal(
            settings.seed,
            &format!("{module}.lora_embedding_B"),
            hidden * rank,
        );
        Self {
            lora_embedding_A: trained(Tensor::zeros([rank, vocab], device)),
            lora_embedding_B: trained(Tensor::from_data(
                TensorData::new(b, [hidden, rank]),
                device,
            )),
            scale: settings.scale,
        }
    }

    /// `scale · A[:, tokens]ᵀ Bᵀ`
    ///
    /// # Shapes
    /// `tokens`: `[T]`. Result: `[T, H]`.
    pub(crate) fn forward(&self, tokens: Tensor<1, Int>) -> Tensor<2> {
        let low = self.lora_embedding_A.val().select(1, tokens).transpose(); // [T, r]
        linear(low * self.scale, self.lora_embedding_B.val())
    }
}

/// Settings of a new branch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    pub(crate) scale: f64,
    pub(crate) dropout: f64,
    pub(crate) seed: u64,
}
