//! The form on libtorch: the frozen weight's product is added to the low-rank branch in place.
//!
//! The branch alone is small, so that the large matrix multiplication adds it while it computes; after it, the sum would be
//! one more pass over the result. Products in fp8 cannot add: there the branch is added to the product. `low`, `[T, r]`, is
//! kept for the backward pass. Matrix multiplications are in the dtype of `x`; the gradients of A and B are in f32.
//!
//! Axes as in [`super`].

use burn::backend::LibTorch;
use burn::backend::libtorch::TchTensor;
use tch::{Kind, Tensor};

use super::{
    Adapted, AdaptedGradients, Layer, LoraLinearForms, Lows, Together, TogetherForms,
    TogetherGradients, TogetherResults,
};
use crate::Dropout;
use crate::frozen::WeightOn;
use crate::frozen::fp8::Operand;
use crate::libtorch::{
    add_product_with, fresh, in_kind, product_beside, product_with, scaled_product,
    scaled_product_into, wide_product,
};
use crate::product::Side;
use crate::profile::{self, Operation};

impl LoraLinearForms for LibTorch {
    const FUSED: bool = true;
    const TOGETHER: Option<TogetherForms<Self>> = Some(TogetherForms {
        results: together,
        gradients: together_gradients,
    });

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
        let low = {
            let _span = span(&x, &b, 1);
            scaled_product(&input(&x, dropout.as_ref()), &a.tr(), scale) // [T, r]
        };
        let x = Operand::of(&x);
        let y = product_beside(&low, &b.tr(), &x, &weight, Side::Transposed); // [T, O]
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
        drop(branch);
        let dx = below.then(|| {
            let (dy, weight) = (Operand::of(&dy), &adapted.weight);
            let Some(dropout) = &dropout else {
                return product_beside(&d_low, &a, &dy, weight, Side::Plain); // [T, I]
            };
            let mut dx = {
                let _span = profile::span(Operation::LowRank, 0, 0);
                dropout.masked(&d_low.mm(&a))
            };
            add_product_with(&mut dx, &dy, weight, Side::Plain);
            dx
        });
        AdaptedGradients {
            x: dx.map(fresh),
            a: fresh(da),
            b: fresh(db),
        }
    }
}

/// The branches of layers of one input: B of each, `[O, r]`, and the columns of `[T, R]` that belong to it.
fn branches(layers: &[Layer<LibTorch>], kind: Kind) -> Vec<Option<(Tensor, [i64; 2])>> {
    let mut next = 0;
    let of = |layer: &Layer<LibTorch>| {
        let [_, b] = layer.branch.as_ref()?;
        let b = in_kind(&b.tensor, kind);
        let rank = b.size()[1];
        next += rank;
        Some((b, [next - rank, rank]))
    };
    layers.iter().map(of).collect()
}

/// A of all branches, and `s · x Aᵀ`.
fn lows(x: &Tensor, layers: &[Layer<LibTorch>], scale: f64) -> Option<[Tensor; 2]> {
    let branches = layers.iter().filter_map(|layer| layer.branch.as_ref());
    let all: Vec<Tensor> = branches
        .map(|[a, _]| in_kind(&a.tensor, x.kind()))
        .collect();
    let a = match all.as_slice() {
        [] => return None,
        [a] => a.shallow_clone(),
        all => Tensor::cat(all, 0), // [R, I]
    };
    let low = scaled_product(x, &a.tr(), scale); // [T, R]
    Some([a, low])
}

fn together(x: &TchTensor, layers: &[Layer<LibTorch>], scale: f64) -> TogetherResults<LibTorch> {
    let x = &x.tensor;
    let branches = branches(layers, x.kind());
    let lows = {
        let _span = span_of_all(x, &branches, 1);
        lows(x, layers, scale)
    };
    let x = Operand::of(x);
    let of = |(layer, branch): (&Layer<LibTorch>, &Option<(Tensor, [i64; 2])>)| {
        let weight = &layer.weight;
        let (Some((b, [start, rank])), Some([_, low])) = (branch, &lows) else {
            return fresh(product_with(&x, weight, Side::Transposed));
        };
        let low = low.narrow(1, *start, *rank);
        fresh(product_beside(&low, &b.tr(), &x, weight, Side::Transposed)) // [T, O]
    };
    let results = layers.iter().zip(&branches).map(of).collect();
    let lows = lows.map(|[a, low]| Lows {
        a: fresh(a),
        low: fresh(low),
    });
    (results, lows)
}

fn together_gradients(
    together: Together<LibTorch>,
    dys: Vec<TchTensor>,
) -> TogetherGradients<LibTorch> {
    let Together {
        x,
        layers,
        scale,
        lows,
        below,
    } = together;
    let x = x.tensor;
    let dys: Vec<Tensor> = dys.into_iter().map(|dy| dy.tensor).collect();
    let branches = branches(&layers, x.kind());
    let span = span_of_all(&x, &branches, 2);
    let mut beside = None;
    let mut found: Vec<Option<[TchTensor; 2]>> = Vec::new();
    if let Some(Lows { a, low }) = lows {
        let (a, low) = (a.tensor, low.tensor);
        let d_low = low.empty_like(); // [T, R]
        for (dy, branch) in dys.iter().zip(&branches) {
            if let Some((b, [start, rank])) = branch {
                scaled_product_into(&mut d_low.narrow(1, *start, *rank), dy, b, scale);
            }
        }
        let da = wide_product(&d_low.tr(), &x); // [R, I]
        let of = |(dy, branch): (&Tensor, &Option<(Tensor, [i64; 2])>)| {
            let (_, [start, rank]) = branch.as_ref()?;
            let db = wide_product(&dy.tr(), &low.narrow(1, *start, *rank)); // [O, r]
            Some([da.narrow(0, *start, *rank), db].map(fresh))
        };
        found = dys.iter().zip(&branches).map(of).collect();
        beside = Some([d_low, a]);
    }
    drop(span);
    let mut dx: Option<Tensor> = None; // [T, I]
    if below {
        for (dy, layer) in dys.iter().zip(&layers) {
            let (dy, weight) = (Operand::of(dy), &layer.weight);
            match (&mut dx, &beside) {
                (Some(dx), _) => add_product_with(dx, &dy, weight, Side::Plain),
                (None, Some([d_low, a])) => {
                    dx = Some(product_beside(d_low, a, &dy, weight, Side::Plain));
                }
                (None, None) => dx = Some(product_with(&dy, weight, Side::Plain)),
            }
        }
    }
    TogetherGradients {
        x: dx.map(fresh),
        branches: found,
    }
}

/// The low-rank branches of layers of one input.
fn span_of_all(
    x: &Tensor,
    branches: &[Option<(Tensor, [i64; 2])>],
    passes: usize,
) -> profile::Recording {
    let (tokens, inner) = x.size2().unwrap_or_default();
    let (mut operations, mut size) = (0, tokens * inner);
    for (b, [_, rank]) in branches.iter().flatten() {
        let out = b.size()[0];
        operations += 2 * tokens * (inner + out) * rank;
        size += tokens * out;
    }
    let bytes = size as usize * x.kind().elt_size_in_bytes();
    profile::span(
        Operation::LowRank,
        passes * operations as usize,
        passes * bytes,
    )
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
