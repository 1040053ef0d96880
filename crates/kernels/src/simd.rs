//! Loops that are compiled for each vector instruction set, and run on the best one there is.

/// Defines a function with a body for every instruction set that `pulp` knows.
///
/// The first argument names the token of the instruction set, for
/// [`tile::multiply`](crate::tile::multiply). References have the lifetime `'a`.
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

/// Asks for the memory `ahead` numbers after the first of `values`, within or beyond the slice.
///
/// A core has as many reads under way as it has line buffers, which is not enough to keep its share
/// of the memory busy; what is asked for early does not wait for them.
#[inline(always)]
#[cfg_attr(
    target_arch = "x86_64",
    expect(unsafe_code, reason = "prefetching has no safe form")
)]
pub(crate) fn prefetch<T>(values: &[T], ahead: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let address = values.as_ptr().wrapping_add(ahead);
        // SAFETY: a hint, which reads nothing and is ignored where there is no memory.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (values, ahead);
}

/// Lanes of a sum that is taken over a row: two vectors of AVX-512.
const LANES: usize = 32;

/// `exp(x)`, without a branch, so that a loop over it becomes vector instructions.
///
/// `x = n ln 2 + r`, `exp(x) = 2ⁿ exp(r)`, `exp(r)` a polynomial of degree 7 on `|r| ≤ ln 2 / 2`:
/// within 2 units in the last place. From -87 down it stays at `exp(-87)`, 1.6e-38, and from 88 up
/// at `exp(88)`.
///
/// Source: Moshier, Cephes `expf`, for the polynomial.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    /// Adding it rounds to an integer, which is then in the low bits.
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

/// `Σ a b` over a row, in lanes.
#[inline(always)]
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let (a, a_rest) = a.as_chunks::<LANES>();
    let (b, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a.iter().zip(b) {
        for lane in 0..LANES {
            lanes[lane] = a[lane].mul_add(b[lane], lanes[lane]);
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    total(lanes) + rest
}

/// `Σ a b c` over a row, in lanes.
#[inline(always)]
pub(crate) fn dot3(a: &[f32], b: &[f32], c: &[f32]) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let (a, a_rest) = a.as_chunks::<LANES>();
    let (b, b_rest) = b.as_chunks::<LANES>();
    let (c, c_rest) = c.as_chunks::<LANES>();
    for ((a, b), c) in a.iter().zip(b).zip(c) {
        for lane in 0..LANES {
            lanes[lane] = (a[lane] * b[lane]).mul_add(c[lane], lanes[lane]);
        }
    }
    let rest = a_rest.iter().zip(b_rest).zip(c_rest);
    total(lanes) + rest.map(|((a, b), c)| a * b * c).sum::<f32>()
}

/// The sum of a row, in lanes.
#[inline(always)]
pub(crate) fn sum(values: &[f32]) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let (whole, rest) = values.as_chunks::<LANES>();
    for values in whole {
        for lane in 0..LANES {
            lanes[lane] += values[lane];
        }
    }
    total(lanes) + rest.iter().sum::<f32>()
}

#[inline(always)]
fn total(mut lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// The largest of a row; minus infinity where there is none.
#[inline(always)]
pub(crate) fn max(values: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (whole, rest) = values.as_chunks::<LANES>();
    for values in whole {
        for (lane, value) in lanes.iter_mut().zip(values) {
            *lane = if *value > *lane { *value } else { *lane };
        }
    }
    lanes
        .iter()
        .chain(rest)
        .copied()
        .fold(f32::NEG_INFINITY, f32::max)
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "sums of small integers are exact")]
mod tests {
    use super::*;

    #[test]
    fn exp_is_within_two_units() {
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
    fn sums_and_maxima() {
        for length in [0, 1, 31, 32, 33, 100] {
            let values: Vec<f32> = (0..length).map(|i| (i * 37 % 101) as f32).collect();
            let squares: f32 = values.iter().map(|x| x * x).sum();
            assert_eq!(sum(&values), values.iter().sum::<f32>());
            assert_eq!(dot(&values, &values), squares);
            assert_eq!(dot3(&values, &vec![2.0; length], &values), 2.0 * squares);
            let largest = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            assert_eq!(max(&values), largest);
        }
    }
}
