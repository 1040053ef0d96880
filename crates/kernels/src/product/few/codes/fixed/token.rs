//! A token in fixed point.

use std::arch::x86_64::*;
use std::iter::repeat_n;

use simmer_blocks::Form;
use simmer_blocks::ggml::BlockType;

use super::{LANES, UNIT};
use crate::product::few::codes::GROUP;
use crate::simd::sixteen;

/// Features of a block of Q4_K, Q5_K or Q6_K.
pub(super) const BLOCK: usize = 256;

/// The features of one token as `P` signed bytes each: `Σ 256^(P - 1 - p) · byte p`, in units of a group.
pub(in crate::product::few) struct Token<const P: usize> {
    /// `[K / UNIT, P, UNIT]`, filled with zeros to whole vectors.
    pub(super) bytes: Vec<[[i8; UNIT]; P]>,
    /// The units: one for each sum, or one for each [`BLOCK`]; see [`Grid`].
    pub(super) units: Vec<f32>,
    /// The sums of the features that share a scale.
    pub(super) sums: Vec<f32>,
}

/// How a token is put into fixed point for a weight.
struct Grid {
    /// Features that share a unit.
    shared: usize,
    /// Features that share a scale of the weight, and so a sum.
    scaled: usize,
    /// Features for each unit that is stored.
    stored: usize,
    /// Largest number of units of a feature: its first byte is signed, and sums must not overflow.
    largest: f32,
}

impl Token<3> {
    /// The f32 features `x`, `[K]`, in 24 bits, for rows of a form that is taken.
    pub(in crate::product::few) fn of_f32(x: &[f32], form: &Form) -> Self {
        let scaled = scaled(form);
        let grid = Grid {
            shared: GROUP,
            scaled,
            stored: scaled,
            largest: (127 << 16) as f32,
        };
        // SAFETY: tokens are made for instructions that this processor has.
        unsafe { in_fixed_point(x, &grid) }
    }
}

impl Token<2> {
    /// The bf16 features `x`, `[K]`, in 16 bits, or 14 for Q6_K, for rows of a form that is taken.
    ///
    /// The scales of a block of 256 elements are multiplied as integers too, so its features share a unit. See
    /// [`superblocks`](super::superblocks) for why the sums do not overflow.
    pub(in crate::product::few) fn of_bf16(x: &[f32], form: &Form) -> Self {
        let [shared, largest] = match form {
            Form::Blocks(BlockType::Q4_K | BlockType::Q5_K) => [BLOCK, 127 << 8],
            Form::Blocks(BlockType::Q6_K) => [BLOCK, 32 << 8],
            _ => [GROUP, 127 << 8],
        };
        let grid = Grid {
            shared,
            scaled: scaled(form),
            stored: shared,
            largest: largest as f32,
        };
        // SAFETY: as above.
        unsafe { in_fixed_point(x, &grid) }
    }
}

/// Features that share a scale.
fn scaled(form: &Form) -> usize {
    match form {
        Form::Blocks(BlockType::Q6_K) => GROUP / 2,
        _ => GROUP,
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn in_fixed_point<const P: usize>(x: &[f32], grid: &Grid) -> Token<P> {
    let mut padded = x.to_vec();
    padded.resize(x.len().next_multiple_of(UNIT), 0.0);
    let mut token = Token {
        bytes: vec![[[0; UNIT]; P]; padded.len() / UNIT],
        units: Vec::with_capacity(padded.len() / grid.stored),
        sums: Vec::with_capacity(padded.len() / grid.scaled),
    };
    let vectors_of_unit = UNIT / LANES;
    for (group, features) in padded.chunks_exact(grid.shared).enumerate() {
        let (unit, per_unit) = unit(features, grid.largest);
        token
            .units
            .extend(repeat_n(unit, grid.shared / grid.stored));
        for (at, features) in features.as_chunks::<LANES>().0.iter().enumerate() {
            let vector = group * grid.shared / LANES + at;
            let [whole, lane] = [vector / vectors_of_unit, vector % vectors_of_unit * LANES];
            for (bytes, split) in token.bytes[whole]
                .iter_mut()
                .zip(split::<P>(features, per_unit))
            {
                bytes[lane..lane + LANES].copy_from_slice(&split);
            }
        }
    }
    for features in padded.chunks_exact(grid.scaled) {
        let vectors = features.as_chunks::<LANES>().0;
        let sums = vectors.iter().map(|features| sum(features));
        token
            .sums
            .push(sums.reduce(|all, sum| all + sum).unwrap_or(0.0));
    }
    token
}

/// The unit of some features, a power of two, and how many of them one is. NaN if a feature is not finite, so that the product
/// is NaN.
#[inline]
fn unit(features: &[f32], most: f32) -> (f32, f32) {
    const EXPONENT: u32 = 23;
    const BIAS: u32 = 127;
    let largest = features.iter().fold(0, |all, x| all.max(x.to_bits() << 1)) >> 1;
    if largest >= f32::INFINITY.to_bits() {
        return (f32::NAN, 0.0);
    }
    // most = 1.n · 2^f, and largest = 1.m · 2^e is from 2^f to 2^(f + 1) units of 2^(e - f)
    let bits = (most.to_bits() >> EXPONENT) - BIAS;
    let Some(exponent) = (largest >> EXPONENT).checked_sub(bits).filter(|e| *e > 0) else {
        return (0.0, 0.0);
    };
    let power = |exponent: u32| f32::from_bits(exponent << EXPONENT);
    let fits = f32::from_bits(largest) * power(2 * BIAS - exponent) <= most;
    let exponent = if fits { exponent } else { exponent + 1 };
    (power(exponent), power(2 * BIAS - exponent))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn sum(features: &[f32; LANES]) -> f32 {
    _mm512_reduce_add_ps(sixteen(features))
}

/// Features in units, as signed bytes, the largest ones first.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn split<const P: usize>(features: &[f32; LANES], per_unit: f32) -> [[i8; LANES]; P] {
    let mut units = _mm512_cvtps_epi32(_mm512_mul_ps(sixteen(features), _mm512_set1_ps(per_unit)));
    let mut bytes = [[0; LANES]; P];
    for byte in bytes.iter_mut().rev() {
        *byte = bytemuck::cast(_mm512_cvtepi32_epi8(units));
        // the byte is signed, and what it is too low by is carried
        units = _mm512_srai_epi32::<8>(_mm512_add_epi32(units, _mm512_set1_epi32(128)));
    }
    bytes
}
