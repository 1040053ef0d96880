//! (IA)³: a trained factor for each output of a frozen module, or for each of its inputs.
//!
//! `y = l ∘ (x Wᵀ + b)`, with one factor for each row of W; or, for modules that `feedforward_modules` names,
//! `y = (l ∘ x) Wᵀ + b`, with one for each column. All factors start at 1, so that training starts at the base model. There is no
//! rank, no scale and no dropout.
//!
//! Source: Liu et al. 2022, section 3.3; PEFT 0.21 `ia3/layer.py`.
//!
//! Axes: T tokens, I input features, O output features.

use std::sync::Arc;

use burn::module::{Module, Param};
use burn::tensor::{DType, Tensor};
use simmer_kernels::{FrozenWeight, linear};

use super::{
    Axis, BesideLinear, Costs, Form, Kind, LinearAdapter, MergedRows, Neutral, PLAIN, Part,
};
use super::{Start, Stored, Trained, wide};
use crate::adapter::peft_type;
use crate::parameters::trained;

/// (IA)³ on the output of a module.
pub static IA3: Kind = Kind {
    linear: Some(Form {
        tensors: &[OUTPUT],
        start: |start| BesideLinear::Ia3(Ia3::new(start)),
        merged: |stored| Box::new(MergedIa3::new(stored, &OUTPUT)),
    }),
    of_input: Some(&IA3_OF_INPUT),
    scales_bias: true,
    costs: Costs {
        keeps_input: false,
        keeps_result: true,
        ..PLAIN.costs
    },
    ..COMMON
};

/// (IA)³ on the input of a module.
pub static IA3_OF_INPUT: Kind = Kind {
    linear: Some(Form {
        tensors: &[INPUT],
        start: |start| BesideLinear::Ia3OfInput(Ia3OfInput::new(start)),
        merged: |stored| Box::new(MergedIa3::new(stored, &INPUT)),
    }),
    ..COMMON
};

const COMMON: Kind = Kind {
    name: "(IA)³",
    peft: &peft_type::IA3,
    beyond_low_rank: Some("factors of features"),
    ..PLAIN
};

const OUTPUT: Trained = Trained {
    field: "ia3_l",
    end: ".ia3_l",
    shape: &[Axis::Rows, Axis::One],
    part: Part::Alone(Neutral::One),
    is_factor: false,
};

const INPUT: Trained = Trained {
    shape: &[Axis::One, Axis::Columns],
    ..OUTPUT
};

/// A factor for each output.
#[derive(Module, Debug)]
pub struct Ia3 {
    /// l, `[O, 1]`, f32
    pub ia3_l: Param<Tensor<2>>,
}

/// A factor for each input.
#[derive(Module, Debug)]
pub struct Ia3OfInput {
    /// l, `[1, I]`, f32
    pub ia3_l: Param<Tensor<2>>,
}

impl Ia3 {
    /// Factors of 1.
    fn new(start: &Start<'_>) -> Self {
        let [rows, _] = start.shape;
        Self {
            ia3_l: trained(Tensor::ones([rows, 1], start.device)),
        }
    }
}

impl Ia3OfInput {
    /// Factors of 1.
    fn new(start: &Start<'_>) -> Self {
        let [_, columns] = start.shape;
        Self {
            ia3_l: trained(Tensor::ones([1, columns], start.device)),
        }
    }

    /// `l ∘ x`, in the dtype of x; multiplied in f32.
    fn scaled(&self, x: Tensor<2>) -> Tensor<2> {
        let dtype = x.dtype();
        (wide(x) * self.ia3_l.val()).cast(dtype)
    }
}

impl LinearAdapter for Ia3 {
    fn forward(
        &self,
        x: Tensor<2>,
        weight: FrozenWeight,
        _dropout_keys: Option<&Arc<[u64]>>,
    ) -> Tensor<2> {
        let dtype = x.dtype();
        let y = linear(x, weight).cast(DType::F32);
        (y * self.ia3_l.val().transpose()).cast(dtype)
    }

    /// `l ∘ b`
    fn bias(&self, bias: Tensor<1>) -> Tensor<1> {
        bias.cast(DType::F32) * self.ia3_l.val().squeeze_dim::<1>(1)
    }

    /// `x (l ∘ W)ᵀ`
    fn operands(
        &self,
        x: Tensor<2>,
        weight: Tensor<2>,
        _dropout_keys: Option<&Arc<[u64]>>,
    ) -> [Tensor<2>; 2] {
        let dtype = x.dtype();
        let scaled = weight.cast(DType::F32) * self.ia3_l.val();
        [x, scaled.cast(dtype)]
    }
}

impl LinearAdapter for Ia3OfInput {
    fn forward(
        &self,
        x: Tensor<2>,
        weight: FrozenWeight,
        _dropout_keys: Option<&Arc<[u64]>>,
    ) -> Tensor<2> {
        linear(self.scaled(x), weight)
    }

    /// `(l ∘ x) Wᵀ`
    fn operands(
        &self,
        x: Tensor<2>,
        weight: Tensor<2>,
        _dropout_keys: Option<&Arc<[u64]>>,
    ) -> [Tensor<2>; 2] {
        [self.scaled(x), weight]
    }
}

/// A weight whose rows or columns are multiplied by factors.
struct MergedIa3 {
    factors: Vec<f64>,
    /// Whether there is one for each row.
    of_rows: bool,
}

impl MergedIa3 {
    fn new(stored: &Stored<'_>, tensor: &Trained) -> Self {
        Self {
            factors: (stored.values)(tensor),
            of_rows: tensor.shape[0] == Axis::Rows,
        }
    }
}

impl MergedRows for MergedIa3 {
    /// A product is rounded to f32, as by PyTorch, before it is rounded to the stored dtype.
    fn row(&self, row: usize, old: &[f32], new: &mut [f64]) {
        let factor = |column: usize| self.factors[if self.of_rows { row } else { column }];
        for (column, (new, old)) in new.iter_mut().zip(old).enumerate() {
            *new = f64::from((f64::from(*old) * factor(column)) as f32);
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution, TensorData, Tolerance};

    use super::*;

    const SHAPE: [usize; 2] = [11, 9];
    const TOKENS: usize = 7;

    fn random(shape: [usize; 2]) -> Tensor<2> {
        let device = Device::flex().autodiff();
        Tensor::random(shape, Distribution::Normal(0.0, 1.0), &device)
    }

    fn start<'a>(weight: &Tensor<2>, device: &'a Device) -> Start<'a> {
        Start {
            module: "q_proj",
            shape: SHAPE,
            rank: 1,
            scale: 1.0,
            dropout: 0.0,
            seed: 1,
            weight: weight.clone().into(),
            factors: None,
            device,
        }
    }

    fn close(found: Tensor<2>, expected: Tensor<2>) {
        // sums of up to eleven terms of order one in two orders
        let tolerance = Tolerance::relative(1e-5).set_absolute(1e-5);
        found
            .into_data()
            .assert_approx_eq::<f32>(&expected.into_data(), tolerance);
    }

    #[test]
    fn new_factors_change_nothing() {
        let device = Device::flex().autodiff();
        let (weight, x) = (random(SHAPE), random([TOKENS, SHAPE[1]]));
        let start = start(&weight, &device);
        let expected = x.clone().matmul(weight.clone().transpose());
        let adapters: [&dyn LinearAdapter; 2] = [&Ia3::new(&start), &Ia3OfInput::new(&start)];
        for adapter in adapters {
            let y = adapter.forward(x.clone(), weight.clone().into(), None);
            close(y, expected.clone());
        }
    }

    #[test]
    fn rows_or_columns_of_the_weight_are_scaled() {
        let device = Device::flex().autodiff();
        let (weight, x) = (random(SHAPE), random([TOKENS, SHAPE[1]]).require_grad());
        let start = start(&weight, &device);
        let (mut output, mut input) = (Ia3::new(&start), Ia3OfInput::new(&start));
        output.ia3_l = trained(random([SHAPE[0], 1]));
        input.ia3_l = trained(random([1, SHAPE[1]]));
        let both: [(&dyn LinearAdapter, Tensor<2>); 2] =
            [(&output, output.ia3_l.val()), (&input, input.ia3_l.val())];
        let seed = random([TOKENS, SHAPE[0]]);
        for (adapter, l) in both {
            let gradients = |y: Tensor<2>| {
                let grads = (y * seed.clone()).sum().backward();
                [x.grad(&grads).unwrap(), l.grad(&grads).unwrap()]
            };
            let plain = || x.clone().matmul((weight.clone() * l.clone()).transpose());
            let expected = gradients(plain());
            let [left, right] = adapter.operands(x.clone(), weight.clone(), None);
            let forward = adapter.forward(x.clone(), weight.clone().into(), None);
            for y in [forward, left.matmul(right.transpose())] {
                close(y.clone(), plain());
                for (found, expected) in gradients(y).into_iter().zip(&expected) {
                    close(found, expected.clone());
                }
            }
        }
    }

    #[test]
    fn a_merge_multiplies_and_rounds_to_f32() {
        let values = |_: &Trained| vec![2.0, 1.0 + f64::from(f32::EPSILON)];
        let stored = Stored {
            shape: [2, 2],
            rank: 1,
            scale: 1.0,
            values: &values,
            factors: None,
        };
        let old = [3.0, 1.0 + f32::EPSILON];
        let row = |tensor: &Trained, row| {
            let mut new = [0.0; 2];
            MergedIa3::new(&stored, tensor).row(row, &old, &mut new);
            TensorData::from(new.map(|value| value as f32))
        };
        let expected = |values: [f32; 2]| TensorData::from(values);
        let epsilon = f32::EPSILON;
        assert_eq!(row(&OUTPUT, 0), expected([6.0, 2.0 + 2.0 * epsilon]));
        assert_eq!(row(&INPUT, 1), expected([6.0, 1.0 + 2.0 * epsilon]));
    }
}
