//! A linear layer with a low-rank path beside its weight.
//!
//! `y = x Wᵀ + s · x' Aᵀ Bᵀ`, with `x' = m∘x` where there is dropout, else `x`.
//! `W + s·B·A` is never formed.
//!
//! With `l = x' Aᵀ` and `dl = s · dy B`: `dx = dy W`, `dx' = dl A`, `dA = dlᵀ x'`,
//! `dB = s · dyᵀ l`. Of the frozen weight there is no gradient.
//!
//! Source: Hu et al. 2021, equation 3; PEFT `lora/layer.py`, `Linear.forward`.
//!
//! Axes: T tokens, I input features, O output features, r rank.

use burn::backend::autodiff::{
    checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
    grads::Gradients,
    ops::{Backward, Ops, OpsKind},
};
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension, tensor::FloatTensor};
use burn::tensor::Tensor;
use burn_flex::FlexTensor;

use crate::buffer::buffer;
use crate::flex::{self, contiguous, values};
use crate::linear::{gradient_of_weight, linear_oracle};
use crate::low_rank::{down, outer, transposed, up};
use crate::product::{Side, product};
use crate::profile::{self, Operation};

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
    let separate = path.mask.is_some();
    let input = match path.mask {
        Some(mask) => x.clone() * mask,
        None => x.clone(),
    };
    Tensor::from_dispatch(Dispatch::low_rank_linear(
        x.into_dispatch(),
        input.into_dispatch(),
        weight.into_dispatch(),
        path.a.into_dispatch(),
        path.b.into_dispatch(),
        path.scale,
        separate,
    ))
}

/// The definition of [`lora_linear`] in plain tensor operations.
///
/// # Shapes
/// As [`lora_linear`].
pub fn lora_linear_oracle(x: Tensor<2>, weight: Tensor<2>, path: LowRank) -> Tensor<2> {
    let y = linear_oracle(x.clone(), weight); // [T, O]
    let x = match path.mask {
        Some(mask) => x * mask,
        None => x,
    };
    let low = linear_oracle(x, path.a) * path.scale; // [T, r]
    y + linear_oracle(low, path.b)
}

/// [`lora_linear`] on a backend.
#[backend_extension(Flex, Autodiff)]
pub trait LoraLinearBackend: Backend {
    /// See [`lora_linear`]; `input` is that of the low-rank path, and `separate` whether it is
    /// another tensor than `x`.
    fn low_rank_linear(
        x: FloatTensor<Self>,
        input: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        scale: f64,
        separate: bool,
    ) -> FloatTensor<Self>;
}

/// What the backward pass of [`lora_linear`] needs of the forward pass.
#[derive(Debug, Clone)]
pub struct Adapted<B: Backend> {
    /// `x`, kept only where the weight is trained.
    pub x: Option<FloatTensor<B>>,
    /// Input of the low-rank path.
    pub input: FloatTensor<B>,
    /// `[O, I]`
    pub weight: FloatTensor<B>,
    /// `[r, I]`
    pub a: FloatTensor<B>,
    /// `[O, r]`
    pub b: FloatTensor<B>,
    /// Scale of the path.
    pub scale: f64,
    /// Whether `input` is another tensor than `x`.
    pub separate: bool,
    /// Whether anything below wants a gradient.
    pub below: bool,
}

/// Gradients of [`lora_linear`].
#[derive(Debug)]
pub struct AdaptedGradients<B: Backend> {
    /// Of `x`, and where the path has no other input, all of it.
    pub x: Option<FloatTensor<B>>,
    /// Of a separate input.
    pub input: Option<FloatTensor<B>>,
    /// Of the path's matrices.
    pub a: FloatTensor<B>,
    /// Of the path's matrices.
    pub b: FloatTensor<B>,
}

/// The gradient of [`lora_linear`] on a backend.
pub trait LoraLinearGradient: LoraLinearBackend {
    /// Gradients from that of the result, but that of the weight.
    fn low_rank_linear_gradient(
        adapted: Adapted<Self>,
        dy: FloatTensor<Self>,
    ) -> AdaptedGradients<Self>;
}

impl<B: LoraLinearGradient, C: CheckpointStrategy> LoraLinearBackend for Autodiff<B, C> {
    fn low_rank_linear(
        x: FloatTensor<Self>,
        input: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        scale: f64,
        separate: bool,
    ) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct LoraLinear;

        impl<B: LoraLinearGradient> Backward<B, 5> for LoraLinear {
            type State = Adapted<B>;

            fn backward(
                self,
                ops: Ops<Self::State, 5>,
                grads: &mut Gradients,
                _checkpointer: &mut Checkpointer,
            ) {
                let [x_node, input_node, weight_node, a_node, b_node] = ops.parents;
                let dy = grads.consume::<B>(&ops.node); // [T, O]
                let mut adapted = ops.state;
                if let (Some(node), Some(x)) = (weight_node, adapted.x.take()) {
                    grads.register::<B>(node.id, gradient_of_weight::<B>(dy.clone(), x));
                }
                let found = B::low_rank_linear_gradient(adapted, dy);
                let parts = [
                    (x_node, found.x),
                    (input_node, found.input),
                    (a_node, Some(found.a)),
                    (b_node, Some(found.b)),
                ];
                for (node, gradient) in parts {
                    if let (Some(node), Some(gradient)) = (node, gradient) {
                        grads.register::<B>(node.id, gradient);
                    }
                }
            }
        }

        let below = x.is_tracked() || input.is_tracked();
        let weight_is_trained = weight.is_tracked();
        let prepared = LoraLinear
            .prepare::<C>([x.node(), input.node(), weight.node(), a.node(), b.node()])
            .compute_bound()
            .stateful();
        let parts = [
            x.into_primitive(),
            input.into_primitive(),
            weight.into_primitive(),
            a.into_primitive(),
            b.into_primitive(),
        ];
        let [x, input, weight, a, b] = parts.clone();
        let y = B::low_rank_linear(x, input, weight, a, b, scale, separate);
        let [x, input, weight, a, b] = parts;
        match prepared {
            OpsKind::Tracked(prep) => {
                let adapted = Adapted {
                    x: weight_is_trained.then_some(x),
                    input,
                    weight,
                    a,
                    b,
                    scale,
                    separate,
                    below,
                };
                prep.finish(adapted, y)
            }
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }
}

impl LoraLinearBackend for Flex {
    fn low_rank_linear(
        x: FlexTensor,
        input: FlexTensor,
        weight: FlexTensor,
        a: FlexTensor,
        b: FlexTensor,
        scale: f64,
        _separate: bool,
    ) -> FlexTensor {
        let [x, input, weight, a, b] = [x, input, weight, a, b].map(contiguous);
        let [tokens, inner] = x.layout().shape().dims();
        let [out, rank] = b.layout().shape().dims();
        let mut y = buffer(tokens * out);
        {
            let weight = flex::weight(&weight, Side::Transposed);
            let _span = profile::product(tokens, weight);
            product(values(&x), weight, &mut y, false);
        }
        let _span = span(tokens, [inner, out, rank], 1);
        let low = down(values(&input), values(&a), rank, scale as f32); // [T, r]
        up(&low, &transposed(values(&b), rank), rank, 1.0, &mut y);
        flex::tensor(y, [tokens, out])
    }
}

impl LoraLinearGradient for Flex {
    fn low_rank_linear_gradient(adapted: Adapted<Self>, dy: FlexTensor) -> AdaptedGradients<Self> {
        let parts = [adapted.input, adapted.weight, adapted.a, adapted.b, dy];
        let [input, weight, a, b, dy] = parts.map(contiguous);
        let [tokens, inner] = input.layout().shape().dims();
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
        let low = down(values(&input), values(&a), rank, 1.0); // [T, r]
        let d_low = down(values(&dy), &wide, rank, scale); // [T, r]
        let mut d_input = None;
        if let Some(dx) = &mut dx {
            if adapted.separate {
                let mut gradient = vec![0.0; tokens * inner];
                up(&d_low, values(&a), rank, 1.0, &mut gradient);
                d_input = Some(gradient);
            } else {
                up(&d_low, values(&a), rank, 1.0, dx);
            }
        }
        let da = outer(&d_low, values(&input), rank, 1.0); // [r, I]
        let db = transposed(&outer(&low, values(&dy), rank, scale), out); // [O, r]
        let below = |gradient: Option<Vec<f32>>| gradient.map(|g| flex::tensor(g, [tokens, inner]));
        AdaptedGradients {
            x: below(dx),
            input: below(d_input),
            a: flex::tensor(da, [rank, inner]),
            b: flex::tensor(db, [out, rank]),
        }
    }
}

fn span(tokens: usize, [inner, out, rank]: [usize; 3], passes: usize) -> profile::Recording {
    let size = tokens * (inner + out);
    profile::span(
        Operation::LowRank,
        passes * 2 * size * rank,
        passes * 4 * size,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{DType, Device, Distribution, TensorData, Tolerance};
    use proptest::prelude::*;

    type Adapted = fn(Tensor<2>, Tensor<2>, LowRank) -> Tensor<2>;

    /// Result and gradients of `sum(f(x, w, path) · seed)`.
    fn run(
        f: Adapted,
        x: &Tensor<2>,
        w: &Tensor<2>,
        path: &LowRank,
        seed: &Tensor<2>,
    ) -> Vec<TensorData> {
        let leaves = [x, &path.a, &path.b].map(|leaf| leaf.clone().require_grad());
        let [x, a, b] = leaves.clone();
        let path = LowRank {
            a,
            b,
            ..path.clone()
        };
        let y = f(x, w.clone(), path);
        let grads = (y.clone() * seed.clone()).sum().backward();
        let gradients = leaves.map(|leaf| leaf.grad(&grads).unwrap().into_data());
        std::iter::once(y.inner().into_data())
            .chain(gradients)
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn equals_the_oracle(
            t in 1_usize..70,
            i in 1_usize..70,
            o in 1_usize..70,
            r in 1_usize..20,
            half: bool,
            masked: bool,
        ) {
            let device = Device::flex().autodiff();
            let random = |shape| Tensor::<2>::random(shape, Distribution::Normal(0.0, 1.0), &device);
            let (x, w, seed) = (random([t, i]), random([o, i]), random([t, o]));
            let w = if half { w.cast(DType::BF16) } else { w };
            let path = LowRank {
                a: random([r, i]),
                b: random([o, r]),
                scale: 0.5,
                mask: masked.then(|| random([t, i])),
            };
            let fused = run(lora_linear, &x, &w, &path, &seed);
            let oracle = run(lora_linear_oracle, &x, &w, &path, &seed);
            for (fused, oracle) in fused.into_iter().zip(oracle) {
                // sums of up to 1400 products of order one in two orders
                fused.assert_approx_eq::<f32>(&oracle, Tolerance::relative(1e-4).set_absolute(1e-3));
            }
        }
    }

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
        let composed = linear_oracle(x.clone(), w.clone() + b.clone().matmul(a.clone()) * 0.5);
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
        let expected = crate::linear(x.clone(), w.clone());
        lora_linear(x, w, path)
            .into_data()
            .assert_eq(&expected.into_data(), true);
    }
}
