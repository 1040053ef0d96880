//! The form on libtorch: a matrix multiplication in the dtype of `x`.
//!
//! A weight in another dtype, or a quantised one, is converted for each multiplication. A weight in the dtype of `x` is
//! not copied.

use burn::backend::LibTorch;
use burn::backend::libtorch::TchTensor;
use burn::tensor::DType;

use super::LinearForms;
use crate::frozen::WeightOn;
use crate::libtorch::{fresh, product_with};
use crate::product::Side;

impl LinearForms for LibTorch {
    const FUSED: bool = true;

    fn linear_form(x: TchTensor, weight: WeightOn<Self>) -> TchTensor {
        fresh(product_with(&x.tensor, &weight, Side::Transposed))
    }

    fn linear_gradient(dy: TchTensor, weight: WeightOn<Self>, _dtype: DType) -> TchTensor {
        fresh(product_with(&dy.tensor, &weight, Side::Plain))
    }
}
