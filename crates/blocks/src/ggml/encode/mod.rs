//! Quantisation to the types of ggml.
//!
//! The bytes are those of `ggml_quantize_chunk` without an importance matrix, but for the codes of blocks
//! whose scale is zero. The order of operations in f32 is ggml's; where ggml computes a sum over the elements
//! of a group one after another, groups are lanes here, so that the processor computes several at once.

mod iq4_nl;
mod k;
mod simple;

use half::f16;
use pulp::Arch;
use rayon::prelude::*;

use super::BlockType;
use crate::BlocksError;

/// Bits of a scale in f16 from which it is not finite.
const INFINITE: u16 = 0x7c00;

/// The last bit of a sum with this is worth one.
const WHOLE: f32 = 12_582_912.0;

/// Elements that a thread takes at once, whole blocks of every type.
const PART: usize = 1 << 14;

/// Quantises whole blocks, on all threads of rayon's pool.
///
/// # Errors
/// If the elements are not whole blocks, `out` has another length than they need, or an element is not finite
/// or larger than a scale in f16 allows.
pub fn encode(kind: BlockType, values: &[f32], out: &mut [u8]) -> Result<(), BlocksError> {
    let shape = [1, values.len()];
    if !values.len().is_multiple_of(kind.block_len()) {
        return Err(BlocksError::Rows {
            kind: kind.name(),
            columns: values.len(),
            block: kind.block_len(),
        });
    }
    crate::matrix_checks::length("codes", shape, kind.row_bytes(values.len()), out.len())?;
    let arch = Arch::new();
    let unfit = values
        .par_chunks(PART)
        .zip(out.par_chunks_mut(kind.row_bytes(PART)))
        .enumerate()
        .find_map_first(|(part, (values, out))| {
            let index = arch.dispatch(
                #[inline(always)]
                || encode_part(kind, values, out),
            );
            index.map(|index| part * PART + index)
        });
    match unfit {
        None => Ok(()),
        Some(index) => Err(BlocksError::Element {
            kind: kind.name(),
            index,
            value: values[index],
        }),
    }
}

/// The index of the element that does not fit, if there is one.
#[inline(always)]
fn encode_part(kind: BlockType, values: &[f32], out: &mut [u8]) -> Option<usize> {
    if let Some(index) = first_not_finite(values) {
        return Some(index);
    }
    // a closure is inlined where a function that is passed as one may not be
    macro_rules! each {
        ($path:path) => {
            each(
                values,
                out,
                #[inline(always)]
                |block, place| $path(block, place),
            )
        };
    }
    match kind {
        BlockType::Q8_0 => each!(simple::q8_0),
        BlockType::Q4_0 => each!(simple::q4_0),
        BlockType::Q4_1 => each!(simple::q4_1),
        BlockType::Q5_0 => each!(simple::q5_0),
        BlockType::Q5_1 => each!(simple::q5_1),
        BlockType::Q4_K => each!(k::q4_k),
        BlockType::Q5_K => each!(k::q5_k),
        BlockType::Q6_K => each!(k::q6_k),
        BlockType::IQ4_NL => iq4_nl::encode(values, out),
    }
    beyond_f16(kind, values, out)
}

/// Where the f16 scales of a block are, in bytes.
fn scales_of(kind: BlockType) -> &'static [usize] {
    match kind {
        BlockType::Q8_0 | BlockType::Q4_0 | BlockType::Q5_0 | BlockType::IQ4_NL => &[0],
        BlockType::Q4_1 | BlockType::Q5_1 | BlockType::Q4_K | BlockType::Q5_K => &[0, 2],
        BlockType::Q6_K => &[208],
    }
}

/// The index of the first block with a scale that is not finite.
pub(crate) fn first_infinite(kind: BlockType, codes: &[u8]) -> Option<usize> {
    codes.chunks_exact(kind.block_bytes()).position(|block| {
        scales_of(kind).iter().any(|&at| {
            let scale = u16::from_le_bytes([block[at], block[at + 1]]);
            scale & INFINITE == INFINITE
        })
    })
}

/// The largest element of the first block with a scale that f16 cannot hold.
#[inline(always)]
fn beyond_f16(kind: BlockType, values: &[f32], out: &[u8]) -> Option<usize> {
    let block = first_infinite(kind, out)?;
    let begin = block * kind.block_len();
    let block = &values[begin..][..kind.block_len()];
    let larger = |a: &(usize, &f32), b: &(usize, &f32)| a.1.abs().total_cmp(&b.1.abs());
    let (within, _) = block.iter().enumerate().max_by(larger)?;
    Some(begin + within)
}

/// The index of the first value that is not finite.
#[inline(always)]
pub(crate) fn first_not_finite(values: &[f32]) -> Option<usize> {
    first_not(
        values,
        #[inline(always)]
        |x| x.abs() < f32::INFINITY,
    )
}

/// The index of the first value that fails a check.
#[inline(always)]
pub fn first_not(values: &[f32], is_so: impl Fn(f32) -> bool) -> Option<usize> {
    const TOGETHER: usize = 64;
    // without an early exit per element, the compiler vectorises this
    let all = |values: &[f32]| values.iter().fold(true, |all, &x| all & is_so(x));
    let chunk = values.chunks(TOGETHER).position(|values| !all(values))?;
    let begin = chunk * TOGETHER;
    let within = values[begin..].iter().position(|&x| !is_so(x))?;
    Some(begin + within)
}

/// Calls `encode` with each block and its place.
#[inline(always)]
fn each<const LEN: usize, const BYTES: usize>(
    values: &[f32],
    out: &mut [u8],
    encode: impl Fn(&[f32; LEN], &mut [u8; BYTES]),
) {
    let (blocks, _) = values.as_chunks();
    let (places, _) = out.as_chunks_mut();
    for (block, place) in blocks.iter().zip(places) {
        encode(block, place);
    }
}

/// Writes a scale.
#[inline(always)]
fn put(block: &mut [u8], at: usize, scale: f32) {
    block[at..at + 2].copy_from_slice(&f16::from_f32_const(scale).to_le_bytes());
}

/// The inverse, or zero of zero.
#[inline(always)]
fn inverse(x: f32) -> f32 {
    if x == 0.0 { 0.0 } else { 1.0 / x }
}

/// The nearest integer, ties to even, of `|x| < 2^22`.
#[inline(always)]
fn nearest(x: f32) -> i32 {
    let bits = (x + WHOLE).to_bits();
    (bits & 0x007f_ffff) as i32 - 0x0040_0000
}
