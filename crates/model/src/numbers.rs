//! Stored weights as f64.

use half::{bf16, f16};
use simmer_checkpoint::Dtype;
use simmer_checkpoint::numbers::Number;

/// The values of a tensor's bytes. Every dtype but F16 and BF16 is read as F32.
pub(crate) fn to_f64(bytes: &[u8], dtype: Dtype) -> Vec<f64> {
    match dtype {
        Dtype::F16 => widened::<f16>(bytes),
        Dtype::BF16 => widened::<bf16>(bytes),
        _ => widened::<f32>(bytes),
    }
}

fn widened<T: Number>(bytes: &[u8]) -> Vec<f64> {
    let values = bytes.chunks_exact(T::BYTES);
    values.map(|value| T::widen(value).into()).collect()
}

/// How many values of a tensor's bytes are NaN or infinite. Every dtype but F16 and BF16 is read as F32.
pub(crate) fn count_not_finite(bytes: &[u8], dtype: Dtype) -> usize {
    // all bits of the exponent are set
    let narrow = |exponent: u16| {
        let values = bytes.chunks_exact(2);
        let values = values.map(|value| u16::from_le_bytes([value[0], value[1]]));
        values.filter(|bits| bits & exponent == exponent).count()
    };
    match dtype {
        Dtype::F16 => narrow(0x7c00),
        Dtype::BF16 => narrow(0x7f80),
        _ => {
            const EXPONENT: u32 = 0x7f80_0000;
            let values = bytes.chunks_exact(4);
            let values =
                values.map(|value| u32::from_le_bytes([value[0], value[1], value[2], value[3]]));
            values.filter(|bits| bits & EXPONENT == EXPONENT).count()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_are_not_finite_are_counted() {
        let values = [
            0.0_f32,
            -0.0,
            1.0,
            f32::NAN,
            f32::INFINITY,
            f32::NEG_INFINITY,
            f32::MIN_POSITIVE / 2.0,
            -1e4,
        ];
        let wide: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        let half: Vec<u8> = values
            .iter()
            .flat_map(|x| f16::from_f32(*x).to_le_bytes())
            .collect();
        let brain: Vec<u8> = values
            .iter()
            .flat_map(|x| bf16::from_f32(*x).to_le_bytes())
            .collect();
        assert_eq!(count_not_finite(&wide, Dtype::F32), 3);
        assert_eq!(count_not_finite(&half, Dtype::F16), 3);
        assert_eq!(count_not_finite(&brain, Dtype::BF16), 3);
    }
}
