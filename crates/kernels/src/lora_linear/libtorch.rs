//! The form on libtorch: the low-rank branch is added to `x Wᵀ` in place.
//!
//! Matrix multiplications are in the dtype of `x`; A, B and their gradients are in f32.
//!
//! Axes as in [`super`].

use burn::backend::LibTorch;
use burn::backend::libtorch::TchTensor;
use tch::{Kind, Tensor};

use super::{Adapted, AdaptedGradients, LoraLinearForms};
use crate::Dropout;
use crate::frozen::WeightOn;
use crate::libtorch::{bytes, fresh, product_with};
use crate::product::Side;
use crate::profile::{self, Operation};

impl LoraLinearForms for LibTorch {
    const FUSED: bool = true;

    fn low_rank_linear_form(
        x: TchTensor,
        weight: WeightOn<Self>,
        a: TchTensor,
        b: TchTensor,
        scale: f64,
        dropout: Option<Dropout>,
    ) -> TchTensor {
        let x = x.tensor;
        let mut y = product_with(&x, &weight, Side::Transposed); // [T, O]
        let _span = span(&x, &y, &a.tensor, 1);
        let [a, b] = [a, b].map(|of| of.tensor.to_kind(x.kind()));
        let low = input(&x, dropout.as_ref()).mm(&a.tr()) * scale; // [T, r]
        let _ = y.addmm_(&low, &b.tr());
        fresh(y)
    }

    fn low_rank_linear_gradient(adapted: Adapted<Self>, dy: TchTensor) -> AdaptedGradients<Self> {
        let Adapted {
            scale,
            dropout,
            below,
            ..
        } = adapted;
        let [x, dy] = [adapted.x.tensor, dy.tensor];
        let mut dx = below.then(|| product_with(&dy, &adapted.weight, Side::Plain)); // [T, I]
        let _span = span(&x, &dy, &adapted.a.tensor, 2);
        let [a, b] = [adapted.a, adapted.b].map(|of| of.tensor.to_kind(x.kind()));
        let input = input(&x, dropout.as_ref());
        let low = input.mm(&a.tr()) * scale; // [T, r]
        let d_low = dy.mm(&b) * scale; // [T, r]
        if let Some(dx) = &mut dx {
            let _ = match &dropout {
                None => dx.addmm_(&d_low, &a),
                Some(dropout) => dx.g_add_(&dropout.masked(&d_low.mm(&a))),
            };
        }
        AdaptedGradients {
            x: dx.map(fresh),
            a: fresh(d_low.tr().mm(&input).to_kind(Kind::Float)), // [r, I]
            b: fresh(dy.tr().mm(&low).to_kind(Kind::Float)),      // [O, r]
        }
    }
}

/// The low-rank branch of a layer: A and B, or the gradients of both.
fn span(x: &Tensor, y: &Tensor, a: &Tensor, passes: usize) -> profile::Recording {
    let rank = a.size()[0] as usize;
    profile::span(
        Operation::LowRank,
        passes * 2 * (x.numel() + y.numel()) * rank,
        passes * bytes(&[x, y]),
    )
}

/// The input of the branch, `[T, I]`.
fn input(x: &Tensor, dropout: Option<&Dropout>) -> Tensor {
    match dropout {
        None => x.shallow_clone(),
        Some(dropout) => dropout.masked(x),
    }
}
