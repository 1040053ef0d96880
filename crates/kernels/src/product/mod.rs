//! Matrix multiplications with a weight in its stored dtype, or quantised.
//!
//! `y = x Wᵀ` or `y = x W`, computed in f32 for every dtype and quantised type of the weight. The implementation depends
//! on the processor and the number of tokens:
//!
//! - `few`, for a few tokens, or a few dozen on vectors: reads the weight once and does not copy it;
//! - `amx`, on processors with AMX tiles: splits both sides into bf16 parts whose sum is the f32
//!   value, so that a unit for bf16 multiplies in f32 precision;
//! - `vector`, otherwise: packs both sides for fused multiply-add on vectors.
//!
//! [`products`] is for activations in bf16. On processors with the instructions, `bf16` multiplies bf16 values and sums in
//! f32, on tiles or vectors; elsewhere, and for a few tokens, the activations are widened for the implementations above.
//!
//! Every element of the result is one sum in a fixed order, for any number of threads.
//!
//! Axes: M tokens, K inner dimension (summed over), N output features.

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod amx;
#[cfg(target_arch = "x86_64")]
pub(crate) mod bf16;
mod division;
mod few;
mod halves;
#[cfg(target_arch = "x86_64")]
mod transpose;
mod vector;
mod weight;
mod widen;

use std::sync::OnceLock;

pub(crate) use halves::{Numbers, Sums, Term, burn, half_unit, packed_products, products};
pub(crate) use weight::{Rows, Side, Values, Weight};
pub(crate) use widen::widen_row;

/// Largest number of tokens for which a weight is not packed for tiles or for pairs of bf16.
const FEW: usize = 8;

/// Largest number of tokens for which the rows of a weight are not packed for vectors. For 32 tokens both are about as fast.
const FEW_ON_VECTORS: usize = 32;

/// The instructions that large matrix multiplications use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProductUnit {
    /// AMX tiles: f32 values are split into bf16 parts.
    Amx,
    /// Products of bf16 pairs on vectors (`avx512_bf16`), for activations in bf16.
    Bf16,
    /// Fused multiply-add on vectors.
    Vector,
}

/// The instructions that large matrix multiplications in f32 use: AMX if the processor has it and the
/// environment variable `SIMMER_PRODUCT` is neither `vector` nor `avx512_bf16`.
pub fn product_unit() -> ProductUnit {
    static UNIT: OnceLock<ProductUnit> = OnceLock::new();
    *UNIT.get_or_init(|| {
        let without = wanted("vector") || wanted("avx512_bf16");
        if !without && amx_available() {
            ProductUnit::Amx
        } else {
            ProductUnit::Vector
        }
    })
}

/// Whether the environment variable `SIMMER_PRODUCT` has this value.
fn wanted(unit: &str) -> bool {
    std::env::var_os("SIMMER_PRODUCT").is_some_and(|wanted| wanted == unit)
}

fn amx_available() -> bool {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    return amx::available();
    #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
    false
}

/// `y = x · weight`, or `y += x · weight`.
///
/// # Shapes
/// `x`: `[M, K]`. `weight`: `[N, K]` or `[K, N]`, see [`Side`]. `y`: `[M, N]`.
///
/// # Panics
/// If the lengths do not match.
pub(crate) fn product(x: &[f32], weight: Weight<'_>, y: &mut [f32], add: bool) {
    product_on(product_unit(), Numbers::F32(x), weight, y, add);
}

fn product_on(unit: ProductUnit, x: Numbers<'_>, weight: Weight<'_>, y: &mut [f32], add: bool) {
    let [k, n] = weight.inner_outer();
    let m = x.len().checked_div(k).unwrap_or(y.len() / n.max(1));
    assert_eq!(
        [x.len(), y.len()],
        [m * k, m * n],
        "lengths of the input and the result of a matrix multiplication"
    );
    if m == 0 || n == 0 {
        return;
    }
    if k == 0 {
        if !add {
            y.fill(0.0);
        }
        return;
    }
    if m <= few(unit, weight.side) {
        return few::product(x, weight, y, add);
    }
    let x = &x.widened();
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    if unit == ProductUnit::Amx {
        return amx::product(x, weight, y, add);
    }
    let _ = unit;
    vector::product(x, weight, y, add);
}

/// Largest number of tokens for which a weight is not packed.
fn few(unit: ProductUnit, side: Side) -> usize {
    match (unit, side) {
        (ProductUnit::Vector, Side::Transposed) => FEW_ON_VECTORS,
        _ => FEW,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::{bf16, f16};
    use proptest::prelude::*;

    /// Values in `[-1, 1)` of all magnitudes down to 2⁻²³.
    fn numbers(length: usize, seed: u64) -> Vec<f32> {
        let unit = |i: usize| (crate::mix(seed ^ i as u64) >> 40) as f32 / (1 << 23) as f32;
        (0..length).map(|i| unit(i) - 1.0).collect()
    }

    /// The units that this processor has.
    fn units() -> impl Iterator<Item = ProductUnit> {
        let amx = amx_available().then_some(ProductUnit::Amx);
        std::iter::once(ProductUnit::Vector).chain(amx)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]
        /// Compares every unit of this processor, dtype and side with sums in f64.
        #[test]
        fn results_have_the_precision_of_f32(
            m in 1_usize..80,
            k in 1_usize..150,
            n in 1_usize..150,
            plain: bool,
            add: bool,
            precision in 0..3,
        ) {
            let (x, w, before) = (numbers(m * k, 1), numbers(k * n, 2), numbers(m * n, 3));
            let bf16s: Vec<bf16> = w.iter().map(|w| bf16::from_f32(*w)).collect();
            let f16s: Vec<f16> = w.iter().map(|w| f16::from_f32(*w)).collect();
            let values = match precision {
                0 => Values::F32(&w),
                1 => Values::Bf16(&bf16s),
                _ => Values::F16(&f16s),
            };
            let (rows, columns, side) = if plain { (k, n, Side::Plain) } else { (n, k, Side::Transposed) };
            let weight = Weight { values, rows, columns, side };
            for unit in units() {
                let mut y = before.clone();
                product_on(unit, Numbers::F32(&x), weight, &mut y, add);
                for i in 0..m {
                    for j in 0..n {
                        let w = |l: usize| values.get(if plain { l * n + j } else { j * k + l });
                        let sum: f64 = (0..k).map(|l| f64::from(x[i * k + l]) * f64::from(w(l))).sum();
                        let truth = sum + if add { f64::from(before[i * n + j]) } else { 0.0 };
                        let error = (f64::from(y[i * n + j]) - truth).abs();
                        // 150 roundings of f32 in sums below 150
                        prop_assert!(error <= 2e-5, "{unit:?} {i} {j}: {error:e}");
                    }
                }
            }
        }
    }

    #[test]
    fn an_inner_dimension_in_several_passes() {
        // an inner dimension that does not fit into the cache, and enough results for several tasks
        let (m, k, n) = (20, 5000, 300);
        let (x, w) = (numbers(m * k, 1), numbers(k * n, 2));
        let w: Vec<bf16> = w.iter().map(|w| bf16::from_f32(*w)).collect();
        for side in [Side::Transposed, Side::Plain] {
            let [rows, columns] = if side == Side::Plain { [k, n] } else { [n, k] };
            let weight = Weight {
                values: Values::Bf16(&w),
                rows,
                columns,
                side,
            };
            for unit in units() {
                let mut y = vec![0.0; m * n];
                product_on(unit, Numbers::F32(&x), weight, &mut y, false);
                for i in 0..m {
                    for j in 0..n {
                        let w = |l: usize| {
                            weight.values.get(if side == Side::Plain {
                                l * n + j
                            } else {
                                j * k + l
                            })
                        };
                        let truth: f64 = (0..k)
                            .map(|l| f64::from(x[i * k + l]) * f64::from(w(l)))
                            .sum();
                        let error = (f64::from(y[i * n + j]) - truth).abs();
                        // 5000 terms of order one
                        assert!(error < 1e-3, "{unit:?} {side:?} {i} {j}: {error:e}");
                    }
                }
            }
        }
    }

    /// The division into tasks depends on the number of threads. The values of the result must not
    /// depend on it.
    #[test]
    fn results_do_not_depend_on_the_division_into_tasks() {
        let (k, n) = (700, 210);
        let w = numbers(k * n, 2);
        let bf16s: Vec<bf16> = w.iter().map(|w| bf16::from_f32(*w)).collect();
        let weight = |is_bf16: bool, first: usize, rows: usize| Weight {
            values: if is_bf16 {
                Values::Bf16(&bf16s[first * k..(first + rows) * k])
            } else {
                Values::F32(&w[first * k..(first + rows) * k])
            },
            rows,
            columns: k,
            side: Side::Transposed,
        };
        // tokens of which all parts are packed, or none
        for (unit, m, is_bf16) in units().flat_map(|unit| {
            [60, 23]
                .map(|m| [true, false].map(|is_bf16| (unit, m, is_bf16)))
                .into_iter()
                .flatten()
        }) {
            let x = numbers(m * k, 1);
            let mut whole = vec![0.0; m * n];
            product_on(
                unit,
                Numbers::F32(&x),
                weight(is_bf16, 0, n),
                &mut whole,
                false,
            );
            for (token, feature) in [(0, 0), (3, 1), (11, 47), (14, 130)] {
                let [rows, columns] = [m - token, n - feature];
                let mut part = vec![0.0; rows * columns];
                let x = Numbers::F32(&x[token * k..]);
                product_on(unit, x, weight(is_bf16, feature, columns), &mut part, false);
                for (i, part) in part.chunks_exact(columns).enumerate() {
                    let whole = &whole[(token + i) * n + feature..][..columns];
                    let bits =
                        |values: &[f32]| values.iter().map(|y| y.to_bits()).collect::<Vec<_>>();
                    assert_eq!(bits(part), bits(whole), "{unit:?} {m} {token} {feature}");
                }
            }
        }
    }

    #[test]
    fn every_f16_is_widened_exactly() {
        for bits in 0..=u16::MAX {
            let half = f16::from_bits(bits);
            let [wide, truth] = [weight::Number::widen(half), f16::to_f32(half)];
            assert!(
                wide.to_bits() == truth.to_bits() || wide.is_nan() && truth.is_nan(),
                "{bits:#x}: {wide}"
            );
        }
    }
}
