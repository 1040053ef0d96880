//! Conversions between f32 and bf16.

use std::ops::Range;

use half::bf16;

use crate::buffer::buffer;
use crate::flex::rows_of_task;
use crate::product::Numbers;
use crate::simd::vectorised;
use crate::threads;

/// `x` rounded to bf16, to nearest with ties to even. NaN stays NaN. No branch, so that a loop over it is vectorised.
#[inline(always)]
pub(crate) fn to_bf16(x: f32) -> bf16 {
    let bits = x.to_bits();
    let odd = (bits >> 16) & 1;
    let rounded = bits.wrapping_add(0x7fff + odd) >> 16;
    let quiet = (bits >> 16) | 0x40;
    bf16::from_bits(if x.is_nan() { quiet } else { rounded } as u16)
}

/// The same value in f32.
#[inline(always)]
pub(crate) fn to_f32(x: bf16) -> f32 {
    f32::from_bits(u32::from(x.to_bits()) << 16)
}

/// Widens all values, on all threads.
pub(crate) fn widen(values: &[bf16], wide: &mut [f32]) {
    let task = rows_of_task(1);
    threads::chunks(wide, task, |index, wide| {
        widen_part(&values[index * task..][..wide.len()], wide);
    });
}

/// Rounds all values, on all threads.
pub(crate) fn round(values: &[f32], narrow: &mut [bf16]) {
    let task = rows_of_task(1);
    threads::chunks(narrow, task, |index, narrow| {
        round_part(&values[index * task..][..narrow.len()], narrow);
    });
}

vectorised! {
    /// Widens values, on this thread.
    pub(crate) fn widen_part(_simd, values: &'a [bf16], wide: &'a mut [f32]) {
        for (wide, value) in wide.iter_mut().zip(values) {
            *wide = to_f32(*value);
        }
    }
}

vectorised! {
    /// Rounds values, on this thread.
    pub(crate) fn round_part(_simd, values: &'a [f32], narrow: &'a mut [bf16]) {
        for (narrow, value) in narrow.iter_mut().zip(values) {
            *narrow = to_bf16(*value);
        }
    }
}

/// A part of some numbers in f32: as it lies, or widened into `wide`.
pub(crate) fn part<'a>(
    numbers: Numbers<'a>,
    range: Range<usize>,
    wide: &'a mut Vec<f32>,
) -> &'a [f32] {
    match numbers {
        Numbers::F32(values) => &values[range],
        Numbers::Bf16(values) => {
            *wide = buffer(range.len());
            widen_part(&values[range], wide);
            wide
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_that_of_the_half_crate() {
        for step in 0..=u32::from(u16::MAX) {
            for low in [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff] {
                let x = f32::from_bits(step << 16 | low);
                let [found, truth] = [to_bf16(x), bf16::from_f32(x)];
                assert!(
                    found.to_bits() == truth.to_bits() || found.is_nan() && truth.is_nan(),
                    "{x:e}: {found:?}"
                );
                let wide = to_f32(truth);
                assert!(wide.to_bits() == truth.to_f32().to_bits() || wide.is_nan());
            }
        }
    }
}
