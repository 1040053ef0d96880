//! Matrix multiplications of bf16 values with sums in f32: by the instruction `vdpbf16ps`, or on AMX tiles.
//!
//! `vdpbf16ps` multiplies sixteen pairs of neighbours in K and adds both products to sixteen sums in f32, so that a core
//! does twice the work of fused multiply-add in f32. A tile instruction, `tdpbf16ps`, does that for sixteen rows and
//! sixteen pairs at once: sixteen times the work of multiply-add in f32. Both sides are packed into words of two values:
//! the right side into panels of some features, some rows of the left side beside it. A weight in bf16 is packed as it is
//! stored, without widening.
//!
//! Both instructions round to nearest, ties to even, whatever the processor's mode. They treat subnormal inputs, below
//! 2⁻¹²⁶, as zero, and write zero for subnormal sums. They add the products of a sum in different orders, so their results
//! differ in the last bits. Values in f32 (a weight's, or a gradient's) are rounded to bf16 when they are packed.
//!
//! Several products with the same result are one sum: `y = Σ xᵢ · weightᵢ`, as if their inner dimensions followed one
//! another. A low-rank branch therefore costs no pass over the result of its own.
//!
//! Source: Intel's instruction set reference, `VDPBF16PS` and `TDPBF16PS`.
//!
//! Axes: M tokens, K inner dimension (summed over), N output features, W words of K.

#![expect(
    unsafe_code,
    reason = "tasks write disjoint parts of one result, and vectors are loaded and stored by intrinsics"
)]
#![expect(
    clippy::needless_range_loop,
    reason = "the compiler keeps arrays in registers if indices are below a constant; here it does not do so for iterators"
)]
#![allow(
    clippy::wildcard_imports,
    reason = "dozens of intrinsics, whose names are unique and begin with `_mm`"
)]

mod block;
mod left;
mod pack;
pub(crate) mod tile;
#[cfg(target_os = "linux")]
mod tiles;
mod vectors;

use std::arch::x86_64::__cpuid;
use std::ops::Range;
use std::sync::OnceLock;

use half::bf16;

use self::block::{After, Block, Place, Target, rounded};
use self::left::pack_left;
use self::pack::{Panels, pack_right};
use super::division::Division;
use super::{ProductUnit, Sums, Term};
use crate::buffer::buffer;
#[cfg(target_os = "linux")]
use crate::product::amx::Tiles;
use crate::threads;

/// Elements of a vector of f32, and words of one.
const LANES: usize = 16;

/// Elements of K that are packed at a time: a vector of words.
const STEP: usize = 2 * LANES;

/// Most words of K that are summed before the result is written: eight packed rows of the left side, 25 KiB, stay in the
/// first-level cache, and the 32 of tiles in the second-level one. A hidden size up to 1,600 is one part, so that a result
/// in bf16 needs no sums in memory.
const DEPTH: usize = 800;

/// Words from one packed row of the left side to the next. The padding lets rows start in different sets of the cache.
const STRIDE: usize = DEPTH + 16;

/// Words of a task's right side on vectors: 512 KiB, half of the second-level cache of processors with `vdpbf16ps`.
const RIGHT: usize = 1 << 17;

/// The same on tiles: half of the 2 MiB of processors with tiles.
#[cfg(target_os = "linux")]
const RIGHT_OF_TILES: usize = 1 << 18;

/// Bytes of a cache line, which a vector should not straddle.
const LINE: usize = 64;

/// Whether the processor has the instruction, and the others that packing uses.
pub(super) fn available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| {
        is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512bf16")
    })
}

/// Whether `vdpbf16ps` is faster than multiply-add in f32. AMD's processors do twice the work with it; Intel's half: on Emerald
/// Rapids two cores did 173 GFLOP/s of the one and 378 of the other, in registers. By the maker and not by a measurement, so
/// that a machine computes the same bits at every start.
pub(super) fn is_fast() -> bool {
    let maker = __cpuid(0);
    [maker.ebx, maker.edx, maker.ecx].map(u32::to_le_bytes) != [*b"Genu", *b"ineI", *b"ntel"]
}

/// What multiplies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Vectors,
    #[cfg(target_os = "linux")]
    Tiles,
}

impl Unit {
    /// None if the instructions are those for f32 alone.
    pub(super) fn of(unit: ProductUnit) -> Option<Self> {
        match unit {
            ProductUnit::Bf16 => Some(Self::Vectors),
            #[cfg(target_os = "linux")]
            ProductUnit::Amx => Some(Self::Tiles),
            _ => None,
        }
    }

    /// Rows of the result that are summed at a time.
    fn rows(self) -> usize {
        match self {
            Self::Vectors => vectors::ROWS,
            #[cfg(target_os = "linux")]
            Self::Tiles => tiles::ROWS,
        }
    }

    /// Features per panel.
    fn panel(self) -> usize {
        match self {
            Self::Vectors => vectors::PANEL,
            #[cfg(target_os = "linux")]
            Self::Tiles => tiles::PANEL,
        }
    }

    /// Words of a task's right side.
    fn right(self) -> usize {
        match self {
            Self::Vectors => RIGHT,
            #[cfg(target_os = "linux")]
            Self::Tiles => RIGHT_OF_TILES,
        }
    }

    /// The packed words of so many words of K, or the packed rows of so many: those that are missing to whole tiles are
    /// zeros.
    fn padded(self, count: usize) -> usize {
        match self {
            Self::Vectors => count,
            #[cfg(target_os = "linux")]
            Self::Tiles => count.next_multiple_of(LANES),
        }
    }
}

/// `y = Σ x · weight`, or `y += Σ x · weight`, over some products with the same numbers of tokens and features, neither
/// of them zero. See [`Division`] for the tasks.
pub(super) fn product(unit: Unit, terms: &[Term<'_>], [m, n]: [usize; 2], y: Sums<'_>) {
    let depth = depth(terms);
    let [panel, rows] = [unit.panel(), unit.rows()];
    let fit = (unit.right() / (depth * panel)).max(1);
    let division = Division::new([m, n], panel, fit, rows).in_whole(rows);
    let (y, add) = match y {
        Sums::F32 { y, add } => (Output::F32(y.as_mut_ptr()), add),
        Sums::Bf16(y) => (Output::Bf16(y.as_mut_ptr()), false),
    };
    threads::for_each(division.count(), |task| {
        let [tokens, features] = division.part(task);
        let part = Part {
            unit,
            tokens,
            features,
            depth,
            add,
        };
        // SAFETY: `super::products` calls this only if the unit is available, and has compared the lengths of all sides.
        // No two tasks have the same tokens and features.
        unsafe { multiply(terms, y, n, &part) };
    });
}

/// Multiplies in registers for about a millisecond, and returns the number of floating-point operations.
pub(super) fn burn(unit: Unit) -> usize {
    /// Multiplications of sixteen pairs each.
    const TURNS: usize = 200_000;
    match unit {
        // SAFETY: units exist only where the instructions are.
        Unit::Vectors => unsafe { vectors::burn(TURNS) },
        #[cfg(target_os = "linux")]
        Unit::Tiles => tiles::burn(TURNS / 8),
    }
}

/// Words of K in each part but the last. They depend on K alone, so that each result is one sum in a fixed order.
fn depth(terms: &[Term<'_>]) -> usize {
    let words: usize = terms.iter().map(Term::words).sum();
    let parts = words.div_ceil(DEPTH);
    if parts == 1 {
        return words;
    }
    // whole tiles of packing, so that no block of a quantised weight is widened twice
    words.div_ceil(parts).next_multiple_of(LANES).min(DEPTH)
}

/// The result of a multiplication: rows of N elements.
#[derive(Clone, Copy)]
enum Output {
    F32(*mut f32),
    Bf16(*mut bf16),
}

// SAFETY: `product` borrows the result until all tasks have ended, and tasks write disjoint parts.
unsafe impl Sync for Output {}

/// The part of the result that one task computes.
struct Part {
    unit: Unit,
    tokens: Range<usize>,
    features: Range<usize>,
    /// Words of K that are summed before the result is written.
    depth: usize,
    add: bool,
}

impl Part {
    /// Sums in memory: a result in bf16 with several parts of K needs them.
    fn sums(&self, y: Output, several: bool) -> usize {
        match y {
            Output::Bf16(_) if several => self.tokens.len() * self.features.len(),
            _ => 0,
        }
    }
}

/// The part of a term that lies in some words of K.
struct Piece {
    /// Its first word in the packed part.
    place: usize,
    /// Elements of the term's K.
    summed: Range<usize>,
}

/// The words of each term that lie in a part of K.
fn pieces<'a>(
    terms: &'a [Term<'a>],
    words: &Range<usize>,
) -> impl Iterator<Item = (&'a Term<'a>, Piece)> {
    let words = words.clone();
    let mut before = 0;
    terms.iter().filter_map(move |term| {
        let [k, _] = term.weight.inner_outer();
        let first = before;
        before += term.words();
        let [start, end] = [words.start.max(first), words.end.min(before)];
        let piece = Piece {
            place: start - words.start.min(start),
            summed: 2 * start.saturating_sub(first)..k.min(2 * end.saturating_sub(first)),
        };
        (start < end).then_some((term, piece))
    })
}

/// Computes the part of a task.
///
/// # Safety
/// The processor has the instructions of [`available`], and of the unit. The part lies inside the result, and no other task
/// writes it.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn multiply(terms: &[Term<'_>], y: Output, n: usize, part: &Part) {
    let Part {
        unit,
        tokens,
        features,
        depth,
        ..
    } = part;
    if tokens.is_empty() {
        return;
    }
    #[cfg(target_os = "linux")]
    let _tiles = (*unit == Unit::Tiles).then(Tiles::configure);
    let words: usize = terms.iter().map(Term::words).sum();
    let [at_once, size] = [unit.rows(), unit.panel()];
    let mut right = Packed::new(features.len().div_ceil(size) * unit.padded(*depth) * size);
    let mut left = Packed::new(at_once * STRIDE);
    let [right, left] = [right.words(), left.words()];
    let several = *depth < words;
    let mut sums: Vec<f32> = buffer(part.sums(y, several));
    let target = Target {
        y,
        n,
        part,
        sums: sums.as_mut_ptr(),
    };
    for start in (0..words).step_by(*depth) {
        let summed = start..words.min(start + depth);
        let panels = Panels {
            width: size,
            words: summed.len(),
            depth: unit.padded(summed.len()),
        };
        for (term, piece) in pieces(terms, &summed) {
            pack_right(term.weight, features, &piece, panels, right);
        }
        panels.pad(features.len(), right);
        for first in tokens.clone().step_by(at_once) {
            let rows = first..tokens.end.min(first + at_once);
            for (term, piece) in pieces(terms, &summed) {
                let [k, _] = term.weight.inner_outer();
                pack_left(term.x, k, &rows, at_once, &piece, left);
            }
            panels.pad_rows(rows.len()..unit.padded(rows.len()), left);
            for (index, panel) in right.chunks(panels.depth * size).enumerate() {
                let feature = features.start + index * size;
                if feature >= features.end {
                    break;
                }
                let (before, after) =
                    target.places([first, feature], start == 0, summed.end == words);
                let block = Block {
                    left,
                    panel,
                    depth: panels.depth,
                    width: size.min(features.end - feature),
                    before,
                    after,
                };
                // SAFETY: both sides are packed for `depth` words, and the rows and features of the block belong to
                // this task.
                unsafe {
                    match unit {
                        Unit::Vectors => block.on_vectors(rows.len()),
                        #[cfg(target_os = "linux")]
                        Unit::Tiles => block.on_tiles(rows.len()),
                    }
                }
            }
        }
    }
}

/// Words of a packed side. They begin on a cache line, so that no vector lies on two of them.
struct Packed {
    buffer: Vec<u32>,
    start: usize,
    length: usize,
}

impl Packed {
    fn new(length: usize) -> Self {
        let buffer: Vec<u32> = buffer(length + LINE / size_of::<u32>());
        let start = buffer.as_ptr().align_offset(LINE);
        Self {
            buffer,
            start,
            length,
        }
    }

    fn words(&mut self) -> &mut [u32] {
        &mut self.buffer[self.start..][..self.length]
    }
}
