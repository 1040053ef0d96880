//! Blocks of 32 elements with one scale, and at most one minimum.

use super::{inverse, put};
use crate::ggml::GROUP;

/// `d = max|x| / 127, q = round(x / d)`
#[inline(always)]
pub(super) fn q8_0(block: &[f32; GROUP], place: &mut [u8; 34]) {
    // truncating after adding the largest f32 below 0.5 rounds as `f32::round`, and is vectorised
    const BEFORE_HALF: f32 = 0.5f32.next_down();
    // the bits of finite non-negative numbers have the order of the numbers
    let largest = block.iter().fold(0, |max, x| x.abs().to_bits().max(max));
    let d = f32::from_bits(largest) / 127.0;
    let id = inverse(d);
    put(place, 0, d);
    // if the inverse is infinite, d is zero as f16, so that any q means zero
    for (q, x) in place[2..].iter_mut().zip(block) {
        let scaled = x * id;
        *q = (scaled + BEFORE_HALF.copysign(scaled)) as i32 as u8;
    }
}

/// The scale is negative where the largest element is positive, since the codes reach further below zero.
#[inline(always)]
pub(super) fn q4_0(block: &[f32; GROUP], place: &mut [u8; 18]) {
    let d = furthest(block) / -8.0;
    let id = inverse(d);
    put(place, 0, d);
    let q = block.map(|x| ((x * id + 8.5) as u8).min(15));
    nibbles(&q, &mut place[2..]);
}

#[inline(always)]
pub(super) fn q4_1(block: &[f32; GROUP], place: &mut [u8; 20]) {
    let [min, max] = range(block);
    let d = (max - min) / 15.0;
    let id = inverse(d);
    put(place, 0, d);
    put(place, 2, min);
    let q = block.map(|x| (((x - min) * id + 0.5) as u8).min(15));
    nibbles(&q, &mut place[4..]);
}

#[inline(always)]
pub(super) fn q5_0(block: &[f32; GROUP], place: &mut [u8; 22]) {
    let d = furthest(block) / -16.0;
    let id = inverse(d);
    put(place, 0, d);
    let q = block.map(|x| ((x * id + 16.5) as u8).min(31));
    place[2..6].copy_from_slice(&fifth_bits(&q));
    nibbles(&q, &mut place[6..]);
}

#[inline(always)]
pub(super) fn q5_1(block: &[f32; GROUP], place: &mut [u8; 24]) {
    let [min, max] = range(block);
    let d = (max - min) / 31.0;
    let id = inverse(d);
    put(place, 0, d);
    put(place, 2, min);
    let q = block.map(|x| (((x - min) * id + 0.5) as u8).min(31));
    place[4..8].copy_from_slice(&fifth_bits(&q));
    nibbles(&q, &mut place[8..]);
}

/// The first element with the largest absolute value; zero if all are zero.
#[inline(always)]
fn furthest(block: &[f32; GROUP]) -> f32 {
    let mut furthest = 0.0f32;
    for &x in block {
        if furthest.abs() < x.abs() {
            furthest = x;
        }
    }
    furthest
}

/// The smallest and the largest element.
#[inline(always)]
fn range(block: &[f32; GROUP]) -> [f32; 2] {
    let [mut min, mut max] = [f32::MAX, -f32::MAX];
    for &x in block {
        min = if x < min { x } else { min };
        max = if x > max { x } else { max };
    }
    [min, max]
}

/// Writes the lower four bits of elements `i` and `i + 16` to byte `i`.
#[inline(always)]
pub(super) fn nibbles(q: &[u8; GROUP], place: &mut [u8]) {
    let (low, high) = q.split_at(GROUP / 2);
    for ((place, low), high) in place.iter_mut().zip(low).zip(high) {
        *place = low & 15 | high << 4;
    }
}

#[inline(always)]
fn fifth_bits(q: &[u8; GROUP]) -> [u8; 4] {
    let bits = q.iter().enumerate();
    let bits = bits.fold(0u32, |bits, (i, q)| bits | u32::from(q >> 4 & 1) << i);
    bits.to_le_bytes()
}
