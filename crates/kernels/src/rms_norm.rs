//! Root mean square normalisation.
//!
//! `y = x / sqrt(mean(x²) + eps) · weight`, the mean over the last axis.
//!
//! Source: Zhang and Sennrich 2019, equation 4; transformers `LlamaRMSNorm`.
//!
//! Axes: T tokens, H hidden size.

use burn::tensor::{DType, Tensor};

/// Normalises each token's vector by its root mean square.
///
/// # Shapes
/// `x`: `[T, H]`, f32. `weight`: `[H]`, in its stored precision. Result: `[T, H]`, f32.
pub fn rms_norm(x: Tensor<2>, weight: Tensor<1>, eps: f64) -> Tensor<2> {
    let mean_square = x.clone().square().mean_dim(1); // [T, 1]
    let scale = (mean_square + eps).sqrt().recip(); // [T, 1]
    x * scale * weight.cast(DType::F32).unsqueeze::<2>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, TensorData, Tolerance};

    #[test]
    fn matches_the_formula() {
        let device = Device::flex();
        let x = Tensor::from_data([[3.0_f32, 4.0], [0.0, 1.0]], &device);
        let weight = Tensor::from_data([1.0_f32, 2.0], &device);
        // sqrt((9 + 16) / 2) = 3.5355, sqrt(1 / 2) = 0.7071
        let expected = TensorData::from([[0.848_528_1_f32, 2.262_741_8], [0.0, 2.828_427_2]]);
        rms_norm(x, weight, 0.0)
            .into_data()
            .assert_approx_eq::<f32>(&expected, Tolerance::absolute(1e-6));
    }
}
