//! The form on libtorch: a matrix multiplication in the dtype of `x`.
//!
//! A weight in another dtype, or a quantised one, is converted for each multiplication. A weight in the dtype of `x` is
//! not copied. A weight that is multiplied in fp8 is not converted.

use burn::backend::LibTorch;
use burn::backend::libtorch::TchTensor;
use burn::tensor::DType;

use super::LinearForms;
use crate::frozen::WeightOn;
use crate::frozen::fp8::Operand;
use crate::libtorch::{fresh, product_with};
use crate::product::Side;

impl LinearForms for LibTorch {
    const FUSED: bool = true;

    fn linear_form(x: TchTensor, weight: WeightOn<Self>) -> TchTensor {
        fresh(product_with(
            &Operand::of(&x.tensor),
            &weight,
            Side::Transposed,
        ))
    }

    fn linear_gradient(dy: TchTensor, weight: WeightOn<Self>, _dtype: DType) -> TchTensor {
        fresh(product_with(&Operand::of(&dy.tensor), &weight, Side::Plain))
    }
}
