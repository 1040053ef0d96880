//! A token in fixed point, in bytes.

use std::arch::x86_64::*;

use super::superblocks::UNITS;
use super::words::BLOCK;
use super::{LANES, UNIT};
use crate::product::few::codes::GROUP;
use crate::simd::sixteen;

/// Largest first byte of a feature: it is signed, and sums must not overflow.
const LARGEST: u32 = 127;

/// The features of one token as `P` signed bytes each: `Σ 256^(P - 1 - p) · byte p`, in units of a group. For rows of blocks of
/// 32 elements and of int8.
pub(in crate::product::few) struct Token<const P: usize> {
    /// `[K / UNIT]`, filled with zeros to whole vectors.
    pub(super) bytes: Vec<Bytes<P>>,
    /// The units, `[K / GROUP]`.
    pub(super) units: Vec<f32>,
    /// The sums of the features of a group, `[K / GROUP]`.
    pub(super) sums: Vec<f32>,
}

/// The bytes of [`UNIT`] features. Aligned as a vector is loaded fastest.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(super) struct Bytes<const P: usize>(pub(super) [[i8; UNIT]; P]);

impl<const P: usize> Token<P> {
    /// The features `x`, `[K]`.
    pub(super) fn new(x: &[f32]) -> Self {
        // SAFETY: tokens are made for instructions that this processor has.
        unsafe { in_fixed_point(x) }
    }
}

/// As [`Token`], in units of a block. For rows of blocks of 256 elements.
pub(in crate::product::few) struct BlockToken<const P: usize> {
    /// `[K / BLOCK]`
    pub(super) blocks: Vec<TokenBlock<P>>,
}

/// The features of a block.
#[derive(Clone, Copy)]
pub(super) struct TokenBlock<const P: usize> {
    pub(super) bytes: [Bytes<P>; UNITS],
    pub(super) unit: f32,
    /// The sums of the features of a group.
    pub(super) sums: [f32; BLOCK / GROUP],
    /// The sums of each 16 features, in units: `32768 · first + second`.
    pub(super) half_sums: [[i16; BLOCK / LANES]; 2],
}

impl<const P: usize> BlockToken<P> {
    /// The features `x`, `[K]`, whose number is a multiple of [`BLOCK`].
    pub(super) fn new(x: &[f32]) -> Self {
        let blocks = x.as_chunks().0.iter();
        Self {
            // SAFETY: tokens are made for instructions that this processor has.
            blocks: blocks.map(|x| unsafe { TokenBlock::new(x) }).collect(),
        }
    }
}

impl<const P: usize> TokenBlock<P> {
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    fn new(x: &[f32; BLOCK]) -> Self {
        let (unit, per_unit) = unit(x, largest(P));
        let mut block = Self {
            bytes: [Bytes([[0; UNIT]; P]); UNITS],
            unit,
            sums: group_sums(x),
            half_sums: [[0; BLOCK / LANES]; 2],
        };
        for (at, features) in x.as_chunks().0.iter().enumerate() {
            block.bytes[at] = Bytes::of(features, per_unit);
        }
        for (half, features) in x.as_chunks::<LANES>().0.iter().enumerate() {
            let units = _mm512_mul_ps(sixteen(features), _mm512_set1_ps(per_unit));
            let sum = _mm512_reduce_add_epi32(_mm512_cvtps_epi32(units));
            let first = (sum + (1 << 14)) >> 15;
            block.half_sums[0][half] = first as i16;
            block.half_sums[1][half] = (sum - (first << 15)) as i16;
        }
        block
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn in_fixed_point<const P: usize>(x: &[f32]) -> Token<P> {
    let mut padded = x.to_vec();
    padded.resize(x.len().next_multiple_of(UNIT), 0.0);
    let mut token = Token {
        bytes: Vec::with_capacity(padded.len() / UNIT),
        units: Vec::with_capacity(padded.len() / GROUP),
        sums: Vec::with_capacity(padded.len() / GROUP),
    };
    for features in padded.as_chunks::<UNIT>().0 {
        let mut bytes = Bytes([[0; UNIT]; P]);
        for (group, features) in features.as_chunks::<GROUP>().0.iter().enumerate() {
            let (unit, per_unit) = unit(features, largest(P));
            token.units.push(unit);
            for (half, features) in features.as_chunks().0.iter().enumerate() {
                bytes.set(group * GROUP + half * LANES, features, per_unit);
            }
        }
        token.bytes.push(bytes);
        token
            .sums
            .extend(group_sums::<UNIT, { UNIT / GROUP }>(features));
    }
    token
}

impl<const P: usize> Bytes<P> {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    fn of(features: &[f32; UNIT], per_unit: f32) -> Self {
        let mut bytes = Self([[0; UNIT]; P]);
        for (at, features) in features.as_chunks().0.iter().enumerate() {
            bytes.set(at * LANES, features, per_unit);
        }
        bytes
    }

    /// Sets the bytes of features from a place on.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    fn set(&mut self, place: usize, features: &[f32; LANES], per_unit: f32) {
        for (bytes, split) in self.0.iter_mut().zip(split::<P>(features, per_unit)) {
            bytes[place..place + LANES].copy_from_slice(&split);
        }
    }
}

/// Largest number of units of a feature of `bytes` bytes.
fn largest(bytes: usize) -> f32 {
    (LARGEST << (8 * (bytes - 1))) as f32
}

/// The sums of the features of each group.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) fn group_sums<const K: usize, const GROUPS: usize>(x: &[f32; K]) -> [f32; GROUPS] {
    let mut sums = [0.0; GROUPS];
    for (group, features) in sums.iter_mut().zip(x.as_chunks::<GROUP>().0) {
        let [first, second]: [[f32; LANES]; 2] = bytemuck::cast(*features);
        *group = sum(&first) + sum(&second);
    }
    sums
}

/// The unit of some features, a power of two, and how many of them one is. NaN if a feature is not finite, so that the product
/// is NaN.
#[inline]
pub(super) fn unit(features: &[f32], most: f32) -> (f32, f32) {
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
