//! A linear layer with a low-rank path beside its weight.
//!
//! `y = x Wᵀ + scale · (m∘x) Aᵀ Bᵀ`, with `m` the dropout mask. `W + scale·B·A` is never formed.
//!
//! Source: Hu et al. 2021, equation 3; PEFT `lora/layer.py`, `Linear.forward`.
//!
//! Axes: T tokens, I input features, O output features, r rank.

use burn::tensor::Tensor;

use crate::linear::linear;

/// The low-rank path of [`lora_linear`].
#[derive(Debug, Clone)]
pub struct LowRank {
    /// `[r, I]`
    pub a: Tensor<2>,
    /// `[O, r]`
    pub b: Tensor<2>,
    /// `alpha / r`, or `alpha / √r`
    pub scale: f64,
    /// `[T, I]`: 0 or `1 / (1 - p)`
    pub mask: Option<Tensor<2>>,
}

/// The frozen product plus the scaled low-rank product.
///
/// # Shapes
/// `x`: `[T, I]`, f32. `weight`: `[O, I]`, in its stored precision. Result: `[T, O]`, f32.
pub fn lora_linear(x: Tensor<2>, weight: Tensor<2>, path: LowRank) -> Tensor<2> {
    let y = linear(x.clone(), weight); // [T, O]
    let x = match path.mask {
        Some(mask) => x * mask,
        None => x,
    };
    let low = linear(x, path.a) * path.scale; // [T, r]
    y + linear(low, path.b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, Distribution, Tolerance};

    #[test]
    fn equals_the_composed_weight() {
        let device = Device::flex();
        let random = |shape| Tensor::<2>::random(shape, Distribution::Normal(0.0, 1.0), &device);
        let (x, w, a, b) = (
            random([4, 6]),
            random([5, 6]),
            random([2, 6]),
            random([5, 2]),
        );
        let composed = linear(x.clone(), w.clone() + b.clone().matmul(a.clone()) * 0.5);
        let path = LowRank {
            a,
            b,
            scale: 0.5,
            mask: None,
        };
        // twelve products of order one in two orders
        lora_linear(x, w, path)
            .into_data()
            .assert_approx_eq::<f32>(&composed.into_data(), Tolerance::absolute(1e-5));
    }

    #[test]
    fn the_mask_reaches_the_low_rank_path_alone() {
        let device = Device::flex();
        let random = |shape| Tensor::<2>::random(shape, Distribution::Normal(0.0, 1.0), &device);
        let (x, w, a, b) = (
            random([4, 6]),
            random([5, 6]),
            random([2, 6]),
            random([5, 2]),
        );
        let path = LowRank {
            a,
            b,
            scale: 0.5,
            mask: Some(Tensor::zeros([4, 6], &device)),
        };
        let expected = linear(x.clone(), w.clone());
        lora_linear(x, w, path)
            .into_data()
            .assert_eq(&expected.into_data(), true);
    }
}
