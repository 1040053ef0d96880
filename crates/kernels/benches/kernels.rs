//! Benchmarks of each operation of simmer-kernels and its reference implementation, at the shapes of
//! SmolLM2-135M.
//!
//! `forward` computes the result. `backward` computes the result and then the gradients of the
//! inputs; frozen weights have none. The rate of a matrix multiplication is in flops, the rate of
//! other operations in elements of the result. Both implementations are credited with the flops of
//! the definition; extra work, such as masked scores, is not counted.
//!
//! Axes: T tokens, H hidden size, F intermediate size, N query heads, K key heads, D `head_dim`,
//! r rank, V vocabulary size.

use std::hint::black_box;
use std::time::Duration;

use burn::tensor::{DType, Device, Distribution, Int, Tensor};
use criterion::{BenchmarkId, Criterion, Throughput};
use simmer_kernels::{
    Activation, LowRank, RecyclingAllocator, Rows, Scores, attention, attention_reference, gated,
    gated_reference, linear, linear_cross_entropy, linear_cross_entropy_reference,
    linear_reference, lora_linear, lora_linear_reference, rms_norm, rms_norm_reference, rope,
    rope_reference,
};

/// As in the program, whose steps reuse the same large buffers.
#[global_allocator]
static ALLOCATOR: RecyclingAllocator = RecyclingAllocator::new();

const H: usize = 576;
const F: usize = 1536;
const N: usize = 9;
const K: usize = 3;
const D: usize = 64;
const V: usize = 49152;
const RANK: usize = 8;

/// Tokens of each row of the packed sequence.
const ROWS: [usize; 4] = [97, 128, 85, 130];
const T: usize = ROWS[0] + ROWS[1] + ROWS[2] + ROWS[3];

/// Tokens with a target, which go through the head.
const TARGETS: usize = 256;

fn main() {
    // on a thread of rayon's pool, as in the program
    rayon::scope(|_| {
        let mut criterion = Criterion::default()
            .warm_up_time(Duration::from_millis(500))
            .measurement_time(Duration::from_secs(2))
            .sample_size(10)
            .configure_from_args();
        elementwise(&mut criterion);
        attend(&mut criterion);
        for dtype in [DType::BF16, DType::F32] {
            for (input, output) in [(H, H), (H, K * D), (H, F), (F, H)] {
                multiply(&mut criterion, dtype, input, output);
            }
        }
        for output in [H, K * D] {
            adapt(&mut criterion, output);
        }
        head(&mut criterion);
        criterion.final_summary();
    });
}

/// The work of an operation: flops of a matrix multiplication, else elements of the result.
#[derive(Clone, Copy)]
struct Work {
    forward: usize,
    backward: usize,
}

impl Work {
    /// One unit per element, and one for its gradient.
    fn elements(count: usize) -> Self {
        Self {
            forward: count,
            backward: 2 * count,
        }
    }
}

/// Measures a kernel and its reference implementation. `inputs` are those that get gradients; both
/// closures hold the others.
fn compare<const INPUTS: usize, const I: usize, const O: usize>(
    criterion: &mut Criterion,
    name: &str,
    work: Work,
    inputs: &[Tensor<I>; INPUTS],
    kernel: impl Fn([Tensor<I>; INPUTS]) -> Tensor<O>,
    reference: impl Fn([Tensor<I>; INPUTS]) -> Tensor<O>,
) {
    type Form<'a, const INPUTS: usize, const I: usize, const O: usize> =
        (&'a str, &'a dyn Fn([Tensor<I>; INPUTS]) -> Tensor<O>);
    let forms: [Form<'_, INPUTS, I, O>; 2] = [("kernel", &kernel), ("reference", &reference)];
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Elements(work.forward as u64));
    for (form, f) in forms {
        group.bench_function(BenchmarkId::new("forward", form), |bencher| {
            bencher.iter(|| black_box(f(inputs.clone())));
        });
    }
    group.throughput(Throughput::Elements(work.backward as u64));
    for (form, f) in forms {
        group.bench_function(BenchmarkId::new("backward", form), |bencher| {
            bencher.iter(|| {
                let leaves = inputs.clone().map(Tensor::require_grad);
                let gradients = f(leaves.clone()).backward();
                black_box(leaves.map(|leaf| leaf.grad(&gradients)))
            });
        });
    }
    group.finish();
}

fn device() -> Device {
    Device::flex().autodiff()
}

fn normal<const R: usize>(shape: [usize; R]) -> Tensor<R> {
    Tensor::random(shape, Distribution::Normal(0.0, 1.0), &device())
}

/// A weight with elements of the magnitude that trained models have.
fn weight(shape: [usize; 2], dtype: DType) -> Tensor<2> {
    (normal(shape) * 0.05).cast(dtype)
}

fn elementwise(criterion: &mut Criterion) {
    let scale = normal([H]);
    compare(
        criterion,
        "rms_norm",
        Work::elements(T * H),
        &[normal([T, H])],
        |[x]| rms_norm(x, scale.clone(), 1e-5),
        |[x]| rms_norm_reference(x, scale.clone(), 1e-5),
    );

    let angles = normal([T, D / 2]);
    let (cos, sin) = (angles.clone().cos(), angles.sin());
    compare(
        criterion,
        "rope",
        Work::elements(T * N * D),
        &[normal([T, N, D])],
        |[x]| rope(x, cos.clone(), sin.clone()),
        |[x]| rope_reference(x, cos.clone(), sin.clone()),
    );

    for (name, activation) in [
        ("gated silu", Activation::Silu),
        ("gated gelu tanh", Activation::GeluTanh),
        ("gated gelu", Activation::Gelu),
    ] {
        compare(
            criterion,
            name,
            Work::elements(T * F),
            &[normal([T, F]), normal([T, F])],
            |[gate, up]| gated(activation, gate, up),
            |[gate, up]| gated_reference(activation, gate, up),
        );
    }
}

fn attend(criterion: &mut Criterion) {
    let rows = Rows::from_lengths(ROWS);
    let scores = Scores::scaled(1.0 / (D as f64).sqrt());
    compare(
        criterion,
        "attention",
        attention_work(&ROWS, T),
        &[normal([T, N, D]), normal([T, K, D]), normal([T, K, D])],
        |[q, k, v]| attention(q, k, v, &rows, scores),
        |[q, k, v]| attention_reference(q, k, v, &rows, scores),
    );

    const LONG: usize = 2048;
    let rows = Rows::single(LONG);
    for (name, window, soft_cap) in [
        ("attention of a long row", None, None),
        ("attention of a long row, window 256", Some(256), None),
        ("attention of a long row, soft cap", None, Some(50.0)),
    ] {
        let scores = Scores {
            window,
            soft_cap,
            ..scores
        };
        compare(
            criterion,
            name,
            attention_work(&[LONG], window.unwrap_or(LONG)),
            &[
                normal([LONG, N, D]),
                normal([LONG, K, D]),
                normal([LONG, K, D]),
            ],
            |[q, k, v]| attention(q, k, v, &rows, scores),
            |[q, k, v]| attention_reference(q, k, v, &rows, scores),
        );
    }
}

/// The work of attention in rows of these lengths, with a window.
fn attention_work(rows: &[usize], window: usize) -> Work {
    let seen = rows.iter().flat_map(|row| 1..=*row);
    let pairs: usize = seen.map(|keys| keys.min(window)).sum();
    let product = 2 * pairs * N * D;
    // scores and values, and the gradients of both factors of each
    Work {
        forward: 2 * product,
        backward: 6 * product,
    }
}

fn multiply(criterion: &mut Criterion, dtype: DType, input: usize, output: usize) {
    let weight = weight([output, input], dtype);
    let product = 2 * T * input * output;
    compare(
        criterion,
        &format!("linear {} {input}x{output}", name(dtype)),
        Work {
            forward: product,
            backward: 2 * product,
        },
        &[normal([T, input])],
        |[x]| linear(x, weight.clone()),
        |[x]| linear_reference(x, weight.clone()),
    );
}

fn adapt(criterion: &mut Criterion, output: usize) {
    let weight = weight([output, H], DType::BF16);
    let product = 2 * T * H * output;
    let low = 2 * T * RANK * (H + output);
    let branch = |a, b| LowRank {
        a,
        b,
        scale: 2.0,
        dropout: None,
    };
    compare(
        criterion,
        &format!("lora_linear bf16 {H}x{output}"),
        // the frozen weight has no gradient, A and B have one each
        Work {
            forward: product + low,
            backward: 2 * product + 3 * low,
        },
        &[
            normal([T, H]),
            normal([RANK, H]) * 0.05,
            normal([output, RANK]) * 0.05,
        ],
        |[x, a, b]| lora_linear(x, weight.clone(), branch(a, b)),
        |[x, a, b]| lora_linear_reference(x, weight.clone(), branch(a, b)),
    );
}

fn head(criterion: &mut Criterion) {
    let weight = weight([V, H], DType::BF16);
    let targets = Distribution::Uniform(0.0, V as f64);
    let targets = Tensor::<1, Int>::random([TARGETS], targets, &device());
    let product = 2 * TARGETS * H * V;
    compare(
        criterion,
        "linear_cross_entropy bf16",
        Work {
            forward: product,
            backward: 2 * product,
        },
        &[normal([TARGETS, H])],
        |[hidden]| linear_cross_entropy(hidden, weight.clone(), targets.clone(), None),
        |[hidden]| linear_cross_entropy_reference(hidden, weight.clone(), targets.clone(), None),
    );
}

fn name(dtype: DType) -> String {
    format!("{dtype:?}").to_lowercase()
}
