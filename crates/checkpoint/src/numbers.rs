//! Conversion between the dtypes of weights: f32, f16 and bf16.

use half::{bf16, f16};
use rayon::prelude::*;

use crate::Dtype;

/// Elements per parallel task: enough to be worth a thread.
const TASK: usize = 1 << 15;

/// A dtype of weights.
pub trait Number {
    /// Bytes of one element.
    const BYTES: usize;
    /// The value of these bytes, exactly.
    fn widen(bytes: &[u8]) -> f32;
    /// Rounds to nearest, ties to even; returns the rounded value.
    fn narrow(number: f32, bytes: &mut [u8]) -> f32;
}

impl Number for f32 {
    const BYTES: usize = 4;

    fn widen(bytes: &[u8]) -> f32 {
        Self::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
    }

    fn narrow(number: f32, bytes: &mut [u8]) -> f32 {
        bytes.copy_from_slice(&number.to_le_bytes());
        number
    }
}

impl Number for f16 {
    const BYTES: usize = 2;

    fn widen(bytes: &[u8]) -> f32 {
        Self::from_le_bytes([bytes[0], bytes[1]]).to_f32()
    }

    fn narrow(number: f32, bytes: &mut [u8]) -> f32 {
        let number = Self::from_f32(number);
        bytes.copy_from_slice(&number.to_le_bytes());
        number.to_f32()
    }
}

impl Number for bf16 {
    const BYTES: usize = 2;

    fn widen(bytes: &[u8]) -> f32 {
        Self::from_le_bytes([bytes[0], bytes[1]]).to_f32()
    }

    fn narrow(number: f32, bytes: &mut [u8]) -> f32 {
        let number = Self::from_f32(number);
        bytes.copy_from_slice(&number.to_le_bytes());
        number.to_f32()
    }
}

/// The name of a dtype in `config.json`.
pub fn torch_name(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::F16 => "float16",
        Dtype::BF16 => "bfloat16",
        _ => "float32",
    }
}

/// Converts elements to another dtype, rounded to nearest.
///
/// # Panics
///
/// If one of the dtypes is not F32, F16 or BF16.
pub fn convert(bytes: &[u8], from: Dtype, to: Dtype) -> Vec<u8> {
    match from {
        Dtype::F32 => convert_from::<f32>(bytes, to),
        Dtype::F16 => convert_from::<f16>(bytes, to),
        Dtype::BF16 => convert_from::<bf16>(bytes, to),
        other => panic!("weights are not stored as {other}"),
    }
}

/// The values of elements.
///
/// # Panics
///
/// If the dtype is not F32, F16 or BF16.
pub fn floats(bytes: &[u8], dtype: Dtype) -> Vec<f32> {
    let wide = convert(bytes, dtype, Dtype::F32);
    wide.chunks_exact(f32::BYTES).map(f32::widen).collect()
}

fn convert_from<F: Number>(bytes: &[u8], to: Dtype) -> Vec<u8> {
    match to {
        Dtype::F32 => convert_between::<F, f32>(bytes),
        Dtype::F16 => convert_between::<F, f16>(bytes),
        Dtype::BF16 => convert_between::<F, bf16>(bytes),
        other => panic!("weights are not stored as {other}"),
    }
}

fn convert_between<F: Number, T: Number>(bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![0; bytes.len() / F::BYTES * T::BYTES];
    out.par_chunks_mut(TASK * T::BYTES)
        .zip(bytes.par_chunks(TASK * F::BYTES))
        .for_each(|(out, bytes)| {
            let places = out.chunks_exact_mut(T::BYTES);
            for (place, number) in places.zip(bytes.chunks_exact(F::BYTES)) {
                T::narrow(F::widen(number), place);
            }
        });
    out
}

/// How many values of a tensor's bytes are NaN or infinite. Every dtype but F16 and BF16 is read as F32.
pub fn count_not_finite(bytes: &[u8], dtype: Dtype) -> usize {
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
    fn every_16_bit_number_survives_f32() {
        let bytes: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
        for dtype in [Dtype::F16, Dtype::BF16] {
            let wide = convert(&bytes, dtype, Dtype::F32);
            let back = convert(&wide, Dtype::F32, dtype);
            let differ = wide
                .chunks_exact(4)
                .zip(bytes.chunks_exact(2).zip(back.chunks_exact(2)))
                .filter(|(wide, (before, after))| before != after && !f32::widen(wide).is_nan());
            assert_eq!(differ.count(), 0, "{dtype}");
        }
    }

    #[test]
    fn numbers_round_to_nearest_even() {
        let bf16_of = |number: f32| {
            let bytes = convert(&number.to_le_bytes(), Dtype::F32, Dtype::BF16);
            u16::from_le_bytes([bytes[0], bytes[1]])
        };
        assert_eq!(bf16_of(f32::from_bits(0x3f80_8000)), 0x3f80);
        assert_eq!(bf16_of(f32::from_bits(0x3f80_8001)), 0x3f81);
        assert_eq!(bf16_of(f32::from_bits(0x3f81_8000)), 0x3f82);
    }

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
