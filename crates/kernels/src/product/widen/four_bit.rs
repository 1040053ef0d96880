//! Four-bit codes: nf4 and fp4.

use std::arch::x86_64::*;

use simmer_blocks::{FourBit, Rounding};

use crate::simd::{numbers, sixteen};

/// Elements that are looked up at a time, and the bytes that hold their codes.
const STEP: usize = 16;
const BYTES: usize = STEP / 2;

/// Scales that are read at a time.
const SCALES: usize = 16;

/// Widens elements of the flattened matrix from `first` on.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,f16c")]
pub(super) fn by_sixteen(form: &FourBit, codes: &[u8], first: usize, out: &mut [f32]) {
    let values = sixteen(&form.values);
    blocks(form, first, out, |scale, index, out| {
        let table = round(_mm512_mul_ps(values, _mm512_set1_ps(scale)), form.rounding);
        let (head, rest) = out.split_at_mut(index % 2);
        let codes = &codes[index / 2..];
        if let [head] = head {
            *head = numbers(table)[usize::from(codes[0] & 15)];
        }
        let codes = &codes[index % 2..];
        let (pairs, tail) = rest.as_chunks_mut::<{ 2 * STEP }>();
        let (whole, _) = codes.as_chunks::<{ 2 * BYTES }>();
        for (out, codes) in pairs.iter_mut().zip(whole) {
            *out = thirty_two(table, codes);
        }
        if !tail.is_empty() {
            let table = numbers(table);
            for (at, out) in tail.iter_mut().enumerate() {
                let byte = codes[pairs.len() * 2 * BYTES + at / 2];
                *out = table[usize::from(if at % 2 == 0 { byte >> 4 } else { byte & 15 })];
            }
        }
    });
}

/// The values of the codes of sixteen bytes: the upper four bits of a byte are the first of its two elements.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn thirty_two(table: __m512, codes: &[u8; 2 * BYTES]) -> [f32; 2 * STEP] {
    /// Byte `i / 2` in word `i`.
    const WORDS: [[u32; STEP]; 2] = {
        let mut words = [[0; STEP]; 2];
        let mut word = 0;
        while word < 2 * STEP {
            words[word / STEP][word % STEP] = (word / 2) as u32;
            word += 1;
        }
        words
    };
    let bytes = _mm512_broadcast_i32x4(bytemuck::cast(*codes));
    let shifts = _mm512_set1_epi64(4);
    let mut values = [[0.0; STEP]; 2];
    for (values, words) in values.iter_mut().zip(WORDS) {
        let bytes = _mm512_shuffle_epi8(bytes, bytemuck::cast(words));
        *values = numbers(_mm512_permutexvar_ps(
            _mm512_srlv_epi32(bytes, shifts),
            table,
        ));
    }
    bytemuck::cast(values)
}

/// As [`by_sixteen`], from two halves of the table.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn by_eight(form: &FourBit, codes: &[u8], first: usize, out: &mut [f32]) {
    let shifts = _mm256_set1_epi64x(4);
    parts(form, codes, first, out, |table, codes| {
        let table: [__m256; 2] = bytemuck::cast(*table);
        let mut found = [_mm256_setzero_ps(); 2];
        for (found, codes) in found.iter_mut().zip(codes.as_chunks::<{ BYTES / 2 }>().0) {
            let bytes = _mm256_cvtepu8_epi64(_mm_cvtsi32_si128(i32::from_le_bytes(*codes)));
            let both = _mm256_or_si256(_mm256_slli_epi64::<32>(bytes), bytes);
            let index = _mm256_srlv_epi32(both, shifts);
            // the fourth bit of the code, as the sign of a number, selects the half
            let upper = _mm256_castsi256_ps(_mm256_slli_epi32::<28>(index));
            *found = _mm256_blendv_ps(
                _mm256_permutevar8x32_ps(table[0], index),
                _mm256_permutevar8x32_ps(table[1], index),
                upper,
            );
        }
        bytemuck::cast(found)
    });
}

/// As [`blocks`], with the table of a block. `look_up` gives the values of the codes of eight bytes.
#[inline(always)]
fn parts(
    form: &FourBit,
    codes: &[u8],
    first: usize,
    out: &mut [f32],
    look_up: impl Fn(&[f32; 16], &[u8; BYTES]) -> [f32; STEP],
) {
    blocks(form, first, out, |scale, index, out| {
        let mut table = form.values.map(|value| value * scale);
        form.rounding.round(&mut table);
        of_block(&table, codes, index, out, &look_up);
    });
}

/// Widens elements from `first` on, block by block: `widen` is given the scale of a block, the first element and the place of
/// some of them.
#[inline(always)]
fn blocks(form: &FourBit, first: usize, out: &mut [f32], widen: impl Fn(f32, usize, &mut [f32])) {
    let mut scales = [0.0; SCALES];
    let mut index = first;
    let mut rest = out;
    while !rest.is_empty() {
        let start = index / form.block;
        let blocks = (index + rest.len()).div_ceil(form.block) - start;
        let scales = &mut scales[..blocks.min(SCALES)];
        form.absmax.fill(start, scales);
        for scale in scales {
            let length = (form.block - index % form.block).min(rest.len());
            let (part, after) = rest.split_at_mut(length);
            widen(*scale, index, part);
            index += length;
            rest = after;
        }
    }
}

/// Widens elements of one block, from `index` on.
#[inline(always)]
fn of_block(
    table: &[f32; 16],
    codes: &[u8],
    index: usize,
    out: &mut [f32],
    look_up: impl Fn(&[f32; 16], &[u8; BYTES]) -> [f32; STEP],
) {
    let (head, rest) = out.split_at_mut(index % 2);
    if let [head] = head {
        *head = table[usize::from(codes[index / 2] & 15)];
    }
    let codes = &codes[index.div_ceil(2)..];
    let (steps, tail) = rest.as_chunks_mut::<STEP>();
    let (whole, _) = codes.as_chunks::<BYTES>();
    for (out, codes) in steps.iter_mut().zip(whole) {
        *out = look_up(table, codes);
    }
    for (at, out) in tail.iter_mut().enumerate() {
        let byte = codes[steps.len() * BYTES + at / 2];
        *out = table[usize::from(if at % 2 == 0 { byte >> 4 } else { byte & 15 })];
    }
}

/// Numbers rounded to a dtype, ties to even.
#[inline]
#[target_feature(enable = "avx512f")]
pub(in crate::product) fn round(numbers: __m512, rounding: Rounding) -> __m512 {
    match rounding {
        Rounding::F32 => numbers,
        Rounding::Bf16 => {
            let bits = _mm512_castps_si512(numbers);
            let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
            let half = _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff));
            let upper = _mm512_set1_epi32(!0xffff);
            _mm512_castsi512_ps(_mm512_and_si512(_mm512_add_epi32(bits, half), upper))
        }
        Rounding::F16 => _mm512_cvtph_ps(_mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(numbers)),
    }
}
