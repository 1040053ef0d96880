//! The form on flex.
//!
//! Axes as in [`super`].

use std::borrow::Cow;

use burn::backend::Flex;
use burn_flex::FlexTensor;

use super::{Adapted, AdaptedGradients, LoraLinearForms, halves};
use crate::Dropout;
use crate::buffer::buffer;
use crate::flex::{self, contiguous, rows_of_task, values};
use crate::frozen::WeightOn;
use crate::product::{Side, product};
use crate::profile::{self, Operation};
use crate::skinny::{down, outer, transposed, up, up_transposed};
use crate::threads;

impl LoraLinearForms for Flex {
    const FUSED: bool = true;

    fn low_rank_linear_form(
        x: FlexTensor,
        weight: WeightOn<Self>,
        a: FlexTensor,
        b: FlexTensor,
        scale: f64,
        dropout: Option<Dropout>,
    ) -> (FlexTensor, Option<FlexTensor>) {
        let [a, b] = [a, b].map(flex::widened);
        if flex::is_half(&x) {
            if flex::has_half_products() {
                let y = halves::forward(x, weight, [a, b], scale, dropout.as_ref());
                return (y, None);
            }
            let wide = flex::widened(x);
            let (y, low) = Self::low_rank_linear_form(wide, weight, a, b, scale, dropout);
            return (flex::narrowed(y), low);
        }
        let [x, a, b] = [x, a, b].map(contiguous);
        let weight = flex::held(weight);
        let [tokens, inner] = x.layout().shape().dims();
        let [out, rank] = b.layout().shape().dims();
        let mut y = buffer(tokens * out);
        {
            let weight = flex::weight(&weight, Side::Transposed);
            let _span = profile::product(tokens, weight);
            product(values(&x), weight, &mut y, false);
        }
        let _span = span(tokens, [inner, out, rank], 1);
        let input = input(values(&x), dropout.as_ref());
        let low = down(&input, values(&a), rank, scale as f32); // [T, r]
        up_transposed(&low, values(&b), rank, &mut y);
        (flex::tensor(y, [tokens, out]), None)
    }

    fn low_rank_linear_gradient(adapted: Adapted<Self>, dy: FlexTensor) -> AdaptedGradients<Self> {
        let [a, b] = [adapted.a, adapted.b].map(flex::widened);
        let adapted = Adapted { a, b, ..adapted };
        if flex::is_half(&adapted.x) {
            if flex::has_half_products() {
                return halves::gradient(adapted, dy);
            }
            let [x, dy] = [adapted.x, dy].map(flex::widened);
            return Self::low_rank_linear_gradient(Adapted { x, ..adapted }, dy);
        }
        let [x, a, b, dy] = [adapted.x, adapted.a, adapted.b, dy].map(contiguous);
        let weight = flex::held(adapted.weight);
        let [tokens, inner] = x.layout().shape().dims();
        let [out, rank] = b.layout().shape().dims();
        let mut dx = None;
        if adapted.below {
            let weight = flex::weight(&weight, Side::Plain);
            let _span = profile::product(tokens, weight);
            let mut gradient = buffer(tokens * inner);
            product(values(&dy), weight, &mut gradient, false);
            dx = Some(gradient);
        }
        let _span = span(tokens, [inner, out, rank], 2);
        let scale = adapted.scale as f32;
        let wide = transposed(values(&b), rank); // [r, O]
        let input = input(values(&x), adapted.dropout.as_ref());
        let low = down(&input, values(&a), rank, 1.0); // [T, r]
        let d_low = down(values(&dy), &wide, rank, scale); // [T, r]
        match (&mut dx, &adapted.dropout) {
            (None, _) => {}
            (Some(dx), None) => up(&d_low, values(&a), rank, dx),
            (Some(dx), Some(dropout)) => {
                let mut gradient = vec![0.0; tokens * inner];
                up(&d_low, values(&a), rank, &mut gradient);
                dropout.apply(&mut gradient);
                add(&gradient, dx);
            }
        }
        let da = outer(&d_low, &input, rank, 1.0); // [r, I]
        let db = transposed(&outer(&low, values(&dy), rank, scale), out); // [O, r]
        AdaptedGradients {
            x: dx.map(|dx| flex::tensor(dx, [tokens, inner])),
            a: flex::tensor(da, [rank, inner]),
            b: flex::tensor(db, [out, rank]),
        }
    }
}

/// The input of the branch, `[T, I]`.
fn input<'a>(x: &'a [f32], dropout: Option<&Dropout>) -> Cow<'a, [f32]> {
    let mut input = Cow::Borrowed(x);
    if let Some(dropout) = dropout {
        dropout.apply(input.to_mut());
    }
    input
}

/// `sum += x`
pub(super) fn add(x: &[f32], sum: &mut [f32]) {
    let task = rows_of_task(1);
    threads::chunks(sum, task, |index, sum| {
        for (sum, x) in sum.iter_mut().zip(&x[index * task..]) {
            *sum += x;
        }
    });
}

pub(super) fn span(
    tokens: usize,
    [inner, out, rank]: [usize; 3],
    passes: usize,
) -> profile::Recording {
    let size = tokens * (inner + out);
    profile::span(
        Operation::LowRank,
        passes * 2 * size * rank,
        passes * 4 * size,
    )
}
