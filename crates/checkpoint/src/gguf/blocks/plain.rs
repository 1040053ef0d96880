//! Types that are not quantised.

use half::f16;
use half::slice::HalfFloatSliceExt;

use super::each_block;

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
