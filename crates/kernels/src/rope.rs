//! Rotary position embedding, in Hugging Face's half-split layout.
//!
//! `y[i] = x[i]·cos - x[i + D/2]·sin`, `y[i + D/2] = x[i + D/2]·cos + x[i]·sin` for `i < D/2`.
//!
//! Source: Su et al. 2021, equation 34; transformers `apply_rotary_pos_emb`.
//!
//! Axes: T tokens, N heads, D head_dim.

use burn::tensor::{Tensor, s};

/// Rotates each head's vector by its token's position.
///
/// # Shapes
/// `x`: `[T, N, D]`. `cos`, `sin`: `[T, D/2]`. Result: `[T, N, D]`.
pub fn rope(x: Tensor<3>, cos: Tensor<2>, sin: Tensor<2>) -> Tensor<3> {
    let [_, _, d] = x.dims();
    let cos = cos.unsqueeze_dim::<3>(1); // [T, 1, D/2]
    let sin = sin.unsqueeze_dim::<3>(1); // [T, 1, D/2]
    let low = x.clone().slice(s![.., .., 0..d / 2]); // [T, N, D/2]
    let high = x.slice(s![.., .., d / 2..d]); // [T, N, D/2]
    Tensor::cat(
        vec![
            low.clone() * cos.clone() - high.clone() * sin.clone(),
            high * cos + low * sin,
        ],
        2,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, Tolerance};

    #[test]
    fn rotates_pairs_by_the_angle() {
        let device = Device::flex();
        let angle = 0.5_f32;
        let x = Tensor::from_data([[[1.0_f32, 0.0, 0.0, 2.0]]], &device);
        let cos = Tensor::from_data([[angle.cos(), 0.0]], &device);
        let sin = Tensor::from_data([[angle.sin(), 1.0]], &device);
        // pair 0 is (x0, x2), turned by `angle`; pair 1 is (x1, x3), turned by 90 degrees
        let expected =
            Tensor::<3>::from_data([[[angle.cos(), -2.0, angle.sin(), 0.0]]], &device).into_data();
        rope(x, cos, sin)
            .into_data()
            .assert_approx_eq::<f32>(&expected, Tolerance::absolute(1e-6));
    }
}
