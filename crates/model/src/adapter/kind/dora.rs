//! DoRA: a low-rank branch that changes the direction of each row of a weight, and a trained magnitude for each row.
//!
//! `y = m ∘ x (W + s·B·A)ᵀ / n`, where `n_o = ‖w_o + s·b_o·A‖` is the norm of row o, a constant to the gradient. m starts
//! at the norms of W, and B at zero, so that training starts at the base model. In PEFT's layout `[O, I]` the paper's columns
//! are rows.
//!
//! With dropout PEFT changes the input of the magnitude, too: `y = x Wᵀ + (m/n - 1) ∘ x' Wᵀ + m/n ∘ s·x' Aᵀ Bᵀ` with
//! `x' = mask∘x`. That is `(x - x') Wᵀ + m/n ∘ (x' Wᵀ + s·x' Aᵀ Bᵀ)`: two products with W.
//!
//! The norms need no product with all of W + s·B·A: `n² = ‖w_o‖² + 2s·b_o·(A w_o) + s²·b_o (A Aᵀ) b_oᵀ`, and `A Wᵀ` takes as long
//! as r tokens.
//!
//! Source: Liu et al. 2024, equations 5 and 11; PEFT 0.21 `lora/dora.py` and `lora/variants.py`, `DoraLinearVariant`.
//!
//! Axes: T tokens, I input features, O output features, r rank.

use std::sync::Arc;

use burn::module::{Module, Param, ParamId};
use burn::tensor::{DType, Device, Tensor};
use simmer_kernels::{FrozenWeight, LowRank, linear, lora_linear};

use super::lora::{A, B};
use super::low_rank::LowRankChange;
use super::{Axis, BesideLinear, Costs, Form, Kind, LinearAdapter, Lora, MergedRows, PLAIN, Part};
use super::{Start, Stored, Trained, wide};
use crate::parameters::trained;

/// DoRA.
pub static DORA: Kind = Kind {
    name: "DoRA",
    switch: Some("use_dora"),
    linear: Some(Form {
        tensors: &[A, B, MAGNITUDE],
        start: |start| BesideLinear::Dora(Dora::new(start)),
        merged: |stored| Box::new(MergedDora::new(stored)),
    }),
    beyond_low_rank: Some("magnitudes of rows"),
    costs: Costs {
        keeps_result: true,
        dropout_takes_a_product: true,
        ..PLAIN.costs
    },
    ..PLAIN
};

pub(in crate::adapter) const MAGNITUDE: Trained = Trained {
    field: "lora_magnitude_vector",
    end: ".lora_magnitude_vector",
    shape: &[Axis::Rows],
    part: Part::Beside,
    is_factor: false,
};

/// Elements of the rows whose norms are computed at a time.
const TOGETHER: usize = 4 << 20;

/// The low-rank branch and the magnitudes of a linear layer.
#[derive(Module, Debug)]
pub struct Dora {
    /// A and B. `crate::parameters` leaves the name of this field out of keys.
    pub low_rank: Lora,
    /// m, `[O]`, f32
    pub lora_magnitude_vector: Param<Tensor<1>>,
    /// `‖w_o‖²`, `[O]`, f32, frozen
    squares: Param<Tensor<1>>,
}

/// The field of [`Dora`] that holds the branch.
pub(crate) const LOW_RANK: &str = "low_rank";

impl Dora {
    /// A new adapter, which changes nothing.
    fn new(start: &Start<'_>) -> Self {
        let squares = squares_of_rows(&start.weight, start.device);
        Self {
            low_rank: Lora::new(start),
            lora_magnitude_vector: trained(squares.clone().sqrt()),
            squares: Param::initialized(ParamId::new(), squares),
        }
    }

    /// m / n: the factor of each row.
    ///
    /// # Shapes
    /// `weight`: `[O, I]`. Result: `[O]`, f32.
    fn factors(&self, branch: &LowRank, weight: &FrozenWeight, dtype: DType) -> Tensor<1> {
        let [a, b] = [&branch.a, &branch.b].map(|factor| factor.clone().detach());
        let with_rows = linear(a.clone().cast(dtype), weight.clone()).cast(DType::F32); // [r, O]
        let [a, b] = [a, b].map(|factor| factor.cast(DType::F32));
        let cross: Tensor<1> = (b.clone() * with_rows.transpose())
            .sum_dim(1)
            .squeeze_dim(1);
        let gram = linear(a.clone(), a); // [r, r]
        let own: Tensor<1> = (linear(b.clone(), gram) * b).sum_dim(1).squeeze_dim(1);
        let s = branch.scale;
        let squares = self.squares.val() + cross * (2.0 * s) + own * (s * s);
        // a row of zeros stays one
        let norms = squares.clamp_min(f32::MIN_POSITIVE).sqrt();
        self.lora_magnitude_vector.val() / norms
    }
}

impl LinearAdapter for Dora {
    fn forward(
        &self,
        x: Tensor<2>,
        weight: FrozenWeight,
        dropout_keys: Option<&Arc<[u64]>>,
    ) -> Tensor<2> {
        let branch = self.low_rank.branch(dropout_keys);
        let dtype = x.dtype();
        let factors = self.factors(&branch, &weight, dtype);
        let factors = factors.unsqueeze::<2>(); // [1, O]
        if branch.dropout.is_none() {
            let changed = lora_linear(x, weight, branch).cast(DType::F32) * factors;
            return changed.cast(dtype);
        }
        let x = wide(x);
        let dropped = branch.input(x.clone());
        let rest = linear((x - dropped.clone()).cast(dtype), weight.clone());
        let branch = LowRank {
            dropout: None,
            ..branch
        };
        let changed = lora_linear(dropped.cast(dtype), weight, branch);
        (rest.cast(DType::F32) + changed.cast(DType::F32) * factors).cast(dtype)
    }

    /// Without dropout `[x, l] [f∘W, f∘B]ᵀ` with `l = s·x Aᵀ` and `f = m/n`, with it `[x - x', x', l] [W, f∘W, f∘B]ᵀ`.
    fn operands(
        &self,
        x: Tensor<2>,
        weight: Tensor<2>,
        dropout_keys: Option<&Arc<[u64]>>,
    ) -> [Tensor<2>; 2] {
        let branch = self.low_rank.branch(dropout_keys);
        let dtype = x.dtype();
        let factors = self.factors(&branch, &weight.clone().into(), dtype);
        let factors = factors.unsqueeze_dim::<2>(1); // [O, 1]
        let wide_weight = weight.clone().cast(DType::F32);
        let changed = Tensor::cat(vec![wide_weight, branch.b.clone()], 1) * factors;
        let changed = changed.cast(dtype); // [O, I + r]
        let with_low = |input: Tensor<2>| {
            let low = linear(input.clone(), branch.a.clone()) * branch.scale; // [T, r]
            Tensor::cat(vec![input, low], 1).cast(dtype) // [T, I + r]
        };
        let x = wide(x);
        if branch.dropout.is_none() {
            return [with_low(x), changed];
        }
        let dropped = branch.input(x.clone());
        let rest = (x - dropped.clone()).cast(dtype);
        [
            Tensor::cat(vec![rest, with_low(dropped)], 1), // [T, 2I + r]
            Tensor::cat(vec![weight.cast(dtype), changed], 1), // [O, 2I + r]
        ]
    }

    fn has_dropout(&self) -> bool {
        self.low_rank.has_dropout()
    }
}

/// The sum of the squares of each row, some rows at a time: a copy of the whole weight in f32 may be large.
///
/// # Shapes
/// `weight`: `[O, I]`. Result: `[O]`, without automatic differentiation.
fn squares_of_rows(weight: &FrozenWeight, device: &Device) -> Tensor<1> {
    let [rows, columns] = weight.shape();
    let together = (TOGETHER / columns.max(1)).max(1);
    let parts = (0..rows).step_by(together).map(|first| {
        let last = rows.min(first + together);
        let part = weight.rows(Tensor::arange(first as i64..last as i64, device));
        (part.clone() * part)
            .sum_dim(1)
            .squeeze_dim::<1>(1)
            .detach()
    });
    Tensor::cat(parts.collect(), 0)
}

/// `m_o / ‖w_o + d_o‖ · (w_o + d_o)`, with the change d of the branch.
struct MergedDora {
    change: LowRankChange,
    /// `[O]`
    magnitudes: Vec<f64>,
}

impl MergedDora {
    fn new(stored: &Stored<'_>) -> Self {
        Self {
            change: LowRankChange::of_linear(stored),
            magnitudes: (stored.values)(&MAGNITUDE),
        }
    }
}

impl MergedRows for MergedDora {
    /// Sum, norm, factor and product are each rounded to f32, as by PyTorch, whose norm differs in its last bits.
    fn row(&self, row: usize, old: &[f32], new: &mut [f64]) {
        MergedRows::row(&self.change, row, old, new);
        for new in &mut *new {
            *new = f64::from(*new as f32);
        }
        let norm = new.iter().map(|value| value * value).sum::<f64>().sqrt() as f32;
        let factor = match norm {
            0.0 => 0.0,
            norm => self.magnitudes[row] as f32 / norm,
        };
        for new in new {
            *new *= f64::from(factor);
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Distribution, TensorData, Tolerance};

    use super::*;

    const SHAPE: [usize; 2] = [11, 9];
    const TOKENS: usize = 7;

    fn random<const D: usize>(shape: [usize; D]) -> Tensor<D> {
        let device = Device::flex().autodiff();
        Tensor::random(shape, Distribution::Normal(0.0, 1.0), &device)
    }

    /// A weight, whose last row is zero, and an adapter that changes it.
    fn adapter(dropout: f64) -> (Tensor<2>, Dora) {
        let [rows, columns] = SHAPE;
        let weight = Tensor::cat(
            vec![
                random([rows - 1, columns]),
                random([1, columns]).zeros_like(),
            ],
            0,
        );
        let start = Start {
            module: "q_proj",
            shape: SHAPE,
            rank: 3,
            scale: 0.7,
            dropout,
            seed: 1,
            weight: weight.clone().into(),
            factors: None,
            device: &Device::flex().autodiff(),
        };
        let mut dora = Dora::new(&start);
        dora.low_rank.lora_B = trained(random([rows, 3]));
        let moved = dora.lora_magnitude_vector.val() + random([rows]).abs() * 0.3;
        dora.lora_magnitude_vector = trained(moved.detach());
        (weight, dora)
    }

    /// W + s·B·A.
    fn sum(weight: &Tensor<2>, dora: &Dora) -> Tensor<2> {
        let Lora { lora_A, lora_B, .. } = &dora.low_rank;
        weight.clone() + lora_B.val().matmul(lora_A.val()) * 0.7
    }

    fn norms(of: Tensor<2>) -> Tensor<2> {
        (of.clone() * of).sum_dim(1).sqrt().detach() // [O, 1]
    }

    /// The result and the gradients of A, B, m and x by PEFT's formula, on the whole sum.
    fn plain(weight: &Tensor<2>, dora: &Dora, x: &Tensor<2>, dropped: &Tensor<2>) -> Tensor<2> {
        let sum = sum(weight, dora);
        let change = sum.clone() - weight.clone();
        let factors = dora.lora_magnitude_vector.val().unsqueeze_dim::<2>(1) / norms(sum);
        let factors = factors.transpose(); // [1, O]
        let base = x.clone().matmul(weight.clone().transpose());
        let frozen = dropped.clone().matmul(weight.clone().transpose());
        base + frozen * (factors.clone() - 1.0)
            + dropped.clone().matmul(change.transpose()) * factors
    }

    fn gradients(dora: &Dora, x: &Tensor<2>, y: Tensor<2>, seed: &Tensor<2>) -> Vec<TensorData> {
        let grads = (y.clone() * seed.clone()).sum().backward();
        let Lora { lora_A, lora_B, .. } = &dora.low_rank;
        vec![
            y.inner().into_data(),
            lora_A.val().grad(&grads).unwrap().into_data(),
            lora_B.val().grad(&grads).unwrap().into_data(),
            dora.lora_magnitude_vector
                .val()
                .grad(&grads)
                .unwrap()
                .into_data(),
            x.grad(&grads).unwrap().into_data(),
        ]
    }

    #[test]
    fn norms_of_rows_are_those_of_the_sum() {
        let (weight, dora) = adapter(0.0);
        let branch = dora.low_rank.branch(None);
        let factors = dora.factors(&branch, &weight.clone().into(), DType::F32);
        let expected = norms(sum(&weight, &dora)).squeeze_dim::<1>(1);
        let found = dora.lora_magnitude_vector.val() / factors;
        // sums of nine terms of order one in two orders
        let tolerance = Tolerance::relative(1e-5);
        found
            .into_data()
            .assert_approx_eq::<f32>(&expected.into_data(), tolerance);
    }

    #[test]
    fn a_new_adapter_changes_nothing_and_a_row_of_zeros_stays_one() {
        let (weight, _) = adapter(0.0);
        let start = Start {
            module: "q_proj",
            shape: SHAPE,
            rank: 3,
            scale: 0.7,
            dropout: 0.0,
            seed: 1,
            weight: weight.clone().into(),
            factors: None,
            device: &Device::flex().autodiff(),
        };
        let x = random([TOKENS, SHAPE[1]]);
        let y = Dora::new(&start).forward(x.clone(), weight.clone().into(), None);
        let expected = x.matmul(weight.transpose());
        let tolerance = Tolerance::relative(1e-5).set_absolute(1e-5);
        y.into_data()
            .assert_approx_eq::<f32>(&expected.into_data(), tolerance);
    }

    #[test]
    fn it_computes_pefts_formula_with_dropout_and_without() {
        for dropout in [0.0, 0.4] {
            let (weight, mut dora) = adapter(dropout);
            // PEFT divides by the norm of a row of zeros, which B makes none here
            let keys: Arc<[u64]> = (0..TOKENS as u64).collect();
            let keys = Some(&keys);
            let x = random([TOKENS, SHAPE[1]]).require_grad();
            let seed = random([TOKENS, SHAPE[0]]);
            dora.low_rank.lora_A = trained(dora.low_rank.lora_A.val().detach());
            let dropped = dora.low_rank.branch(keys).input(x.clone());
            let plain = plain(&weight, &dora, &x, &dropped);
            let expected = gradients(&dora, &x, plain, &seed);
            let forward = dora.forward(x.clone(), weight.clone().into(), keys);
            let [left, right] = dora.operands(x.clone(), weight.clone(), keys);
            for found in [forward, left.matmul(right.transpose())] {
                let found = gradients(&dora, &x, found, &seed);
                for (found, expected) in found.iter().zip(&expected) {
                    // sums of up to twenty terms of order one in two orders
                    let tolerance = Tolerance::relative(1e-4).set_absolute(1e-4);
                    found.assert_approx_eq::<f32>(expected, tolerance);
                }
            }
        }
    }

    #[test]
    fn a_merged_row_has_its_magnitude() {
        let values = |tensor: &Trained| match tensor.part {
            Part::A => vec![1.0, 2.0, 0.0, 1.0],
            Part::B => vec![1.0, 0.0, 0.0, 0.0],
            Part::Beside | Part::Alone(_) => vec![10.0, 5.0],
        };
        let stored = Stored {
            shape: [2, 2],
            rank: 2,
            scale: 2.0,
            values: &values,
            factors: None,
        };
        let merged = MergedDora::new(&stored);
        let mut new = [0.0; 2];
        merged.row(0, &[1.0, 0.0], &mut new);
        // (1, 0) + 2·(1, 2) = (3, 4), whose norm is 5
        assert_eq!(new.map(|value| value as i64), [6, 8]);
        merged.row(1, &[0.0, 0.0], &mut new);
        assert_eq!(new.map(|value| value as i64), [0, 0]);
    }
}
