//! The form on libtorch: a matrix multiplication in the dtype of `x`.
//!
//! A weight in another dtype is converted for each multiplication. A weight in the dtype of `x` is
//! not copied.

use burn::backend::LibTorch;
use burn::backend::libtorch::TchTensor;

use super::LinearForms;
use crate::libtorch::{fresh, product};

impl LinearForms for LibTorch {
    const FUSED: bool = true;

    fn linear_form(x: TchTensor, weight: TchTensor) -> TchTensor {
        fresh(product(&x.tensor, &weight.tensor.tr()))
    }

    fn linear_gradient(dy: TchTensor, weight: TchTensor) -> TchTensor {
        fresh(product(&dy.tensor, &weight.tensor))
    }
}
