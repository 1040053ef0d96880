//! The form on flex: a weight is widened while it is packed for the matrix multiplication.
//!
//! Activations in bf16 are multiplied as they are, where the processor can; the result is in bf16, and the gradient of
//! `x` in f32, because several gradients are added to it.
//!
//! Axes: k inner dimension (summed over), n columns of the result.

use burn::backend::Flex;
use burn::backend::ops::FloatTensorOps;
use burn::tensor::DType;
use burn_flex::FlexTensor;

use super::LinearForms;
use crate::buffer::buffer;
use crate::flex::{self, contiguous, values};
use crate::frozen::WeightOn;
use crate::product::{Side, Sums, Term, product, products};
use crate::profile;

impl LinearForms for Flex {
    const FUSED: bool = true;

    fn linear_form(x: FlexTensor, weight: WeightOn<Self>) -> FlexTensor {
        if flex::is_half(&x) {
            return multiply_halves(x, weight);
        }
        multiply(x, weight, Side::Transposed)
    }

    fn linear_gradient(dy: FlexTensor, weight: WeightOn<Self>, dtype: DType) -> FlexTensor {
        if dtype != DType::BF16 || !flex::has_half_products() {
            return multiply(flex::widened(dy), weight, Side::Plain);
        }
        let (dy, weight) = (contiguous(dy), flex::held(weight));
        let [tokens, _] = dy.layout().shape().dims();
        let weight = flex::weight(&weight, Side::Plain);
        let [_, n] = weight.inner_outer();
        let _span = profile::product(tokens, weight);
        let mut dx = buffer(tokens * n);
        let x = flex::numbers(&dy);
        products(
            &[Term { x, weight }],
            Sums::F32 {
                y: &mut dx,
                add: false,
            },
        );
        flex::tensor(dx, [tokens, n])
    }

    fn weight_gradient(dy: FlexTensor, x: FlexTensor) -> FlexTensor {
        let [dy, x] = [dy, x].map(flex::widened);
        Self::float_matmul(Self::float_transpose(dy), x)
    }
}

fn multiply_halves(x: FlexTensor, weight: WeightOn<Flex>) -> FlexTensor {
    let (x, weight) = (contiguous(x), flex::held(weight));
    let [tokens, _] = x.layout().shape().dims();
    let weight = flex::weight(&weight, Side::Transposed);
    let [_, n] = weight.inner_outer();
    let _span = profile::product(tokens, weight);
    let mut y = buffer(tokens * n);
    let x = flex::numbers(&x);
    products(&[Term { x, weight }], Sums::Bf16(&mut y));
    flex::half_tensor(y, [tokens, n])
}

fn multiply(x: FlexTensor, weight: WeightOn<Flex>, side: Side) -> FlexTensor {
    let (x, weight) = (contiguous(x), flex::held(weight));
    let [tokens, _] = x.layout().shape().dims();
    let weight = flex::weight(&weight, side);
    let [k, n] = weight.inner_outer();
    let _span = profile::product(tokens, weight);
    assert_eq!(
        values(&x).len(),
        tokens * k,
        "elements of the input of a linear layer"
    );
    let mut y = buffer(tokens * n);
    product(values(&x), weight, &mut y, false);
    flex::tensor(y, [tokens, n])
}
