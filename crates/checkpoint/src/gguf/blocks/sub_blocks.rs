//! The K types: blocks of 256 elements whose sub-blocks have their own scales.

use super::{each_block, half};

/// `d: f16, m: f16, scales and minima: [u6; 16], q: [u4; 256]`
///
/// 32 bytes of `q` hold two sub-blocks of 32 elements, the first in the lower bits.
pub(super) fn q4_k(bytes: &[u8], out: &mut [f32]) {
    each_block(bytes, out, |block: &[u8; 144], out: &mut [f32; 256]| {
        let parts = parts(block);
        let (pairs, _) = out.as_chunks_mut::<64>();
        for ((out, q), parts) in pairs.iter_mut().zip(block[16..].chunks(32)).zip(parts) {
            let [(d0, m0), (d1, m1)] = parts;
            let (first, second) = out.split_at_mut(32);
            for ((first, second), &q) in first.iter_mut().zip(second).zip(q) {
                *first = d0 * f32::from(q & 15) - m0;
                *second = d1 * f32::from(q >> 4) - m1;
            }
        }
    });
}

/// `d: f16, m: f16, scales and minima: [u6; 16], fifth bits: [u8; 32], q: [u4; 256]`
///
/// As [`q4_k`]; bit `p` of fifth bits `i` belongs to element `i` of sub-block `p`.
pub(super) fn q5_k(bytes: &[u8], out: &mut [f32]) {
    each_block(bytes, out, |block: &[u8; 176], out: &mut [f32; 256]| {
        let parts = parts(block);
        let fifth = &block[16..48];
        let (pairs, _) = out.as_chunks_mut::<64>();
        for (pair, ((out, q), parts)) in pairs
            .iter_mut()
            .zip(block[48..].chunks(32))
            .zip(parts)
            .enumerate()
        {
            let [(d0, m0), (d1, m1)] = parts;
            let (first, second) = out.split_at_mut(32);
            for (((first, second), &q), &fifth) in first.iter_mut().zip(second).zip(q).zip(fifth) {
                let fifth = fifth >> (2 * pair);
                *first = d0 * f32::from(q & 15 | (fifth & 1) << 4) - m0;
                *second = d1 * f32::from(q >> 4 | (fifth & 2) << 3) - m1;
            }
        }
    });
}

/// `lower bits: [u4; 256], upper bits: [u2; 256], scales: [i8; 16], d: f16`, stored with an offset of 32.
///
/// Each half of the block has 64 bytes of lower bits, for elements `i` and `i + 64`, and 32 bytes of upper bits, for
/// elements `i`, `i + 32`, `i + 64` and `i + 96`. Each scale is for 16 elements.
pub(super) fn q6_k(bytes: &[u8], out: &mut [f32]) {
    each_block(bytes, out, |block: &[u8; 210], out: &mut [f32; 256]| {
        let d = half(block, 208);
        let mut q = [0u8; 256];
        let (halves, _) = q.as_chunks_mut::<128>();
        let (lower, upper) = block[..192].split_at(128);
        for ((q, lower), upper) in halves
            .iter_mut()
            .zip(lower.chunks(64))
            .zip(upper.chunks(32))
        {
            for i in 0..32 {
                q[i] = lower[i] & 15 | (upper[i] & 3) << 4;
                q[i + 32] = lower[i + 32] & 15 | (upper[i] >> 2 & 3) << 4;
                q[i + 64] = lower[i] >> 4 | (upper[i] >> 4 & 3) << 4;
                q[i + 96] = lower[i + 32] >> 4 | (upper[i] >> 6) << 4;
            }
        }
        let (parts, _) = out.as_chunks_mut::<16>();
        for ((out, q), &scale) in parts.iter_mut().zip(q.chunks(16)).zip(&block[192..208]) {
            let d = d * f32::from(scale as i8);
            for (out, &q) in out.iter_mut().zip(q) {
                *out = d * f32::from(q as i8 - 32);
            }
        }
    });
}

/// Scale and minimum of each of the eight sub-blocks, in pairs.
///
/// Of the 12 bytes after `d` and `m`, the lower six bits of the first eight are the scales and then the minima of
/// sub-blocks 0 to 3. The upper two bits, and the last four bytes (four bits of scale, four of minimum), belong to
/// sub-blocks 4 to 7.
fn parts(block: &[u8]) -> [[(f32, f32); 2]; 4] {
    let (d, m) = (half(block, 0), half(block, 2));
    let packed = &block[4..16];
    std::array::from_fn(|pair| {
        std::array::from_fn(|side| {
            let part = 2 * pair + side;
            let (scale, minimum) = if part < 4 {
                (packed[part] & 63, packed[part + 4] & 63)
            } else {
                let rest = packed[part + 4];
                (
                    rest & 15 | packed[part - 4] >> 6 << 4,
                    rest >> 4 | packed[part] >> 6 << 4,
                )
            };
            (d * f32::from(scale), m * f32::from(minimum))
        })
    })
}
