//! Quantised weights against their widened copies.

use std::sync::Arc;

use bytes::Bytes;
use half::f16;
use proptest::prelude::*;
use simmer_blocks::ggml::BlockType;
use simmer_blocks::{Absmax, Form, FourBit, Fp8, Fp8Scales, Int8, Quantised, Rounding};

use super::*;
use crate::devices;
use crate::{LowRank, linear, linear_cross_entropy, lora_linear};

/// Bytes without a pattern.
fn noise(count: usize, seed: u64) -> Vec<u8> {
    (0..count as u64)
        .map(|index| (crate::mix(seed << 32 ^ index) >> 24) as u8)
        .collect()
}

/// Scales between 0.01 and 0.02.
fn scales(count: usize, seed: u64) -> Arc<[f32]> {
    let byte = |byte: u8| 0.01 + f32::from(byte) / 25_600.0;
    noise(count, seed).into_iter().map(byte).collect()
}

/// Rows of blocks with moderate scales.
fn blocks(kind: BlockType, [rows, columns]: [usize; 2], seed: u64) -> Vec<u8> {
    let mut bytes = noise(rows * kind.row_bytes(columns), seed);
    let places: &[usize] = match kind {
        BlockType::Q6_K => &[208],
        BlockType::Q4_1 | BlockType::Q5_1 | BlockType::Q4_K | BlockType::Q5_K => &[0, 2],
        _ => &[0],
    };
    for block in bytes.chunks_exact_mut(kind.block_bytes()) {
        for place in places {
            let size = 0.001 + f32::from(block[*place]) / 256_000.0;
            block[*place..place + 2].copy_from_slice(&f16::from_f32(size).to_le_bytes());
        }
    }
    bytes
}

/// A matrix of every form. `columns` is cut to whole blocks.
fn matrix(form: usize, [rows, columns]: [usize; 2], seed: u64) -> Quantised {
    let kinds = BlockType::ALL.len();
    if form < kinds {
        let kind = BlockType::ALL[form];
        let columns = columns.next_multiple_of(kind.block_len());
        let codes = blocks(kind, [rows, columns], seed);
        return Quantised::new([rows, columns], codes.into(), Form::Blocks(kind)).unwrap();
    }
    let shape = [rows, columns];
    let count = rows * columns;
    let codes = |count| Bytes::from(noise(count, seed));
    let (codes, form) = match form - kinds {
        at @ (0 | 1) => {
            let blocks = count.div_ceil(64);
            let absmax = if at == 0 {
                Absmax::Plain(scales(blocks, 5))
            } else {
                Absmax::Nested {
                    codes: noise(blocks, 6).into(),
                    values: scales(256, 7),
                    absmax: scales(blocks.div_ceil(256), 8),
                    block: 256,
                    offset: 0.02,
                }
            };
            let four_bit = FourBit {
                name: "nf4",
                values: std::array::from_fn(|code| code as f32 / 7.5 - 1.0),
                block: 64,
                absmax,
                rounding: if at == 0 {
                    Rounding::F32
                } else {
                    Rounding::Bf16
                },
            };
            (codes(count.div_ceil(2)), Form::FourBit(four_bit))
        }
        2 => {
            let row_max = scales(rows, 9);
            (codes(count), Form::Int8(Int8 { row_max }))
        }
        at => {
            let bytes = noise(count, seed).into_iter();
            // without NaN and the largest numbers
            let codes: Vec<u8> = bytes.map(|code| code & 0xbf).collect();
            let [down, across] = [rows.div_ceil(48), columns.div_ceil(40)];
            let scales = match at {
                3 => Fp8Scales::Matrix(0.5),
                4 => Fp8Scales::Rows(scales(rows, 10)),
                _ => Fp8Scales::Blocks {
                    size: [48, 40],
                    columns: across,
                    scales: scales(down * across, 11),
                },
            };
            (codes.into(), Form::Fp8(Fp8 { scales }))
        }
    };
    Quantised::new(shape, codes, form).unwrap()
}

/// Number of forms that [`matrix`] makes.
const FORMS: usize = BlockType::ALL.len() + 6;

/// A weight on a device, and its widened copy in f32 there.
fn both(matrix: &Quantised, device: &Device) -> [FrozenWeight; 2] {
    let device = device.clone().autodiff();
    let [rows, columns] = matrix.shape();
    let data = TensorData::new(matrix.rows(0..rows), [rows, columns]);
    let widened = Tensor::<2>::from_data(data, &device);
    let quantised = StoredWeight::new(matrix.clone(), &device);
    [FrozenWeight::Stored(quantised), widened.into()]
}

fn random(rows: usize, columns: usize, seed: u64, device: &Device) -> Tensor<2> {
    let unit = |at: u64| (crate::mix(seed << 40 ^ at) >> 40) as f32 / (1 << 23) as f32 - 1.0;
    let values: Vec<f32> = (0..(rows * columns) as u64).map(unit).collect();
    let data = TensorData::new(values, [rows, columns]);
    Tensor::from_data(data, &device.clone().autodiff())
}

/// Results and gradients of all operations with a weight.
fn operations(weight: &FrozenWeight, tokens: usize, device: &Device) -> Vec<TensorData> {
    let [rows, columns] = weight.shape();
    let x = random(tokens, columns, 1, device).require_grad();
    let seed = random(tokens, rows, 2, device);
    let y = linear(x.clone(), weight.clone());
    let grads = (y.clone() * seed.clone()).sum().backward();
    let mut all = vec![y.inner(), x.grad(&grads).unwrap()];

    let x = random(tokens, columns, 1, device).require_grad();
    let branch = LowRank {
        a: random(3, columns, 3, device).require_grad(),
        b: random(rows, 3, 4, device).require_grad(),
        scale: 0.5,
        dropout: None,
    };
    let y = lora_linear(x.clone(), weight.clone(), branch.clone());
    let grads = (y.clone() * seed).sum().backward();
    all.push(y.inner());
    all.extend([x, branch.a, branch.b].map(|of| of.grad(&grads).unwrap()));

    let x = random(tokens, columns, 1, device).require_grad();
    let ids: Vec<i64> = (0..tokens).map(|token| (token * 7 % rows) as i64).collect();
    let data = TensorData::new(ids, [tokens]);
    let ids = Tensor::<1, Int>::from_data(data, &device.clone().autodiff());
    let loss = linear_cross_entropy(x.clone(), weight.clone(), ids.clone(), None);
    let grads = loss.clone().backward();
    all.push(loss.inner().unsqueeze());
    all.push(x.grad(&grads).unwrap());
    all.push(weight.rows(ids).inner());
    all.into_iter().map(Tensor::into_data).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn a_quantised_weight_computes_as_its_widened_copy(
        form in 0..FORMS,
        rows in 1_usize..70,
        columns in 1_usize..150,
        tokens in 1_usize..30,
        pairs: bool,
    ) {
        let rows = if pairs { rows.next_multiple_of(4) } else { rows };
        let mut matrix = matrix(form, [rows, columns], 1);
        if pairs {
            matrix = matrix.paired(4);
        }
        for device in devices::all() {
            let [quantised, widened] = both(&matrix, &device);
            let truth = operations(&widened, tokens, &device);
            for found in devices::forms(|| operations(&quantised, tokens, &device)) {
                for (found, truth) in found.iter().zip(&truth) {
                    // the same f32 values; sums of up to 1000 terms of order one in another order
                    let scale = devices::largest(truth).max(0.1);
                    found.assert_approx_eq::<f32>(truth, burn::tensor::Tolerance::absolute(1e-5 * scale));
                }
            }
        }
    }
}

/// Packed panels hold the same numbers as those of the widened copy, so that results have the same bits.
#[test]
fn on_the_processor_results_have_the_same_bits() {
    let device = Device::flex();
    for form in 0..FORMS {
        // an inner dimension in several parts that are not whole blocks
        let matrix = matrix(form, [100, 1300], 2);
        let [quantised, widened] = both(&matrix, &device);
        let found = operations(&quantised, 20, &device);
        for (found, truth) in found.iter().zip(&operations(&widened, 20, &device)) {
            found.assert_eq(truth, true);
        }
    }
}

/// Few tokens are multiplied with codes that are unpacked in registers, in an order of their own.
#[test]
fn products_of_a_few_tokens_have_the_precision_of_f32() {
    use crate::product::{Rows, Side, Values, Weight, product};
    for form in 0..FORMS {
        // whole blocks, which four-bit codes are unpacked by, and rows of bytes with a rest
        for columns in [512, 250] {
            let matrix = matrix(form, [40, columns], 4).paired(8);
            let [_, columns] = matrix.shape();
            let (first, rows) = (5, 31);
            let weight = Weight {
                values: Values::Quantised(Rows {
                    matrix: &matrix,
                    first,
                }),
                rows,
                columns,
                side: Side::Transposed,
            };
            for tokens in [1, 3, 4, 8] {
                let unit = |at| (crate::mix(at) >> 40) as f32 / (1 << 23) as f32 - 1.0;
                let x: Vec<f32> = (0..(tokens * columns) as u64).map(unit).collect();
                let mut y = vec![0.0; tokens * rows];
                product(&x, weight, &mut y, false);
                for (x, y) in x.chunks_exact(columns).zip(y.chunks_exact(rows)) {
                    for (row, y) in y.iter().enumerate() {
                        let w = matrix.rows(first + row..first + row + 1);
                        let terms = w.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x));
                        let largest = w.iter().fold(0.0_f32, |all, w| all.max(w.abs()));
                        let size: f64 = x.iter().map(|x| f64::from(x.abs() * largest)).sum();
                        let error = (f64::from(*y) - terms.sum::<f64>()).abs();
                        // codes are summed before they are scaled, so the terms are as large as the largest weight
                        assert!(
                            error <= 3e-7 * size,
                            "{} {row}: {error:e} of {size}",
                            matrix.kind()
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn all_elements_are_widened_exactly() {
    for form in 0..FORMS {
        let matrix = matrix(form, [12, 200], 3).paired(6);
        for device in devices::all() {
            let [quantised, widened] = both(&matrix, &device);
            let truth = widened.widened(&device).into_data();
            quantised
                .widened(&device)
                .into_data()
                .assert_eq(&truth, true);
            let reference = crate::with_reference(crate::Operations::ALL, || {
                linear(random(2, matrix.shape()[1], 1, &device), quantised.clone())
            });
            assert_eq!(reference.dims(), [2, 12]);
        }
    }
}

/// Weights of every form on libtorch's device: there, and the same in main memory.
#[cfg(feature = "libtorch")]
fn there_and_in_host(memory: &mut HostMemory, device: &Device) -> Vec<[StoredWeight; 2]> {
    let device = &device.clone().autodiff();
    let mut all: Vec<[StoredWeight; 2]> = (0..FORMS)
        .map(|form| {
            let matrix = matrix(form, [36, 150], 3).paired(6);
            [
                StoredWeight::new(matrix.clone(), device),
                memory.quantised(&matrix),
            ]
        })
        .collect();
    let dense = random(48, 64, 5, &Device::flex());
    let fp8 = StoredWeight::fp8_of_dense(&dense.to_data(), device);
    let moved = memory.moved(&fp8);
    all.push([fp8, moved]);
    all
}

#[cfg(feature = "libtorch")]
#[test]
fn weights_in_main_memory_compute_as_on_their_device() {
    let device = &devices::all().pop().unwrap();
    let mut memory = HostMemory::new(device).unwrap();
    let same = |host: &StoredWeight, truth: &[TensorData]| {
        let found = operations(&FrozenWeight::Stored(host.clone()), 20, device);
        for (found, truth) in found.iter().zip(truth) {
            found.assert_eq(truth, true);
        }
    };
    for [there, host] in there_and_in_host(&mut memory, device) {
        assert_eq!((host.shape(), host.kind()), (there.shape(), there.kind()));
        let truth = operations(&FrozenWeight::Stored(there), 20, device);
        same(&host, &truth);
        assert!(!host.is_ahead());
        StoredWeight::copy_ahead(std::slice::from_ref(&host));
        assert!(host.is_ahead());
        same(&host, &truth);
        host.release();
        assert!(!host.is_ahead());
    }
    for dtype in [DType::F32, DType::BF16, DType::F16] {
        let dense = random(36, 150, 5, &Device::flex())
            .into_data()
            .convert_dtype(dtype);
        let host = memory.dense(&dense);
        let there = crate::upload_weight::<2>(dense, &device.clone().autodiff());
        same(&host, &operations(&there.into(), 20, device));
    }
    assert!(HostMemory::new(&Device::flex()).is_none());
}

/// On a GPU, copies that are made beside its work must neither be used before they have arrived, nor overwrite memory that
/// earlier work still reads.
#[cfg(feature = "libtorch")]
#[test]
fn copies_beside_the_work_of_a_device_are_in_order() {
    const SIZE: usize = 1024;
    const LAYERS: usize = 12;
    let device = &devices::all().pop().unwrap();
    let mut memory = HostMemory::new(device).unwrap();
    // each layer multiplies by a number and moves its features by one place
    let factor = |layer: usize| [0.5_f32, 2.0, 4.0][layer % 3];
    let layers: Vec<StoredWeight> = (0..LAYERS)
        .map(|layer| {
            let mut values = vec![0.0; SIZE * SIZE];
            for row in 0..SIZE {
                values[row * SIZE + (row + 1) % SIZE] = factor(layer);
            }
            memory.dense(&TensorData::new(values, [SIZE, SIZE]))
        })
        .collect();
    let start = random(64, SIZE, 1, device).inner();
    let mut x = start.clone();
    for pass in 0..4 {
        for layer in 0..LAYERS {
            for (other, weight) in layers.iter().enumerate() {
                if other != layer && other != layer + 1 {
                    weight.release();
                }
            }
            StoredWeight::copy_ahead(&layers[layer..=layer]);
            StoredWeight::copy_ahead(&layers[(layer + 1).min(LAYERS - 1)..][..1]);
            // several products, so that the device is behind the host
            let weight = FrozenWeight::Stored(layers[layer].clone());
            for _ in 0..3 {
                x = linear(x, weight.clone()) * (1.0 / factor(layer));
            }
        }
        let moved = 3 * LAYERS * (pass + 1) % SIZE;
        let truth = Tensor::cat(
            vec![
                start.clone().slice([0..64, moved..SIZE]),
                start.clone().slice([0..64, 0..moved]),
            ],
            1,
        );
        // factors are powers of two, so that nothing is rounded
        x.to_data().assert_eq(&truth.into_data(), true);
    }
}
