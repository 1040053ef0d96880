//! Tests of attention on all devices.

use super::*;
use crate::devices::{self, on};
use burn::tensor::{DType, Device, Distribution, TensorData, Tolerance, s};
use proptest::prelude::*;

fn random(shape: [usize; 3], device: &Device) -> Tensor<3> {
    Tensor::random(shape, Distribution::Normal(0.0, 1.0), device)
}

fn assert_close(actual: Tensor<3>, expected: Tensor<3>) {
    let expected: TensorData = expected.into_data();
    actual
        .into_data()
        .assert_approx_eq::<f32>(&expected, Tolerance::absolute(1e-5));
}

type Attention = fn(Tensor<3>, Tensor<3>, Tensor<3>, &Rows, Scores) -> Tensor<3>;

/// Result and gradients of `sum(f(q, k, v) · seed)`.
fn run(
    f: Attention,
    qkv: &[Tensor<3>; 3],
    (rows, scores): (&Rows, Scores),
    seed: &Tensor<3>,
) -> Vec<TensorData> {
    let [q, k, v] = qkv.clone().map(Tensor::require_grad);
    let y = f(q.clone(), k.clone(), v.clone(), rows, scores);
    let grads = (y.clone() * seed.clone()).sum().backward();
    let gradients = [q, k, v].map(|leaf| leaf.grad(&grads).unwrap());
    std::iter::once(y.inner())
        .chain(gradients)
        .map(Tensor::into_data)
        .collect()
}

fn equals_the_reference(rows: &Rows, [key_heads, groups, dim]: [usize; 3], scores: Scores) {
    let how = (rows, scores);
    let device = Device::flex().autodiff();
    let [t, s] = [rows.total(), rows.keys()];
    let qkv = [
        random([t, key_heads * groups, dim], &device),
        random([s, key_heads, dim], &device),
        random([s, key_heads, dim], &device),
    ];
    let seed = random([t, key_heads * groups, dim], &device);
    let reference = run(attention_reference, &qkv, how, &seed);
    for device in devices::all() {
        let qkv = qkv.each_ref().map(|of| on(&device, of));
        for fused in devices::forms(|| run(attention, &qkv, how, &on(&device, &seed))) {
            for (fused, reference) in fused.iter().zip(&reference) {
                // sums of terms of order one over tokens and over features, in two orders
                let tolerance = Tolerance::relative(5e-5).set_absolute(5e-5);
                fused.assert_approx_eq::<f32>(reference, tolerance);
            }
        }
    }
    for device in devices::all() {
        let qkv = qkv.each_ref().map(devices::rounded);
        let seed = devices::rounded(&seed);
        let reference = run(attention_reference, &qkv, how, &seed);
        let half = |of: &Tensor<3>| on(&device, &of.clone().cast(DType::BF16));
        for fused in devices::forms(|| run(attention, &qkv.each_ref().map(half), how, &half(&seed)))
        {
            for (fused, reference) in fused.iter().zip(&reference) {
                // rounded are the weights, their gradients, the difference of the two, and the sum
                // over a group's heads; a weight's gradient is a scaled dot product over D features
                let scale = devices::largest(reference).max(0.3 * (dim as f32).sqrt());
                devices::assert_near(fused, reference, 12.0, scale);
            }
        }
    }
}

/// Scores without and with a window and a soft cap.
fn scores(longest_window: usize) -> impl Strategy<Value = Scores> {
    let window = prop::option::of(1..=longest_window);
    let soft_cap = prop::option::of(prop::sample::select(vec![0.5, 2.0, 20.0]));
    (window, soft_cap).prop_map(|(window, soft_cap)| Scores {
        scale: 0.3,
        window,
        soft_cap,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn rows_equal_the_reference(
        lengths in prop::collection::vec(1_usize..90, 1..5),
        key_heads in 1_usize..4,
        groups in 1_usize..5,
        dim in 1_usize..40,
        scores in scores(100),
    ) {
        equals_the_reference(&Rows::from_lengths(lengths), [key_heads, groups, 2 * dim], scores);
    }

    #[test]
    fn trees_of_rows_equal_the_reference(
        rows in prop::collection::vec((1_usize..40, prop::option::of(0_usize..100)), 1..7),
        key_heads in 1_usize..3,
        groups in 1_usize..4,
        scores in scores(60),
    ) {
        let rows = rows.into_iter().enumerate().map(|(row, (length, parent))| {
            (length, parent.filter(|_| row > 0).map(|parent| parent % row))
        });
        equals_the_reference(&Rows::from_tree(rows), [key_heads, groups, 16], scores);
    }

    #[test]
    fn continued_rows_equal_the_reference(
        seen in 0_usize..200,
        length in 1_usize..40,
        groups in 1_usize..10,
        scores in scores(250),
    ) {
        equals_the_reference(&Rows::continuing(seen, length), [2, groups, 8], scores);
    }

    #[test]
    fn single_queries_equal_the_reference(
        seen in 0_usize..300,
        rows in 1_usize..5,
        groups in 1_usize..5,
        dim in 1_usize..40,
        scores in scores(300),
    ) {
        equals_the_reference(&Rows::continuing(seen, 1), [2, groups, dim], scores);
        let rows = (0..rows).map(|row| (1, row.checked_sub(2)));
        let window = scores.window.map(|window| window % 3 + 1);
        equals_the_reference(&Rows::from_tree(rows), [2, groups, dim], Scores { window, ..scores });
    }
}

#[test]
fn rows_longer_than_a_piece_equal_the_reference() {
    let long = Rows::from_lengths([700, 3]);
    let tree = Rows::from_tree([(300, None), (300, Some(0)), (5, Some(0))]);
    let continued = Rows::continuing(100, 300);
    for (rows, shape, window, soft_cap) in [
        (&long, [1, 3, 8], None, None),
        (&tree, [2, 1, 8], None, None),
        // shorter than a block of queries, than a piece, and longer than it
        (&long, [1, 1, 8], Some(3), None),
        (&continued, [1, 2, 8], Some(90), None),
        (&tree, [1, 1, 8], Some(400), None),
        // on libtorch, a soft cap has the scores of 512 queries at most
        (&long, [1, 1, 8], None, Some(2.0)),
        (&continued, [1, 1, 8], Some(40), Some(2.0)),
    ] {
        let scores = Scores {
            scale: 0.3,
            window,
            soft_cap,
        };
        equals_the_reference(rows, shape, scores);
    }
}

#[test]
fn one_query_by_hand() {
    let device = Device::flex();
    let q = Tensor::from_data([[[1.0_f32]]], &device);
    let k = Tensor::from_data([[[0.0_f32]], [[2.0_f32.ln()]]], &device);
    let v = Tensor::from_data([[[3.0_f32]], [[6.0_f32]]], &device);
    // weights 1/3 and 2/3
    let expected = Tensor::from_data([[[5.0_f32]]], &device);
    assert_close(
        attention(q, k, v, &Rows::continuing(1, 1), Scores::scaled(1.0)),
        expected,
    );
}

#[test]
fn rows_do_not_see_each_other() {
    let device = Device::flex();
    let (q, k, v) = (
        random([7, 4, 6], &device),
        random([7, 2, 6], &device),
        random([7, 2, 6], &device),
    );
    let rows = Rows::from_lengths([4, 1, 2]);
    let scores = Scores::scaled(0.4);
    let together = attention(q.clone(), k.clone(), v.clone(), &rows, scores);
    for row in rows.ranges() {
        let one = Rows::single(row.len());
        let cut = |x: &Tensor<3>| x.clone().slice(s![row.clone()]);
        let alone = attention(cut(&q), cut(&k), cut(&v), &one, scores);
        assert_close(cut(&together), alone);
    }
}

#[test]
fn newest_queries_equal_the_whole_row() {
    let device = Device::flex();
    let (q, k, v) = (
        random([5, 3, 4], &device),
        random([5, 1, 4], &device),
        random([5, 1, 4], &device),
    );
    let scores = Scores::scaled(1.0);
    let whole = attention(q.clone(), k.clone(), v.clone(), &Rows::single(5), scores);
    let newest = attention(q.slice(s![3..5]), k, v, &Rows::continuing(3, 2), scores);
    assert_close(newest, whole.slice(s![3..5]));
}

/// The result and the gradients of `f` with inputs and gradients of the result `seed`, on all devices.
fn assert_values(
    [q, k, v, seed]: [TensorData; 4],
    rows: &Rows,
    scores: Scores,
    expected: &[TensorData; 4],
) {
    for device in devices::all() {
        let device = device.autodiff();
        let qkv = [&q, &k, &v].map(|of| Tensor::from_data(of.clone(), &device));
        let seed = Tensor::from_data(seed.clone(), &device);
        let with = |f: Attention| run(f, &qkv, (rows, scores), &seed);
        for found in devices::forms(|| with(attention)) {
            for (found, expected) in found.iter().zip(expected) {
                found.assert_approx_eq::<f32>(expected, Tolerance::absolute(2e-6));
            }
        }
    }
}

#[test]
fn a_window_by_hand() {
    let ln2 = 2.0_f32.ln();
    // the keys 0 and ln 2 have weights 1/3 and 2/3, whatever is before them
    let q = TensorData::from([[[1.0_f32]]]);
    let k = TensorData::from([[[40.0_f32]], [[0.0]], [[ln2]]]);
    let v = TensorData::from([[[100.0_f32]], [[3.0]], [[6.0]]]);
    let seed = TensorData::from([[[1.0_f32]]]);
    let scores = Scores {
        window: Some(2),
        ..Scores::scaled(1.0)
    };
    // y = 5; ds = p (v - y) = -2/3, 2/3
    let expected = [
        TensorData::from([[[5.0_f32]]]),
        TensorData::from([[[2.0 / 3.0 * ln2]]]),
        TensorData::from([[[0.0_f32]], [[-2.0 / 3.0]], [[2.0 / 3.0]]]),
        TensorData::from([[[0.0_f32]], [[1.0 / 3.0]], [[2.0 / 3.0]]]),
    ];
    assert_values([q, k, v, seed], &Rows::continuing(2, 1), scores, &expected);
}

#[test]
fn a_soft_cap_by_hand() {
    let [ln2, ln3] = [2.0_f32.ln(), 3.0_f32.ln()];
    // tanh(ln 3 / 2) = 1/2, so the score ln 2 · ln 3 is capped to ln 2
    let q = TensorData::from([[[1.0_f32]]]);
    let k = TensorData::from([[[0.0_f32]], [[ln2 * ln3]]]);
    let v = TensorData::from([[[3.0_f32]], [[6.0]]]);
    let seed = TensorData::from([[[1.0_f32]]]);
    let scores = Scores {
        soft_cap: Some(2.0 * 2.0_f64.ln()),
        ..Scores::scaled(1.0)
    };
    // y = 5; ds = p (v - y) (1 - tanh²) = -2/3 · 1, 2/3 · 3/4
    let expected = [
        TensorData::from([[[5.0_f32]]]),
        TensorData::from([[[0.5 * ln2 * ln3]]]),
        TensorData::from([[[-2.0_f32 / 3.0]], [[0.5]]]),
        TensorData::from([[[1.0_f32 / 3.0]], [[2.0 / 3.0]]]),
    ];
    assert_values([q, k, v, seed], &Rows::continuing(1, 1), scores, &expected);
}

/// Gemma 2's attention in transformers 5.23.0: `eager_attention_forward` of `modeling_gemma2` with
/// `softcap=1.5`, `scaling=0.7` and the mask of `sliding_window_overlay(3)` and
/// `causal_mask_function`, in f64.
#[test]
fn equals_gemma_2_of_transformers() {
    const Y: [f64; 24] = [
        1.000_000, 0.764_842, 1.000_000, 0.764_842, 0.275_600, -0.343_261, 0.760_156, 0.397_956,
        0.101_840, -0.085_340, 0.158_429, -0.395_059, -0.563_041, -0.615_629, -0.727_250,
        -0.717_812, -0.427_035, 0.146_209, -0.056_645, 0.194_944, 0.633_499, 0.814_097, 0.205_836,
        0.211_626,
    ];
    const DQ: [f64; 24] = [
        0.000_000, 0.000_000, 0.000_000, 0.000_000, 0.247_079, -0.075_865, 0.421_264, -0.129_200,
        0.036_873, 0.213_690, 0.046_392, -0.005_006, -0.863_436, 0.083_636, 0.187_859, -0.002_628,
        -0.021_290, -0.023_323, 0.035_405, 0.176_022, 0.169_428, 0.022_210, -0.119_734, 0.012_742,
    ];
    const DK: [f64; 12] = [
        -0.138_442, 0.301_968, 0.069_980, 0.046_596, -0.002_247, -0.760_873, -0.119_395,
        -0.015_826, 0.135_183, 0.325_185, 0.041_255, 0.042_404,
    ];
    const DV: [f64; 12] = [
        -0.601_816, -1.459_149, 0.285_029, 1.122_482, 0.269_464, -0.168_648, -0.776_355,
        -0.595_038, 0.685_503, 0.410_495, -0.271_911, -0.491_903,
    ];
    let queries = |values: &[f64]| of([6, 2, 2], values);
    let keys = |values: &[f64]| of([6, 1, 2], values);
    let numbers =
        |count: u32, f: fn(f64) -> f64| (0..count).map(|i| f(i.into())).collect::<Vec<_>>();
    let inputs = [
        queries(&numbers(24, |i| (i + 1.0).sin())),
        keys(&numbers(12, |i| 2.0 * (1.5 * i + 2.0).sin())),
        keys(&numbers(12, |i| (0.7 * i).cos())),
        queries(&numbers(24, |i| (0.9 * i + 3.0).sin())),
    ];
    let scores = Scores {
        scale: 0.7,
        window: Some(3),
        soft_cap: Some(1.5),
    };
    let expected = [queries(&Y), queries(&DQ), keys(&DK), keys(&DV)];
    assert_values(inputs, &Rows::single(6), scores, &expected);
}

fn of(shape: [usize; 3], values: &[f64]) -> TensorData {
    let values: Vec<f32> = values.iter().map(|value| *value as f32).collect();
    TensorData::new(values, shape)
}

#[test]
fn a_window_that_hides_nothing_is_none() {
    let scores = Scores {
        window: Some(4),
        ..Scores::scaled(1.0)
    };
    assert_eq!(
        scores.within(&Rows::from_lengths([4, 2])),
        Scores::scaled(1.0)
    );
    assert_eq!(scores.within(&Rows::from_lengths([2, 5])), scores);
    assert_eq!(scores.within(&Rows::continuing(4, 1)), scores);
}
