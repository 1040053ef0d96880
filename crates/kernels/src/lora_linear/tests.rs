use super::*;
use crate::devices::{self, on};
use crate::linear_reference;
use burn::tensor::{Device, Distribution, TensorData, Tolerance};
use proptest::prelude::*;

type Adapted = fn(Tensor<2>, Tensor<2>, LowRank) -> Tensor<2>;

/// Result and gradients of `sum(f(x, w, branch) · seed)`.
fn run(
    f: Adapted,
    x: &Tensor<2>,
    w: &Tensor<2>,
    branch: &LowRank,
    seed: &Tensor<2>,
) -> Vec<TensorData> {
    let leaves = [x, &branch.a, &branch.b].map(|leaf| leaf.clone().require_grad());
    let [x, a, b] = leaves.clone();
    let branch = LowRank {
        a,
        b,
        ..branch.clone()
    };
    let y = f(x, w.clone(), branch);
    let grads = (y.clone() * seed.clone()).sum().backward();
    let gradients = leaves.map(|leaf| leaf.grad(&grads).unwrap().into_data());
    std::iter::once(y.inner().into_data())
        .chain(gradients)
        .collect()
}

/// The branch on another device.
fn moved(branch: &LowRank, device: &Device) -> LowRank {
    LowRank {
        a: on(device, &branch.a),
        b: on(device, &branch.b),
        ..branch.clone()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn equals_the_reference(
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
        let branch = LowRank {
            a: random([r, i]),
            b: random([o, r]),
            scale: 0.5,
            dropout: masked.then(|| Dropout {
                keys: (0..t as u64).collect(),
                site: 3,
                probability: 0.3,
            }),
        };
        let reference = run(lora_linear_reference, &x, &w, &branch, &seed);
        for device in devices::all() {
            let [x, w, seed] = [&x, &w, &seed].map(|of| on(&device, of));
            for fused in devices::forms(|| run(lora_linear, &x, &w, &moved(&branch, &device), &seed)) {
                for (fused, reference) in fused.iter().zip(&reference) {
                    // up to 1400 terms of order one, summed in two orders
                    fused.assert_approx_eq::<f32>(reference, Tolerance::relative(1e-4).set_absolute(1e-3));
                }
            }
        }
        for device in devices::all() {
            let [x, seed] = [&x, &seed].map(devices::rounded);
            let reference = run(lora_linear_reference, &x, &w, &branch, &seed);
            let without_signs = LowRank {
                a: branch.a.clone().abs(),
                b: branch.b.clone().abs(),
                ..branch.clone()
            };
            let [positive_x, positive_seed] = [&x, &seed].map(|of| of.clone().abs());
            let w_sizes = w.clone().cast(DType::F32).abs();
            let sums = run(lora_linear_reference, &positive_x, &w_sizes, &without_signs, &positive_seed);
            let [x, seed] = [x, seed].map(|of| on(&device, &of.cast(DType::BF16)));
            for fused in devices::forms(|| run(lora_linear, &x, &on(&device, &w), &moved(&branch, &device), &seed)) {
                for ((fused, reference), sums) in fused.iter().zip(&reference).zip(&sums) {
                    // roundings: the weight, A and B, their input, their inner result, and the sums
                    devices::assert_near(fused, reference, 6.0, devices::largest(sums));
                }
            }
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
    let composed = linear_reference(x.clone(), w.clone() + b.clone().matmul(a.clone()) * 0.5);
    let branch = LowRank {
        a,
        b,
        scale: 0.5,
        dropout: None,
    };
    // twelve terms of order one, summed in two orders
    lora_linear(x, w, branch)
        .into_data()
        .assert_approx_eq::<f32>(&composed.into_data(), Tolerance::absolute(1e-5));
}

#[test]
fn dropout_affects_only_the_low_rank_branch() {
    let device = Device::flex();
    let random = |shape| Tensor::<2>::random(shape, Distribution::Normal(0.0, 1.0), &device);
    let (x, w, a, b) = (
        random([4, 6]),
        random([5, 6]),
        random([2, 6]),
        random([5, 2]),
    );
    let branch = LowRank {
        a,
        b,
        scale: 0.5,
        // keeps one feature in 2³²
        dropout: Some(Dropout {
            keys: (0..4).collect(),
            site: 0,
            probability: 1.0 - 1e-12,
        }),
    };
    let expected = crate::linear(x.clone(), w.clone());
    lora_linear(x, w, branch)
        .into_data()
        .assert_eq(&expected.into_data(), true);
}
