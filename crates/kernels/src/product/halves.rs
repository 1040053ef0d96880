//! Matrix multiplications of activations in bf16, on any processor.
//!
//! Axes: M tokens, K inner dimension (summed over), N output features.

use std::borrow::Cow;
use std::sync::OnceLock;

use half::bf16;

use super::{FEW, ProductUnit, Weight, product_on, product_unit, wanted};
use crate::buffer::buffer;
use crate::rounding::{round, widen};

/// Values in f32 or bf16.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Numbers<'a> {
    F32(&'a [f32]),
    Bf16(&'a [bf16]),
}

impl<'a> Numbers<'a> {
    pub(crate) fn len(self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::Bf16(values) => values.len(),
        }
    }

    /// The same values in f32.
    pub(crate) fn widened(self) -> Cow<'a, [f32]> {
        match self {
            Self::F32(values) => Cow::Borrowed(values),
            Self::Bf16(values) => {
                let mut wide = buffer(values.len());
                widen(values, &mut wide);
                Cow::Owned(wide)
            }
        }
    }
}

/// A product `x · weight`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Term<'a> {
    /// `[M, K]`
    pub(crate) x: Numbers<'a>,
    /// `[K, N]` or `[N, K]`, see [`Side`](super::Side).
    pub(crate) weight: Weight<'a>,
}

impl Term<'_> {
    /// Words of two values that its K fills.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn words(&self) -> usize {
        self.weight.inner_outer()[0].div_ceil(2)
    }
}

/// Where the sums of products go.
#[derive(Debug)]
pub(crate) enum Sums<'a> {
    /// In f32, or added to what is there.
    F32 { y: &'a mut [f32], add: bool },
    /// Rounded to bf16 once, at the end.
    Bf16(&'a mut [bf16]),
}

/// The instructions that large matrix multiplications of bf16 activations use: AMX tiles, or [`ProductUnit::Bf16`], if the
/// processor has `avx512_bf16`, with which both sides are packed. On other processors, also those with tiles, activations are
/// widened and multiplied in f32; so they are where `vdpbf16ps` is slow and there are no tiles.
///
/// `SIMMER_PRODUCT=avx512_bf16` chooses [`ProductUnit::Bf16`], and `SIMMER_PRODUCT=vector` f32.
pub(crate) fn half_unit() -> ProductUnit {
    static UNIT: OnceLock<ProductUnit> = OnceLock::new();
    *UNIT.get_or_init(|| {
        #[cfg(target_arch = "x86_64")]
        if super::bf16::available() && !wanted("vector") {
            return match product_unit() {
                ProductUnit::Amx => ProductUnit::Amx,
                _ if super::bf16::is_fast() || wanted("avx512_bf16") => ProductUnit::Bf16,
                _ => ProductUnit::Vector,
            };
        }
        ProductUnit::Vector
    })
}

/// Multiplies bf16 values in registers for about a millisecond. Returns the number of floating-point operations, or `None`
/// where bf16 values are widened.
pub(crate) fn burn() -> Option<usize> {
    #[cfg(target_arch = "x86_64")]
    return super::bf16::Unit::of(half_unit()).map(super::bf16::burn);
    #[cfg(not(target_arch = "x86_64"))]
    None
}

/// `y = Σ x · weight`, or `y += Σ x · weight`, over products with the same numbers of tokens and features. The sums are in
/// f32.
///
/// # Shapes
/// `y`: `[M, N]`.
///
/// # Panics
/// If the lengths do not match.
pub(crate) fn products(terms: &[Term<'_>], y: Sums<'_>) {
    products_on(half_unit(), FEW, terms, y);
}

/// As [`products`], if the weights are in the cache, and not read from memory once: they are packed for a few tokens too.
pub(crate) fn packed_products(terms: &[Term<'_>], y: Sums<'_>) {
    products_on(half_unit(), 0, terms, y);
}

/// The products on a unit; for at most `few` tokens without packing the weights.
fn products_on(unit: ProductUnit, few: usize, terms: &[Term<'_>], y: Sums<'_>) {
    let [_, n] = terms[0].weight.inner_outer();
    let size = match &y {
        Sums::F32 { y, .. } => y.len(),
        Sums::Bf16(y) => y.len(),
    };
    let m = size / n.max(1);
    assert_eq!(
        size,
        m * n,
        "length of the result of matrix multiplications"
    );
    for Term { x, weight } in terms {
        let [k, same] = weight.inner_outer();
        assert_eq!(
            [x.len(), same],
            [m * k, n],
            "length of an input, and features of a weight, of matrix multiplications"
        );
    }
    if m == 0 || n == 0 {
        return;
    }
    #[cfg(target_arch = "x86_64")]
    if let (Some(unit), true) = (super::bf16::Unit::of(unit), m > few) {
        return super::bf16::product(unit, terms, [m, n], y);
    }
    let _ = (unit, few);
    match y {
        Sums::F32 { y, add } => widened(terms, y, add),
        Sums::Bf16(y) => {
            let mut sums = buffer(y.len());
            widened(terms, &mut sums, false);
            round(&sums, y);
        }
    }
}

/// The products with activations in f32.
fn widened(terms: &[Term<'_>], y: &mut [f32], add: bool) {
    for (index, Term { x, weight }) in terms.iter().enumerate() {
        product_on(product_unit(), *x, *weight, y, add || index > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Side, Values};
    use super::*;
    use half::f16;
    use proptest::prelude::*;

    /// Values in `[-1, 1)` with eight significant bits, so that rounding to bf16 changes none.
    fn numbers(length: usize, seed: u64) -> Vec<bf16> {
        let unit = |i: usize| (crate::mix(seed ^ i as u64) >> 40) as f32 / (1 << 23) as f32;
        (0..length).map(|i| bf16::from_f32(unit(i) - 1.0)).collect()
    }

    fn wide(values: &[bf16]) -> Vec<f32> {
        values.iter().map(|value| value.to_f32()).collect()
    }

    /// The units that this processor has.
    fn units() -> Vec<ProductUnit> {
        let mut all = vec![ProductUnit::Vector];
        #[cfg(target_arch = "x86_64")]
        if super::super::bf16::available() {
            all.push(ProductUnit::Bf16);
        }
        if super::super::bf16::available() && super::super::amx_available() {
            all.push(ProductUnit::Amx);
        }
        all
    }

    fn transposed(values: &[f32], columns: usize) -> Vec<f32> {
        crate::skinny::transposed(values, columns)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]
        /// Two terms on every unit of this processor, in every dtype and on both sides, compared with sums in f64.
        #[test]
        fn sums_have_the_precision_of_f32(
            m in 1_usize..60,
            k in 1_usize..150,
            r in 1_usize..20,
            n in 1_usize..120,
            plain: bool,
            add: bool,
            wide_input: bool,
            precision in 0..3,
        ) {
            let (x, low) = (numbers(m * k, 1), numbers(m * r, 2));
            let (w, b) = (numbers(k * n, 3), numbers(r * n, 4)); // [N, K], [N, r]
            let before = wide(&numbers(m * n, 5));
            let (x_wide, low_wide) = (wide(&x), wide(&low));
            let [w_f32, b_f32] = [wide(&w), wide(&b)];
            let mut truth: Vec<f64> = vec![0.0; m * n];
            for i in 0..m {
                for j in 0..n {
                    let main = (0..k).map(|l| f64::from(x_wide[i * k + l]) * f64::from(w_f32[j * k + l]));
                    let branch = (0..r).map(|l| f64::from(low_wide[i * r + l]) * f64::from(b_f32[j * r + l]));
                    truth[i * n + j] = main.chain(branch).sum();
                }
            }
            let [w_f32, b_f32] = if plain {
                [transposed(&w_f32, k), transposed(&b_f32, r)]
            } else {
                [w_f32, b_f32]
            };
            let w_bf16: Vec<bf16> = w_f32.iter().map(|x| bf16::from_f32(*x)).collect();
            let w_f16: Vec<f16> = w_f32.iter().map(|x| f16::from_f32(*x)).collect();
            let exact = w_f16.iter().zip(&w_f32).all(|(half, x)| half.to_f32().to_bits() == x.to_bits());
            prop_assume!(precision < 2 || exact);
            let values = match precision {
                0 => Values::F32(&w_f32),
                1 => Values::Bf16(&w_bf16),
                _ => Values::F16(&w_f16),
            };
            let of = |values, k| {
                let (rows, columns, side) = if plain { (k, n, Side::Plain) } else { (n, k, Side::Transposed) };
                Weight { values, rows, columns, side }
            };
            let x = if wide_input { Numbers::F32(&x_wide) } else { Numbers::Bf16(&x) };
            let terms = [
                Term { x, weight: of(values, k) },
                Term { x: Numbers::Bf16(&low), weight: of(Values::F32(&b_f32), r) },
            ];
            for unit in units() {
                let mut y = before.clone();
                products_on(unit, FEW, &terms, Sums::F32 { y: &mut y, add });
                let mut rounded = numbers(m * n, 6);
                products_on(unit, FEW, &terms, Sums::Bf16(&mut rounded));
                for ((i, y), rounded) in y.iter().enumerate().zip(&rounded) {
                    let sum = truth[i] + if add { f64::from(before[i]) } else { 0.0 };
                    // at most 171 roundings of f32, in sums below 100
                    prop_assert!((f64::from(*y) - sum).abs() <= 2e-5, "{unit:?} {i}: {y} instead of {sum}");
                    let error = (rounded.to_f64() - truth[i]).abs();
                    // the same, and one rounding to eight bits
                    prop_assert!(error <= 2e-5 + truth[i].abs() / 256.0, "{unit:?} {i}: {rounded} instead of {}", truth[i]);
                }
            }
        }
    }

    /// An inner dimension in several parts, and enough results for several tasks; the last part and the last panel are
    /// not full.
    #[test]
    fn an_inner_dimension_in_several_parts() {
        let (m, k, n) = (20, 5001, 300);
        let (x, w) = (numbers(m * k, 1), numbers(k * n, 2));
        for side in [Side::Transposed, Side::Plain] {
            let [rows, columns] = if side == Side::Plain { [k, n] } else { [n, k] };
            let weight = Weight {
                values: Values::Bf16(&w),
                rows,
                columns,
                side,
            };
            let at = |l: usize, j: usize| match side {
                Side::Plain => w[l * n + j],
                Side::Transposed => w[j * k + l],
            };
            let terms = [Term {
                x: Numbers::Bf16(&x),
                weight,
            }];
            for unit in units() {
                let mut y = vec![0.0; m * n];
                products_on(
                    unit,
                    FEW,
                    &terms,
                    Sums::F32 {
                        y: &mut y,
                        add: false,
                    },
                );
                let mut rounded = vec![bf16::ZERO; m * n];
                products_on(unit, FEW, &terms, Sums::Bf16(&mut rounded));
                for i in 0..m {
                    for j in 0..n {
                        let products = (0..k).map(|l| x[i * k + l].to_f64() * at(l, j).to_f64());
                        let truth: f64 = products.sum();
                        let error = (f64::from(y[i * n + j]) - truth).abs();
                        // 5001 terms of order one
                        assert!(error < 1e-3, "{unit:?} {side:?} {i} {j}: {error:e}");
                    }
                }
                let once: Vec<bf16> = y.iter().map(|y| bf16::from_f32(*y)).collect();
                assert_eq!(rounded, once, "{unit:?} {side:?}");
            }
        }
    }

    /// The division into tasks depends on the number of threads. The values of the result must not depend on it.
    #[test]
    fn results_do_not_depend_on_the_division_into_tasks() {
        let (m, k, n) = (43, 1701, 210);
        let (x, w) = (numbers(m * k, 1), numbers(k * n, 2));
        let terms = |token: usize, feature: usize| {
            [Term {
                x: Numbers::Bf16(&x[token * k..]),
                weight: Weight {
                    values: Values::Bf16(&w[feature * k..]),
                    rows: n - feature,
                    columns: k,
                    side: Side::Transposed,
                },
            }]
        };
        for unit in units() {
            let mut whole = vec![bf16::ZERO; m * n];
            products_on(unit, FEW, &terms(0, 0), Sums::Bf16(&mut whole));
            for (token, feature) in [(0, 0), (3, 1), (11, 47), (20, 130)] {
                let columns = n - feature;
                let mut part = vec![bf16::ZERO; (m - token) * columns];
                products_on(unit, FEW, &terms(token, feature), Sums::Bf16(&mut part));
                for (i, part) in part.chunks_exact(columns).enumerate() {
                    let whole = &whole[(token + i) * n + feature..][..columns];
                    assert_eq!(part, whole, "{unit:?} {token} {feature}");
                }
            }
        }
    }
}
