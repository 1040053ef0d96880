//! The tile unit: its registers, and the multiplication of packed tiles.
//!
//! Axes: see [`amx`](super).

use std::arch::asm;

use super::{Line, TILE};

/// The configured tile registers of this thread. Dropping this releases them.
pub(in crate::product) struct Tiles;

impl Tiles {
    pub(in crate::product) fn configure() -> Self {
        #[repr(C, align(64))]
        struct Configuration([u8; 64]);
        let mut configuration = Configuration([0; 64]);
        configuration.0[0] = 1;
        for tile in 0..8 {
            configuration.0[16 + 2 * tile] = 64; // bytes per row
            configuration.0[48 + tile] = TILE as u8;
        }
        // SAFETY: only products on tiles call this, whose callers promise that tiles are permitted.
        // The instruction reads 64 bytes and changes only tile registers of this thread.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const configuration, options(nostack)) };
        Self
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: `configure` has run on this thread, since `Tiles` is not sent to another one.
        unsafe { asm!("tilerelease", options(nostack, nomem)) };
    }
}

/// The inputs of two by two result tiles.
pub(super) struct Sides {
    /// Two rows of tiles, each with `steps` times three tiles.
    pub(super) left: [*const Line; 2],
    /// Two columns of tiles, each with `steps` times as many tiles as the weight has parts.
    pub(super) right: [*const Line; 2],
    pub(super) steps: usize,
}

/// Multiplies one left part with the loaded right part and adds to the result tiles 0 to 3.
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

/// Loads one right part and multiplies it with its left parts.
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

/// Computes two by two result tiles, or adds to them.
///
/// # Safety
/// The tile registers are configured. The sides have all their tiles, for at least one step. 32 rows
/// of 32 elements, `stride` apart, can be read and written from `result` on.
pub(super) unsafe fn multiply(
    sides: &Sides,
    parts: usize,
    result: *mut f32,
    stride: usize,
    add: bool,
) {
    // SAFETY: the caller promises configured tiles and enough memory on every side. The assembly
    // declares all registers that it changes.
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
