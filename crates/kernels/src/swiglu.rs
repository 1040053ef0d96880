//! The gated activation of LLaMA's feed-forward block.
//!
//! `y = silu(gate) · up`, `silu(x) = x / (1 + exp(-x))`.
//!
//! Source: Shazeer 2020, equation 6; transformers `LlamaMLP`.
//!
//! Axes: T tokens, F intermediate size.

use burn::tensor::{Tensor, activation};

/// Gates `up` by the sigmoid-weighted `gate`.
///
/// # Shapes
/// `gate`, `up`, result: `[T, F]`.
pub fn swiglu(gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    activation::silu(gate) * up
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, Tolerance};

    #[test]
    fn matches_the_formula() {
        let device = Device::flex();
        let gate = Tensor::from_data([[0.0_f32, 1.0, -2.0]], &device);
        let up = Tensor::from_data([[5.0_f32, 2.0, 3.0]], &device);
        let silu = |x: f32| x / (1.0 + (-x).exp());
        let expected = Tensor::<2>::from_data([[0.0, 2.0 * silu(1.0), 3.0 * silu(-2.0)]], &device);
        swiglu(gate, up)
            .into_data()
            .assert_approx_eq::<f32>(&expected.into_data(), Tolerance::absolute(1e-6));
    }
}
