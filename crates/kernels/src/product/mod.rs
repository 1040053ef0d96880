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

pub(crate) fn product_on(unit: ProductUnit, x: &[f32], weight: Weight<'_>, y: &mut [f32], add: bool) {
    let [k, n] = weight.inner_outer();
    let m = if k > 0 { x.len() / k } else { y.len() / n.max(1) };
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
        return block(x, k, values, weight, y, n, [m, weight.rows], add);
    }
    let rows = (WIDENED / weight.columns).clamp(1, weight.rows);
    let mut wide = buffer(rows * weight.columns);
    for start in (0..weight.rows).step_by(rows) {
        let rows = rows.min(weight.rows - start);
        let wide = &mut wide[..rows * weight.columns];
        weight.values.widen(start * weight.columns, wide);
        match weight.side {
            // rows of the weight are columns of the result
            Side::Transposed => block(x, k, wide, weight, &mut y[start..], n, [m, rows], add),
            // rows of the weight are what is summed over
            Side::Plain => block(&x[start..], k, wide, weight, y, n, [m, rows], add || start > 0),
        }
    }
}

/// One `gemm` call with `rows` rows of the weight in f32.
#[expect(clippy::too_many_arguments, reason = "the arguments of a product")]
#[expect(unsafe_code, reason = "gemm takes pointers")]
fn block(
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
    assert!(rows * weight.columns <= wide.len(), "right side of a product");
    assert!((m - 1) * y_stride + n <= y.len(), "result of a product");
    // SAFETY: the asserts above bound every element that the strides reach, and the sides are
    // borrowed for the call; `y` is the only mutable one.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            y.as_mut_ptr(),
            1,
            y_stride as isize,
            add,
            x.as_ptr(),
            1,
            x_stride as isize,
            wide.as_ptr(),
            outer_stride,
            inner_stride,
            1.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::Rayon(0),
        );
    }
}
