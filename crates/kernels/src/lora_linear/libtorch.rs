//! The form on libtorch: the frozen weight's product is added to the low-rank branch in place.
//!
//! The branch alone is small, so that the large matrix multiplication adds it while it computes; after it, the sum would be
//! one more pass over the result. `low`, `[T, r]`, is kept for the backward pass. Matrix multiplications are in the dtype of
//! `x`; the gradients of A and B are in f32.
//!
//! Axes as in [`super`].

use burn::backend::LibTorch;
use burn::backend::libtorch::TchTensor;
use tch::Tensor;

use super::{Adapted, AdaptedGradients, LoraLinearForms};
use crate::Dropout;
use crate::frozen::WeightOn;
use crate::libtorch::{add_product_with, fresh, in_kind, scaled_product, wide_product};
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
    ) -> (TchTensor, Option<TchTensor>) {
        let x = x.tensor;
        let [a, b] = [a, b].map(|of| in_kind(&of.tensor, x.kind()));
        let (low, mut y) = {
            let _span = span(&x, &b, 1);
            let low = scaled_product(&input(&x, dropout.as_ref()), &a.tr(), scale); // [T, r]
            let y = low.mm(&b.tr()); // [T, O]
            (low, y)
        };
        add_product_with(&mut y, &x, &weight, Side::Transposed);
        (fresh(y), Some(fresh(low)))
    }

    fn low_rank_linear_gradient(adapted: Adapted<Self>, dy: TchTensor) -> AdaptedGradients<Self> {
        let Adapted {
            scale,
            dropout,
            below,
            ..
        } = adapted;
        let [x, dy] = [adapted.x.tensor, dy.tensor];
        let [a, b] = [adapted.a, adapted.b].map(|of| in_kind(&of.tensor, x.kind()));
        let branch = span(&x, &b, 2);
        let input = input(&x, dropout.as_ref());
        let low = match adapted.low {
            Some(low) => low.tensor,
            None => scaled_product(&input, &a.tr(), scale), // [T, r]
        };
        let d_low = scaled_product(&dy, &b, scale); // [T, r]
        let da = wide_product(&d_low.tr(), &input); // [r, I]
        let db = wide_product(&dy.tr(), &low); // [O, r]
        let dx = below.then(|| d_low.mm(&a)); // [T, I]
        let dx = dx.map(|dx| match &dropout {
            None => dx,
            Some(dropout) => dropout.masked(&dx),
        });
        drop(branch);
        let dx = dx.map(|mut dx| {
            add_product_with(&mut dx, &dy, &adapted.weight, Side::Plain);
            fresh(dx)
        });
        AdaptedGradients {
            x: dx,
            a: fresh(da),
            b: fresh(db),
        }
    }
}

/// The low-rank branch of a layer: A and B, or the gradients of both.
fn span(x: &Tensor, b: &Tensor, passes: usize) -> profile::Recording {
    let (tokens, inner) = x.size2().unwrap_or_default();
    let (out, rank) = b.size2().unwrap_or_default();
    let size = (tokens * (inner + out)) as usize;
    profile::span(
        Operation::LowRank,
        passes * 2 * size * rank as usize,
        passes * size * x.kind().elt_size_in_bytes(),
    )
}

/// The input of the branch, `[T, I]`.
fn input(x: &Tensor, dropout: Option<&Dropout>) -> Tensor {
    match dropout {
        None => x.shallow_clone(),
        Some(dropout) => dropout.masked(x),
    }
}
