//! The dtype that values are rounded to when they are widened.

use half::{bf16, f16};

/// The dtype of the matrix that was quantised. bitsandbytes rounds widened values to it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Rounding {
    /// No rounding.
    #[default]
    F32,
    /// To the nearest bf16, ties to even.
    Bf16,
    /// To the nearest f16, ties to even.
    F16,
}

impl Rounding {
    /// Rounds values in place.
    #[inline(always)]
    pub fn round(self, values: &mut [f32]) {
        match self {
            Self::F32 => {}
            Self::Bf16 => {
                for value in values {
                    *value = bf16::from_f32(*value).to_f32();
                }
            }
            Self::F16 => {
                for value in values {
                    *value = f16::from_f32(*value).to_f32();
                }
            }
        }
    }
}
