//! Trained rows of a frozen embedding or output head: PEFT's `trainable_token_indices`.
//!
//! `y = R[tokens]`, `z = hidden Rᵀ`, where R has the trained rows in place of those of the frozen matrix. R is never formed.
//!
//! Source: PEFT 0.21, src/peft/tuners/trainable_tokens/layer.py.
//!
//! Axes: T tokens, V vocabulary, H hidden size, K trained rows.

use std::ops::Range;
use std::sync::Arc;

use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use simmer_kernels::linear;

use crate::adapter::kind::wide;
use crate::parameters::trained;
use crate::placement::on;
use crate::weight::Weight;

/// Trained rows in place of those of a frozen matrix. The name of its field is a part of PEFT's keys.
#[derive(Module, Debug)]
pub struct TokenRows {
    /// `[K, H]`, f32: the rows themselves, not their difference from the frozen ones.
    pub trainable_tokens_delta: Param<Tensor<2>>,
    /// The token of each row.
    #[module(skip)]
    ids: Arc<[usize]>,
}

impl TokenRows {
    /// Rows that start as those of a frozen matrix.
    pub(crate) fn of(weight: &Weight, ids: &[usize], device: &Device) -> Self {
        let tokens = Tensor::<1, Int>::from_data(numbers(ids), device);
        let rows = weight.val().rows(tokens).inner();
        Self {
            trainable_tokens_delta: trained(Tensor::from_inner(rows)),
            ids: ids.into(),
        }
    }

    /// The token of each row.
    pub(crate) fn ids(&self) -> &Arc<[usize]> {
        &self.ids
    }

    /// The rows of tokens, from those of the frozen matrix.
    ///
    /// # Shapes
    /// `tokens`: `[T]`. `rows`, result: `[T, H]`, f32.
    pub(crate) fn replace(&self, tokens: Tensor<1, Int>, rows: Tensor<2>) -> Tensor<2> {
        let [t, _] = rows.dims();
        let device = tokens.device();
        let k = self.ids.len();
        let ids = Tensor::<1, Int>::from_data(numbers(&self.ids), &device);
        // one more than the place in `ids`; 0 for other tokens
        let places = Tensor::<1, Int>::arange(1..k as i64 + 1, &device);
        let equal = tokens
            .unsqueeze_dim::<2>(1)
            .equal(ids.unsqueeze_dim::<2>(0)); // [T, K]
        let place = (equal.int() * places.unsqueeze_dim::<2>(0)).sum_dim(1); // [T, 1]
        let place = place.reshape([t]);
        let own = Tensor::<1, Int>::arange(0..t as i64, &device);
        let chosen = own.mask_where(place.clone().greater_elem(0), place + (t as i64 - 1));
        let both = Tensor::cat(vec![rows, self.trainable_tokens_delta.val()], 0); // [T + K, H]
        both.select(0, chosen)
    }

    /// The logits of the trained rows.
    ///
    /// # Shapes
    /// `hidden`: `[T, H]`. Result: `[T, K]`, f32.
    pub(crate) fn logits(&self, hidden: Tensor<2>) -> Tensor<2> {
        // those of a tied head are on the device of the embedding
        let rows = on(self.trainable_tokens_delta.val(), &hidden.device());
        linear(wide(hidden), rows)
    }

    /// The logits of all tokens, from those of the frozen matrix.
    ///
    /// # Shapes
    /// `hidden`: `[T, H]`. `logits`, result: `[T, V]`; the result is in f32.
    pub(crate) fn replace_logits(&self, hidden: Tensor<2>, logits: Tensor<2>) -> Tensor<2> {
        let [_, vocabulary] = logits.dims();
        let own = self.logits(hidden);
        let logits = logits.cast(DType::F32);
        let mut parts = Vec::new();
        let mut end = 0;
        for (tokens, places) in self.runs() {
            if tokens.start > end {
                parts.push(logits.clone().slice_dim(1, end..tokens.start));
            }
            end = tokens.end;
            parts.push(own.clone().slice_dim(1, places));
        }
        if end < vocabulary {
            parts.push(logits.slice_dim(1, end..vocabulary));
        }
        Tensor::cat(parts, 1)
    }

    /// Tokens that follow each other, with their places, which do too; in the order of the tokens.
    fn runs(&self) -> Vec<(Range<usize>, Range<usize>)> {
        let mut all: Vec<(usize, usize)> = self.ids.iter().copied().zip(0..).collect();
        all.sort_unstable();
        let mut runs: Vec<(Range<usize>, Range<usize>)> = Vec::new();
        for (token, place) in all {
            match runs.last_mut() {
                Some((tokens, places)) if tokens.end == token && places.end == place => {
                    tokens.end += 1;
                    places.end += 1;
                }
                _ => runs.push((token..token + 1, place..place + 1)),
            }
        }
        runs
    }
}

fn numbers(ids: &[usize]) -> TensorData {
    let ids: Vec<i64> = ids.iter().map(|id| *id as i64).collect();
    let count = ids.len();
    TensorData::new(ids, [count])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix(values: &[f32], shape: [usize; 2]) -> Tensor<2> {
        let data = TensorData::new(values.to_vec(), shape);
        Tensor::from_data(data, &Device::flex().autodiff())
    }

    /// Rows 10, 20, ... of one feature, of which those of the tokens 3, 4 and 1 are trained.
    fn rows() -> (Tensor<2>, TokenRows) {
        let weight = matrix(&[10.0, 20.0, 30.0, 40.0, 50.0, 60.0], [6, 1]);
        let mut rows = TokenRows::of(
            &Weight::frozen(weight.clone()),
            &[3, 4, 1],
            &weight.device(),
        );
        let start: Vec<f32> = rows
            .trainable_tokens_delta
            .val()
            .into_data()
            .iter()
            .collect();
        assert_eq!(start, [40.0, 50.0, 20.0]);
        rows.trainable_tokens_delta = trained(matrix(&[1.0, 2.0, 3.0], [3, 1]));
        (weight, rows)
    }

    fn values(of: Tensor<2>) -> Vec<f32> {
        of.into_data().iter().collect()
    }

    #[test]
    fn trained_rows_stand_in_for_frozen_ones() {
        let (weight, rows) = rows();
        let tokens = Tensor::<1, Int>::from_data(numbers(&[4, 0, 4, 1, 5]), &weight.device());
        let found = rows.replace(tokens.clone(), weight.select(0, tokens));
        let gradients = (found.clone() * 2.0).sum().backward();
        assert_eq!(values(found), [2.0, 10.0, 2.0, 3.0, 60.0]);
        let gradient = rows.trainable_tokens_delta.val().grad(&gradients).unwrap();
        let gradient: Vec<f32> = gradient.into_data().iter().collect();
        assert_eq!(gradient, [0.0, 4.0, 2.0]);
    }

    #[test]
    fn their_logits_stand_in_too() {
        let (weight, rows) = rows();
        let hidden = matrix(&[1.0, -2.0], [2, 1]);
        let logits = linear(hidden.clone(), weight);
        let found = values(rows.replace_logits(hidden, logits));
        let row = [10.0, 3.0, 30.0, 1.0, 2.0, 60.0];
        assert_eq!(found[..6], row);
        assert_eq!(found[6..], row.map(|logit| -2.0 * logit));
        assert_eq!(rows.runs(), [(1..2, 2..3), (3..5, 0..2)]);
    }
}
