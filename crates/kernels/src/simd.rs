//! Loops that are compiled for each vector instruction set and run on the best one available.

use pulp::Simd;

/// Defines a function with a body for every instruction set that `pulp` knows.
///
/// The first argument names the token of the instruction set, which [`dot`], the other functions
/// here and [`tile::multiply`](crate::tile::multiply) take. References have the lifetime `'a`.
macro_rules! vectorised {
    ($(#[$attribute:meta])* $visibility:vis fn $name:ident(
        $simd:ident $(, $argument:ident: $type:ty)* $(,)?
    ) $body:block) => {
        $(#[$attribute])*
        $visibility fn $name<'a>($($argument: $type),*) {
            struct Body<'a> {
                $($argument: $type,)*
                lifetime: std::marker::PhantomData<&'a ()>,
            }
            impl<'a> pulp::WithSimd for Body<'a> {
                type Output = ();

                #[inline(always)]
                fn with_simd<S: pulp::Simd>(self, $simd: S) {
                    let Self { $($argument,)* lifetime: _ } = self;
                    $body
                }
            }
            pulp::Arch::new().dispatch(Body {
                $($argument,)*
                lifetime: std::marker::PhantomData,
            });
        }
    };
}

pub(crate) use vectorised;

/// Prefetches the memory `ahead` elements after the first of `values`, inside or behind the slice.
///
/// A core can have only as many reads in flight as it has line buffers, which is too few to use its
/// share of the memory bandwidth. Prefetched reads do not wait for these buffers.
#[inline(always)]
#[cfg_attr(
    target_arch = "x86_64",
    expect(unsafe_code, reason = "the standard library has no safe prefetch")
)]
pub(crate) fn prefetch<T>(values: &[T], ahead: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let address = values.as_ptr().wrapping_add(ahead);
        // SAFETY: a prefetch is a hint. It reads nothing, and any address is allowed.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (values, ahead);
}

/// Sixteen numbers as a vector.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx512f")]
#[expect(
    unsafe_code,
    reason = "bytemuck has no casts to vectors of AVX-512 without a feature of its own"
)]
pub(crate) fn sixteen(numbers: &[f32; 16]) -> std::arch::x86_64::__m512 {
    // SAFETY: an array has the size of the vector that is read.
    unsafe { std::arch::x86_64::_mm512_loadu_ps(numbers.as_ptr()) }
}

/// The sixteen numbers of a vector.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx512f")]
#[expect(unsafe_code, reason = "as above")]
pub(crate) fn numbers(vector: std::arch::x86_64::__m512) -> [f32; 16] {
    let mut numbers = [0.0; 16];
    // SAFETY: an array has the size of the vector that is written.
    unsafe { std::arch::x86_64::_mm512_storeu_ps(numbers.as_mut_ptr(), vector) };
    numbers
}

/// `exp(x)` without a branch, so that a loop over it is vectorised.
///
/// `x = n ln 2 + r`, `exp(x) = 2ⁿ exp(r)`, with a polynomial of degree 7 for `exp(r)` on
/// `|r| ≤ ln 2 / 2`. The error is at most 2 units in the last place. `x` is clamped to -87, where
/// the result is 1.6e-38, and to 88.
///
/// Source: Moshier, Cephes `expf`, for the polynomial.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    /// Adding this rounds to an integer, which is then in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let x = x.clamp(-87.0, 88.0);
    let rounded = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = rounded - ROUND;
    let r = n.mul_add(-LN2_LOW, n.mul_add(-LN2_HIGH, x));
    let mut p = 1.987_569_1e-4_f32;
    for coefficient in [
        1.398_199_9e-3,
        8.333_452e-3,
        4.166_579_6e-2,
        1.666_666_5e-1,
        0.5,
    ] {
        p = p.mul_add(r, coefficient);
    }
    let p = p.mul_add(r * r, r) + 1.0;
    f32::from_bits(p.to_bits().wrapping_add(rounded.to_bits() << 23))
}

/// `1 / (1 + exp(-x))`
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// `tanh(x)` without a branch, so that a loop over it is vectorised.
///
/// A polynomial for `|x| < 0.625`, else `1 - 2 / (exp(2 |x|) + 1)` with the sign of `x`. The error is at
/// most 2 units in the last place.
///
/// Source: Moshier, Cephes `tanhf`.
#[inline(always)]
pub(crate) fn tanh(x: f32) -> f32 {
    let size = x.abs();
    let far = (1.0 - 2.0 / (exp(2.0 * size) + 1.0)).copysign(x);
    let square = x * x;
    let mut p = -5.704_988_7e-3_f32;
    for coefficient in [2.063_909e-2, -5.373_971_6e-2, 1.333_144_2e-1, -3.333_328e-1] {
        p = p.mul_add(square, coefficient);
    }
    let near = (p * square).mul_add(x, x);
    if size < 0.625 { near } else { far }
}

/// The error function `2/√π ∫₀ˣ exp(-t²) dt`, without a branch.
///
/// A polynomial in `x²` for small `|x|`, `1 - exp(p(|x|))` above. The error is at most 2 units in the
/// last place.
///
/// Source: the polynomials are those of Norbert Juffa's `my_erff`, minimax approximations.
#[inline(always)]
pub(crate) fn erf(x: f32) -> f32 {
    const BOUND: f32 = 475.0 / 512.0;
    let size = x.abs();
    let square = x * x;
    let mut small = -5.967_617e-4_f32;
    for coefficient in [
        4.991_194e-3,
        -2.676_813_5e-2,
        1.128_199_2e-1,
        -3.761_253_4e-1,
        1.283_791_7e-1,
    ] {
        small = small.mul_add(square, coefficient);
    }
    let low = (-1.728_534_7e-5_f32).mul_add(size, 3.831_972e-4);
    let high = (-3.883_964_4e-3_f32).mul_add(size, 2.425_462_2e-2);
    let mut large = low.mul_add(square, high);
    for coefficient in [-1.067_778_8e-1, -6.348_467e-1, -1.287_175_1e-1] {
        large = large.mul_add(size, coefficient);
    }
    let large = (1.0 - exp(large.mul_add(size, -size))).copysign(x);
    if size > BOUND {
        large
    } else {
        small.mul_add(x, x)
    }
}

/// `Σ a b` over a row.
#[inline(always)]
pub(crate) fn dot<S: Simd>(simd: S, a: &[f32], b: &[f32]) -> f32 {
    let (sum, [a, b]) = fold(simd, [a, b], |[a, b], sum| simd.mul_add_e_f32s(a, b, sum));
    sum + a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>()
}

/// `Σ a b c` over a row.
#[inline(always)]
pub(crate) fn dot3<S: Simd>(simd: S, a: &[f32], b: &[f32], c: &[f32]) -> f32 {
    let (sum, [a, b, c]) = fold(simd, [a, b, c], |[a, b, c], sum| {
        simd.mul_add_e_f32s(simd.mul_f32s(a, b), c, sum)
    });
    let rest = a.iter().zip(b).zip(c);
    sum + rest.map(|((a, b), c)| a * b * c).sum::<f32>()
}

/// The sum of a row.
#[inline(always)]
pub(crate) fn sum<S: Simd>(simd: S, values: &[f32]) -> f32 {
    let (sum, [rest]) = fold(simd, [values], |[x], sum| simd.add_f32s(x, sum));
    sum + rest.iter().sum::<f32>()
}

/// Folds the whole vectors of some rows into one sum; also returns the rest of each row.
///
/// Two vectors of sums alternate, so that an addition does not wait for the previous one. They have
/// the vector type of the instruction set, because the compiler splits arrays of lanes into pairs.
#[inline(always)]
fn fold<S: Simd, const ROWS: usize>(
    simd: S,
    rows: [&[f32]; ROWS],
    add: impl Fn([S::f32s; ROWS], S::f32s) -> S::f32s,
) -> (f32, [&[f32]; ROWS]) {
    let rows = rows.map(S::as_simd_f32s);
    let vectors = rows.map(|(vectors, _)| vectors);
    let count = vectors[0].len();
    let vectors = vectors.map(|vectors| &vectors[..count]);
    let mut sums = [simd.splat_f32s(0.0); 2];
    for i in (0..count - count % 2).step_by(2) {
        sums[0] = add(vectors.map(|vectors| vectors[i]), sums[0]);
        sums[1] = add(vectors.map(|vectors| vectors[i + 1]), sums[1]);
    }
    if count % 2 == 1 {
        sums[0] = add(vectors.map(|vectors| vectors[count - 1]), sums[0]);
    }
    let sum = simd.reduce_sum_f32s(simd.add_f32s(sums[0], sums[1]));
    (sum, rows.map(|(_, rest)| rest))
}

/// The largest value of a row, ignoring NaN; minus infinity if there is none.
#[inline(always)]
pub(crate) fn max<S: Simd>(simd: S, values: &[f32]) -> f32 {
    let (vectors, rest) = S::as_simd_f32s(values);
    let mut largest = simd.splat_f32s(f32::NEG_INFINITY);
    for vector in vectors {
        let above = simd.greater_than_f32s(*vector, largest);
        largest = simd.select_f32s(above, *vector, largest);
    }
    let largest = simd.reduce_max_f32s(largest);
    rest.iter().copied().fold(largest, f32::max)
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "sums of small integers are exact")]
mod tests {
    use super::*;

    #[test]
    fn exp_is_within_two_units_in_the_last_place() {
        for i in -870_000..880_000 {
            let x = i as f32 * 1e-4;
            let truth = f64::from(x).exp();
            let unit = f64::from(f32::EPSILON) * truth;
            assert!(
                (f64::from(exp(x)) - truth).abs() <= 2.0 * unit,
                "exp({x}) = {}",
                exp(x)
            );
        }
        assert!(exp(f32::NEG_INFINITY) < 2e-38);
        assert_eq!(exp(0.0).to_bits(), 1.0_f32.to_bits());
    }

    #[test]
    fn tanh_is_within_two_units_in_the_last_place() {
        for i in -1_000_000..1_000_000 {
            let x = i as f32 * 1e-5;
            let truth = f64::from(x).tanh();
            let unit = f64::from(f32::EPSILON) * truth.abs();
            assert!(
                (f64::from(tanh(x)) - truth).abs() <= 2.0 * unit,
                "tanh({x}) = {}",
                tanh(x)
            );
        }
        for x in [20.0, 1e30, f32::INFINITY] {
            assert_eq!([tanh(x), tanh(-x)], [1.0, -1.0]);
        }
        assert!(tanh(f32::NAN).is_nan());
    }

    /// `2/√π exp(-x²) Σ 2ⁿ x²ⁿ⁺¹ / (2n+1)!!`, whose terms all have the sign of x.
    fn erf_of(x: f64) -> f64 {
        let mut term = x;
        let mut sum = x;
        for n in 1..200 {
            term *= 2.0 * x * x / f64::from(2 * n + 1);
            sum += term;
        }
        std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp() * sum
    }

    #[test]
    fn erf_is_within_two_units_in_the_last_place() {
        for i in -50_000..50_000 {
            let x = i as f32 * 1e-4;
            let truth = erf_of(f64::from(x));
            let unit = f64::from(f32::EPSILON) * truth.abs();
            let found = erf(x);
            assert!(
                (f64::from(found) - truth).abs() <= 2.0 * unit,
                "erf({x}) = {found}"
            );
        }
        assert_eq!([9.0, 1e30, -1e30].map(erf), [1.0, 1.0, -1.0]);
    }

    vectorised! {
        fn totals(simd, values: &'a [f32], twos: &'a [f32], found: &'a mut [f32; 4]) {
            *found = [
                sum(simd, values),
                dot(simd, values, values),
                dot3(simd, values, twos, values),
                max(simd, values),
            ];
        }
    }

    #[test]
    fn sums_and_maxima() {
        for length in [0, 1, 15, 16, 17, 31, 32, 33, 100] {
            let values: Vec<f32> = (0..length).map(|i| (i * 37 % 101) as f32).collect();
            let squares: f32 = values.iter().map(|x| x * x).sum();
            let largest = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let mut found = [0.0; 4];
            totals(&values, &vec![2.0; length], &mut found);
            assert_eq!(
                found,
                [values.iter().sum(), squares, 2.0 * squares, largest]
            );
        }
    }
}
