//! The dtype that values are rounded to when they are widened.

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
    /// Rounds values that are not NaN in place.
    #[inline(always)]
    pub fn round(self, values: &mut [f32]) {
        match self {
            Self::F32 => {}
            Self::Bf16 => {
                for value in values {
                    *value = to_bf16(*value);
                }
            }
            Self::F16 => {
                for value in values {
                    *value = to_f16(*value);
                }
            }
        }
    }
}

// Without branches, so that the compiler vectorises them; the crate half asks for each value what the
// processor can do.

#[inline(always)]
fn to_bf16(value: f32) -> f32 {
    let bits = value.to_bits();
    let even = bits >> 16 & 1;
    f32::from_bits(bits.wrapping_add(0x7fff + even) & 0xffff_0000)
}

#[inline(always)]
fn to_f16(value: f32) -> f32 {
    let sign = value.to_bits() & 0x8000_0000;
    let size = value.to_bits() & 0x7fff_ffff;
    let normal = (size + 0x0fff + (size >> 13 & 1)) & 0xffff_e000;
    // below 2^-14, a step of f16 is the step of an f32 between 0.5 and 1
    let subnormal = (f32::from_bits(size) + 0.5 - 0.5).to_bits();
    let size = if size < 0x3880_0000 {
        subnormal
    } else {
        normal
    };
    let size = if size < 0x4780_0000 {
        size
    } else {
        0x7f80_0000
    };
    f32::from_bits(sign | size)
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};

    use super::*;

    #[test]
    fn values_round_as_those_of_the_crate_half() {
        let cases = (0..=u16::MAX).flat_map(|upper| {
            [0, 1, 0x0fff, 0x1000, 0x1001, 0x7fff, 0x8000, 0x8001, 0xffff]
                .map(|lower| f32::from_bits(u32::from(upper) << 16 | lower))
        });
        for value in cases.filter(|value| !value.is_nan()) {
            let expected = bf16::from_f32(value).to_f32().to_bits();
            assert_eq!(to_bf16(value).to_bits(), expected, "{value}");
            let expected = f16::from_f32(value).to_f32().to_bits();
            assert_eq!(to_f16(value).to_bits(), expected, "{value}");
        }
    }
}
