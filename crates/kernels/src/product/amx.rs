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

use std::arch::asm;
use std::arch::x86_64::*;
use std::ops::Range;
use std::sync::OnceLock;

use half::{bf16, f16};

use super::{Side, Values, Weight};
use crate::simd::prefetch;
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

/// bf16 parts of a weight's numbers.
fn parts(values: Values<'_>) -> usize {
    match values {
        Values::Bf16(_) => 1,
        Values::F16(_) => 2,
        Values::F32(_) => 3,
    }
}

/// A part of the left side, two rows of tiles: three parts of every tile, in the order in which
/// they are used.
struct Left {
    /// `[2, steps, 3, 16]`
    lines: Vec<Line>,
}

impl Left {
    fn new(steps: usize) -> Self {
        Self {
            lines: crate::buffer::buffer(2 * steps * 3 * LINES),
        }
    }

    /// Packs some tokens and steps of `x`, `[M, K]`.
    fn pack(&mut self, x: &[f32], k: usize, tokens: Range<usize>, steps: Range<usize>) {
        let size = steps.len() * 3 * LINES;
        for (tile, lines) in self.lines[..2 * size].chunks_exact_mut(size).enumerate() {
            let first = (tokens.start + tile * TILE).min(tokens.end);
            let rows = first..tokens.end.min(first + TILE);
            let depths = steps.start * DEPTH..k.min(steps.end * DEPTH);
            // SAFETY: AVX-512 is there; see `available`.
            unsafe { split_rows(&x[rows.start * k..rows.end * k], k, depths, lines) };
        }
    }

    fn tile(&self, tile: usize, steps: usize) -> *const Line {
        self.lines[tile * steps * 3 * LINES..].as_ptr()
    }
}

/// Splits up to sixteen rows into their parts, step by step; zeros where there is no number.
#[target_feature(enable = "avx512f,avx512bw")]
fn split_rows(rows: &[f32], k: usize, depths: Range<usize>, lines: &mut [Line]) {
    let tokens = rows.len() / k;
    for (step, lines) in lines.chunks_exact_mut(3 * LINES).enumerate() {
        let start = depths.start + step * DEPTH;
        let depths = start..depths.end.min(start + DEPTH);
        if tokens < TILE || depths.len() < DEPTH {
            lines.fill(Line([0; DEPTH]));
        }
        for (token, row) in rows.chunks_exact(k).enumerate() {
            let x = &row[depths.clone()];
            if let Some(x) = x.first_chunk() {
                split_step(x, &mut lines[token..]);
            } else {
                let mut padded = [0.0; DEPTH];
                padded[..x.len()].copy_from_slice(x);
                split_step(&padded, &mut lines[token..]);
            }
        }
    }
}

/// Splits 32 numbers into lines of parts, sixteen lines apart.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn split_step(x: &[f32; DEPTH], lines: &mut [Line]) {
    // SAFETY: there are 32 numbers.
    let [low, high] = unsafe {
        let start = x.as_ptr();
        [_mm512_loadu_ps(start), _mm512_loadu_ps(start.add(TILE))]
    };
    let [low, high] = [split(low), split(high)];
    assert!(lines.len() > 2 * LINES);
    for part in 0..3 {
        store(&mut lines[part * LINES], join(low[part], high[part]));
    }
}

/// The three parts of sixteen numbers: upper halves of words, whose sum is the number.
#[inline]
#[target_feature(enable = "avx512f")]
fn split(x: __m512) -> [__m512i; 3] {
    let upper = _mm512_set1_epi32(0xffff_0000_u32 as i32);
    let first = _mm512_and_si512(_mm512_castps_si512(x), upper);
    let rest = _mm512_sub_ps(x, _mm512_castsi512_ps(first));
    let second = _mm512_and_si512(_mm512_castps_si512(rest), upper);
    let rest = _mm512_sub_ps(rest, _mm512_castsi512_ps(second));
    [first, second, _mm512_castps_si512(rest)]
}

/// The upper halves of 32 words, in their order.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn join(low: __m512i, high: __m512i) -> __m512i {
    let low = _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(low));
    let high = _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(high));
    _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high)
}

/// A part of the right side: a column of tiles after the other.
struct Right {
    /// `[tiles of N, steps, parts, 16]`, pairs of summed features interleaved
    lines: Vec<Line>,
    parts: usize,
}

impl Right {
    fn new(values: Values<'_>) -> Self {
        Self {
            lines: Vec::new(),
            parts: parts(values),
        }
    }

    /// Packs some result features and steps.
    fn pack(&mut self, weight: Weight<'_>, features: &Range<usize>, steps: Range<usize>) {
        let [k, _] = weight.inner_outer();
        let parts = self.parts;
        let tiles = features.len().div_ceil(2 * TILE) * 2;
        let count = tiles * steps.len() * parts * LINES;
        if self.lines.len() < count {
            self.lines = crate::buffer::buffer(count);
        }
        let mut tile_at = |tile: usize, step: usize| {
            let first = (features.start + tile * TILE).min(features.end);
            let columns = first..features.end.min(first + TILE);
            let depth = (steps.start + step) * DEPTH;
            let summed = depth..k.min(depth + DEPTH);
            let place = (tile * steps.len() + step) * parts * LINES;
            let lines = &mut self.lines[place..place + parts * LINES];
            // SAFETY: AVX-512 is there; see `available`.
            unsafe { pack_tile(weight, summed, columns, lines) };
        };
        // along the weight's rows, which lie one after another
        match weight.side {
            Side::Transposed => {
                (0..tiles).for_each(|tile| (0..steps.len()).for_each(|step| tile_at(tile, step)));
            }
            Side::Plain => {
                (0..steps.len()).for_each(|step| (0..tiles).for_each(|tile| tile_at(tile, step)));
            }
        }
    }

    fn tile(&self, tile: usize, steps: usize) -> *const Line {
        self.lines[tile * steps * self.parts * LINES..].as_ptr()
    }
}

/// Packs one tile, every part of it.
#[target_feature(enable = "avx512f,avx512bw")]
fn pack_tile(weight: Weight<'_>, summed: Range<usize>, features: Range<usize>, lines: &mut [Line]) {
    if summed.len() < DEPTH || features.len() < TILE {
        return pack_edge(weight, summed, features, lines);
    }
    let columns = weight.columns;
    match (weight.values, weight.side) {
        (Values::Bf16(values), Side::Transposed) => {
            // no closures here: they would not be compiled for these vectors
            let mut rows = [_mm512_setzero_si512(); TILE];
            for (row, words) in rows.iter_mut().enumerate() {
                let start = (features.start + row) * columns + summed.start;
                *words = load_line(&values[start..start + DEPTH]);
                prefetch(&values[start..], AHEAD);
            }
            store_transposed(&rows, lines);
        }
        (values, Side::Transposed) => {
            let parts = parts(values);
            let mut rows = [[_mm512_setzero_si512(); TILE]; 3];
            #[expect(clippy::needless_range_loop, reason = "rows of three parts")]
            for row in 0..TILE {
                let start = (features.start + row) * columns + summed.start;
                let low = split(load(values, start));
                let high = split(load(values, start + TILE));
                for part in 0..parts {
                    rows[part][row] = join(low[part], high[part]);
                }
            }
            for (rows, lines) in rows.iter().zip(lines.chunks_exact_mut(LINES)) {
                store_transposed(rows, lines);
            }
        }
        (Values::Bf16(values), Side::Plain) => {
            for (pair, line) in lines.iter_mut().enumerate() {
                let start = (summed.start + 2 * pair) * columns + features.start;
                let even = load_half(&values[start..start + TILE]);
                let odd = load_half(&values[start + columns..start + columns + TILE]);
                prefetch(&values[start..], AHEAD);
                prefetch(&values[start + columns..], AHEAD);
                let odd = _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(odd));
                store(line, _mm512_or_si512(_mm512_cvtepu16_epi32(even), odd));
            }
        }
        (values, Side::Plain) => {
            let parts = parts(values);
            for pair in 0..TILE {
                let start = (summed.start + 2 * pair) * columns + features.start;
                let even = split(load(values, start));
                let odd = split(load(values, start + columns));
                for part in 0..parts {
                    store(
                        &mut lines[part * LINES + pair],
                        interleave(even[part], odd[part]),
                    );
                }
            }
        }
    }
}

/// Packs a tile that the weight does not fill, number by number.
fn pack_edge(weight: Weight<'_>, summed: Range<usize>, features: Range<usize>, lines: &mut [Line]) {
    lines.fill(Line([0; DEPTH]));
    for (column, feature) in features.enumerate() {
        for (depth, inner) in summed.clone().enumerate() {
            let index = match weight.side {
                Side::Transposed => feature * weight.columns + inner,
                Side::Plain => inner * weight.columns + feature,
            };
            let mut rest = weight.values.get(index);
            for lines in lines.chunks_exact_mut(LINES) {
                let part = rest.to_bits() & 0xffff_0000;
                rest -= f32::from_bits(part);
                lines[depth / 2].0[2 * column + depth % 2] = (part >> 16) as u16;
            }
        }
    }
}

/// Sixteen numbers of a weight, widened.
#[inline]
#[target_feature(enable = "avx512f")]
fn load(values: Values<'_>, start: usize) -> __m512 {
    let range = start..start + TILE;
    match values {
        // SAFETY: the range is checked, and sixteen numbers are read.
        Values::F32(values) => unsafe { _mm512_loadu_ps(values[range].as_ptr()) },
        Values::Bf16(values) => {
            let bits = load_half(&values[range]);
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(bits)))
        }
        Values::F16(values) => _mm512_cvtph_ps(load_half(&values[range])),
    }
}

/// Sixteen numbers of 16 bits.
#[inline]
#[target_feature(enable = "avx512f")]
fn load_half<T: Half>(values: &[T]) -> __m256i {
    assert_eq!(values.len(), TILE);
    // SAFETY: sixteen numbers of 16 bits are the vector.
    unsafe { _mm256_loadu_si256(values.as_ptr().cast()) }
}

/// Numbers of 16 bits.
trait Half: Copy {}

impl Half for bf16 {}
impl Half for f16 {}

#[inline]
#[target_feature(enable = "avx512f")]
fn load_line(values: &[bf16]) -> __m512i {
    assert_eq!(values.len(), DEPTH);
    // SAFETY: 32 numbers of 16 bits are a vector.
    unsafe { _mm512_loadu_si512(values.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store(line: &mut Line, words: __m512i) {
    // SAFETY: a line is an aligned vector.
    unsafe { _mm512_store_si512(std::ptr::from_mut(line).cast(), words) };
}

/// Upper halves of two rows, one beside the other: `even₀ odd₀ even₁ odd₁ …`
#[inline]
#[target_feature(enable = "avx512f")]
fn interleave(even: __m512i, odd: __m512i) -> __m512i {
    let upper = _mm512_set1_epi32(0xffff_0000_u32 as i32);
    _mm512_or_si512(_mm512_srli_epi32::<16>(even), _mm512_and_si512(odd, upper))
}

/// Stores the transpose of 16 x 16 words.
#[target_feature(enable = "avx512f")]
fn store_transposed(rows: &[__m512i; 16], lines: &mut [Line]) {
    let mut pairs = *rows;
    for i in 0..8 {
        pairs[2 * i] = _mm512_unpacklo_epi32(rows[2 * i], rows[2 * i + 1]);
        pairs[2 * i + 1] = _mm512_unpackhi_epi32(rows[2 * i], rows[2 * i + 1]);
    }
    let mut quads = pairs;
    for i in 0..4 {
        for j in 0..2 {
            let [a, b] = [pairs[4 * i + j], pairs[4 * i + 2 + j]];
            quads[4 * i + 2 * j] = _mm512_unpacklo_epi64(a, b);
            quads[4 * i + 2 * j + 1] = _mm512_unpackhi_epi64(a, b);
        }
    }
    // quads[4 i + c] holds rows 4 i .. 4 i + 4 of columns c, c + 4, c + 8 and c + 12
    for c in 0..4 {
        let [a, b, d, e] = [quads[c], quads[4 + c], quads[8 + c], quads[12 + c]];
        let low = _mm512_shuffle_i32x4::<0b10_00_10_00>(a, b);
        let high = _mm512_shuffle_i32x4::<0b11_01_11_01>(a, b);
        let low_next = _mm512_shuffle_i32x4::<0b10_00_10_00>(d, e);
        let high_next = _mm512_shuffle_i32x4::<0b11_01_11_01>(d, e);
        store(
            &mut lines[c],
            _mm512_shuffle_i32x4::<0b10_00_10_00>(low, low_next),
        );
        store(
            &mut lines[c + 8],
            _mm512_shuffle_i32x4::<0b11_01_11_01>(low, low_next),
        );
        store(
            &mut lines[c + 4],
            _mm512_shuffle_i32x4::<0b10_00_10_00>(high, high_next),
        );
        store(
            &mut lines[c + 12],
            _mm512_shuffle_i32x4::<0b11_01_11_01>(high, high_next),
        );
    }
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

/// The tile registers in use, given back when dropped.
struct Tiles;

impl Tiles {
    fn configure() -> Self {
        #[repr(C, align(64))]
        struct Configuration([u8; 64]);
        let mut configuration = Configuration([0; 64]);
        configuration.0[0] = 1;
        for tile in 0..8 {
            configuration.0[16 + 2 * tile] = 64; // bytes a row
            configuration.0[48 + tile] = TILE as u8;
        }
        // SAFETY: tiles are permitted where this is called, and the registers are this thread's.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const configuration, options(nostack)) };
        Self
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: as above.
        unsafe { asm!("tilerelease", options(nostack, nomem)) };
    }
}

/// What one pair of result tiles each way is computed from.
struct Sides {
    /// Each with `steps` times three tiles.
    left: [*const Line; 2],
    /// Each with `steps` times the weight's parts.
    right: [*const Line; 2],
    steps: usize,
}

/// The four products of a left and a right part, into tiles 0 to 3.
macro_rules! four {
    ($left:literal) => {
        concat!(
            "tileloadd tmm6, [{l0} + {line} + ",
            $left,
            "]\n",
            "tileloadd tmm7, [{l1} + {line} + ",
            $left,
            "]\n",
            "tdpbf16ps tmm0, tmm6, tmm4\n",
            "tdpbf16ps tmm1, tmm6, tmm5\n",
            "tdpbf16ps tmm2, tmm7, tmm4\n",
            "tdpbf16ps tmm3, tmm7, tmm5\n",
        )
    };
}

/// A right part against the left parts that it meets.
macro_rules! part {
    ($right:literal, $($left:literal),+) => {
        concat!(
            "tileloadd tmm4, [{r0} + {line} + ", $right, "]\n",
            "tileloadd tmm5, [{r1} + {line} + ", $right, "]\n",
            $(four!($left)),+
        )
    };
}

macro_rules! multiply {
    ($sides:expr, $result:expr, $stride:expr, $add:expr, $parts:literal, $step:expr) => {
        asm!(
            "test {add}, {add}",
            "jz 2f",
            "tileloadd tmm0, [{y0} + {stride}]",
            "tileloadd tmm1, [{y0} + {stride} + 64]",
            "tileloadd tmm2, [{y1} + {stride}]",
            "tileloadd tmm3, [{y1} + {stride} + 64]",
            "jmp 3f",
            "2:",
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "3:",
            $step,
            "add {l0}, 3072",
            "add {l1}, 3072",
            concat!("add {r0}, ", $parts),
            concat!("add {r1}, ", $parts),
            "dec {steps}",
            "jnz 3b",
            "tilestored [{y0} + {stride}], tmm0",
            "tilestored [{y0} + {stride} + 64], tmm1",
            "tilestored [{y1} + {stride}], tmm2",
            "tilestored [{y1} + {stride} + 64], tmm3",
            l0 = inout(reg) $sides.left[0] => _,
            l1 = inout(reg) $sides.left[1] => _,
            r0 = inout(reg) $sides.right[0] => _,
            r1 = inout(reg) $sides.right[1] => _,
            y0 = in(reg) $result,
            y1 = in(reg) $result.wrapping_add(TILE * $stride),
            stride = in(reg) $stride * size_of::<f32>(),
            line = in(reg) size_of::<Line>(),
            add = in(reg) u64::from($add),
            steps = inout(reg) $sides.steps => _,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        )
    };
}

/// Two by two result tiles.
///
/// # Safety
/// Tiles are configured; the sides have their tiles, at least one step; 32 rows of 32 numbers,
/// `stride` apart, can be written.
unsafe fn multiply(sides: &Sides, parts: usize, result: *mut f32, stride: usize, add: bool) {
    // SAFETY: the caller's promise.
    unsafe {
        match parts {
            1 => multiply!(
                sides,
                result,
                stride,
                add,
                "1024",
                part!("0", "0", "1024", "2048")
            ),
            2 => multiply!(
                sides,
                result,
                stride,
                add,
                "2048",
                concat!(part!("0", "0", "1024", "2048"), part!("1024", "0", "1024"))
            ),
            _ => multiply!(
                sides,
                result,
                stride,
                add,
                "3072",
                concat!(
                    part!("0", "0", "1024", "2048"),
                    part!("1024", "0", "1024"),
                    part!("2048", "0")
                )
            ),
        }
    }
}
