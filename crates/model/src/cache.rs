//! Keys and values of the tokens that a generation has already seen.
//!
//! Axes: S tokens so far, K key heads, D head_dim.

use burn::tensor::Tensor;

/// The cache of one row, layer by layer.
#[derive(Debug, Default)]
pub struct KvCache {
    layers: Vec<[Tensor<3>; 2]>,
    length: usize,
}

impl KvCache {
    /// Tokens that the cache holds.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether nothing was seen yet.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Adds the new tokens' keys and values of a layer and returns all of them.
    ///
    /// # Shapes
    /// `keys`, `values`: `[T, K, D]`. Result: `[S + T, K, D]` each.
    pub(crate) fn extend(
        &mut self,
        layer: usize,
        keys: Tensor<3>,
        values: Tensor<3>,
    ) -> [Tensor<3>; 2] {
        let Some(slot) = self.layers.get_mut(layer) else {
            self.layers.push([keys, values]);
            return self.layers[layer].clone();
        };
        let [old_keys, old_values] = slot.clone();
        *slot = [
            Tensor::cat(vec![old_keys, keys], 0),
            Tensor::cat(vec![old_values, values], 0),
        ];
        slot.clone()
    }

    /// Counts the tokens that every layer has added.
    pub(crate) fn advance(&mut self, tokens: usize) {
        self.length += tokens;
    }
}
