//! From f32 to the types that simmer writes.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use crate::gguf::{GgmlType, GgufError};

/// The types that can be made.
pub const ENCODED: &[GgmlType] = &[GgmlType::F32, GgmlType::F16, GgmlType::BF16, GgmlType::Q8_0];

/// Appends `values` to `out`, rounded to the nearest number of the type: ties to even for F16 and
/// BF16, away from zero for Q8_0, bit for bit as ggml's reference does it.
///
/// # Errors
/// For types that are not in [`ENCODED`], numbers that are no whole blocks, and numbers that the
/// type cannot hold: finite ones beyond its largest, and for Q8_0 those that are not finite, which
/// would spoil their whole block. `out` is then as it was.
pub fn quantize(kind: GgmlType, values: &[f32], out: &mut Vec<u8>) -> Result<(), GgufError> {
    let Some(bytes) = kind.tensor_bytes(&[values.len()]) else {
        return Err(GgufError::Blocks {
            kind,
            bytes: 0,
            numbers: values.len(),
        });
    };
    let fits: fn(f32) -> bool = match kind {
        GgmlType::F32 => |_| true,
        // From here on the nearest would be the number after the largest.
        GgmlType::F16 => |x| x.abs() < 65_520.0 || !x.is_finite(),
        GgmlType::BF16 => |x| x.abs() < f32::from_bits(0x7F7F_8000) || !x.is_finite(),
        GgmlType::Q8_0 => |x| x.abs() / 127.0 < 65_520.0,
        kind => {
            return Err(GgufError::UnsupportedType {
                tensor: None,
                kind,
                supported: ENCODED,
            });
        }
    };
    if let Some(index) = values.iter().position(|&x| !fits(x)) {
        return Err(GgufError::OutOfRange {
            kind,
            index,
            value: values[index],
        });
    }
    out.reserve(bytes as usize);
    match kind {
        GgmlType::F32 => out.extend(values.iter().flat_map(|x| x.to_le_bytes())),
        GgmlType::F16 => halves(values, out),
        GgmlType::BF16 => out.extend(values.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes())),
        _ => q8_0(values, out),
    }
    Ok(())
}

fn halves(values: &[f32], out: &mut Vec<u8>) {
    const TOGETHER: usize = 64;
    // The processor rounds several at once.
    let mut rounded = [f16::ZERO; TOGETHER];
    for values in values.chunks(TOGETHER) {
        let rounded = &mut rounded[..values.len()];
        rounded.convert_from_f32_slice(values);
        out.extend(rounded.iter().flat_map(|x| x.to_le_bytes()));
    }
}

/// `d = max|x| / 127, q = round(x / d)`
fn q8_0(values: &[f32], out: &mut Vec<u8>) {
    let (blocks, _) = values.as_chunks::<32>();
    for block in blocks {
        let largest = block.iter().fold(0.0f32, |max, x| max.max(x.abs()));
        let d = largest / 127.0;
        let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
        out.extend_from_slice(&f16::from_f32(d).to_le_bytes());
        // Where the inverse is infinite, d is zero as f16, so that any q means zero.
        out.extend(block.iter().map(|x| (x * inverse).round() as i8 as u8));
    }
}
