//! The form on flex: a weight is widened while it is packed for the matrix multiplication.
//!
//! Axes: k inner dimension (summed over), n columns of the result.

use burn::backend::Flex;
use burn_flex::FlexTensor;

use super::LinearForms;
use crate::buffer::buffer;
use crate::flex::{self, contiguous, values};
use crate::frozen::WeightOn;
use crate::product::{Side, product};
use crate::profile;

impl LinearForms for Flex {
    const FUSED: bool = true;

    fn linear_form(x: FlexTensor, weight: WeightOn<Self>) -> FlexTensor {
        multiply(x, weight, Side::Transposed)
    }

    fn linear_gradient(dy: FlexTensor, weight: WeightOn<Self>) -> FlexTensor {
        multiply(dy, weight, Side::Plain)
    }
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
