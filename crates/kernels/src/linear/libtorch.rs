//! The form on libtorch: the product in the precision of `x`.
//!
//! A weight in another precision is widened (or narrowed) for one product; in that of `x` it is
//! used where it lies.

use burn::backend::LibTorch;
use burn::backend::libtorch::TchTensor;

use super::{LinearBackend, LinearGradient};
use crate::libtorch::{fresh, product};

impl LinearBackend for LibTorch {
    fn widened_linear(x: TchTensor, weight: TchTensor) -> TchTensor {
        fresh(product(&x.tensor, &weight.tensor.tr()))
    }
}

impl LinearGradient for LibTorch {
    fn widened_linear_gradient(dy: TchTensor, weight: TchTensor) -> TchTensor {
        fresh(product(&dy.tensor, &weight.tensor))
    }
}
