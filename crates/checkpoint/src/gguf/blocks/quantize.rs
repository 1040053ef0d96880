//! Quantisation from f32 to the types that simmer writes.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use crate::gguf::{GgmlType, GgufError};

/// The types that can be written.
pub const ENCODED: &[GgmlType] = &[GgmlType::F32, GgmlType::F16, GgmlType::BF16, GgmlType::Q8_0];

/// Appends `values` to `out`, rounded to the nearest value of the type: ties to even for F16 and BF16, away from zero for
/// Q8_0, with the same bits as ggml's reference implementation.
///
/// # Errors
/// If the type is not in [`ENCODED`], the values are not whole blocks, or the type cannot hold a value: finite values beyond
/// its largest, and for Q8_0 values that are not finite, which would make their whole block useless. `out` is then
/// unchanged.
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
        GgmlType::Q8_0 => first_not(values, |x| x.abs() / 127.0 < 65_520.0),
        kind => {
            return Err(GgufError::UnsupportedType {
                tensor: None,
                kind,
                supported: ENCODED,
            });
        }
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
        GgmlType::F16 => halves(values, out),
        _ => q8_0(values, out),
    }
    Ok(())
}

/// The index of the first value that fails the check.
fn first_not(values: &[f32], is_so: impl Fn(f32) -> bool) -> Option<usize> {
    const TOGETHER: usize = 64;
    // without an early exit per element, the compiler vectorises this
    let all = |values: &[f32]| values.iter().fold(true, |all, &x| all & is_so(x));
    let chunk = values.chunks(TOGETHER).position(|values| !all(values))?;
    let begin = chunk * TOGETHER;
    let within = values[begin..].iter().position(|&x| !is_so(x))?;
    Some(begin + within)
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

/// `d = max|x| / 127, q = round(x / d)`
fn q8_0(values: &[f32], out: &mut [u8]) {
    // truncating after adding the largest f32 below 0.5 rounds as `f32::round`, and is vectorised
    const BEFORE_HALF: f32 = 0.5f32.next_down();
    let (blocks, _) = values.as_chunks::<32>();
    let (places, _) = out.as_chunks_mut::<34>();
    for (block, place) in blocks.iter().zip(places) {
        // the bits of finite non-negative numbers have the order of the numbers
        let largest = block.iter().fold(0, |max, x| x.abs().to_bits().max(max));
        let d = f32::from_bits(largest) / 127.0;
        let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
        let (scale, q) = place.split_at_mut(2);
        scale.copy_from_slice(&f16::from_f32(d).to_le_bytes());
        // if the inverse is infinite, d is zero as f16, so that any q means zero
        for (q, x) in q.iter_mut().zip(block) {
            let scaled = x * inverse;
            *q = (scaled + BEFORE_HALF.copysign(scaled)) as i32 as u8;
        }
    }
}
