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
    /// The factor of the codes of a stored row.
    #[inline(always)]
    pub fn scale(&self, row: usize) -> f32 {
        self.row_max[row] * (1.0 / 127.0)
    }

    /// Widens codes of a stored row.
    #[inline(always)]
    pub(crate) fn widen(&self, codes: &[u8], row: usize, out: &mut [f32]) {
        let scale = self.scale(row);
        for (out, code) in out.iter_mut().zip(codes) {
            *out = f32::from(*code as i8) * scale;
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
