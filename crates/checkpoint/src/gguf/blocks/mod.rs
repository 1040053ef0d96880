//! Quantised blocks, and their conversion to and from f32.
//!
//! A block has a scale, for some types also a minimum, and a small integer `q` per element: `scale * q` or
//! `scale * q + minimum` (`- minimum` in the K types, whose blocks have sub-blocks with their own scales). The result has
//! the same bits as `dequantize` of the Python package gguf.
//!
//! Source: ggml, `ggml-common.h` and `ggml-quants.c`.

mod quantize;
mod single;
mod sub_blocks;

pub use quantize::{ENCODED, quantize};

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
];

/// The decoder of a type.
///
/// # Errors
/// If the type is not in [`DECODED`].
pub fn decoder(kind: GgmlType) -> Result<Decoder, GgufError> {
    Ok(match kind {
        GgmlType::F32 => single::f32,
        GgmlType::F16 => single::f16,
        GgmlType::BF16 => single::bf16,
        GgmlType::Q8_0 => single::q8_0,
        GgmlType::Q4_0 => single::q4_0,
        GgmlType::Q4_1 => single::q4_1,
        GgmlType::Q5_0 => single::q5_0,
        GgmlType::Q5_1 => single::q5_1,
        GgmlType::Q4_K => sub_blocks::q4_k,
        GgmlType::Q5_K => sub_blocks::q5_k,
        GgmlType::Q6_K => sub_blocks::q6_k,
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

/// The f16 at a byte offset of a block.
fn half(block: &[u8], at: usize) -> f32 {
    half::f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

#[cfg(test)]
mod tests;
