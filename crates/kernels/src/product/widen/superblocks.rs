//! Blocks of 256 elements of GGUF files with AVX-512; see [`ggml`](super::ggml).

use std::arch::x86_64::*;

use simmer_blocks::ggml::BlockType;

use crate::product::few::codes::fixed::superblocks::{q4_k_unit, q5_k_unit, q6_k_unit};
use crate::product::few::codes::ggml::{Scales, half};
use crate::simd::numbers;

/// Elements that are unpacked at a time.
pub(super) const UNIT: usize = 64;

/// Units of a block.
const UNITS: usize = 4;

/// Numbers of a vector.
const LANES: usize = 16;

/// Vectors of a block.
const VECTORS: usize = UNITS * UNIT / LANES;

/// What the codes of each vector are multiplied with, and what is subtracted then.
struct Head {
    scales: [f32; VECTORS],
    minima: [f32; VECTORS],
}

/// Widens units of a row from one on.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma,f16c")]
pub(super) fn widen(kind: BlockType, row: &[u8], first: usize, out: &mut [[f32; UNIT]]) {
    match kind {
        BlockType::Q4_K => blocks::<144, 0>(
            row,
            first,
            out,
            |block| eight(block),
            |block, at| q4_k_unit(block, at),
        ),
        BlockType::Q5_K => blocks::<176, 0>(
            row,
            first,
            out,
            |block| eight(block),
            |block, at| q5_k_unit(block, at),
        ),
        BlockType::Q6_K => blocks::<210, 32>(
            row,
            first,
            out,
            |block| sixteen(block),
            |block, at| q6_k_unit(block, at),
        ),
        _ => unreachable!("blocks of 256 elements"),
    }
}

/// `unit` unpacks the codes of a unit, which are stored with an offset, into unsigned bytes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma,f16c")]
fn blocks<const BYTES: usize, const OFFSET: i8>(
    row: &[u8],
    first: usize,
    out: &mut [[f32; UNIT]],
    head: impl Fn(&[u8; BYTES]) -> Head,
    unit: impl Fn(&[u8; BYTES], usize) -> __m512i,
) {
    let (blocks, _) = row.as_chunks::<BYTES>();
    let before = (first.next_multiple_of(UNITS) - first).min(out.len());
    let (start, rest) = out.split_at_mut(before);
    let parts = std::iter::once(start).chain(rest.chunks_mut(UNITS));
    let mut at = first;
    for part in parts.filter(|part| !part.is_empty()) {
        let block = &blocks[at / UNITS];
        let head = head(block);
        for out in part {
            let codes = unit(block, at % UNITS);
            let codes = _mm512_sub_epi8(codes, _mm512_set1_epi8(OFFSET));
            let codes: [__m128i; UNIT / LANES] = bytemuck::cast(codes);
            let (vectors, _) = out.as_chunks_mut::<LANES>();
            for (quarter, out) in vectors.iter_mut().enumerate() {
                let vector = at % UNITS * (UNIT / LANES) + quarter;
                let values = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(codes[quarter]));
                let scaled = _mm512_mul_ps(_mm512_set1_ps(head.scales[vector]), values);
                *out = numbers(_mm512_sub_ps(scaled, _mm512_set1_ps(head.minima[vector])));
            }
            at += 1;
        }
    }
}

/// The head of a block of Q4_K or Q5_K.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma,f16c")]
fn eight(block: &[u8]) -> Head {
    let scales = Scales::of(block);
    let twice = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
    let [groups, minima]: [__m256; 2] = [bytemuck::cast(scales.groups), scales.minima];
    let groups = _mm512_permutexvar_ps(twice, _mm512_castps256_ps512(groups));
    let minima = _mm512_permutexvar_ps(twice, _mm512_castps256_ps512(minima));
    Head {
        scales: numbers(groups),
        minima: numbers(minima),
    }
}

/// The head of a block of Q6_K.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma,f16c")]
fn sixteen(block: &[u8]) -> Head {
    let codes = bytemuck::pod_read_unaligned(&block[192..208]);
    let codes = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(codes));
    Head {
        scales: numbers(_mm512_mul_ps(_mm512_set1_ps(half(block, 208)), codes)),
        minima: [0.0; VECTORS],
    }
}
