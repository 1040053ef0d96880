//! Blocks of the result on AMX tiles, by the instruction `tdpbf16ps`.
//!
//! A block is two by two tiles of sixteen rows and sixteen features. A step multiplies sixteen words of K: it loads two
//! tiles of each side, each of sixteen cache lines, and does four multiplications with them.
//!
//! Axes: see [`bf16`](super).

use std::arch::asm;
use std::arch::x86_64::*;
use std::mem::MaybeUninit;

use super::{After, Block, LANES, Place, STRIDE};
use crate::product::amx::Tiles;

/// Rows of the result that are summed at a time.
pub(super) const ROWS: usize = 2 * LANES;

/// Features per panel.
pub(super) const PANEL: usize = 2 * LANES;

/// Sums of a block that is not stored as it is.
#[repr(C, align(64))]
pub(super) struct Scratch(pub(super) [f32; ROWS * PANEL]);

impl Block<'_> {
    /// # Safety
    /// The tile registers are configured. `rows` rows of `left` and the panel are packed for `depth` words, and `depth` is
    /// a multiple of sixteen. `width` elements of the rows can be read from `before` and written to `after`, and no other
    /// thread accesses them.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    pub(super) unsafe fn on_tiles(&self, rows: usize) {
        let whole = rows == ROWS && self.width == PANEL;
        if let (After::F32(place), true) = (self.after, whole) {
            // what was there before is at the same place
            // SAFETY: the caller promises both sides, and 32 rows of 32 elements.
            return unsafe { multiply(&self.quad(rows), place, self.before.is_some()) };
        }
        let mut scratch = MaybeUninit::<Scratch>::uninit();
        let sums = Place::new(scratch.as_mut_ptr().cast(), PANEL);
        if let Some(before) = self.before {
            for row in 0..rows {
                let from = before.start.wrapping_add(row * before.stride);
                let to = sums.start.wrapping_add(row * PANEL);
                // SAFETY: the caller promises that the elements of each row can be read; the scratch has room for them.
                unsafe { std::ptr::copy_nonoverlapping(from, to, self.width) };
            }
        }
        // SAFETY: the caller promises both sides, and the scratch has 32 rows of 32 elements, all of which are written.
        let scratch = unsafe {
            multiply(&self.quad(rows), sums, self.before.is_some());
            scratch.assume_init_ref()
        };
        for (row, sums) in scratch.0.chunks_exact(PANEL).enumerate().take(rows) {
            // SAFETY: the caller promises that the elements of each row can be written.
            unsafe { self.finish(row, sums) };
        }
    }

    /// Writes a row of sums.
    ///
    /// # Safety
    /// `width` elements of the row can be written to `after`, and no other thread accesses them.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    unsafe fn finish(&self, row: usize, sums: &[f32]) {
        for (v, sums) in sums.chunks_exact(LANES).enumerate() {
            // SAFETY: a chunk is a vector; the caller promises the elements up to `width`, which the mask selects.
            unsafe {
                let sums = _mm512_loadu_ps(sums.as_ptr());
                let column = v * LANES;
                self.after.store([row, column], self.mask(column), sums);
            }
        }
    }

    /// The tiles of both sides.
    fn quad(&self, rows: usize) -> Quad {
        let vectors = self.width.div_ceil(LANES);
        assert!(self.left.len() >= ROWS * STRIDE && self.depth <= STRIDE);
        assert!(self.depth >= LANES && self.panel.len() >= self.depth * vectors * LANES);
        let [left, right] = [self.left, self.panel].map(<[u32]>::as_ptr);
        let stride = vectors * LANES;
        let shape = [rows, stride, self.depth / LANES];
        Quad::new([left, right], [STRIDE, stride], shape)
    }
}

/// The inputs of two by two tiles of sums.
pub(super) struct Quad {
    /// Two times sixteen rows, whose words are adjacent.
    left: [*const u32; 2],
    /// Words from one row to the next.
    row: usize,
    /// Two times sixteen columns, which are adjacent.
    right: [*const u32; 2],
    /// Words from one inner index to the next.
    depth: usize,
    /// Times sixteen words of the inner dimension.
    steps: usize,
}

impl Quad {
    /// The tiles from two addresses on, where rows of the left side are `row` words apart, and inner indices of the right
    /// one `depth`. A row or column of tiles that the sums do not have is the other one once more.
    pub(super) fn new(
        [left, right]: [*const u32; 2],
        [row, depth]: [usize; 2],
        [rows, columns, steps]: [usize; 3],
    ) -> Self {
        let down = if rows > LANES { LANES * row } else { 0 };
        let across = if columns > LANES { LANES } else { 0 };
        Self {
            left: [left, left.wrapping_add(down)],
            row,
            right: [right, right.wrapping_add(across)],
            depth,
            steps,
        }
    }
}

/// Computes two by two tiles of sums, or adds to them.
///
/// # Safety
/// The tile registers are configured, there is at least one step, all words of both sides can be read, and 32 rows of 32
/// elements can be written to the result, and read from it to add to them.
pub(super) unsafe fn multiply(quad: &Quad, result: Place, add: bool) {
    let line = size_of::<u32>() * quad.depth;
    // SAFETY: the caller promises the memory. The assembly declares all registers that it changes.
    unsafe {
        asm!(
            "test {add}, {add}",
            "jz 2f",
            "tileloadd tmm0, [{y0} + {row}]",
            "tileloadd tmm1, [{y0} + {row} + 64]",
            "tileloadd tmm2, [{y1} + {row}]",
            "tileloadd tmm3, [{y1} + {row} + 64]",
            "jmp 3f",
            "2:",
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "3:",
            "tileloadd tmm6, [{l0} + {stride}]",
            "tileloadd tmm4, [{r0} + {line}]",
            "tdpbf16ps tmm0, tmm6, tmm4",
            "tileloadd tmm5, [{r1} + {line}]",
            "tdpbf16ps tmm1, tmm6, tmm5",
            "tileloadd tmm7, [{l1} + {stride}]",
            "tdpbf16ps tmm2, tmm7, tmm4",
            "tdpbf16ps tmm3, tmm7, tmm5",
            "add {l0}, 64",
            "add {l1}, 64",
            "add {r0}, {step}",
            "add {r1}, {step}",
            "dec {steps}",
            "jnz 3b",
            "tilestored [{y0} + {row}], tmm0",
            "tilestored [{y0} + {row} + 64], tmm1",
            "tilestored [{y1} + {row}], tmm2",
            "tilestored [{y1} + {row} + 64], tmm3",
            l0 = inout(reg) quad.left[0] => _,
            l1 = inout(reg) quad.left[1] => _,
            r0 = inout(reg) quad.right[0] => _,
            r1 = inout(reg) quad.right[1] => _,
            y0 = in(reg) result.start,
            y1 = in(reg) result.start.wrapping_add(LANES * result.stride),
            row = in(reg) size_of::<f32>() * result.stride,
            stride = in(reg) size_of::<u32>() * quad.row,
            line = in(reg) line,
            step = in(reg) line * LANES,
            add = in(reg) u64::from(add),
            steps = inout(reg) quad.steps => _,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}

/// Multiplies tiles in registers, `turns` times four, and returns the number of floating-point operations.
pub(in crate::product) fn burn(turns: usize) -> usize {
    let _tiles = Tiles::configure();
    let ones = Scratch([f32::from_bits(0x3f80_3f80); ROWS * PANEL]);
    // SAFETY: the scratch has 64 cache lines, of which four tiles are loaded. The assembly declares all registers that it
    // changes.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "tileloadd tmm4, [{ones} + {line}]",
            "tileloadd tmm5, [{ones} + {line}]",
            "tileloadd tmm6, [{ones} + {line}]",
            "tileloadd tmm7, [{ones} + {line}]",
            "2:",
            "tdpbf16ps tmm0, tmm6, tmm4",
            "tdpbf16ps tmm1, tmm6, tmm5",
            "tdpbf16ps tmm2, tmm7, tmm4",
            "tdpbf16ps tmm3, tmm7, tmm5",
            "dec {turns}",
            "jnz 2b",
            ones = in(reg) ones.0.as_ptr(),
            line = in(reg) LANES * size_of::<u32>(),
            turns = inout(reg) turns.max(1) => _,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
    turns.max(1) * 4 * 2 * LANES * LANES * 2 * LANES
}
