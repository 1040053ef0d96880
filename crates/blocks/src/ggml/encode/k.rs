//! Blocks of 256 elements whose groups have scales of their own, in a few bits.
//!
//! The groups of a block are lanes: `[[f32; LANES]; LEN]` has element `i` of every group in row `i`.

use super::{WHOLE, nearest, put};
use crate::ggml::group::half;

/// Below this, all elements of a group are taken for zero.
const NOTHING: f32 = 1e-15;

#[inline(always)]
pub(super) fn q4_k(block: &[f32; 256], place: &mut [u8; 144]) {
    let q = with_minima::<15, 20>(block, -1.0, &mut place[..16]);
    for (pair, place) in place[16..].chunks_exact_mut(32).enumerate() {
        for (q, place) in q.iter().zip(place) {
            *place = q[2 * pair] | q[2 * pair + 1] << 4;
        }
    }
}

#[inline(always)]
pub(super) fn q5_k(block: &[f32; 256], place: &mut [u8; 176]) {
    let q = with_minima::<31, 15>(block, -0.5, &mut place[..16]);
    for (q, place) in q.iter().zip(&mut place[16..48]) {
        let bits = q.iter().enumerate();
        *place = bits.fold(0, |fifth, (group, q)| fifth | q >> 4 << group);
    }
    for (pair, place) in place[48..].chunks_exact_mut(32).enumerate() {
        for (q, place) in q.iter().zip(place) {
            *place = q[2 * pair] & 15 | q[2 * pair + 1] << 4;
        }
    }
}

#[inline(always)]
pub(super) fn q6_k(block: &[f32; 256], place: &mut [u8; 210]) {
    let x = lanes::<16, 16>(block);
    let (scales, mut q) = around_zero(&x);
    let mut largest = 0.0f32;
    for scale in scales {
        largest = if scale.abs() > largest.abs() {
            scale
        } else {
            largest
        };
    }
    if largest.abs() < NOTHING {
        *place = [0; 210];
        return;
    }
    let iscale = -128.0 / largest;
    put(place, 208, 1.0 / iscale);
    let codes = scales.map(|scale| nearest(iscale * scale).min(127) as i8);
    let d = half(place, 208);
    let d = codes.map(|code| d * f32::from(code));
    for (q, x) in q.iter_mut().zip(&x) {
        for lane in 0..16 {
            let l = nearest(x[lane] / d[lane]).clamp(-32, 31);
            q[lane] = if d[lane] == 0.0 {
                q[lane]
            } else {
                (l + 32) as u8
            };
        }
    }
    for (place, code) in place[192..208].iter_mut().zip(codes) {
        *place = code as u8;
    }
    let (lower, upper) = place[..192].split_at_mut(128);
    for half in 0..2 {
        for i in 0..32 {
            // element i of each quarter of the half
            let q = [0, 2, 4, 6].map(|group| q[i % 16][8 * half + group + i / 16]);
            lower[64 * half + i] = q[0] & 15 | q[2] << 4;
            lower[64 * half + 32 + i] = q[1] & 15 | q[3] << 4;
            upper[32 * half + i] = q[0] >> 4 | q[1] >> 4 << 2 | q[2] >> 4 << 4 | q[3] >> 4 << 6;
        }
    }
}

#[inline(always)]
fn lanes<const LANES: usize, const LEN: usize>(block: &[f32; 256]) -> [[f32; LANES]; LEN] {
    let mut x = [[0.0; LANES]; LEN];
    for (lane, group) in block.chunks_exact(LEN).enumerate() {
        for (x, value) in x.iter_mut().zip(group) {
            x[lane] = *value;
        }
    }
    x
}

/// Writes `d`, `m`, scales and minima of a block of Q4_K or Q5_K, and returns the codes, at most `MAX`.
#[inline(always)]
fn with_minima<const MAX: i32, const STEPS: usize>(
    block: &[f32; 256],
    first: f32,
    place: &mut [u8],
) -> [[u8; 8]; 32] {
    let x = lanes::<8, 32>(block);
    let fit = Fit::of::<MAX, STEPS>(&x, first);
    let [scale, minimum] = [fit.scale, fit.minimum].map(|values| {
        let mut largest = 0.0;
        for value in values {
            largest = if value > largest { value } else { largest };
        }
        largest
    });
    let codes = [(fit.scale, scale), (fit.minimum, minimum)].map(|(values, largest)| {
        let inverse = if largest > 0.0 { 63.0 / largest } else { 0.0 };
        values.map(|value| (nearest(inverse * value) as u8).min(63))
    });
    put(place, 0, scale / 63.0);
    put(place, 2, minimum / 63.0);
    let packed = &mut place[4..16];
    for group in 0..4 {
        let [scale, minimum] = [codes[0][group], codes[1][group]];
        let [next_scale, next_minimum] = [codes[0][group + 4], codes[1][group + 4]];
        packed[group] = scale | next_scale >> 4 << 6;
        packed[group + 4] = minimum | next_minimum >> 4 << 6;
        packed[group + 8] = next_scale & 15 | (next_minimum & 15) << 4;
    }

    let [d, m] = [half(place, 0), half(place, 2)];
    let d = codes[0].map(|code| d * f32::from(code));
    let m = codes[1].map(|code| m * f32::from(code));
    let mut q = fit.codes::<MAX>(&x);
    for (q, x) in q.iter_mut().zip(&x) {
        for lane in 0..8 {
            let l = within((x[lane] + m[lane]) / d[lane], 0.0, MAX as f32);
            q[lane] = if d[lane] == 0.0 { q[lane] } else { l as u8 };
        }
    }
    q
}

/// Scale and minimum of each group: `x ~ scale · q - minimum`.
struct Fit {
    scale: [f32; 8],
    minimum: [f32; 8],
    /// What the codes were rounded with: `q = round(by · (x - from))`.
    by: [f32; 8],
    from: [f32; 8],
    /// All elements are equal and not above zero.
    flat: [bool; 8],
}

impl Fit {
    /// Tries several factors for rounding, solves for the best scale and minimum of each by weighted least
    /// squares, and takes the one with the smallest error. Elements weigh more the larger they are.
    #[inline(always)]
    fn of<const MAX: i32, const STEPS: usize>(x: &[[f32; 8]; 32], first: f32) -> Self {
        let weights = weights(x);
        let [mut sum_w, mut sum_x] = [[0.0; 8]; 2];
        let [mut min, mut max] = [x[0]; 2];
        for (x, w) in x.iter().zip(&weights) {
            for lane in 0..8 {
                min[lane] = if x[lane] < min[lane] {
                    x[lane]
                } else {
                    min[lane]
                };
                max[lane] = if x[lane] > max[lane] {
                    x[lane]
                } else {
                    max[lane]
                };
                sum_w[lane] += w[lane];
                sum_x[lane] += w[lane] * x[lane];
            }
        }
        let mut fit = Self {
            scale: [0.0; 8],
            minimum: [0.0; 8],
            by: [0.0; 8],
            from: [0.0; 8],
            flat: [false; 8],
        };
        for lane in 0..8 {
            min[lane] = if min[lane] > 0.0 { 0.0 } else { min[lane] };
            fit.flat[lane] = max[lane] <= min[lane];
            fit.by[lane] = MAX as f32 / (max[lane] - min[lane]);
            fit.scale[lane] = 1.0 / fit.by[lane];
        }
        fit.from = min;
        let mut best = error::<MAX>(x, &weights, [&fit.by, &min], [&fit.scale, &min]);
        let flat_minimum = min;
        for step in 0..=STEPS {
            let factor = first + 0.1 * step as f32 + MAX as f32;
            let mut by = [0.0; 8];
            for lane in 0..8 {
                by[lane] = factor / (max[lane] - min[lane]);
            }
            let (scale, minimum, solved) = solve::<MAX>(x, &weights, [&by, &min], [&sum_w, &sum_x]);
            let error = error::<MAX>(x, &weights, [&by, &min], [&scale, &minimum]);
            for lane in 0..8 {
                let better = solved[lane] & (error[lane] < best[lane]);
                let take = |new: f32, old: f32| if better { new } else { old };
                best[lane] = take(error[lane], best[lane]);
                fit.by[lane] = take(by[lane], fit.by[lane]);
                fit.from[lane] = take(min[lane], fit.from[lane]);
                fit.scale[lane] = take(scale[lane], fit.scale[lane]);
                min[lane] = take(minimum[lane], min[lane]);
            }
        }
        for lane in 0..8 {
            let flat = fit.flat[lane];
            fit.minimum[lane] = -(if flat { flat_minimum[lane] } else { min[lane] });
            fit.scale[lane] = if flat { 0.0 } else { fit.scale[lane] };
        }
        fit
    }

    #[inline(always)]
    fn codes<const MAX: i32>(&self, x: &[[f32; 8]; 32]) -> [[u8; 8]; 32] {
        let mut q = [[0; 8]; 32];
        for (q, x) in q.iter_mut().zip(x) {
            for lane in 0..8 {
                let l = code::<MAX>(x[lane], self.by[lane], self.from[lane]);
                q[lane] = if self.flat[lane] { 0 } else { l as u8 };
            }
        }
        q
    }
}

#[inline(always)]
fn code<const MAX: i32>(x: f32, by: f32, from: f32) -> f32 {
    within(by * (x - from), 0.0, MAX as f32)
}

/// The nearest integer, ties to even, from `low` to `high`. Without integers, so that it is vectorised.
#[inline(always)]
fn within(x: f32, low: f32, high: f32) -> f32 {
    let whole = x + WHOLE - WHOLE;
    let whole = if whole > low { whole } else { low };
    if whole < high { whole } else { high }
}

/// `root of the mean square + |x|`
#[inline(always)]
fn weights(x: &[[f32; 8]; 32]) -> [[f32; 8]; 32] {
    let mut squares = [0.0; 8];
    for x in x {
        for lane in 0..8 {
            squares[lane] += x[lane] * x[lane];
        }
    }
    let root = squares.map(|sum| (sum / 32.0).sqrt());
    let mut weights = [[0.0; 8]; 32];
    for (w, x) in weights.iter_mut().zip(x) {
        for lane in 0..8 {
            w[lane] = root[lane] + x[lane].abs();
        }
    }
    weights
}

/// The scale and the offset, at most zero, with the smallest weighted error for the codes that rounding by
/// `[factor, from]` gives; and whether there is one.
#[inline(always)]
fn solve<const MAX: i32>(
    x: &[[f32; 8]; 32],
    weights: &[[f32; 8]; 32],
    [by, from]: [&[f32; 8]; 2],
    [sum_w, sum_x]: [&[f32; 8]; 2],
) -> ([f32; 8], [f32; 8], [bool; 8]) {
    let [mut sum_l, mut sum_l2, mut sum_xl] = [[0.0; 8]; 3];
    for (x, w) in x.iter().zip(weights) {
        for lane in 0..8 {
            let l = code::<MAX>(x[lane], by[lane], from[lane]);
            let wl = w[lane] * l;
            sum_l[lane] += wl;
            sum_l2[lane] += wl * l;
            sum_xl[lane] += wl * x[lane];
        }
    }
    let [mut scale, mut offset] = [[0.0; 8]; 2];
    let mut solved = [false; 8];
    for lane in 0..8 {
        let determinant = sum_w[lane] * sum_l2[lane] - sum_l[lane] * sum_l[lane];
        solved[lane] = determinant > 0.0;
        let s = (sum_w[lane] * sum_xl[lane] - sum_x[lane] * sum_l[lane]) / determinant;
        let o = (sum_l2[lane] * sum_x[lane] - sum_l[lane] * sum_xl[lane]) / determinant;
        scale[lane] = if o > 0.0 {
            sum_xl[lane] / sum_l2[lane]
        } else {
            s
        };
        offset[lane] = if o > 0.0 { 0.0 } else { o };
    }
    (scale, offset, solved)
}

/// The weighted squared error of `scale · q + offset`, with the codes that rounding by `[factor, from]` gives.
#[inline(always)]
fn error<const MAX: i32>(
    x: &[[f32; 8]; 32],
    weights: &[[f32; 8]; 32],
    [by, from]: [&[f32; 8]; 2],
    [scale, offset]: [&[f32; 8]; 2],
) -> [f32; 8] {
    let mut error = [0.0; 8];
    for (x, w) in x.iter().zip(weights) {
        for lane in 0..8 {
            let l = code::<MAX>(x[lane], by[lane], from[lane]);
            let difference = scale[lane] * l + offset[lane] - x[lane];
            error[lane] += w[lane] * (difference * difference);
        }
    }
    error
}

/// Scales, and codes from 0 that stand for -32 on, of groups around zero. As for the other types, the best of
/// several factors; elements weigh as their squares.
#[inline(always)]
fn around_zero(x: &[[f32; 16]; 16]) -> ([f32; 16], [[u8; 16]; 16]) {
    let mut furthest = [0.0f32; 16];
    for x in x {
        for lane in 0..16 {
            let further = x[lane].abs() > furthest[lane].abs();
            furthest[lane] = if further { x[lane] } else { furthest[lane] };
        }
    }
    let mut by = furthest.map(|x| -32.0 / x);
    let [sum_xl, sum_l2] = products(x, &by);
    let [mut scale, mut best] = [[0.0; 16]; 2];
    for lane in 0..16 {
        let s = sum_xl[lane] / sum_l2[lane];
        scale[lane] = if sum_l2[lane] == 0.0 { 0.0 } else { s };
        best[lane] = scale[lane] * sum_xl[lane];
    }
    for step in (-9..=9i8).filter(|step| *step != 0) {
        let factor = -(32.0 + 0.1 * f32::from(step));
        let try_by = furthest.map(|x| factor / x);
        let [sum_xl, sum_l2] = products(x, &try_by);
        for lane in 0..16 {
            let (xl, l2) = (sum_xl[lane], sum_l2[lane]);
            let better = (l2 > 0.0) & (xl * xl > best[lane] * l2);
            let s = xl / l2;
            by[lane] = if better { try_by[lane] } else { by[lane] };
            scale[lane] = if better { s } else { scale[lane] };
            best[lane] = if better { s * xl } else { best[lane] };
        }
    }
    let mut q = [[0; 16]; 16];
    for lane in 0..16 {
        let nothing = furthest[lane].abs() < NOTHING;
        scale[lane] = if nothing { 0.0 } else { scale[lane] };
        for (q, x) in q.iter_mut().zip(x) {
            let l = within(by[lane] * x[lane], -32.0, 31.0);
            q[lane] = if nothing { 0 } else { (l + 32.0) as u8 };
        }
    }
    (scale, q)
}

/// Weighted sums of `x q` and `q q`, with the codes that rounding with a factor gives.
#[inline(always)]
fn products(x: &[[f32; 16]; 16], by: &[f32; 16]) -> [[f32; 16]; 2] {
    let [mut sum_xl, mut sum_l2] = [[0.0; 16]; 2];
    for x in x {
        for lane in 0..16 {
            let l = within(by[lane] * x[lane], -32.0, 31.0);
            let w = x[lane] * x[lane];
            sum_xl[lane] += w * x[lane] * l;
            sum_l2[lane] += w * l * l;
        }
    }
    [sum_xl, sum_l2]
}
