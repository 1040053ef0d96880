//! The types of ggml, and their conversion to and from f32. The quantised ones are in [`simmer_blocks::ggml`].

mod plain;
mod quantize;

pub use quantize::{ENCODED, quantize};

use simmer_blocks::ggml::{BlockType, widen};

use super::{GgmlType, GgufError};

/// Dequantises whole blocks to f32, as many as both sides have.
pub type Decoder = fn(&[u8], &mut [f32]);

/// The types that can be dequantised.
pub const DECODED: &[GgmlType] = &[
    GgmlType::F32,
    GgmlType::F16,
    GgmlType::BF16,
    GgmlType::Q8_0,
    GgmlType::Q4_0,
    GgmlType::Q4_1,
    GgmlType::Q5_0,
    GgmlType::Q5_1,
    GgmlType::Q4_K,
    GgmlType::Q5_K,
    GgmlType::Q6_K,
    GgmlType::IQ4_NL,
];

/// The decoder of a type.
///
/// # Errors
/// If the type is not in [`DECODED`].
pub fn decoder(kind: GgmlType) -> Result<Decoder, GgufError> {
    Ok(match kind {
        GgmlType::F32 => plain::f32,
        GgmlType::F16 => plain::f16,
        GgmlType::BF16 => plain::bf16,
        GgmlType::Q8_0 => |row, out| widen(BlockType::Q8_0, row, 0, out),
        GgmlType::Q4_0 => |row, out| widen(BlockType::Q4_0, row, 0, out),
        GgmlType::Q4_1 => |row, out| widen(BlockType::Q4_1, row, 0, out),
        GgmlType::Q5_0 => |row, out| widen(BlockType::Q5_0, row, 0, out),
        GgmlType::Q5_1 => |row, out| widen(BlockType::Q5_1, row, 0, out),
        GgmlType::Q4_K => |row, out| widen(BlockType::Q4_K, row, 0, out),
        GgmlType::Q5_K => |row, out| widen(BlockType::Q5_K, row, 0, out),
        GgmlType::Q6_K => |row, out| widen(BlockType::Q6_K, row, 0, out),
        GgmlType::IQ4_NL => |row, out| widen(BlockType::IQ4_NL, row, 0, out),
        kind => {
            return Err(GgufError::UnsupportedType {
                tensor: None,
                kind,
                supported: DECODED,
            });
        }
    })
}

/// Dequantises the blocks `bytes` to f32.
///
/// # Errors
/// If the type is not in [`DECODED`], or `bytes` and `out` are not the same whole number of blocks.
pub fn dequantize(kind: GgmlType, bytes: &[u8], out: &mut [f32]) -> Result<(), GgufError> {
    let decode = decoder(kind)?;
    if kind.tensor_bytes(&[out.len()]) != Some(bytes.len() as u64) {
        return Err(GgufError::Blocks {
            kind,
            bytes: bytes.len(),
            numbers: out.len(),
        });
    }
    decode(bytes, out);
    Ok(())
}

/// Calls `widen` with each block and its output.
fn each_block<const BYTES: usize, const LEN: usize>(
    bytes: &[u8],
    out: &mut [f32],
    widen: impl Fn(&[u8; BYTES], &mut [f32; LEN]),
) {
    let (blocks, _) = bytes.as_chunks();
    let (places, _) = out.as_chunks_mut();
    for (block, place) in blocks.iter().zip(places) {
        widen(block, place);
    }
}

#[cfg(test)]
mod tests;
