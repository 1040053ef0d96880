//! The form on libtorch: the product in the precision of `x`.
//!
//! A weight in another precision is widened (or narrowed) for one product; in that of `x` it is
//! used where it lies.

use burn::backend::LibTorch;
use burn::backend::libtorch::TchTensor;

use super::{LinearBackend, LinearGradient};
use crate::libtorch::fresh;

impl LinearBackend for LibTorch {
    fn widened_linear(x: TchTensor, weight: TchTensor) -> TchTensor {
        let weight = weight.tensor.to_kind(x.tensor.kind());
        fresh(x.tensor.mm(&weight.tr()))
    }
}

impl LinearGradient for LibTorch {
    fn widened_linear_gradient(dy: TchTensor, weight: TchTensor) -> TchTensor {
        let weight = weight.tensor.to_kind(dy.tensor.kind());
        fresh(dy.tensor.mm(&weight))
    }
}
