//! f32 products on AMX tiles.
//!
//! The tile unit multiplies bf16 numbers and sums in f32. A number in f32 has 24 significant bits
//! and is the exact sum of three bf16 numbers of 8 bits each, `x = x₀ + x₁ + x₂`; a weight in bf16
//! is one, in f16 two. So `x·w = Σ xₚ·wₛ` over the pairs with `p + s < 3`, each product exact and
//! summed in f32; what is left out is below 2⁻²⁴ of the product, f32's own rounding. With a bf16
//! weight nothing is left out. The unit is sixteen times as fast as f32 multiply-add, so that
//! three products in the place of one still gain a factor of five.
//!
//! Numbers below 2⁻¹¹⁰ lose parts to the unit's flushing of subnormal numbers.
//!
//! Source: Henry, Tang and Heinecke 2019 (Leveraging the bfloat16 Artificial Intelligence Datatype
//! For Higher-Precision Computations); Intel's instruction set reference for the tiles.
//!
//! Axes: M tokens, K summed features, N result features, in tiles of 16 x 32 (left), 32 x 16
//! (right, pairs of K interleaved) and 16 x 16 (result).

#![expect(unsafe_code, reason = "tile instructions and the packing for them")]
#![allow(
    clippy::wildcard_imports,
    reason = "vector instructions, by their names"
)]

mod pack;
mod tiles;

use std::arch::asm;
use std::arch::x86_64::__cpuid_count;
use std::ops::Range;
use std::sync::OnceLock;

use self::pack::{Left, Right, parts};
use self::tiles::{Sides, Tiles, multiply};
use super::Weight;
use crate::threads;

/// Rows of a tile, and columns of a result tile.
const TILE: usize = 16;

/// Summed features of one tile instruction.
const DEPTH: usize = 32;

/// Most tile steps of K between two visits of the result: the left side of a pair of tiles, 6 KiB a
/// step, stays in the second-level cache while a task's features pass.
const STEPS: usize = 64;

/// Lines of a task's right side: 1 MiB, half of the second-level cache of the processors that have
/// tiles.
const RIGHT: usize = (1 << 20) / size_of::<Line>();

/// Weights of a row that are asked for before they are packed.
const AHEAD: usize = 8 * DEPTH;

/// A tile's row: 32 bf16 numbers. Aligned, so that loading a tile touches sixteen lines.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Line([u16; DEPTH]);

impl crate::buffer::Plain for Line {}

/// Lines of one tile.
const LINES: usize = TILE;

/// Whether the processor has bf16 tiles and AVX-512, and the system lets this process use them.
pub(super) fn available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| {
        const TILES_AND_BF16: u32 = 1 << 24 | 1 << 22;
        let vectors = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw");
        // leaf 7 exists wherever AVX-512 does
        vectors && __cpuid_count(7, 0).edx & TILES_AND_BF16 == TILES_AND_BF16 && permitted()
    })
}

/// Asks Linux for the tile registers: `arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)`.
fn permitted() -> bool {
    let mut result: i64 = 158;
    // SAFETY: the call changes what the process may use and no memory; `syscall` overwrites the
    // three registers named.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") result,
            in("rdi") 0x1023,
            in("rsi") 18,
            out("rcx") _,
            out("r11") _,
            options(nostack),
        );
    }
    result == 0
}

/// `y = x · weight`, or `y += x · weight`.
///
/// A task takes some features and some tokens. It packs its part of the weight into its own cache;
/// its tokens stream past, a pair of tiles at a time.
pub(super) fn product(x: &[f32], weight: Weight<'_>, y: &mut [f32], add: bool) {
    let [k, n] = weight.inner_outer();
    let m = x.len() / k;
    let steps = k.div_ceil(DEPTH);
    let steps = steps.div_ceil(steps.div_ceil(STEPS)); // equal shares, none for a few
    let pairs = n.div_ceil(2 * TILE);
    let fit = (RIGHT / (2 * steps * parts(weight.values) * LINES)).max(1);
    let threads = rayon::current_num_threads();
    let groups = pairs.div_ceil(fit).next_multiple_of(threads).min(pairs);
    let features = pairs.div_ceil(groups) * 2 * TILE;
    let groups = n.div_ceil(features);
    let blocks = threads.div_ceil(groups).min(m.div_ceil(2 * TILE));
    let tokens = m.div_ceil(blocks).next_multiple_of(2 * TILE);
    let y = Output {
        start: y.as_mut_ptr(),
        stride: n,
        add,
    };
    threads::for_each(groups * blocks, |task| {
        let [block, group] = [task / groups, task % groups];
        let tokens = (block * tokens).min(m)..m.min((block + 1) * tokens);
        let features = group * features..n.min((group + 1) * features);
        // SAFETY: `available` was true, or nobody would call this; the ranges lie inside of `x`,
        // the weight and `y`, and tasks write disjoint parts of it.
        unsafe { y.tiles(x, weight, steps, tokens, features) };
    });
}

/// Where a product goes: rows of f32, `stride` apart.
#[derive(Clone, Copy)]
struct Output {
    start: *mut f32,
    stride: usize,
    add: bool,
}

// SAFETY: tasks write disjoint ranges of what it points to.
unsafe impl Send for Output {}
// SAFETY: as above.
unsafe impl Sync for Output {}

impl Output {
    /// The same from a token and a feature on.
    fn at(self, token: usize, feature: usize) -> Self {
        Self {
            // an address to be used only inside of the result
            start: self.start.wrapping_add(token * self.stride + feature),
            ..self
        }
    }

    /// The part of a product that one task computes.
    ///
    /// # Safety
    /// Tiles are permitted, `tokens` and `features` lie inside of the result, and nobody else writes
    /// that part.
    unsafe fn tiles(
        self,
        x: &[f32],
        weight: Weight<'_>,
        at_once: usize,
        tokens: Range<usize>,
        features: Range<usize>,
    ) {
        let _tiles = Tiles::configure();
        let mut right = Right::new(weight.values);
        let mut edge = Edge([0.0; 4 * TILE * TILE]);
        let mut left = Left::new(at_once);
        let [k, _] = weight.inner_outer();
        let all = k.div_ceil(DEPTH);
        for step in (0..all).step_by(at_once) {
            let steps = at_once.min(all - step);
            right.pack(weight, &features, step..step + steps);
            let add = self.add || step > 0;
            for token in tokens.clone().step_by(2 * TILE) {
                let end = tokens.end.min(token + 2 * TILE);
                left.pack(x, k, token..end, step..step + steps);
                for feature in features.clone().step_by(2 * TILE) {
                    let tile = (feature - features.start) / TILE;
                    let sides = Sides {
                        left: [0, 1].map(|i| left.tile(i, steps)),
                        right: [0, 1].map(|i| right.tile(tile + i, steps)),
                        steps,
                    };
                    let rows = (tokens.end - token).min(2 * TILE);
                    let columns = (features.end - feature).min(2 * TILE);
                    let part = self.at(token, feature);
                    // SAFETY: the sides are whole tiles, padded with zeros where there is no
                    // number; a part that is not is computed beside the result and copied.
                    unsafe {
                        if [rows, columns] == [2 * TILE; 2] {
                            multiply(&sides, right.parts, part.start, self.stride, add);
                        } else {
                            part.copy(&mut edge, rows, columns, add);
                            multiply(&sides, right.parts, edge.0.as_mut_ptr(), 2 * TILE, add);
                            part.paste(&edge, rows, columns);
                        }
                    }
                }
            }
        }
    }

    /// # Safety
    /// `rows` and `columns` from here on lie inside of the result.
    unsafe fn copy(self, edge: &mut Edge, rows: usize, columns: usize, add: bool) {
        if !add {
            return;
        }
        for row in 0..rows {
            // SAFETY: the caller's promise.
            let from = unsafe { std::slice::from_raw_parts(self.at(row, 0).start, columns) };
            edge.0[row * 2 * TILE..][..columns].copy_from_slice(from);
        }
    }

    /// # Safety
    /// `rows` and `columns` from here on lie inside of the result and are this task's.
    unsafe fn paste(self, edge: &Edge, rows: usize, columns: usize) {
        for row in 0..rows {
            // SAFETY: the caller's promise.
            let to = unsafe { std::slice::from_raw_parts_mut(self.at(row, 0).start, columns) };
            to.copy_from_slice(&edge.0[row * 2 * TILE..][..columns]);
        }
    }
}

/// A pair of result tiles each way, beside the result.
#[repr(C, align(64))]
struct Edge([f32; 4 * TILE * TILE]);
