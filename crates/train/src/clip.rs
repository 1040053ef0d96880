//! Gradient clipping.
//!
//! Source: torch `nn/utils/clip_grad.py`, `clip_grad_norm_`.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};
use simmer_model::Parameters;

use crate::problem::Problem;

/// `train.clip`: gradient clipping, `"none"` or `{ norm = 1.0 }`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[derive(schemars::JsonSchema)]
pub enum Clip {
    /// No clipping.
    None,
    /// A gradient whose Euclidean norm, over all trained tensors together, is larger than this is scaled down to it.
    Norm(f64),
}

impl Default for Clip {
    fn default() -> Self {
        Self::Norm(1.0)
    }
}

impl Clip {
    /// Clips gradients whose norm is `norm`: `g · min(1, max / (norm + 10⁻⁶))`.
    pub(crate) fn apply(self, gradients: Parameters, norm: f64) -> Parameters {
        let factor = match self {
            Self::None => return gradients,
            Self::Norm(most) => most / (norm + 1e-6),
        };
        if factor >= 1.0 {
            return gradients;
        }
        let scale = |(name, gradient)| (name, gradient * factor);
        gradients.into_iter().map(scale).collect()
    }

    pub(crate) fn check(self) -> Result<(), Problem> {
        match self {
            Self::Norm(most) if !(most > 0.0 && most.is_finite()) => {
                let why = format!("expected a number above 0, such as 1, found {most}");
                let hint = "to switch clipping off, set clip = \"none\"".to_owned();
                Err(Problem::new("train.clip.norm", why).with_hint(Some(hint)))
            }
            _ => Ok(()),
        }
    }
}

/// Elements per sum. Backends split longer sums among threads, and the order of a sum must not depend on the number of
/// threads.
const PIECE: usize = 1 << 20;

/// The Euclidean norm of all gradients together.
pub(crate) fn norm(gradients: &Parameters) -> f64 {
    let pieces = gradients
        .values()
        .flat_map(|gradient| gradient.clone().split(PIECE, 0));
    let sums: Vec<Tensor<1>> = pieces.map(|piece| piece.square().sum()).collect();
    if sums.is_empty() {
        return 0.0;
    }
    let sums = Tensor::cat(sums, 0).into_data();
    sums.iter::<f64>().sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, TensorData};

    fn gradients(values: &[&[f32]]) -> Parameters {
        let named = values.iter().enumerate().map(|(index, values)| {
            let data = TensorData::from(*values);
            (index.to_string(), Tensor::from_data(data, &Device::flex()))
        });
        named.collect()
    }

    fn values(gradients: &Parameters) -> Vec<f32> {
        let values = gradients
            .values()
            .flat_map(|g| g.to_data().try_to_vec::<f32>().unwrap());
        values.collect()
    }

    #[test]
    fn the_norm_is_over_all_tensors() {
        assert!((norm(&gradients(&[&[1.0, 2.0], &[-4.0], &[2.0]])) - 5.0).abs() < 1e-12);
        let long = vec![0.5_f32; 2 * PIECE + 3];
        let expected = 0.5 * (long.len() as f64).sqrt();
        assert!((norm(&gradients(&[&long])) / expected - 1.0).abs() < 1e-6);
        assert!(norm(&gradients(&[&[1.0], &[f32::NAN]])).is_nan());
    }

    #[test]
    fn long_gradients_are_shortened_and_short_ones_are_kept() {
        let given = gradients(&[&[3.0], &[4.0]]);
        let clipped = values(&Clip::Norm(1.0).apply(given.clone(), 5.0));
        // 1 / (5 + 10⁻⁶), as in torch
        assert_eq!(clipped, [3.0 * 0.199_999_96_f32, 4.0 * 0.199_999_96_f32]);
        assert_eq!(
            values(&Clip::Norm(6.0).apply(given.clone(), 5.0)),
            [3.0, 4.0]
        );
        assert_eq!(values(&Clip::None.apply(given, 5.0)), [3.0, 4.0]);
    }
}
