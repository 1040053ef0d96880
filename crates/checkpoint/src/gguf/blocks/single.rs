//! Types with one scale per block, and unquantised types.
//!
//! Byte `i` of the 4-bit and 5-bit blocks holds elements `i` (lower bits) and `i + 16` (upper bits).

use half::f16;
use half::slice::HalfFloatSliceExt;

use super::{each_block, half};

pub(super) fn f32(bytes: &[u8], out: &mut [f32]) {
    each_block(bytes, out, |bytes: &[u8; 4], [out]| {
        *out = f32::from_le_bytes(*bytes);
    });
}

pub(super) fn f16(bytes: &[u8], out: &mut [f32]) {
    const TOGETHER: usize = 64;
    let (halves, _) = bytes.as_chunks();
    // the processor converts several values at once, from aligned memory
    let mut aligned = [f16::ZERO; TOGETHER];
    for (halves, out) in halves.chunks(TOGETHER).zip(out.chunks_mut(TOGETHER)) {
        let len = halves.len().min(out.len());
        for (aligned, bytes) in aligned.iter_mut().zip(halves) {
            *aligned = f16::from_le_bytes(*bytes);
        }
        aligned[..len].convert_to_f32_slice(&mut out[..len]);
    }
}

pub(super) fn bf16(bytes: &[u8], out: &mut [f32]) {
    each_block(bytes, out, |bytes: &[u8; 2], [out]| {
        *out = f32::from_bits(u32::from(u16::from_le_bytes(*bytes)) << 16);
    });
}

/// `d: f16, q: [i8; 32]`
pub(super) fn q8_0(bytes: &[u8], out: &mut [f32]) {
    each_block(bytes, out, |block: &[u8; 34], out: &mut [f32; 32]| {
        let d = half(block, 0);
        for (out, &q) in out.iter_mut().zip(&block[2..]) {
            *out = f32::from(q as i8) * d;
        }
    });
}

/// `d: f16, q: [u4; 32]`, stored with an offset of 8.
pub(super) fn q4_0(bytes: &[u8], out: &mut [f32]) {
    each_block(bytes, out, |block: &[u8; 18], out: &mut [f32; 32]| {
        let d = half(block, 0);
        let (low, high) = out.split_at_mut(16);
        for ((low, high), &q) in low.iter_mut().zip(high).zip(&block[2..]) {
            *low = d * f32::from((q & 15) as i8 - 8);
            *high = d * f32::from((q >> 4) as i8 - 8);
        }
    });
}

/// `d: f16, m: f16, q: [u4; 32]`
pub(super) fn q4_1(bytes: &[u8], out: &mut [f32]) {
    each_block(bytes, out, |block: &[u8; 20], out: &mut [f32; 32]| {
        let (d, m) = (half(block, 0), half(block, 2));
        let (low, high) = out.split_at_mut(16);
        for ((low, high), &q) in low.iter_mut().zip(high).zip(&block[4..]) {
            *low = d * f32::from(q & 15) + m;
            *high = d * f32::from(q >> 4) + m;
        }
    });
}

/// `d: f16, fifth bits: [u1; 32], q: [u4; 32]`, stored with an offset of 16.
pub(super) fn q5_0(bytes: &[u8], out: &mut [f32]) {
    each_block(bytes, out, |block: &[u8; 22], out: &mut [f32; 32]| {
        let d = half(block, 0);
        let q = five_bits(&block[2..6], &block[6..]);
        for (out, q) in out.iter_mut().zip(q) {
            *out = d * f32::from(q as i8 - 16);
        }
    });
}

/// `d: f16, m: f16, fifth bits: [u1; 32], q: [u4; 32]`
pub(super) fn q5_1(bytes: &[u8], out: &mut [f32]) {
    each_block(bytes, out, |block: &[u8; 24], out: &mut [f32; 32]| {
        let (d, m) = (half(block, 0), half(block, 2));
        let q = five_bits(&block[4..8], &block[8..]);
        for (out, q) in out.iter_mut().zip(q) {
            *out = d * f32::from(q) + m;
        }
    });
}

/// Bit `i` of the fifth bits belongs to element `i`.
fn five_bits(fifth: &[u8], four: &[u8]) -> [u8; 32] {
    let mut q = [0; 32];
    let (low, high) = q.split_at_mut(16);
    for ((low, high), &four) in low.iter_mut().zip(high).zip(four) {
        *low = four & 15;
        *high = four >> 4;
    }
    for (q, fifth) in q.as_chunks_mut::<8>().0.iter_mut().zip(fifth) {
        for (bit, q) in q.iter_mut().enumerate() {
            *q |= (fifth >> bit & 1) << 4;
        }
    }
    q
}
