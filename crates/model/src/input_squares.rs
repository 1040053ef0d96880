//! How large the input features of a linear layer are.
//!
//! Axes: T tokens, I input features.

use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::{DType, Tensor};

/// The squares of what a linear layer reads, summed over tokens. Clones share the sums.
#[derive(Debug, Clone, Default)]
pub(crate) struct InputSquares(Arc<Mutex<Sums>>);

#[derive(Debug, Default)]
struct Sums {
    /// `[I]`, f32
    squares: Option<Tensor<1>>,
    tokens: usize,
}

impl InputSquares {
    /// Adds some tokens.
    ///
    /// # Shapes
    /// `x`: `[T, I]`, without automatic differentiation.
    pub(crate) fn add(&self, x: &Tensor<2>) {
        let mut sums = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let x = x.clone().cast(DType::F32);
        let [tokens, features] = x.dims();
        let new = (x.clone() * x).sum_dim(0).reshape([features]);
        sums.squares = Some(match sums.squares.take() {
            None => new,
            Some(old) => old + new,
        });
        sums.tokens += tokens;
    }

    /// `√(Σ x² / T)` of each feature; `None` if no token was added.
    ///
    /// # Shapes
    /// Result: `[I]`.
    pub(crate) fn root_means(&self) -> Option<Vec<f32>> {
        let mut sums = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let squares = sums.squares.take()?.into_data();
        let tokens = std::mem::take(&mut sums.tokens) as f32;
        Some(
            squares
                .iter::<f32>()
                .map(|sum| (sum / tokens).sqrt())
                .collect(),
        )
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn squares_are_averaged_over_all_tokens() {
        let squares = InputSquares::default();
        assert_eq!(squares.root_means(), None);
        let device = Device::flex();
        let of = |rows: [[f32; 2]; 2]| Tensor::<2>::from_data(rows, &device);
        squares.clone().add(&of([[1.0, 0.0], [5.0, 2.0]]));
        squares.add(&of([[-3.0, 0.0], [1.0, 0.0]]));
        assert_eq!(squares.root_means(), Some(vec![3.0, 1.0]));
    }
}
