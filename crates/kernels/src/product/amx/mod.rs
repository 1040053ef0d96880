//! Matrix multiplications in f32 precision on AMX tiles.
//!
//! The tile unit multiplies bf16 values and sums in f32. An f32 value has 24 significant bits and is
//! the exact sum of three bf16 values of 8 bits each, `x = x₀ + x₁ + x₂`; a weight in bf16 needs one
//! part, a weight in f16 two. So `x·w = Σ xₚ·wₛ` over the pairs with `p + s < 3`. Each of these
//! products is exact, and they are summed in f32. The omitted pairs are below 2⁻²⁴ of `x·w`, which is
//! the rounding of f32. With a bf16 weight no pair is omitted. The unit is sixteen times as fast as
//! f32 multiply-add, so three products instead of one are still five times as fast.
//!
//! Values below 2⁻¹¹⁰ lose precision, because the unit flushes subnormal parts to zero.
//!
//! Source: Henry, Tang and Heinecke 2019 (Leveraging the bfloat16 Artificial Intelligence Datatype
//! For Higher-Precision Computations); Intel's instruction set reference for the tiles.
//!
//! Axes: M tokens, K inner dimension (summed over), N output features, in tiles of 16 x 32 (left),
//! 32 x 16 (right, with pairs of K interleaved) and 16 x 16 (result).

#![expect(
    unsafe_code,
    reason = "tile instructions exist only in assembly, packing for them only in intrinsics with \
              raw pointers, and tasks write disjoint parts of one result"
)]
#![allow(
    clippy::wildcard_imports,
    reason = "dozens of intrinsics, whose names are unique and begin with `_mm`"
)]

mod pack;
mod tiles;

use std::arch::asm;
use std::arch::x86_64::__cpuid_count;
use std::ops::Range;
use std::sync::OnceLock;

use self::pack::{Left, Right, parts};
pub(super) use self::tiles::Tiles;
use self::tiles::{Sides, multiply};
use super::Weight;
use crate::threads;

/// Rows of a tile, and columns of a result tile.
const TILE: usize = 16;

/// Length in K of one tile instruction.
const DEPTH: usize = 32;

/// Most tile steps of K that are summed before the result is written: the left side of two tiles,
/// 6 KiB per step, stays in the second-level cache while the task's features are read.
const STEPS: usize = 64;

/// Lines of a task's right side: 1 MiB, half of the second-level cache of processors with tiles.
const RIGHT: usize = (1 << 20) / size_of::<Line>();

/// Rows of the weight are prefetched this many elements ahead of packing.
const AHEAD: usize = 8 * DEPTH;

/// A row of a tile: 32 bf16 values. It is aligned, so that loading a tile reads only sixteen cache
/// lines.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Line([u16; DEPTH]);

impl crate::buffer::Plain for Line {}

/// Lines per tile.
const LINES: usize = TILE;

/// Whether the processor has bf16 tiles and AVX-512, and the system permits this process to use them.
pub(super) fn available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| {
        const TILES_AND_BF16: u32 = 1 << 24 | 1 << 22;
        let vectors = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw");
        // leaf 7 exists wherever AVX-512 does
        vectors && __cpuid_count(7, 0).edx & TILES_AND_BF16 == TILES_AND_BF16 && permitted()
    })
}

/// Requests permission for the tile registers from Linux:
/// `arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)`.
fn permitted() -> bool {
    let mut result: i64 = 158;
    // SAFETY: the call changes the permissions of this process and no memory. `syscall` overwrites
    // only rax, rcx and r11, which are declared.
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
/// A task takes some output features and some tokens. It packs its part of the weight, which then
/// stays in its cache, and reads its tokens one pair of tiles after another.
pub(super) fn product(x: &[f32], weight: Weight<'_>, y: &mut [f32], add: bool) {
    let [k, n] = weight.inner_outer();
    let m = x.len() / k;
    let steps = k.div_ceil(DEPTH);
    let steps = steps.div_ceil(steps.div_ceil(STEPS)); // equal parts, none with only a few steps
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
        // SAFETY: `product_on` calls this only if `available` is true. The ranges lie inside `x`,
        // the weight and `y`, and no two tasks write the same part of `y`.
        unsafe { y.tiles(x, weight, steps, tokens, features) };
    });
}

/// The result of a multiplication: rows of f32, `stride` apart.
#[derive(Clone, Copy)]
struct Output {
    start: *mut f32,
    stride: usize,
    add: bool,
}

// SAFETY: `product` borrows the result until all tasks have ended, and tasks write disjoint parts.
unsafe impl Send for Output {}
// SAFETY: sharing the address is as sound as sending it: each task writes only its own part.
unsafe impl Sync for Output {}

impl Output {
    /// The part of the result that begins at this token and feature.
    fn at(self, token: usize, feature: usize) -> Self {
        Self {
            // `wrapping_add`, because the address may lie behind the result; it is then not used
            start: self.start.wrapping_add(token * self.stride + feature),
            ..self
        }
    }

    /// Computes the part of the result that belongs to one task.
    ///
    /// # Safety
    /// Tiles are permitted, `tokens` and `features` lie inside the result, and no other task writes
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
                    // SAFETY: both sides are whole tiles, padded with zeros. A part of the result
                    // that is smaller than two by two tiles is computed in `edge`, which has that
                    // size, and only its `rows` and `columns` are copied.
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

    /// Copies a part of the result to `edge`, if the multiplication adds to it.
    ///
    /// # Safety
    /// `rows` and `columns` from here on lie inside the result and belong to this task.
    unsafe fn copy(self, edge: &mut Edge, rows: usize, columns: usize, add: bool) {
        if !add {
            return;
        }
        for row in 0..rows {
            // SAFETY: the caller promises that this row lies inside the result.
            let from = unsafe { std::slice::from_raw_parts(self.at(row, 0).start, columns) };
            edge.0[row * 2 * TILE..][..columns].copy_from_slice(from);
        }
    }

    /// Copies a part of the result back from `edge`.
    ///
    /// # Safety
    /// `rows` and `columns` from here on lie inside the result and belong to this task.
    unsafe fn paste(self, edge: &Edge, rows: usize, columns: usize) {
        for row in 0..rows {
            // SAFETY: the caller promises that this row lies inside the result and is not shared.
            let to = unsafe { std::slice::from_raw_parts_mut(self.at(row, 0).start, columns) };
            to.copy_from_slice(&edge.0[row * 2 * TILE..][..columns]);
        }
    }
}

/// Two by two result tiles, for a part at the edge of the result that does not fill them.
#[repr(C, align(64))]
struct Edge([f32; 4 * TILE * TILE]);
