//! Quantisation from f32 to the types that simmer writes.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use simmer_blocks::BlocksError;
use simmer_blocks::ggml::{encode, first_not};

use super::{DECODED, block_type};
use crate::gguf::{GgmlType, GgufError};

/// The types that can be written: those that can be read.
pub const ENCODED: &[GgmlType] = DECODED;

/// Appends `values` to `out`, rounded to the nearest value of F16 and BF16, ties to even, and for quantised types with the
/// same bits as ggml's implementation without an importance matrix. Quantised blocks are computed on all threads of rayon's
/// pool.
///
/// # Errors
/// If the type is not in [`ENCODED`], the values are not whole blocks, or the type cannot hold a value: finite values beyond
/// its largest, and for quantised types values that are not finite, which would make their whole block useless. `out` is
/// then unchanged.
pub fn quantize(kind: GgmlType, values: &[f32], out: &mut Vec<u8>) -> Result<(), GgufError> {
    let Some(bytes) = kind.tensor_bytes(&[values.len()]) else {
        return Err(GgufError::Blocks {
            kind,
            bytes: 0,
            numbers: values.len(),
        });
    };
    let unfit = match kind {
        GgmlType::F32 => None,
        // from here on, values round to the number after the largest
        GgmlType::F16 => first_not(values, |x| (x.abs() < 65_520.0) | !x.is_finite()),
        GgmlType::BF16 => {
            let beyond = f32::from_bits(0x7F7F_8000);
            first_not(values, |x| (x.abs() < beyond) | !x.is_finite())
        }
        kind => return blocks(kind, values, bytes as usize, out),
    };
    if let Some(index) = unfit {
        return Err(GgufError::OutOfRange {
            kind,
            index,
            value: values[index],
        });
    }
    let begin = out.len();
    out.resize(begin + bytes as usize, 0);
    let out = &mut out[begin..];
    match kind {
        GgmlType::F32 => each(values, out, |x: f32| x.to_le_bytes()),
        GgmlType::BF16 => each(values, out, |x| bf16::from_f32(x).to_le_bytes()),
        _ => halves(values, out),
    }
    Ok(())
}

/// Appends quantised blocks.
fn blocks(
    kind: GgmlType,
    values: &[f32],
    bytes: usize,
    out: &mut Vec<u8>,
) -> Result<(), GgufError> {
    let Some(encoded) = block_type(kind) else {
        return Err(GgufError::UnsupportedType {
            tensor: None,
            kind,
            supported: ENCODED,
        });
    };
    let begin = out.len();
    out.resize(begin + bytes, 0);
    encode(encoded, values, &mut out[begin..]).map_err(|error| {
        out.truncate(begin);
        match error {
            BlocksError::Element { index, value, .. } => {
                GgufError::OutOfRange { kind, index, value }
            }
            _ => GgufError::Blocks {
                kind,
                bytes,
                numbers: values.len(),
            },
        }
    })
}

fn each<T: Copy, const BYTES: usize>(
    values: &[T],
    out: &mut [u8],
    bytes: impl Fn(T) -> [u8; BYTES],
) {
    let (places, _) = out.as_chunks_mut();
    for (&value, place) in values.iter().zip(places) {
        *place = bytes(value);
    }
}

fn halves(values: &[f32], out: &mut [u8]) {
    const TOGETHER: usize = 64;
    // the processor rounds several values at once
    let mut rounded = [f16::ZERO; TOGETHER];
    for (values, out) in values.chunks(TOGETHER).zip(out.chunks_mut(2 * TOGETHER)) {
        let rounded = &mut rounded[..values.len()];
        rounded.convert_from_f32_slice(values);
        each(rounded, out, f16::to_le_bytes);
    }
}
