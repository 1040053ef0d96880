//! The layers that have weights: linear, embedding, normalisation, output head.
//!
//! Fields have Hugging Face's names, so that a parameter's path in the module tree is its key in
//! the checkpoint.
//!
//! Axes: T tokens, I input features, O output features, H hidden size, V vocabulary.

use std::sync::Arc;

use burn::module::{Module, Param};
use burn::tensor::{DType, Int, Tensor};
use simmer_kernels::{
    linear, linear_cross_entropy, linear_cross_entropy_with, lora_linears, rms_norm,
};

use crate::adapter::kind::{BesideEmbedding, BesideLinear};
use crate::input_record::InputRecord;
use crate::token_rows::TokenRows;
use crate::weight::Weight;

/// A linear layer, frozen or trained, with an optional bias and an optional adapter.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[O, I]`, as stored.
    pub weight: Weight,
    /// `[O]`
    pub bias: Option<Param<Tensor<1>>>,
    /// What is trained beside the weight.
    pub adapter: Option<BesideLinear>,
    /// Where to note what the layer reads.
    #[module(skip)]
    pub(crate) watched: Option<InputRecord>,
}

impl Linear {
    /// `x Wᵀ + b`, with the adapter if the layer has one.
    ///
    /// # Shapes
    /// `x`: `[T, I]`. `dropout_keys`: `[T]`. Result: `[T, O]`.
    pub fn forward(&self, x: Tensor<2>, dropout_keys: Option<&Arc<[u64]>>) -> Tensor<2> {
        self.watch(&x);
        let weight = self.weight.val();
        let y = match &self.adapter {
            None => linear(x, weight),
            Some(adapter) => adapter.forward(x, weight, dropout_keys),
        };
        self.with_bias(y)
    }

    /// The results of several layers that read the same input, as [`Linear::forward`] of each.
    ///
    /// # Shapes
    /// `x`: `[T, I]`. `dropout_keys`: `[T]`. Results: `[T, O]`.
    pub(crate) fn forward_together<const N: usize>(
        layers: [&Self; N],
        x: Tensor<2>,
        dropout_keys: Option<&Arc<[u64]>>,
    ) -> [Tensor<2>; N] {
        let branches = layers.map(|layer| match &layer.adapter {
            None => Some(None),
            Some(adapter) => adapter.low_rank(dropout_keys).map(Some),
        });
        if branches.iter().any(Option::is_none) {
            return layers.map(|layer| layer.forward(x.clone(), dropout_keys));
        }
        for layer in layers {
            layer.watch(&x);
        }
        let mut branches = branches.into_iter().map(Option::flatten);
        let products = layers.map(|layer| (layer.weight.val(), branches.next().flatten()));
        let mut results = lora_linears(x, products).into_iter();
        layers.map(|layer| match results.next() {
            Some(y) => layer.with_bias(y),
            None => unreachable!("each layer has a result"),
        })
    }

    fn watch(&self, x: &Tensor<2>) {
        if let Some(record) = &self.watched {
            record.add(x);
        }
    }

    fn with_bias(&self, y: Tensor<2>) -> Tensor<2> {
        match &self.bias {
            None => y,
            Some(bias) => {
                let bias = match &self.adapter {
                    None => bias.val(),
                    Some(adapter) => adapter.bias(bias.val()),
                };
                let bias = bias.cast(y.dtype()).unsqueeze::<2>();
                y + bias
            }
        }
    }
}

/// The token embedding.
#[derive(Module, Debug)]
pub struct Embedding {
    /// `[V, H]`, as stored.
    pub weight: Weight,
    /// What is trained beside the weight.
    pub adapter: Option<BesideEmbedding>,
    /// Trained rows in place of some of the weight's.
    pub token_adapter: Option<TokenRows>,
    /// Factor of the rows.
    pub(crate) scale: f64,
    /// The dtype that the decoder layers compute in.
    #[module(skip)]
    pub(crate) compute: DType,
}

impl Embedding {
    /// The embedding of each token.
    ///
    /// # Shapes
    /// `tokens`: `[T]`. Result: `[T, H]`, in the dtype that the layers compute in.
    pub fn forward(&self, tokens: Tensor<1, Int>) -> Tensor<2> {
        let rows = self.weight.val().rows(tokens.clone());
        let rows = match &self.adapter {
            None => rows,
            Some(adapter) => adapter.forward(tokens.clone(), rows),
        };
        let rows = match &self.token_adapter {
            None => rows,
            Some(trained) => trained.replace(tokens, rows),
        };
        let rows = match self.scale {
            1.0 => rows,
            scale => rows * scale,
        };
        rows.cast(self.compute)
    }
}

/// Root mean square normalisation.
#[derive(Module, Debug)]
pub struct RmsNorm {
    /// `[H]`, or `[D]` for heads
    pub weight: Param<Tensor<1>>,
    eps: f64,
    /// Whether the factor is one more than the weight.
    plus_one: bool,
}

impl RmsNorm {
    pub(crate) fn new(weight: Param<Tensor<1>>, eps: f64, plus_one: bool) -> Self {
        Self {
            weight,
            eps,
            plus_one,
        }
    }

    /// # Shapes
    /// `x`, result: `[T, H]`.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let weight = self.weight.val();
        let factor = if self.plus_one {
            weight.cast(DType::F32) + 1.0
        } else {
            weight
        };
        rms_norm(x, factor, self.eps)
    }

    /// Normalises parts of the features alone: as many as the weight has, such as those of a head.
    ///
    /// # Shapes
    /// `x`, result: `[T, N·D]`, where the weight is `[D]`.
    pub(crate) fn forward_by_head(&self, x: Tensor<2>) -> Tensor<2> {
        let [t, features] = x.dims();
        let [dim] = self.weight.val().dims();
        let parts = x.reshape([t * features / dim, dim]);
        self.forward(parts).reshape([t, features])
    }
}

/// The output head.
#[derive(Module, Debug)]
pub struct LmHead {
    /// `[V, H]`; `None` if the head is tied to the embedding.
    pub weight: Option<Weight>,
    /// The embedding's weight once more, frozen, for a tied head on another device.
    pub(crate) copy: Option<Weight>,
    /// What is trained beside the weight.
    pub adapter: Option<BesideLinear>,
    /// Trained rows in place of some of the weight's. A tied head has those of the embedding.
    pub token_adapter: Option<TokenRows>,
}

impl LmHead {
    /// The trained rows that the head computes with.
    pub(crate) fn token_rows<'a>(&'a self, embedding: &'a Embedding) -> Option<&'a TokenRows> {
        let of_embedding = embedding.token_adapter.as_ref();
        let own = self.token_adapter.as_ref();
        own.or(of_embedding.filter(|_| self.weight.is_none()))
    }

    pub(crate) fn weight<'a>(&'a self, embedding: &'a Embedding) -> &'a Weight {
        let own = self.weight.as_ref().or(self.copy.as_ref());
        own.unwrap_or(&embedding.weight)
    }

    /// Logits over the vocabulary, without their soft cap.
    ///
    /// # Shapes
    /// `hidden`: `[T, H]`. Result: `[T, V]`.
    pub fn forward(&self, hidden: Tensor<2>, embedding: &Embedding) -> Tensor<2> {
        let weight = self.weight(embedding).val();
        if let Some(rows) = self.token_rows(embedding) {
            return rows.replace_logits(hidden.clone(), linear(hidden, weight));
        }
        match &self.adapter {
            None => linear(hidden, weight),
            Some(adapter) => adapter.forward(hidden, weight, None),
        }
    }

    /// Sum of the targets' negative log-probabilities.
    ///
    /// # Shapes
    /// `hidden`: `[N, H]`. `targets`: `[N]`. Result: `[1]`.
    pub(crate) fn loss(
        &self,
        hidden: Tensor<2>,
        targets: Tensor<1, Int>,
        embedding: &Embedding,
        dropout_keys: Option<&Arc<[u64]>>,
        soft_cap: Option<f64>,
    ) -> Tensor<1> {
        let weight = self.weight(embedding);
        if let Some(rows) = self.token_rows(embedding) {
            let own = rows.logits(hidden.clone());
            let ids = rows.ids().clone();
            return linear_cross_entropy_with(hidden, weight.val(), targets, own, ids, soft_cap);
        }
        let Some(adapter) = &self.adapter else {
            return linear_cross_entropy(hidden, weight.val(), targets, soft_cap);
        };
        let weight = weight.tensor(&hidden.device());
        let [hidden, weight] = adapter.operands(hidden, weight, dropout_keys);
        linear_cross_entropy(hidden, weight, targets, soft_cap)
    }
}
