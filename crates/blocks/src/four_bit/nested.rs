//! Double quantisation: eight-bit codes for the scales of blocks, less their mean.
//!
//! Source: Dettmers et al. 2022 (8-bit Optimizers via Block-wise Quantization), dynamic tree quantisation;
//! bitsandbytes, `create_dynamic_map` and `quantize_blockwise`.

use std::sync::Arc;

use super::Absmax;

/// Codes of a block.
const BLOCK: usize = 256;

/// Bytes of the scales of blocks of codes.
pub(crate) fn absmax_bytes(blocks: usize, nested: bool) -> usize {
    if nested {
        blocks + (256 + blocks.div_ceil(BLOCK)) * size_of::<f32>()
    } else {
        blocks * size_of::<f32>()
    }
}

/// The 256 values of nested codes, ascending: for each power of ten from 1e-6 to 1, twice as many steps as for
/// the one below, of both signs; zero; and one.
pub fn nested_values() -> [f32; 256] {
    const POWERS: [f32; 7] = [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0];
    let mut values = [0.0; 256];
    let mut at = 0;
    for (power, steps) in POWERS.into_iter().zip((0..7).map(|i| 1u8 << i)) {
        let bound = |i| boundary(i, steps);
        for step in 0..steps {
            let value = power * f32::midpoint(bound(step), bound(step + 1));
            values[at] = value;
            values[at + 1] = -value;
            at += 2;
        }
    }
    // of the last two places, one stays zero
    values[at + 1] = 1.0;
    values.sort_by(f32::total_cmp);
    values
}

/// The bound of a step from 0.1 to 1; from both ends, as torch's `linspace` computes them.
fn boundary(i: u8, steps: u8) -> f32 {
    let step = (1.0 - 0.1f32) / f32::from(steps);
    if i < steps.div_ceil(2) {
        step.mul_add(f32::from(i), 0.1)
    } else {
        (-step).mul_add(f32::from(steps - i), 1.0)
    }
}

/// Quantises the scales of blocks.
pub(super) fn nest(scales: &[f32]) -> Absmax {
    let values = nested_values();
    let bounds: Vec<f32> = values
        .windows(2)
        .map(|pair| 0.5 * (pair[0] + pair[1]))
        .collect();
    let offset = mean(scales);
    let mut codes = Vec::with_capacity(scales.len());
    let mut absmax = Vec::with_capacity(scales.len().div_ceil(BLOCK));
    for block in scales.chunks(BLOCK) {
        let largest = block
            .iter()
            .fold(0.0f32, |max, x| max.max((x - offset).abs()));
        absmax.push(largest);
        let by = 1.0 / largest;
        codes.extend(block.iter().map(|x| {
            if largest == 0.0 {
                return 0;
            }
            code(&bounds, (x - offset) * by)
        }));
    }
    Absmax::Nested {
        codes: codes.into(),
        values: Arc::new(values),
        absmax: absmax.into(),
        block: BLOCK,
        offset,
    }
}

/// The code of a value from -1 to 1, rounded to a grid of 65,536 values first.
fn code(bounds: &[f32], value: f32) -> u8 {
    const STEPS: f32 = 65_535.0;
    let index = (value.clamp(-1.0, 1.0) + 1.0) * 0.5 * STEPS + 0.5;
    let value = -1.0 + 2.0 * index.trunc().min(STEPS) / STEPS;
    bounds.partition_point(|bound| *bound < value) as u8
}

/// The mean, with the bits of torch's `mean` on a processor with vectors of eight and one thread: four
/// vectors of sums, each of which is emptied into one of the next level from time to time.
fn mean(values: &[f32]) -> f32 {
    const LANES: usize = 8;
    const VECTORS: usize = 4;
    type Sums = [[f32; LANES]; VECTORS];
    let add = |to: &mut Sums, from: &Sums| {
        for (to, from) in to.as_flattened_mut().iter_mut().zip(from.as_flattened()) {
            *to += from;
        }
    };
    let (vectors, rest) = values.as_chunks::<LANES>();
    let (rows, last) = vectors.as_chunks::<VECTORS>();
    let power = (rows.len().next_power_of_two().ilog2() / 4).max(4);
    let step = 1 << power;
    let mut levels = [[[0.0f32; LANES]; VECTORS]; 4];
    for (index, row) in rows.iter().enumerate() {
        add(&mut levels[0], row);
        let done = index + 1;
        if done % step == 0 {
            for level in 1..4 {
                let below = std::mem::take(&mut levels[level - 1]);
                add(&mut levels[level], &below);
                if done & (step - 1) << (level as u32 * power) != 0 {
                    break;
                }
            }
        }
    }
    let [mut sums, upper @ ..] = levels;
    for level in &upper {
        add(&mut sums, level);
    }
    let [mut total, others @ ..] = sums;
    for vector in last.iter().chain(&others) {
        for (total, value) in total.iter_mut().zip(vector) {
            *total += value;
        }
    }
    let sum: f32 = rest
        .iter()
        .chain(&total)
        .fold(0.0, |sum, value| sum + value);
    sum / values.len() as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_ascend_from_almost_minus_one_to_one() {
        let values = nested_values();
        assert!(values.is_sorted_by(|a, b| a < b));
        let bits = |value: f32| value.to_bits();
        assert_eq!([values[127], values[255]].map(bits), [0.0, 1.0].map(bits));
    }
}
