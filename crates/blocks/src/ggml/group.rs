//! A group of 32 elements of each type.
//!
//! Byte `i` of the 4-bit and 5-bit blocks holds elements `i` (lower bits) and `i + 16` (upper bits).

use super::{GROUP, IQ4_NL_VALUES};

/// Groups of a block with this many bytes.
#[inline(always)]
pub(super) fn groups_of(block_bytes: usize) -> usize {
    if block_bytes > 34 { 8 } else { 1 }
}

/// The f16 at a byte offset of a block.
#[inline(always)]
pub(super) fn half(block: &[u8], at: usize) -> f32 {
    let bits = u32::from(u16::from_le_bytes([block[at], block[at + 1]]));
    let (sign, size) = (bits >> 15 << 31, bits & 0x7fff);
    // the exponent's bias is 15, that of an f32 is 127; processors are slow with subnormal f32
    let normal = (size << 13) + ((127 - 15) << 23);
    let subnormal = (size as f32 * f32::from_bits((127 - 24) << 23)).to_bits();
    let value = if size < 0x0400 { subnormal } else { normal };
    let not_finite = if size < 0x7c00 { 0 } else { 0x7f80_0000 };
    f32::from_bits(sign | not_finite | value)
}

/// `d: f16, q: [i8; 32]`
#[inline(always)]
pub(super) fn q8_0(block: &[u8; 34], _: usize, out: &mut [f32; GROUP]) {
    let d = half(block, 0);
    for (out, &q) in out.iter_mut().zip(&block[2..]) {
        *out = f32::from(q as i8) * d;
    }
}

/// `d: f16, q: [u4; 32]`, stored with an offset of 8.
#[inline(always)]
pub(super) fn q4_0(block: &[u8; 18], _: usize, out: &mut [f32; GROUP]) {
    let d = half(block, 0);
    for (out, q) in out.iter_mut().zip(four_bits(&block[2..])) {
        *out = d * f32::from(q as i8 - 8);
    }
}

/// `d: f16, m: f16, q: [u4; 32]`
#[inline(always)]
pub(super) fn q4_1(block: &[u8; 20], _: usize, out: &mut [f32; GROUP]) {
    let (d, m) = (half(block, 0), half(block, 2));
    for (out, q) in out.iter_mut().zip(four_bits(&block[4..])) {
        *out = d * f32::from(q) + m;
    }
}

/// `d: f16, fifth bits: [u1; 32], q: [u4; 32]`, stored with an offset of 16.
#[inline(always)]
pub(super) fn q5_0(block: &[u8; 22], _: usize, out: &mut [f32; GROUP]) {
    let d = half(block, 0);
    let q = five_bits(&block[2..6], &block[6..]);
    for (out, q) in out.iter_mut().zip(q) {
        *out = d * f32::from(q as i8 - 16);
    }
}

/// `d: f16, m: f16, fifth bits: [u1; 32], q: [u4; 32]`
#[inline(always)]
pub(super) fn q5_1(block: &[u8; 24], _: usize, out: &mut [f32; GROUP]) {
    let (d, m) = (half(block, 0), half(block, 2));
    let q = five_bits(&block[4..8], &block[8..]);
    for (out, q) in out.iter_mut().zip(q) {
        *out = d * f32::from(q) + m;
    }
}

#[inline(always)]
fn four_bits(bytes: &[u8]) -> [u8; GROUP] {
    let mut q = [0; GROUP];
    let (low, high) = q.split_at_mut(16);
    // two loops, so that each is vectorised
    for (q, byte) in low.iter_mut().zip(bytes) {
        *q = byte & 15;
    }
    for (q, byte) in high.iter_mut().zip(bytes) {
        *q = byte >> 4;
    }
    q
}

/// Bit `i` of the fifth bits belongs to element `i`.
#[inline(always)]
fn five_bits(fifth: &[u8], four: &[u8]) -> [u8; GROUP] {
    let fifth = u32::from_le_bytes([fifth[0], fifth[1], fifth[2], fifth[3]]);
    let mut q = four_bits(four);
    for (bit, q) in q.iter_mut().enumerate() {
        *q |= ((fifth >> bit & 1) << 4) as u8;
    }
    q
}

/// `d: f16, q: [u4; 32]`, where a code stands for a value of a table.
#[inline(always)]
pub(super) fn iq4_nl(block: &[u8; 18], _: usize, out: &mut [f32; GROUP]) {
    let d = half(block, 0);
    let values = four_bits(&block[2..]).map(|q| IQ4_NL_VALUES[usize::from(q)]);
    for (out, value) in out.iter_mut().zip(values) {
        *out = d * f32::from(value);
    }
}

/// `d: f16, m: f16, scales and minima: [u6; 16], q: [u4; 256]`
///
/// 32 bytes of `q` hold two groups, the first in the lower bits.
#[inline(always)]
pub(super) fn q4_k(block: &[u8; 144], group: usize, out: &mut [f32; GROUP]) {
    let (d, m) = scale_and_minimum(block, group);
    let q = &block[16 + group / 2 * GROUP..][..GROUP];
    let shift = group % 2 * 4;
    for (out, &q) in out.iter_mut().zip(q) {
        *out = d * f32::from(q >> shift & 15) - m;
    }
}

/// `d: f16, m: f16, scales and minima: [u6; 16], fifth bits: [u8; 32], q: [u4; 256]`
///
/// As [`q4_k`]; bit `p` of fifth bits `i` belongs to element `i` of group `p`.
#[inline(always)]
pub(super) fn q5_k(block: &[u8; 176], group: usize, out: &mut [f32; GROUP]) {
    let (d, m) = scale_and_minimum(block, group);
    let q = &block[48 + group / 2 * GROUP..][..GROUP];
    let shift = group % 2 * 4;
    for ((out, &q), &fifth) in out.iter_mut().zip(q).zip(&block[16..48]) {
        *out = d * f32::from(q >> shift & 15 | (fifth >> group & 1) << 4) - m;
    }
}

/// `lower bits: [u4; 256], upper bits: [u2; 256], scales: [i8; 16], d: f16`, stored with an offset of 32.
///
/// Each half of the block has 64 bytes of lower bits, for elements `i` and `i + 64`, and 32 bytes of upper
/// bits, for elements `i`, `i + 32`, `i + 64` and `i + 96`. Each scale is for 16 elements.
#[inline(always)]
pub(super) fn q6_k(block: &[u8; 210], group: usize, out: &mut [f32; GROUP]) {
    let (half_of_block, within) = (group / 4, group % 4);
    let lower = &block[64 * half_of_block + 32 * (within % 2)..][..GROUP];
    let upper = &block[128 + 32 * half_of_block..][..GROUP];
    let d = half(block, 208);
    let scales = &block[192 + 2 * group..][..2];
    let scales = [scales[0], scales[1]].map(|scale| d * f32::from(scale as i8));
    let q = match within {
        0 => six_bits::<0, 0>(lower, upper),
        1 => six_bits::<0, 2>(lower, upper),
        2 => six_bits::<4, 4>(lower, upper),
        _ => six_bits::<4, 6>(lower, upper),
    };
    for (at, (out, q)) in out.iter_mut().zip(q).enumerate() {
        *out = scales[at / 16] * f32::from(q as i8 - 32);
    }
}

/// Codes of six bits: four from one bit of a byte on, and two from one bit of another on.
#[inline(always)]
fn six_bits<const LOWER: u8, const UPPER: u8>(lower: &[u8], upper: &[u8]) -> [u8; GROUP] {
    let mut q = [0; GROUP];
    for (q, (&lower, &upper)) in q.iter_mut().zip(lower.iter().zip(upper)) {
        *q = lower >> LOWER & 15 | (upper >> UPPER & 3) << 4;
    }
    q
}

/// Scale and minimum of a group of a block of Q4_K or Q5_K.
///
/// Of the 12 bytes after `d` and `m`, the lower six bits of the first eight are the scales and then the
/// minima of the first four groups. The lower four bits of those of the other groups are in the last four
/// bytes, their upper two bits in the upper two bits of the first eight.
#[inline(always)]
fn scale_and_minimum(block: &[u8], group: usize) -> (f32, f32) {
    let (d, m) = (half(block, 0), half(block, 2));
    let packed = &block[4..16];
    let (scale, minimum) = if group < 4 {
        (packed[group] & 63, packed[group + 4] & 63)
    } else {
        let rest = packed[group + 4];
        (
            rest & 15 | packed[group - 4] >> 6 << 4,
            rest >> 4 | packed[group] >> 6 << 4,
        )
    };
    (d * f32::from(scale), m * f32::from(minimum))
}

#[cfg(test)]
mod tests {
    use half::f16;

    use super::half;

    #[test]
    fn every_f16_widens() {
        for bits in 0..=u16::MAX {
            let [found, expected] = [half(&bits.to_le_bytes(), 0), f16::from_bits(bits).to_f32()];
            assert_eq!(found.is_nan(), expected.is_nan());
            assert!(
                found.is_nan() || found.to_bits() == expected.to_bits(),
                "{bits:#06x}"
            );
        }
    }
}
