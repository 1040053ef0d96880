//! Gradient clipping.
//!
//! Source: torch `nn/utils/clip_grad.py`, `clip_grad_norm_`.

use serde::{Deserialize, Serialize};

use simmer_recipe::Problem;

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
    /// The factor of a gradient whose norm is `norm`: `min(1, max / (norm + 10⁻⁶))`.
    pub(crate) fn factor(self, norm: f64) -> f64 {
        match self {
            Self::None => 1.0,
            Self::Norm(most) => (most / (norm + 1e-6)).min(1.0),
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_gradients_are_shortened_and_short_ones_are_kept() {
        let same = |found: f64, expected: f64| assert_eq!(found.to_bits(), expected.to_bits());
        // as in torch
        same(Clip::Norm(1.0).factor(5.0), 1.0 / (5.0 + 1e-6));
        same(Clip::Norm(6.0).factor(5.0), 1.0);
        same(Clip::None.factor(5.0), 1.0);
    }
}
