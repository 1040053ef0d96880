//! IQ4_NL: codes for the values of a table, with the scale that has the smallest weighted error.
//!
//! Eight blocks are lanes.

use super::put;
use super::simple::nibbles;
use crate::ggml::IQ4_NL_VALUES as VALUES;

/// Below this, all elements of a block are taken for zero.
const NOTHING: f32 = 1e-15;

const LANES: usize = 8;
type Lanes = [f32; LANES];

/// Encodes whole blocks.
#[inline(always)]
pub(super) fn encode(values: &[f32], out: &mut [u8]) {
    let places = out.chunks_mut(18 * LANES);
    for (values, places) in values.chunks(32 * LANES).zip(places) {
        let mut x = [[0.0; LANES]; 32];
        for (lane, block) in values.chunks_exact(32).enumerate() {
            for (x, value) in x.iter_mut().zip(block) {
                x[lane] = *value;
            }
        }
        let scale = scales(&x);
        let id = scale.map(super::inverse);
        let mut q = [[0; 32]; LANES];
        for (i, x) in x.iter().enumerate() {
            for lane in 0..LANES {
                let (code, _) = nearest_value(id[lane] * x[lane]);
                q[lane][i] = code;
            }
        }
        for ((place, scale), q) in places.chunks_exact_mut(18).zip(scale).zip(&q) {
            put(place, 0, scale);
            nibbles(q, &mut place[2..]);
        }
    }
}

/// The best scale of 16 tries.
#[inline(always)]
fn scales(x: &[Lanes; 32]) -> Lanes {
    let mut furthest = [0.0f32; LANES];
    for x in x {
        for lane in 0..LANES {
            let further = x[lane].abs() > furthest[lane].abs();
            furthest[lane] = if further { x[lane] } else { furthest[lane] };
        }
    }
    let first = furthest.map(|x| 1.0 / (-x / f32::from(VALUES[0])));
    let [sum_qx, sum_q2] = products(x, &first);
    let [mut scale, mut best] = [[0.0; LANES]; 2];
    for lane in 0..LANES {
        let s = sum_qx[lane] / sum_q2[lane];
        scale[lane] = if sum_q2[lane] > 0.0 { s } else { 0.0 };
        best[lane] = scale[lane] * sum_qx[lane];
    }
    for step in -7..=7i8 {
        let factor = f32::from(step) + f32::from(VALUES[0]);
        let [sum_qx, sum_q2] = products(x, &furthest.map(|x| factor / x));
        for lane in 0..LANES {
            let (qx, q2) = (sum_qx[lane], sum_q2[lane]);
            let better = (q2 > 0.0) & (qx * qx > best[lane] * q2);
            let s = qx / q2;
            scale[lane] = if better { s } else { scale[lane] };
            best[lane] = if better { s * qx } else { best[lane] };
        }
    }
    for lane in 0..LANES {
        let nothing = furthest[lane].abs() < NOTHING;
        scale[lane] = if nothing { 0.0 } else { scale[lane] };
    }
    scale
}

/// Weighted sums of `q x` and `q q`, with the values nearest to `x` times a factor. Elements weigh as their
/// squares.
#[inline(always)]
fn products(x: &[Lanes; 32], by: &Lanes) -> [Lanes; 2] {
    let [mut sum_qx, mut sum_q2] = [[0.0; LANES]; 2];
    for x in x {
        for lane in 0..LANES {
            let (_, q) = nearest_value(by[lane] * x[lane]);
            let w = x[lane] * x[lane];
            sum_qx[lane] += w * q * x[lane];
            sum_q2[lane] += w * q * q;
        }
    }
    [sum_qx, sum_q2]
}

/// The code of the nearest value and the value; the larger one of two equally near ones.
#[inline(always)]
fn nearest_value(x: f32) -> (u8, f32) {
    let (mut code, mut value) = (0, f32::from(VALUES[0]));
    for pair in VALUES.windows(2) {
        let [low, high] = [f32::from(pair[0]), f32::from(pair[1])];
        let above = x >= f32::midpoint(low, high);
        code += u8::from(above);
        value += if above { high - low } else { 0.0 };
    }
    (code, value)
}
