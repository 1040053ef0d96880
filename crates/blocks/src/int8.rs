//! int8 with the largest absolute value of each row as scale: `w = q · SCB / 127`.
//!
//! Source: bitsandbytes, `int8_vectorwise_quant` and `int8_vectorwise_dequant`.

use std::sync::Arc;

use crate::BlocksError;
use crate::matrix_checks::{finite, length};

/// Scales of a matrix in int8.
#[derive(Debug, Clone)]
pub struct Int8 {
    /// Largest absolute value of each row (`SCB`), `[R]`.
    pub row_max: Arc<[f32]>,
}

impl Int8 {
    /// Widens codes of a stored row, with two roundings as bitsandbytes.
    #[inline(always)]
    pub(crate) fn widen(&self, codes: &[u8], row: usize, out: &mut [f32]) {
        let max = self.row_max[row];
        for (out, code) in out.iter_mut().zip(codes) {
            *out = f32::from(*code as i8) * max * (1.0 / 127.0);
        }
    }

    pub(crate) fn check(&self, shape: [usize; 2]) -> Result<(), BlocksError> {
        length("SCB", shape, shape[0], self.row_max.len())?;
        finite("SCB", &self.row_max)
    }

    pub(crate) fn scale_bytes(&self) -> usize {
        size_of_val(&*self.row_max)
    }
}

/// Quantises a row of finite elements, ties to even, and returns its largest absolute value.
#[inline(always)]
pub(crate) fn encode_row(row: &[f32], codes: &mut [u8]) -> f32 {
    // adding this rounds to an integer
    const WHOLE: f32 = 12_582_912.0;
    let max = row.iter().fold(0, |max, x| x.abs().to_bits().max(max));
    let max = f32::from_bits(max);
    // two roundings, as torch divides a number by a tensor
    let by = 1.0 / max * 127.0;
    if by.is_finite() {
        for (code, x) in codes.iter_mut().zip(row) {
            *code = (x * by + WHOLE).to_bits() as u8;
        }
    } else {
        // a row of zeros, or of elements so small that bitsandbytes makes nothing useful of them
        for (code, x) in codes.iter_mut().zip(row) {
            *code = (x / max * 127.0).round_ties_even() as i8 as u8;
        }
    }
    max
}
