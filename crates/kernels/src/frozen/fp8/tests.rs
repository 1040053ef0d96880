use std::collections::HashMap;

use burn::tensor::{DType, Device as BurnDevice, Distribution, Tensor as BurnTensor, TensorData};
use tch::Device;

use super::*;
use crate::devices::{self, on};
use crate::{
    FrozenWeight, LowRank, StoredWeight, linear, linear_reference, lora_linear,
    lora_linear_reference, lora_linears,
};

/// The root mean square of the relative error of a product of random factors, at most: both factors of a term are rounded by
/// up to 2⁻⁴ of their values, evenly spread, and independent of the other terms. So it does not grow with their number.
const ROUNDED: f64 = 0.0625 * 1.4143 / 1.7320;

fn device() -> Device {
    devices::torch()
}

fn numbers<T>(x: &Tensor) -> Vec<T>
where
    Vec<T>: TryFrom<Tensor>,
    <Vec<T> as TryFrom<Tensor>>::Error: std::fmt::Debug,
{
    x.to_device(Device::Cpu).flatten(0, -1).try_into().unwrap()
}

fn codes(rows: &ScaledRows) -> Vec<u8> {
    numbers(&rows.codes.tensor.view_dtype(Kind::Uint8))
}

fn scales(rows: &ScaledRows) -> Vec<f32> {
    numbers(&rows.scales.tensor)
}

/// The lines of `e4m3.txt`, each with its name.
fn golden() -> HashMap<&'static str, Vec<&'static str>> {
    let text = include_str!(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/goldens/e4m3.txt"
    ));
    let lines = text.lines().map(|line| {
        let mut words = line.split(' ');
        (words.next().unwrap(), words.collect())
    });
    lines.collect()
}

fn parsed<T: std::str::FromStr<Err: std::fmt::Debug>>(words: &[&str]) -> Vec<T> {
    words.iter().map(|word| word.parse().unwrap()).collect()
}

fn floats(words: &[&str]) -> Vec<f32> {
    let bits: Vec<i32> = parsed(words);
    bits.into_iter()
        .map(|bits| f32::from_bits(bits as u32))
        .collect()
}

fn matrix(numbers: &[f32], columns: i64) -> Tensor {
    Tensor::from_slice(numbers)
        .view([-1, columns])
        .to_device(device())
}

#[test]
fn codes_scales_and_products_are_those_of_torch() {
    let golden = golden();
    let columns = 64;
    let found = ScaledRows::of(&matrix(&floats(&golden["x"]), columns));
    assert_eq!(codes(&found), parsed::<u8>(&golden["codes"]));
    assert_eq!(scales(&found), floats(&golden["scales"]));
    let [a, b] = ["a", "b"].map(|name| ScaledRows::of(&matrix(&floats(&golden[name]), columns)));
    if device().is_cuda() {
        return; // its products have sizes that are multiples of 16
    }
    let found: Vec<f32> = numbers(&a.product(&b, Kind::Float));
    for (found, expected) in found.iter().zip(parsed::<f64>(&golden["product"])) {
        // 64 terms of up to a few units, summed in f32
        assert!(
            (f64::from(*found) - expected).abs() < 2e-5,
            "{found} {expected}"
        );
    }
}

/// On a GPU with the kernel switched on, this compares it with ATen's operations.
#[test]
fn every_form_has_the_same_codes() {
    for kind in [Kind::Float, Kind::BFloat16, Kind::Half] {
        // rows that threads of the kernel keep, longer ones, and one that is read element by element
        for width in [16, 96, 4096, 40_000, 97] {
            let x = Tensor::randn([5, width], (Kind::Float, Device::Cpu)) * 3.0;
            let _ = x.narrow(0, 1, 1).zero_();
            let _ = x.narrow(0, 2, 1).narrow(1, 3, 1).fill_(f64::NAN);
            let _ = x.narrow(0, 3, 1).g_mul_scalar_(1e-4);
            let x = x.to_kind(kind);
            let [expected, scales_expected] = by_aten(&x);
            let found = ScaledRows::of(&x.to_device(device()));
            let expected: Vec<u8> = numbers(&expected.view_dtype(Kind::Uint8));
            let width = width as usize;
            // in the row with a NaN only that element has to be one
            for row in [0, 1, 3, 4] {
                let row = row * width..(row + 1) * width;
                assert_eq!(
                    codes(&found)[row.clone()],
                    expected[row],
                    "{kind:?} {width}"
                );
            }
            assert_eq!(codes(&found)[2 * width + 3] & 0x7f, 0x7f);
            let of_rows = |of: &[f32]| [0, 1, 3, 4].map(|row| of[row].to_bits());
            let expected: Vec<f32> = numbers(&scales_expected);
            assert_eq!(of_rows(&scales(&found)), of_rows(&expected));
        }
    }
}

/// An oracle that shares no code with torch's conversion.
#[test]
fn each_number_is_rounded_to_the_nearest() {
    let x = Tensor::randn([4, 512], (Kind::BFloat16, Device::Cpu));
    let rows = ScaledRows::of(&x.to_device(device()));
    let values = std::array::from_fn::<f32, 127, _>(|code| simmer_blocks::e4m3(code as u8));
    let x: Vec<f32> = numbers(&x.to_kind(Kind::Float));
    let codes = codes(&rows);
    for (row, codes) in x.chunks(512).zip(codes.chunks(512)) {
        let most = row.iter().fold(0.0, |most: f32, x| most.max(x.abs()));
        for (x, code) in row.iter().zip(codes) {
            let scaled = x * (448.0 / most);
            let found = simmer_blocks::e4m3(*code);
            let nearest = values.map(|value| (value - scaled.abs()).abs());
            let nearest = nearest.into_iter().fold(f32::MAX, f32::min);
            assert!((found - scaled).abs() <= nearest, "{scaled} became {found}");
        }
    }
}

#[test]
fn a_weight_is_read_in_both_directions() {
    let w = Tensor::randn([32, 48], (Kind::Float, device()));
    let weight = Fp8Weight::of(&w);
    assert_eq!(weight.shape(), [32, 48]);
    let of_rows = ScaledRows::of(&w).widened(Kind::Float);
    assert_eq!(weight.widened(Kind::Float), of_rows);
    let ids = Tensor::from_slice(&[31_i64, 0, 5]).to_device(device());
    assert_eq!(weight.rows(&ids), of_rows.index_select(0, &ids));
    let of_columns = ScaledRows::of(&w.tr()).widened(Kind::Float).tr();
    assert_ne!(of_columns, of_rows);
    let x = Tensor::randn([16, 48], (Kind::Float, device())).to_kind(Kind::BFloat16);
    let dy = Tensor::randn([16, 32], (Kind::Float, device())).to_kind(Kind::BFloat16);
    for (x, side, w) in [
        (&x, Side::Transposed, of_rows.tr()),
        (&dy, Side::Plain, of_columns),
    ] {
        let found = weight.product(&Operand::of(x), side);
        assert_eq!(found.kind(), Kind::BFloat16);
        let expected = ScaledRows::of(x)
            .widened(Kind::Double)
            .mm(&w.to_kind(Kind::Double));
        // a sum in f32 of up to 48 terms of a few units, rounded to bf16
        let difference = (found.to_kind(Kind::Double) - &expected).abs();
        let allowed: Tensor = expected.abs() * 2_f64.powi(-8) + 1e-4;
        assert!(bool::try_from(difference.le_tensor(&allowed).all()).unwrap());
    }
}

/// The function that multiplies on a GPU takes the same factors in the same layout on a processor, where it has one scale for
/// each factor.
#[test]
fn scaled_mm_takes_the_codes_as_they_are() {
    if device().is_cuda() {
        return;
    }
    let [a, b] = [[16, 64], [32, 64]]
        .map(|shape| ScaledRows::of(&Tensor::randn(shape, (Kind::Float, Device::Cpu))));
    let one = Tensor::from_slice(&[1.0_f32]);
    let none = None::<Tensor>;
    let sums = a.codes.tensor.internal_scaled_mm(
        &b.codes.tensor.tr(),
        &one,
        &one,
        none.as_ref(),
        none.as_ref(),
        Kind::Float,
        false,
    );
    let found = sums * &a.scales.tensor * b.scales.tensor.tr();
    let difference = (a.product(&b, Kind::Float) - found).abs().max();
    // sums of 64 terms in f32, in two orders
    assert!(f64::try_from(difference).unwrap() < 1e-5);
}

fn burn_device() -> BurnDevice {
    devices::all().pop().unwrap()
}

fn random(shape: [usize; 2]) -> BurnTensor<2> {
    let flex = BurnDevice::flex().autodiff();
    BurnTensor::random(shape, Distribution::Normal(0.0, 1.0), &flex)
}

fn in_fp8(weight: &BurnTensor<2>) -> FrozenWeight {
    let data = weight.to_data();
    FrozenWeight::Stored(StoredWeight::fp8_of_dense(&data, &burn_device()))
}

/// `|found - expected| / |expected|`, of all elements together.
fn relative(found: &TensorData, expected: &TensorData) -> f64 {
    assert_eq!(found.shape(), expected.shape());
    let [found, expected] = [found, expected].map(|of| of.clone().convert_dtype(DType::F32));
    let (mut differences, mut all) = (0.0, 0.0);
    for (found, expected) in found.iter::<f64>().zip(expected.iter::<f64>()) {
        differences += (found - expected).powi(2);
        all += expected.powi(2);
    }
    (differences / all).sqrt()
}

/// Beside the reference in f32: rounded by as much as e4m3 rounds, however long the sums are, and by no less, which would
/// be another dtype.
fn assert_rounded(found: &TensorData, expected: &TensorData, what: &str) {
    let found = relative(found, expected);
    assert!((ROUNDED / 3.0..ROUNDED).contains(&found), "{what}: {found}");
}

#[test]
fn products_and_gradients_are_near_those_in_f32() {
    for [t, i, o] in [[48, 64, 32], [32, 1024, 256], [16, 256, 2048]] {
        let (x, w, seed) = (random([t, i]), random([o, i]), random([t, o]));
        let leaf = x.clone().require_grad();
        let expected = linear_reference(leaf.clone(), w.clone());
        let grads = (expected.clone() * seed.clone()).sum().backward();
        let gradient = leaf.grad(&grads).unwrap().into_data();

        let [x, seed] = [x, seed].map(|of| on(&burn_device(), &of.cast(DType::BF16)));
        let leaf = x.require_grad();
        let found = linear(leaf.clone(), in_fp8(&w));
        assert_eq!(found.dtype(), DType::BF16);
        let grads = (found.clone() * seed).sum().backward();
        let what = format!("{t} {i} {o}");
        assert_rounded(
            &found.inner().into_data(),
            &expected.inner().into_data(),
            &what,
        );
        assert_rounded(&leaf.grad(&grads).unwrap().into_data(), &gradient, &what);
    }
}

/// A branch as wide as the weight's product, so that a wrong sum is found; its own gradients are not in fp8.
#[test]
fn branches_are_added_in_bf16() {
    let [t, i, o, r] = [32, 256, 128, 8];
    let (x, w, seed) = (random([t, i]), random([o, i]), random([t, o]));
    for masked in [false, true] {
        let branch = LowRank {
            a: random([r, i]),
            b: random([o, r]),
            scale: 0.25,
            dropout: masked.then(|| crate::Dropout {
                keys: (0..t as u64).collect(),
                site: 3,
                probability: 0.3,
            }),
        };
        let run = |x: &BurnTensor<2>, seed: &BurnTensor<2>, fp8: bool| {
            let moved = |of: &BurnTensor<2>| {
                if fp8 {
                    on(&burn_device(), of)
                } else {
                    of.clone()
                }
            };
            let [x, a, b] = [x, &branch.a, &branch.b].map(|of| moved(of).require_grad());
            let leaves = [x.clone(), a.clone(), b.clone()];
            let branch = LowRank {
                a,
                b,
                ..branch.clone()
            };
            let y = if fp8 {
                lora_linear(x, in_fp8(&w), branch)
            } else {
                lora_linear_reference(x, w.clone(), branch)
            };
            let grads = (y.clone() * moved(seed)).sum().backward();
            let gradients = leaves.map(|leaf| leaf.grad(&grads).unwrap().into_data());
            (y.inner().into_data(), gradients)
        };
        let (y, [dx, da, db]) = run(&x, &seed, false);
        let [x, seed] = [&x, &seed].map(|of| of.clone().cast(DType::BF16));
        let (found, [found_x, found_a, found_b]) = run(&x, &seed, true);
        // of a sum of equal parts, one is rounded
        for (what, found, expected) in [("y", &found, &y), ("dx", &found_x, &dx)] {
            let found = relative(found, expected);
            assert!((0.003..ROUNDED).contains(&found), "{what}: {found}");
        }
        for (what, found, expected) in [("dA", &found_a, &da), ("dB", &found_b, &db)] {
            // roundings of x, A, B, dy and the inner result to bf16, 2⁻⁹ each
            let found = relative(found, expected);
            assert!(found < 0.006, "{what}: {found}");
        }
    }
}

#[test]
fn layers_of_one_input_are_as_each_by_itself() {
    let [t, i] = [16, 64];
    let sizes = [64, 32, 48];
    let x = on(&burn_device(), &random([t, i]).cast(DType::BF16));
    let weights = sizes.map(|o| in_fp8(&random([o, i])));
    let seeds = sizes.map(|o| on(&burn_device(), &random([t, o]).cast(DType::BF16)));
    let branches = sizes.map(|o| {
        let [a, b] = [random([4, i]), random([o, 4])].map(|of| on(&burn_device(), &of));
        (o != 32).then_some(LowRank {
            a,
            b,
            scale: 0.5,
            dropout: None,
        })
    });
    let layers = || {
        let mut all = weights.iter().cloned().zip(branches.iter().cloned());
        std::array::from_fn::<_, 3, _>(|_| all.next().unwrap())
    };
    let run = |f: &dyn Fn(BurnTensor<2>) -> [BurnTensor<2>; 3]| {
        let leaf = x.clone().require_grad();
        let results = f(leaf.clone());
        let products = results
            .iter()
            .zip(&seeds)
            .map(|(y, seed)| (y.clone() * seed.clone()).sum());
        let grads = products.reduce(|a, b| a + b).unwrap().backward();
        let mut found = results.map(|y| y.inner().into_data()).to_vec();
        found.push(leaf.grad(&grads).unwrap().into_data());
        found
    };
    let together = run(&|x| lora_linears(x, layers()));
    let alone = run(&|x| {
        layers().map(|(weight, branch)| match branch {
            None => linear(x.clone(), weight),
            Some(branch) => lora_linear(x.clone(), weight, branch),
        })
    });
    for (together, alone) in together.iter().zip(&alone) {
        // gradients are added in another order, and rounded to bf16 each time
        let found = relative(together, alone);
        assert!(found < 0.01, "{found}");
    }
}
