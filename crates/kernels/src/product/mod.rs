//! Matrix products with a weight in its stored precision.
//!
//! `y = x Wᵀ` or `y = x W`, in f32 whatever the weight is stored in. Three ways, by what the
//! processor has and how many tokens there are:
//!
//! - a few tokens: each weight is read once and used where it lies (`few`);
//! - AMX tiles: both sides are split into bf16 parts whose sum is the f32 number, so that a unit
//!   for bf16 computes f32 products (`amx`);
//! - otherwise the weight is widened block by block and multiplied by `gemm`.
//!
//! Every element of the result is one sum in a fixed order, whatever the number of threads.
//!
//! Axes: M tokens, K summed features, N result features.

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod amx;
mod few;
mod weight;

use std::sync::OnceLock;

pub(crate) use weight::{Side, Values, Weight};

use crate::buffer::buffer;
use crate::threads;

/// Tokens up to which the weight is used where it lies, rather than packed first.
const FEW: usize = 8;

/// Elements of a widened block of the weight: 4 MiB, small beside the caches that share it.
const WIDENED: usize = 1 << 20;

/// Which instructions the large products run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProductUnit {
    /// AMX tiles on f32 numbers split into bf16 parts.
    Amx,
    /// Vector fused multiply-add, through the `gemm` crate.
    Vector,
}

/// What the large products run on: AMX where the processor has it and `SIMMER_PRODUCT` is not
/// `vector`.
pub fn product_unit() -> ProductUnit {
    static UNIT: OnceLock<ProductUnit> = OnceLock::new();
    *UNIT.get_or_init(|| {
        let wanted = std::env::var_os("SIMMER_PRODUCT").is_none_or(|unit| unit != "vector");
        if wanted && amx_available() {
            ProductUnit::Amx
        } else {
            ProductUnit::Vector
        }
    })
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
/// `x`: `[M, K]`. `y`: `[M, N]`. K and N are the weight's, by its side.
///
/// # Panics
/// Where the lengths do not fit.
pub(crate) fn product(x: &[f32], weight: Weight<'_>, y: &mut [f32], add: bool) {
    product_on(product_unit(), x, weight, y, add);
}

fn product_on(unit: ProductUnit, x: &[f32], weight: Weight<'_>, y: &mut [f32], add: bool) {
    let [k, n] = weight.inner_outer();
    let m = x.len().checked_div(k).unwrap_or(y.len() / n.max(1));
    assert_eq!([x.len(), y.len()], [m * k, m * n], "a product's lengths");
    if m == 0 || n == 0 {
        return;
    }
    if k == 0 {
        if !add {
            y.fill(0.0);
        }
        return;
    }
    if m <= FEW {
        return few::product(x, weight, y, add);
    }
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    if unit == ProductUnit::Amx {
        return amx::product(x, weight, y, add);
    }
    let _ = unit;
    widened(x, weight, y, add);
}

/// The product through `gemm`, the weight widened in blocks of rows.
fn widened(x: &[f32], weight: Weight<'_>, y: &mut [f32], add: bool) {
    let [k, n] = weight.inner_outer();
    let m = x.len() / k;
    if let Values::F32(values) = weight.values {
        return blocks(x, k, values, weight, y, n, [m, weight.rows], add);
    }
    let rows = (WIDENED / weight.columns).clamp(1, weight.rows);
    let mut wide = buffer(rows * weight.columns);
    for start in (0..weight.rows).step_by(rows) {
        let rows = rows.min(weight.rows - start);
        let wide = &mut wide[..rows * weight.columns];
        weight.values.widen(start * weight.columns, wide);
        match weight.side {
            // rows of the weight are columns of the result
            Side::Transposed => blocks(x, k, wide, weight, &mut y[start..], n, [m, rows], add),
            // rows of the weight are what is summed over
            Side::Plain => {
                blocks(
                    &x[start..],
                    k,
                    wide,
                    weight,
                    y,
                    n,
                    [m, rows],
                    add || start > 0,
                );
            }
        }
    }
}

/// Result features of a task.
const FEATURES: usize = 96;

/// A product with `rows` rows of the weight in f32, some of its features a task.
#[expect(clippy::too_many_arguments, reason = "the arguments of a product")]
#[expect(unsafe_code, reason = "gemm takes pointers")]
fn blocks(
    x: &[f32],
    x_stride: usize,
    wide: &[f32],
    weight: Weight<'_>,
    y: &mut [f32],
    y_stride: usize,
    [m, rows]: [usize; 2],
    add: bool,
) {
    let columns = weight.columns as isize;
    let (k, n, inner_stride, outer_stride) = match weight.side {
        Side::Transposed => (weight.columns, rows, 1, columns),
        Side::Plain => (rows, weight.columns, columns, 1),
    };
    assert!((m - 1) * x_stride + k <= x.len(), "left side of a product");
    assert!(
        rows * weight.columns <= wide.len(),
        "right side of a product"
    );
    assert!((m - 1) * y_stride + n <= y.len(), "result of a product");
    let y = Start(y.as_mut_ptr());
    threads::for_each(n.div_ceil(FEATURES), |task| {
        let first = task * FEATURES;
        // SAFETY: the asserts above bound every element that the strides reach, the sides are
        // borrowed for the loop, and each task writes the columns of its own features.
        unsafe {
            gemm::gemm(
                m,
                FEATURES.min(n - first),
                k,
                y.column(first),
                1,
                y_stride as isize,
                add,
                x.as_ptr(),
                1,
                x_stride as isize,
                wide.as_ptr().offset(first as isize * outer_stride),
                outer_stride,
                inner_stride,
                1.0,
                1.0,
                false,
                false,
                false,
                gemm::Parallelism::None,
            );
        }
    });
}

/// Where a result begins.
struct Start(*mut f32);

// SAFETY: tasks write disjoint columns of what it points to.
#[expect(unsafe_code, reason = "see above")]
unsafe impl Sync for Start {}

impl Start {
    fn column(&self, column: usize) -> *mut f32 {
        self.0.wrapping_add(column)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::{bf16, f16};
    use proptest::prelude::*;

    /// Numbers in `[-1, 1)` of all magnitudes down to 2⁻²³.
    fn numbers(length: usize, seed: u64) -> Vec<f32> {
        let unit = |i: usize| (crate::mix(seed ^ i as u64) >> 40) as f32 / (1 << 23) as f32;
        (0..length).map(|i| unit(i) - 1.0).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]
        /// Every unit that this processor has, every precision and side, against sums in f64.
        #[test]
        fn products_are_those_of_f32(
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
            let units = [Some(ProductUnit::Vector), amx_available().then_some(ProductUnit::Amx)];
            for unit in units.into_iter().flatten() {
                let mut y = before.clone();
                product_on(unit, &x, weight, &mut y, add);
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
    fn features_beyond_one_visit_of_the_result() {
        // more steps of K than stay in the cache, more rows than a widened block
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
            let mut y = vec![0.0; m * n];
            product(&x, weight, &mut y, false);
            let mut other = vec![0.0; m * n];
            widened(&x, weight, &mut other, false);
            let largest = y
                .iter()
                .zip(&other)
                .map(|(a, b)| (a - b).abs())
                .fold(0.0, f32::max);
            // 5000 terms of order one in two orders
            assert!(largest < 1e-3, "{side:?}: {largest}");
        }
    }
}
