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

/// Layers of one input: their weights, and branches of those that have one.
#[derive(Debug, Clone)]
struct Layers {
    x: Tensor<2>,
    weights: Vec<Tensor<2>>,
    branches: Vec<Option<LowRank>>,
    /// What each result is multiplied with in the loss; the loss does not depend on results without one.
    seeds: Vec<Option<Tensor<2>>>,
}

impl Layers {
    fn map(&self, f: impl Fn(&Tensor<2>) -> Tensor<2>) -> Self {
        let branch = |branch: &LowRank| LowRank {
            a: f(&branch.a),
            b: f(&branch.b),
            ..branch.clone()
        };
        let branches = self.branches.iter();
        let seeds = self.seeds.iter();
        Self {
            x: f(&self.x),
            weights: self.weights.iter().map(&f).collect(),
            branches: branches.map(|of| of.as_ref().map(branch)).collect(),
            seeds: seeds.map(|seed| seed.as_ref().map(&f)).collect(),
        }
    }

    /// The results, and the gradients of x and of all branches; those of x only if `below`. Without `together`, by the
    /// reference implementations, layer by layer.
    fn run(&self, together: bool, below: bool) -> Vec<Option<TensorData>> {
        let x = self.x.clone();
        let x = if below { x.require_grad() } else { x };
        let leaf = |of: &Tensor<2>| of.clone().require_grad();
        let branches = self.branches.iter().map(|branch| {
            branch.as_ref().map(|branch| LowRank {
                a: leaf(&branch.a),
                b: leaf(&branch.b),
                ..branch.clone()
            })
        });
        let branches: Vec<Option<LowRank>> = branches.collect();
        let layers = self.weights.iter().zip(&branches);
        let layers = layers.map(|(weight, branch)| (weight.clone(), branch.clone()));
        let results: Vec<Tensor<2>> = if together {
            let mut layers = layers.map(|(weight, branch)| (FrozenWeight::Dense(weight), branch));
            let mut next = || layers.next().unwrap();
            match self.weights.len() {
                2 => lora_linears(x.clone(), [next(), next()]).into(),
                _ => lora_linears(x.clone(), [next(), next(), next()]).into(),
            }
        } else {
            let of = |(weight, branch): (_, Option<LowRank>)| match branch {
                Some(branch) => lora_linear_reference(x.clone(), weight, branch),
                None => linear_reference(x.clone(), weight),
            };
            layers.map(of).collect()
        };
        let losses = results.iter().zip(&self.seeds);
        let losses = losses.filter_map(|(y, seed)| Some((y.clone() * seed.clone()?).sum()));
        let grads = losses.reduce(|a, b| a + b).unwrap().backward();
        let gradient = |of: &Tensor<2>| of.grad(&grads).map(Tensor::into_data);
        let mut found: Vec<_> = results
            .iter()
            .map(|y| Some(y.clone().inner().into_data()))
            .collect();
        found.push(below.then(|| gradient(&x)).flatten());
        for LowRank { a, b, .. } in branches.iter().flatten() {
            found.extend([gradient(a), gradient(b)]);
        }
        found
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn layers_of_one_input_equal_the_reference(
        t in 1_usize..40,
        i in 1_usize..50,
        outs in proptest::collection::vec(1_usize..50, 2..4),
        ranks in proptest::collection::vec(proptest::option::weighted(0.8, 1_usize..12), 3),
        below: bool,
        masked in proptest::bool::weighted(0.2),
        other_scale in proptest::bool::weighted(0.2),
        unused in proptest::option::weighted(0.2, 0_usize..2),
    ) {
        let device = Device::flex().autodiff();
        let random = |shape| Tensor::<2>::random(shape, Distribution::Normal(0.0, 1.0), &device);
        let branch = |(place, (out, rank)): (usize, (&usize, &Option<usize>))| {
            Some(LowRank {
                a: random([(*rank)?, i]),
                b: random([*out, (*rank)?]),
                scale: if other_scale && place == 1 { 2.0 } else { 0.3 },
                dropout: masked.then(|| Dropout {
                    keys: (0..t as u64).collect(),
                    site: place as u64,
                    probability: 0.3,
                }),
            })
        };
        let branches: Vec<Option<LowRank>> = outs.iter().zip(&ranks).enumerate().map(branch).collect();
        prop_assume!(below || branches.iter().zip(0..).any(|(branch, place)| branch.is_some() && unused != Some(place)));
        let seed = |(place, out): (usize, &usize)| (unused != Some(place)).then(|| random([t, *out]));
        let layers = Layers {
            x: random([t, i]),
            weights: outs.iter().map(|out| random([*out, i])).collect(),
            seeds: outs.iter().enumerate().map(seed).collect(),
            branches,
        };
        let reference = layers.run(false, below);
        for device in devices::all() {
            let layers = layers.map(|of| on(&device, of));
            for found in devices::forms(|| layers.run(true, below)) {
                prop_assert_eq!(found.len(), reference.len());
                for (found, reference) in found.iter().zip(&reference) {
                    prop_assert_eq!(found.is_some(), reference.is_some());
                    if let Some((found, reference)) = found.as_ref().zip(reference.as_ref()) {
                        // up to 3000 terms of order one, summed in two orders
                        found.assert_approx_eq::<f32>(reference, Tolerance::relative(1e-4).set_absolute(1e-3));
                    }
                }
            }
        }
        let layers = layers.map(devices::rounded);
        let reference = layers.run(false, below);
        let sums = layers.map(|of| of.clone().abs()).run(false, below);
        for device in devices::all() {
            let layers = layers.map(|of| on(&device, &of.clone().cast(DType::BF16)));
            for found in devices::forms(|| layers.run(true, below)) {
                for ((found, reference), sums) in found.iter().zip(&reference).zip(&sums) {
                    if let Some(((found, reference), sums)) = found.as_ref().zip(reference.as_ref()).zip(sums.as_ref()) {
                        // roundings: the weights, A and B, their input, their inner result, and a sum for each layer
                        devices::assert_near(found, reference, 8.0, devices::largest(sums));
                    }
                }
            }
        }
    }
}

/// On flex, layers of one input are computed one by one: each bit is that of [`lora_linear`].
#[test]
fn layers_of_one_input_have_the_bits_of_each_on_flex() {
    let device = Device::flex().autodiff();
    let random = |shape| Tensor::<2>::random(shape, Distribution::Normal(0.0, 1.0), &device);
    let branch = |out| LowRank {
        a: random([4, 24]),
        b: random([out, 4]),
        scale: 0.7,
        dropout: None,
    };
    for dtype in [DType::F32, DType::BF16] {
        let x = random([9, 24]).cast(dtype);
        let (q, k) = (random([20, 24]), random([12, 24]));
        let (first, second) = (branch(20), branch(12));
        let seeds = [random([9, 20]), random([9, 12])].map(|seed| seed.cast(dtype));
        let gradients = |together: bool| {
            let x = x.clone().require_grad();
            let [y, z] = if together {
                let layers = [(&q, &first), (&k, &second)];
                lora_linears(
                    x.clone(),
                    layers.map(|(weight, branch)| (weight.clone().into(), Some(branch.clone()))),
                )
            } else {
                [
                    lora_linear(x.clone(), q.clone(), first.clone()),
                    lora_linear(x.clone(), k.clone(), second.clone()),
                ]
            };
            let [seed, other] = seeds.clone();
            let results = [&y, &z].map(|of| of.clone().inner().into_data());
            let grads = ((y * seed).sum() + (z * other).sum()).backward();
            (results, x.grad(&grads).unwrap().into_data())
        };
        let (results, gradient) = gradients(true);
        let (expected, expected_gradient) = gradients(false);
        for (found, expected) in results.iter().zip(&expected) {
            found.assert_eq(expected, true);
        }
        gradient.assert_eq(&expected_gradient, true);
    }
}
