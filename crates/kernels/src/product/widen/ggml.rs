//! Blocks of GGUF files with AVX-512.
//!
//! Each number is computed by the operations of the plain loop in `simmer_blocks`, in their order, so it has the same bits.

use std::arch::x86_64::*;

use simmer_blocks::ggml::{self, BlockType, IQ4_NL_VALUES};

use super::superblocks;
use crate::product::few::codes::ggml::half;
use crate::simd::{numbers, sixteen};

/// Elements of a block.
const GROUP: usize = 32;

/// Numbers of a vector.
const LANES: usize = 16;

/// 0 to 15, and 16 to 31: codes that are their own values.
const COUNT: [[f32; LANES]; 2] = {
    let mut count = [[0.0; LANES]; 2];
    let mut at = 0;
    while at < 2 * LANES {
        count[at / LANES][at % LANES] = at as f32;
        at += 1;
    }
    count
};

/// Widens the elements from `start` on of a row of blocks, as many as `out` has.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma,f16c")]
pub(super) fn by_sixteen(kind: BlockType, row: &[u8], start: usize, out: &mut [f32]) {
    match kind {
        BlockType::Q8_0 => ggml::widen(kind, row, start, out),
        BlockType::Q4_K | BlockType::Q5_K | BlockType::Q6_K => {
            parts(kind, row, start, out, |first, out| {
                superblocks::widen(kind, row, first, out);
            });
        }
        _ => parts(kind, row, start, out, |first, out| {
            groups(kind, row, first, out);
        }),
    }
}

/// Widens whole parts of `N` elements with `widen`, which is given the first part, and what is before and after them with the
/// plain loop.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma,f16c")]
fn parts<const N: usize>(
    kind: BlockType,
    row: &[u8],
    start: usize,
    out: &mut [f32],
    widen: impl Fn(usize, &mut [[f32; N]]),
) {
    let before = start.next_multiple_of(N) - start;
    let (head, rest) = out.split_at_mut(before.min(out.len()));
    let (whole, tail) = rest.as_chunks_mut::<N>();
    let first = start.div_ceil(N);
    if !head.is_empty() {
        ggml::widen(kind, row, start, head);
    }
    if !tail.is_empty() {
        ggml::widen(kind, row, (first + whole.len()) * N, tail);
    }
    if !whole.is_empty() {
        widen(first, whole);
    }
}

/// Widens groups from one on.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma,f16c")]
fn groups(kind: BlockType, row: &[u8], first: usize, out: &mut [[f32; GROUP]]) {
    match kind {
        BlockType::Q4_0 => each(row, first, out, |block| q4_0(block)),
        BlockType::Q4_1 => each(row, first, out, |block| q4_1(block)),
        BlockType::Q5_0 => each(row, first, out, |block| q5_0(block)),
        BlockType::Q5_1 => each(row, first, out, |block| q5_1(block)),
        BlockType::IQ4_NL => each(row, first, out, |block| iq4_nl(block)),
        BlockType::Q8_0 | BlockType::Q4_K | BlockType::Q5_K | BlockType::Q6_K => {
            unreachable!("types that have other loops")
        }
    }
}

/// Widens blocks of one group from one on.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma,f16c")]
fn each<const BYTES: usize>(
    row: &[u8],
    first: usize,
    out: &mut [[f32; GROUP]],
    widen: impl Fn(&[u8; BYTES]) -> [__m512; 2],
) {
    let (blocks, _) = row.as_chunks::<BYTES>();
    for (block, out) in blocks[first..].iter().zip(out) {
        let [lower, upper] = widen(block);
        let (halves, _) = out.as_chunks_mut::<LANES>();
        halves[0] = numbers(lower);
        halves[1] = numbers(upper);
    }
}

/// `d: f16, q: [u4; 32]`, stored with an offset of 8.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma,f16c")]
fn q4_0(block: &[u8; 18]) -> [__m512; 2] {
    let values = _mm512_sub_ps(sixteen(&COUNT[0]), _mm512_set1_ps(8.0));
    let table = _mm512_mul_ps(_mm512_set1_ps(half(block, 0)), values);
    four_bits(table, bytes(block, 2))
}

/// `d: f16, m: f16, q: [u4; 32]`
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma,f16c")]
fn q4_1(block: &[u8; 20]) -> [__m512; 2] {
    let d = _mm512_set1_ps(half(block, 0));
    let m = _mm512_set1_ps(half(block, 2));
    let scaled = _mm512_mul_ps(d, sixteen(&COUNT[0]));
    four_bits(_mm512_add_ps(scaled, m), bytes(block, 4))
}

/// `d: f16, fifth bits: [u1; 32], q: [u4; 32]`, stored with an offset of 16.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma,f16c")]
fn q5_0(block: &[u8; 22]) -> [__m512; 2] {
    let d = _mm512_set1_ps(half(block, 0));
    let upper = sixteen(&COUNT[0]);
    let lower = _mm512_sub_ps(upper, _mm512_set1_ps(16.0));
    let tables = [_mm512_mul_ps(d, lower), _mm512_mul_ps(d, upper)];
    five_bits(tables, bytes(block, 6), fifth_bits(block, 2))
}

/// `d: f16, m: f16, fifth bits: [u1; 32], q: [u4; 32]`
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma,f16c")]
fn q5_1(block: &[u8; 24]) -> [__m512; 2] {
    let d = _mm512_set1_ps(half(block, 0));
    let m = _mm512_set1_ps(half(block, 2));
    let lower = _mm512_mul_ps(d, sixteen(&COUNT[0]));
    let upper = _mm512_mul_ps(d, sixteen(&COUNT[1]));
    let tables = [_mm512_add_ps(lower, m), _mm512_add_ps(upper, m)];
    five_bits(tables, bytes(block, 8), fifth_bits(block, 4))
}

/// `d: f16, q: [u4; 32]`, where a code stands for a value of a table.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma,f16c")]
fn iq4_nl(block: &[u8; 18]) -> [__m512; 2] {
    const VALUES: [f32; LANES] = {
        let mut values = [0.0; LANES];
        let mut at = 0;
        while at < LANES {
            values[at] = IQ4_NL_VALUES[at] as f32;
            at += 1;
        }
        values
    };
    let table = _mm512_mul_ps(_mm512_set1_ps(half(block, 0)), sixteen(&VALUES));
    four_bits(table, bytes(block, 2))
}

/// The values of codes of four bits: byte `i` holds elements `i` (lower bits) and `i + 16`.
#[inline]
#[target_feature(enable = "avx512f")]
fn four_bits(table: __m512, bytes: __m128i) -> [__m512; 2] {
    codes(bytes).map(|codes| _mm512_permutexvar_ps(codes, table))
}

/// The codes of four bits, in the lower bits of each lane; a look-up ignores the others.
#[inline]
#[target_feature(enable = "avx512f")]
fn codes(bytes: __m128i) -> [__m512i; 2] {
    let lower = _mm512_cvtepu8_epi32(bytes);
    [lower, _mm512_srli_epi32::<4>(lower)]
}

/// As [`four_bits`]; bit `i` of `fifth` belongs to element `i`, and selects one of two tables.
#[inline]
#[target_feature(enable = "avx512f")]
fn five_bits(tables: [__m512; 2], bytes: __m128i, fifth: u32) -> [__m512; 2] {
    let [first, second] = codes(bytes);
    let value = |codes, fifth: u16| {
        let without = _mm512_permutexvar_ps(codes, tables[0]);
        _mm512_mask_permutexvar_ps(without, fifth, codes, tables[1])
    };
    [
        value(first, fifth as u16),
        value(second, (fifth >> 16) as u16),
    ]
}

#[inline]
fn fifth_bits(block: &[u8], at: usize) -> u32 {
    bytemuck::pod_read_unaligned(&block[at..at + 4])
}

/// Sixteen bytes from a place on.
#[inline]
fn bytes(block: &[u8], at: usize) -> __m128i {
    bytemuck::pod_read_unaligned(&block[at..at + LANES])
}
