//! The form on flex for activations in bf16: weight and branch are one product.
//!
//! `y = [x, l] [W, B]ᵀ` with `l = s · x' Aᵀ`, and `dx = [dy, dl] [W; A]` with `dl = s · dy B`: the branch adds its rank to
//! the inner dimension, and the result is rounded to bf16 once. Gradients are in f32, because several are added to that
//! of `x`, and A and B are trained in f32. All sums are in f32; `l` and `dl`, A and B are rounded to bf16 where they enter
//! a product.
//!
//! Axes as in [`super`].

use burn_flex::FlexTensor;

use super::flex::{add, span};
use super::{Adapted, AdaptedGradients};
use crate::Dropout;
use crate::buffer::buffer;
use crate::flex::{self, contiguous, values};
use crate::frozen::WeightOn;
use crate::product::{
    Numbers, Side, Sums, Term, Values, Weight, packed_products as packed, products,
};
use crate::profile;
use crate::skinny::transposed;

type Flex = burn::backend::Flex;

/// See [`super::LoraLinearForms::low_rank_linear_form`].
pub(super) fn forward(
    x: FlexTensor,
    weight: WeightOn<Flex>,
    [a, b]: [FlexTensor; 2],
    scale: f64,
    dropout: Option<&Dropout>,
) -> FlexTensor {
    let [x, a, b] = [x, a, b].map(contiguous);
    let weight = flex::held(weight);
    let [tokens, inner] = x.layout().shape().dims();
    let [out, rank] = b.layout().shape().dims();
    let low = {
        let _span = span(tokens, [inner, out, rank], 1);
        let input = Input::of(&x, dropout);
        low(input.numbers(), values(&a), rank, scale as f32)
    };
    let weight = flex::weight(&weight, Side::Transposed);
    let _span = profile::product(tokens, weight);
    let mut y = buffer(tokens * out);
    let terms = [
        Term {
            x: flex::numbers(&x),
            weight,
        },
        Term {
            x: Numbers::F32(&low),
            weight: matrix(values(&b), [out, rank], Side::Transposed),
        },
    ];
    products(&terms, Sums::Bf16(&mut y));
    flex::half_tensor(y, [tokens, out])
}

/// See [`super::LoraLinearForms::low_rank_linear_gradient`].
pub(super) fn gradient(adapted: Adapted<Flex>, dy: FlexTensor) -> AdaptedGradients<Flex> {
    let [x, a, b, dy] = [adapted.x, adapted.a, adapted.b, dy].map(contiguous);
    let weight = flex::held(adapted.weight);
    let [tokens, inner] = x.layout().shape().dims();
    let [out, rank] = b.layout().shape().dims();
    let scale = adapted.scale as f32;
    let dropout = adapted.dropout.as_ref();
    let (d_low, da, db) = {
        let _span = span(tokens, [inner, out, rank], 2);
        let input = Input::of(&x, dropout);
        let low = low(input.numbers(), values(&a), rank, 1.0); // [T, r]
        let mut d_low = buffer(tokens * rank); // [T, r]
        let term = Term {
            x: flex::numbers(&dy),
            weight: matrix(values(&b), [out, rank], Side::Plain),
        };
        packed(&[term], f32s(&mut d_low));
        scaled(&mut d_low, scale);
        let da = outer(&d_low, input.numbers(), [tokens, rank, inner]); // [r, I]
        let mut db = outer(&low, flex::numbers(&dy), [tokens, rank, out]); // [r, O]
        scaled(&mut db, scale);
        (d_low, da, transposed(&db, out))
    };
    let dx = adapted.below.then(|| {
        let weight = flex::weight(&weight, Side::Plain);
        let _span = profile::product(tokens, weight);
        let main = Term {
            x: flex::numbers(&dy),
            weight,
        };
        let branch = Term {
            x: Numbers::F32(&d_low),
            weight: matrix(values(&a), [rank, inner], Side::Plain),
        };
        let mut dx = buffer(tokens * inner);
        match dropout {
            None => products(&[main, branch], f32s(&mut dx)),
            Some(dropout) => {
                products(&[main], f32s(&mut dx));
                let mut masked = buffer(tokens * inner);
                products(&[branch], f32s(&mut masked));
                dropout.apply(&mut masked);
                add(&masked, &mut dx);
            }
        }
        flex::tensor(dx, [tokens, inner])
    });
    AdaptedGradients {
        x: dx,
        a: flex::tensor(da, [rank, inner]),
        b: flex::tensor(db, [out, rank]),
    }
}

/// The input of the branch, `[T, I]`: in f32 with dropout.
enum Input<'a> {
    Same(Numbers<'a>),
    Masked(Vec<f32>),
}

impl<'a> Input<'a> {
    fn of(x: &'a FlexTensor, dropout: Option<&Dropout>) -> Self {
        let x = flex::numbers(x);
        match dropout {
            None => Self::Same(x),
            Some(dropout) => {
                let mut masked = x.widened().into_owned();
                dropout.apply(&mut masked);
                Self::Masked(masked)
            }
        }
    }

    fn numbers(&self) -> Numbers<'_> {
        match self {
            Self::Same(x) => *x,
            Self::Masked(x) => Numbers::F32(x),
        }
    }
}

/// `scale · x Aᵀ`, `[T, r]`
fn low(x: Numbers<'_>, a: &[f32], rank: usize, scale: f32) -> Vec<f32> {
    let inner = a.len() / rank;
    let mut low = buffer(x.len() / inner * rank);
    let weight = matrix(a, [rank, inner], Side::Transposed);
    packed(&[Term { x, weight }], f32s(&mut low));
    scaled(&mut low, scale);
    low
}

/// `lowᵀ x`, `[r, F]`, from `low`, `[T, r]`, and `x`, `[T, F]`. Every sum is in the order of the tokens.
fn outer(low: &[f32], x: Numbers<'_>, [tokens, rank, features]: [usize; 3]) -> Vec<f32> {
    let wide = transposed(low, rank); // [r, T]
    let mut sums = buffer(rank * features);
    let values = match x {
        Numbers::F32(x) => Values::F32(x),
        Numbers::Bf16(x) => Values::Bf16(x),
    };
    let weight = Weight {
        values,
        rows: tokens,
        columns: features,
        side: Side::Plain,
    };
    let x = Numbers::F32(&wide);
    packed(&[Term { x, weight }], f32s(&mut sums));
    sums
}

fn matrix(values: &[f32], [rows, columns]: [usize; 2], side: Side) -> Weight<'_> {
    Weight {
        values: Values::F32(values),
        rows,
        columns,
        side,
    }
}

fn f32s(y: &mut [f32]) -> Sums<'_> {
    Sums::F32 { y, add: false }
}

fn scaled(values: &mut [f32], scale: f32) {
    for value in values {
        *value *= scale;
    }
}
