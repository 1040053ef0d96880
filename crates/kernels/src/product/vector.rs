//! Matrix multiplications in f32 on the vector unit.
//!
//! The right side is packed into panels of [`PANEL`] features in f32, so that each task widens its
//! part of the weight once and then reads it in order. A block of the result, eight rows of a panel,
//! stays in registers while the loop runs over a part of K. Each step loads three vectors of features
//! and one element of each of eight tokens: eleven loads feed 24 multiply-adds. Taller or narrower
//! blocks need more loads, which a core cannot hide.
//!
//! Axes: M tokens, K inner dimension (summed over), N output features.

#![expect(
    unsafe_code,
    reason = "tasks write disjoint parts of one result; transposes use intrinsics"
)]

use std::ops::Range;

use pulp::{NullaryFnOnce, Simd};

use super::division::Division;
use super::weight::Number;
use super::widen::widen as widen_part;
use super::{Rows as QuantisedRows, Side, Values, Weight};
use crate::buffer::buffer;
use crate::simd::{prefetch, vectorised};
use crate::threads;

/// Features per panel: three vectors of AVX-512, six of AVX2, twelve of NEON.
const PANEL: usize = 48;

/// Vectors of a row of the result that are summed at a time.
const VECTORS: usize = 3;

/// Rows of the result that are summed at a time, on processors with 32 vector registers and with 16.
const ROWS: [usize; 2] = [8, 4];

/// Largest part of K that is summed before the result is written: the packed rows of the left side,
/// 18 KiB, stay in the first-level cache while the task's panels are read.
const DEPTH: usize = 576;

/// Elements from one packed row of the left side to the next. The padding lets rows start in
/// different sets of the cache.
const STRIDE: usize = DEPTH + 16;

/// Elements of a task's right side: 1 MiB in f32, half of the second-level cache of processors with
/// AVX-512.
const RIGHT: usize = 1 << 18;

/// Panels are prefetched this many steps of K ahead.
const AHEAD: usize = 12;

/// Bytes of a cache line, which a vector should not straddle.
const LINE: usize = 64;

/// `y = x · weight`, or `y += x · weight`. See [`Division`] for the tasks.
pub(super) fn product(x: &[f32], weight: Weight<'_>, y: &mut [f32], add: bool) {
    let [k, n] = weight.inner_outer();
    let m = x.len() / k;
    let depth = k.div_ceil(k.div_ceil(DEPTH)); // equal parts
    let fit = (RIGHT / (depth * PANEL)).max(1);
    let division = Division::new([m, n], PANEL, fit, ROWS[0]);
    assert_eq!(
        y.len(),
        m * n,
        "length of the result of a matrix multiplication"
    );
    let y = Output {
        start: y.as_mut_ptr(),
        stride: n,
    };
    threads::for_each(division.count(), |task| {
        let [tokens, features] = division.part(task);
        let part = Part {
            tokens,
            features,
            depth,
            add,
        };
        multiply(x, weight, y, part);
    });
}

/// The result of a multiplication: rows of f32, `stride` apart.
#[derive(Clone, Copy)]
struct Output {
    start: *mut f32,
    stride: usize,
}

// SAFETY: `product` borrows the result until all tasks have ended, and tasks write disjoint parts.
unsafe impl Sync for Output {}

/// The part of the result that one task computes.
struct Part {
    tokens: Range<usize>,
    features: Range<usize>,
    /// Part of K that is summed before the result is written.
    depth: usize,
    add: bool,
}

vectorised! {
    /// Computes the part of a task, which no other task writes.
    fn multiply(simd, x: &'a [f32], weight: Weight<'a>, y: Output, part: Part) {
        let Part { tokens, features, depth, add } = part;
        let [k, _] = weight.inner_outer();
        let size = features.len().div_ceil(PANEL) * depth * PANEL;
        let mut right: Vec<f32> = buffer(size + LINE / size_of::<f32>());
        let aligned = right.as_ptr().align_offset(LINE);
        let right = &mut right[aligned..][..size];
        let mut left = vec![[0.0; STRIDE]; ROWS[0]];
        let most = if S::REGISTER_COUNT >= 32 { ROWS[0] } else { ROWS[1] };
        let blocks = tokens.len().div_ceil(most);
        for start in (0..k).step_by(depth) {
            let summed = start..k.min(start + depth);
            pack(simd, weight, &features, &summed, right);
            for block in 0..blocks {
                // blocks of equal size, because blocks with few rows are slower
                let [first, end] = [block, block + 1].map(|i| tokens.start + i * tokens.len() / blocks);
                for (left, token) in left.iter_mut().zip(first..end) {
                    let x = &x[token * k..][summed.clone()];
                    left[..x.len()].copy_from_slice(x);
                }
                let panels = right.chunks_exact(summed.len() * PANEL);
                let count = panels.len();
                for (i, (feature, panel)) in features.clone().step_by(PANEL).zip(panels).enumerate() {
                    // all rows of the next block, spread over the panels; a block has up to eight
                    let next = [i, i + count].map(|row| {
                        let token = (end + row % most).min(tokens.end - 1);
                        &x[token * k..][summed.clone()]
                    });
                    let block = Block {
                        next,
                        simd,
                        left: &left,
                        panel,
                        width: PANEL.min(features.end - feature),
                        // this address lies inside the result
                        y: Output {
                            start: y.start.wrapping_add(first * y.stride + feature),
                            ..y
                        },
                        add: add || start > 0,
                    };
                    block.rows(end - first);
                }
            }
        }
    }
}

/// Some rows of a panel of the result.
#[derive(Clone, Copy)]
struct Block<'a, S> {
    simd: S,
    /// Packed rows.
    left: &'a [[f32; STRIDE]],
    panel: &'a [f32],
    /// Rows of the left side to prefetch, which are packed next.
    next: [&'a [f32]; 2],
    /// Features of the panel that are part of the result; the rest is padding.
    width: usize,
    /// The result from the block's first row and feature on; the block belongs to this task.
    y: Output,
    add: bool,
}

impl<S: Simd> Block<'_, S> {
    #[inline(always)]
    fn rows(self, rows: usize) {
        let simd = self.simd;
        match rows {
            1 => simd.vectorize(Rows::<S, 1>(self)),
            2 => simd.vectorize(Rows::<S, 2>(self)),
            3 => simd.vectorize(Rows::<S, 3>(self)),
            4 => simd.vectorize(Rows::<S, 4>(self)),
            5 => simd.vectorize(Rows::<S, 5>(self)),
            6 => simd.vectorize(Rows::<S, 6>(self)),
            7 => simd.vectorize(Rows::<S, 7>(self)),
            _ => simd.vectorize(Rows::<S, 8>(self)),
        }
    }

    /// `M` rows of [`VECTORS`] vectors of features.
    #[inline(always)]
    fn sums<const M: usize>(&self, column: usize) -> [[S::f32s; VECTORS]; M] {
        let simd = self.simd;
        let mut sums = [[simd.splat_f32s(0.0); VECTORS]; M];
        let left = &self.left[..M];
        let (panel, _) = self.panel.as_chunks::<PANEL>();
        for (depth, features) in panel.iter().take(DEPTH).enumerate() {
            let (features, _) = S::as_simd_f32s(&features[column..]);
            if S::REGISTER_COUNT >= 32 {
                // AVX-512: 3 percent faster; not measured with fewer registers, whose loads are the bottleneck
                for next in self.next {
                    prefetch(next, depth);
                }
            }
            for v in 0..VECTORS {
                prefetch(&features[v..], AHEAD * PANEL / S::F32_LANES);
            }
            for row in 0..M {
                let x = simd.splat_f32s(left[row][depth]);
                for v in 0..VECTORS {
                    sums[row][v] = simd.mul_add_e_f32s(x, features[v], sums[row][v]);
                }
            }
        }
        sums
    }
}

/// A block of `M` rows.
struct Rows<'a, S, const M: usize>(Block<'a, S>);

impl<S: Simd, const M: usize> NullaryFnOnce for Rows<'_, S, M> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self(block) = self;
        let simd = block.simd;
        let wide = VECTORS * S::F32_LANES;
        for column in (0..PANEL).step_by(wide) {
            if column >= block.width {
                return;
            }
            let width = wide.min(block.width - column);
            let rows: [_; M] = std::array::from_fn(|row| {
                let start = block.y.start.wrapping_add(row * block.y.stride + column);
                // SAFETY: `product` has checked the size of the result. Its rows and features here
                // belong to this task, and the slices of different rows do not overlap.
                unsafe { std::slice::from_raw_parts_mut(start, width) }
            });
            for row in &rows {
                prefetch(row, 0);
                prefetch(row, width - 1);
            }
            let sums = block.sums::<M>(column);
            for (row, sums) in rows.into_iter().zip(sums) {
                if width == wide {
                    let (row, _) = S::as_mut_simd_f32s(row);
                    for v in 0..VECTORS {
                        row[v] = if block.add {
                            simd.add_f32s(row[v], sums[v])
                        } else {
                            sums[v]
                        };
                    }
                } else {
                    for (row, sum) in row.chunks_mut(S::F32_LANES).zip(sums) {
                        let before = simd.partial_load_f32s(row);
                        let sum = if block.add {
                            simd.add_f32s(before, sum)
                        } else {
                            sum
                        };
                        simd.partial_store_f32s(row, sum);
                    }
                }
            }
        }
    }
}

/// Packs a part of the weight: panel after panel, `[K, PANEL]` each. The padding of the last panel has
/// no defined value.
#[inline(always)]
fn pack<S: Simd>(
    simd: S,
    weight: Weight<'_>,
    features: &Range<usize>,
    summed: &Range<usize>,
    right: &mut [f32],
) {
    match weight.values {
        Values::F32(values) => pack_numbers(simd, values, weight, features, summed, right),
        Values::Bf16(values) => pack_numbers(simd, values, weight, features, summed, right),
        Values::F16(values) => pack_numbers(simd, values, weight, features, summed, right),
        Values::Quantised(rows) => {
            pack_quantised(simd, rows, weight.side, features, summed, right);
        }
    }
}

/// As [`pack_numbers`], of a quantised matrix: each part of a row is widened once, into the cache.
#[inline(always)]
fn pack_quantised<S: Simd>(
    simd: S,
    rows: QuantisedRows<'_>,
    side: Side,
    features: &Range<usize>,
    summed: &Range<usize>,
    right: &mut [f32],
) {
    let QuantisedRows { matrix, first } = rows;
    let size = summed.len() * PANEL;
    match side {
        Side::Plain => {
            let mut wide: Vec<f32> = buffer(features.len());
            for (depth, row) in summed.clone().enumerate() {
                widen_part(simd, matrix, first + row, features.start, &mut wide);
                let panels = right.chunks_exact_mut(size);
                for (wide, panel) in wide.chunks(PANEL).zip(panels) {
                    let (place, rest) = panel[depth * PANEL..][..PANEL].split_at_mut(wide.len());
                    place.copy_from_slice(wide);
                    rest.fill(0.0);
                }
            }
        }
        Side::Transposed => {
            let mut tile = vec![[0.0; WIDE_TILE]; PANEL];
            let panels = right.chunks_exact_mut(size);
            for (feature, panel) in features.clone().step_by(PANEL).zip(panels) {
                let rows = feature..features.end.min(feature + PANEL);
                let mut start = summed.start;
                let mut rest = panel;
                while !rest.is_empty() {
                    // from here to where the next tile of the row begins, so that no group is widened twice
                    let depth = (WIDE_TILE - start % WIDE_TILE).min(rest.len() / PANEL);
                    for (row, tile) in rows.clone().zip(tile.iter_mut()) {
                        widen_part(simd, matrix, first + row, start, &mut tile[..depth]);
                    }
                    let (part, after) = rest.split_at_mut(depth * PANEL);
                    transpose_tile(simd, &tile, part);
                    (start, rest) = (start + depth, after);
                }
            }
        }
    }
}

#[inline(always)]
fn pack_numbers<S: Simd, T: Number>(
    simd: S,
    values: &[T],
    weight: Weight<'_>,
    features: &Range<usize>,
    summed: &Range<usize>,
    right: &mut [f32],
) {
    let columns = weight.columns;
    let size = summed.len() * PANEL;
    match weight.side {
        // along the weight's rows, which lie one after another
        Side::Plain => {
            for (depth, row) in summed.clone().enumerate() {
                let row = &values[row * columns..][features.clone()];
                let panels = right.chunks_exact_mut(size);
                for (row, panel) in row.chunks(PANEL).zip(panels) {
                    prefetch(row, 4 * columns);
                    let (wide, rest) = panel[depth * PANEL..][..PANEL].split_at_mut(row.len());
                    widen(row, wide);
                    rest.fill(0.0);
                }
            }
        }
        Side::Transposed => {
            let mut tile = [[0.0; TILE]; PANEL];
            let panels = right.chunks_exact_mut(size);
            for (first, panel) in features.clone().step_by(PANEL).zip(panels) {
                let rows = first..features.end.min(first + PANEL);
                let rows = &values[rows.start * columns..rows.end * columns];
                for (step, panel) in panel.chunks_mut(TILE * PANEL).enumerate() {
                    let start = summed.start + step * TILE;
                    pack_transposed(simd, &rows[start..], columns, &mut tile, panel);
                }
            }
        }
    }
}

/// Steps of K that are transposed at a time.
const TILE: usize = 32;

/// As [`TILE`], of quantised matrices: several groups of codes, so that finding the place and the scales of a row costs
/// little. The tile takes 24 KiB, and stays in the first-level cache.
const WIDE_TILE: usize = 128;

/// Rows and columns of a transpose in registers.
const SIDE: usize = 16;

/// Transposes the first elements of rows, which are `columns` apart, into a part of a panel.
#[inline(always)]
fn pack_transposed<S: Simd, T: Number>(
    simd: S,
    rows: &[T],
    columns: usize,
    tile: &mut [[f32; TILE]; PANEL],
    panel: &mut [f32],
) {
    let depth = panel.len() / PANEL;
    for (row, tile) in rows.chunks(columns).zip(tile.iter_mut()) {
        let row = &row[..depth];
        prefetch(row, TILE);
        match row.first_chunk::<TILE>() {
            Some(row) => widen(row, tile), // the compiler knows this length
            None => widen(row, tile),
        }
    }
    transpose_tile(simd, tile, panel);
}

/// Transposes a tile into a part of a panel.
#[inline(always)]
fn transpose_tile<S: Simd, const W: usize>(simd: S, tile: &[[f32; W]], panel: &mut [f32]) {
    let (bands, _) = tile.as_chunks::<SIDE>();
    for (step, panel) in panel.chunks_mut(SIDE * PANEL).enumerate() {
        for (band, rows) in bands.iter().enumerate() {
            let mut block = [[0.0; SIDE]; SIDE];
            for (block, row) in block.iter_mut().zip(rows) {
                block.copy_from_slice(&row[step * SIDE..][..SIDE]);
            }
            let block = transposed(simd, block);
            for (panel, column) in panel.chunks_exact_mut(PANEL).zip(block) {
                panel[band * SIDE..][..SIDE].copy_from_slice(&column);
            }
        }
    }
}

/// Transposes a square of elements.
#[inline(always)]
fn transposed<S: Simd>(_simd: S, rows: [[f32; SIDE]; SIDE]) -> [[f32; SIDE]; SIDE] {
    #[cfg(target_arch = "x86_64")]
    {
        use super::transpose;
        if S::F32_LANES == SIDE {
            // SAFETY: on x86-64 only AVX-512 has vectors of sixteen f32, so it is available. A
            // row of sixteen f32 and a vector register have the same size and no invalid values.
            return unsafe {
                let rows = std::mem::transmute::<[[f32; SIDE]; SIDE], [_; SIDE]>(rows);
                std::mem::transmute::<[_; SIDE], [[f32; SIDE]; SIDE]>(transpose::sixteen(&rows))
            };
        }
        // SAFETY: every x86-64 processor has SSE.
        unsafe { transpose::by_fours(&rows) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    std::array::from_fn(|column| rows.map(|row| row[column]))
}

#[inline(always)]
fn widen<T: Number>(values: &[T], wide: &mut [f32]) {
    for (wide, value) in wide.iter_mut().zip(values) {
        *wide = value.widen();
    }
}
