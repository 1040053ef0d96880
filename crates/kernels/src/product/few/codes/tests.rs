use std::sync::Arc;

use half::{bf16, f16};
use simmer_blocks::{Absmax, FourBit, Int8, NF4, Rounding};

use super::*;

/// Bytes without a pattern, whose f16 are moderate numbers.
fn codes(count: usize) -> Vec<u8> {
    let byte = |at: u64| (crate::mix(at) >> 24) as u8 & 0xbf;
    (0..count as u64).map(byte).collect()
}

fn matrices(shape: [usize; 2]) -> Vec<Quantised> {
    let [rows, columns] = shape;
    let blocks = BlockType::ALL.map(|kind| (kind.row_bytes(columns), Form::Blocks(kind)));
    let roundings = [Rounding::F32, Rounding::Bf16, Rounding::F16];
    let four_bits = roundings.map(|rounding| {
        let absmax = (0..rows * columns / 64).map(|at| 0.1 + (at % 7) as f32);
        let form = FourBit {
            name: "nf4",
            values: NF4,
            block: 64,
            absmax: Absmax::Plain(absmax.collect::<Arc<[f32]>>()),
            rounding,
        };
        (columns / 2, Form::FourBit(form))
    });
    let all = blocks.into_iter().chain(four_bits);
    let matrix = |(bytes, form)| Quantised::new(shape, codes(rows * bytes).into(), form);
    all.map(|parts| matrix(parts).unwrap()).collect()
}

/// Numbers in `[-1, 1)`.
fn numbers(count: usize) -> impl Iterator<Item = f32> {
    let unit = |at| (crate::mix(at) >> 40) as f32 / (1 << 23) as f32 - 1.0;
    (0..count as u64).map(unit)
}

/// Compares the products of tokens with all rows with f64. `lost` is what a feature may differ by in fixed point, where the
/// largest one is 1, beyond the precision of f32.
fn assert_products(name: &str, tokens: &Tokens, x: &[f32], matrix: &Quantised, lost: f64) {
    let [rows, columns] = matrix.shape();
    let count = x.len() / columns;
    let mut found = vec![0.0; rows * count];
    tokens.dots(matrix, 0, &mut found);
    for (row, found) in found.chunks_exact(count).enumerate() {
        let w = matrix.rows(row..row + 1);
        let largest = w.iter().fold(0.0_f64, |all, w| all.max(w.abs().into()));
        for (x, found) in x.chunks_exact(columns).zip(found) {
            let terms = w.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x));
            let size: f64 = x.iter().map(|x| f64::from(x.abs()) * largest).sum();
            let error = (f64::from(*found) - terms.sum::<f64>()).abs();
            // codes are summed before they are scaled: the terms are as large as the largest weight
            let limit = 3e-7 * size + lost * largest * columns as f64;
            assert!(
                error <= limit,
                "{} {name} row {row}, {count} tokens: {error:e} of {size}, limit {limit:e}",
                matrix.kind()
            );
        }
    }
}

fn int8([rows, columns]: [usize; 2]) -> Quantised {
    let row_max = (0..rows).map(|at| 0.1 + at as f32).collect();
    let form = Form::Int8(Int8 { row_max });
    Quantised::new([rows, columns], codes(rows * columns).into(), form).unwrap()
}

/// Every set of instructions that this processor has.
#[test]
fn all_instructions_give_the_dot_products() {
    let sets = [
        (vector::available(), Instructions::Avx2),
        (wide::available(), Instructions::Avx512),
    ];
    let [rows, columns] = [9, 512];
    for matrix in matrices([rows, columns]) {
        for count in [1, 2, 3, 4, 6] {
            let x: Vec<f32> = numbers(count * columns).collect();
            for (_, set) in sets.into_iter().filter(|(available, _)| *available) {
                let numbers = Numbers::unpacked_with(set, &x, &matrix).unwrap();
                let name = format!("{set:?}");
                assert_products(&name, &Tokens::Numbers(numbers), &x, &matrix, 0.0);
            }
            if let Some(tokens) = fixed::Tokens::new(&x, false, &matrix) {
                assert_products("fixed point", &Tokens::Fixed(tokens), &x, &matrix, 0.0);
            }
        }
    }
}

/// A bf16 number has eight bits, so one within 1/32 of the largest one is a whole number of units of 2⁻¹² of it.
#[test]
fn bf16_tokens_in_fixed_point_are_exact_if_their_sizes_are_similar() {
    for (matrix, count) in fixed_matrices() {
        let numbers = numbers(count * 512).map(|x| x * 0.5 + x.signum() * 0.5);
        let x: Vec<f32> = numbers.map(|x| bf16::from_f32(x).to_f32()).collect();
        assert!(x.iter().all(|x| x.abs() >= 1.0 / 32.0));
        let tokens = in_fixed_point(&x, &matrix);
        assert_products("bf16", &tokens, &x, &matrix, 0.0);
    }
}

/// Numbers of all sizes: half a unit of 2⁻¹⁴ of the largest one is lost of small ones. Rounding to bf16 loses up to 2⁻⁹ of the
/// largest ones.
#[test]
fn bf16_tokens_lose_less_in_fixed_point_than_in_bf16() {
    for (matrix, count) in fixed_matrices() {
        let sizes = numbers(count * 512)
            .zip(0_u16..)
            .map(|(x, at)| x * (-f32::from(at % 23)).exp2());
        let x: Vec<f32> = sizes.map(|x| bf16::from_f32(x).to_f32()).collect();
        let tokens = in_fixed_point(&x, &matrix);
        assert_products("bf16", &tokens, &x, &matrix, 2_f64.powi(-15));
    }
}

/// In f32, half a unit of 2⁻²³ of the largest number of a block is lost: not more than f32 loses of that number.
#[test]
fn f32_tokens_lose_what_f32_loses_of_the_largest_number() {
    for (matrix, _) in fixed_matrices() {
        for count in [1, 2, 3, 4, 5] {
            let sizes = numbers(count * 512)
                .zip(0_u16..)
                .map(|(x, at)| x * (-f32::from(at % 23)).exp2());
            let x: Vec<f32> = sizes.collect();
            if let Some(tokens) = fixed::Tokens::new(&x, false, &matrix) {
                let tokens = Tokens::Fixed(tokens);
                assert_products("f32", &tokens, &x, &matrix, 2_f64.powi(-24));
            }
        }
    }
}

/// The largest codes and scales that there are, and a token that has the largest size everywhere: sums that would overflow
/// first.
#[test]
fn the_largest_products_of_bf16_tokens_fit() {
    let [rows, columns] = [4, 512];
    for kind in BlockType::ALL {
        let width = kind.row_bytes(columns);
        for byte in [0xff_u8, 0x80, 0x7f] {
            // all codes and scales, while the f16 of a block are small numbers
            let mut codes = vec![byte; rows * width];
            for block in codes.chunks_exact_mut(kind.block_bytes()) {
                let halves: &[usize] = match kind {
                    BlockType::Q4_K | BlockType::Q5_K | BlockType::Q4_1 | BlockType::Q5_1 => {
                        &[0, 2]
                    }
                    BlockType::Q6_K => &[208],
                    _ => &[0],
                };
                for at in halves {
                    block[*at..at + 2].copy_from_slice(&f16::from_f32(0.5).to_le_bytes());
                }
            }
            let matrix = Quantised::new([rows, columns], codes.into(), Form::Blocks(kind)).unwrap();
            for count in [1, 2, 3, 4, 8] {
                for x in [1.0, -1.0, 127.0 / 128.0, -127.0 / 128.0, 7.0 / 2048.0] {
                    let x = vec![x; count * columns];
                    for is_bf16 in [true, false] {
                        if let Some(tokens) = fixed::Tokens::new(&x, is_bf16, &matrix) {
                            let tokens = Tokens::Fixed(tokens);
                            assert_products("largest", &tokens, &x, &matrix, 0.0);
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn a_bf16_token_that_is_not_finite_gives_nan() {
    for (matrix, count) in fixed_matrices() {
        for value in [f32::NAN, f32::INFINITY] {
            let mut x = vec![1.0; count * 512];
            x[300] = value;
            let mut found = vec![0.0; 9 * count];
            in_fixed_point(&x, &matrix).dots(&matrix, 0, &mut found);
            for found in found.chunks_exact(count) {
                assert!(found[0].is_nan(), "{}, {count} tokens", matrix.kind());
                assert!(found[1..].iter().all(|sum| sum.is_finite()));
            }
        }
    }
}

/// bf16 tokens.
fn in_fixed_point(x: &[f32], matrix: &Quantised) -> Tokens {
    Tokens::Fixed(fixed::Tokens::new(x, true, matrix).unwrap())
}

/// Matrices `[9, 512]` and numbers of bf16 tokens whose products are computed in fixed point; none on a processor without the
/// instructions.
fn fixed_matrices() -> impl Iterator<Item = (Quantised, usize)> {
    let all = || matrices([9, 512]).into_iter().chain([int8([9, 512])]);
    let counts = [1, 2, 3, 4, 5, 8, 15].into_iter();
    let each = counts.flat_map(move |count| all().map(move |matrix| (matrix, count)));
    each.filter(|(matrix, count)| {
        fixed::Tokens::new(&vec![0.0; count * 512], true, matrix).is_some()
    })
}
