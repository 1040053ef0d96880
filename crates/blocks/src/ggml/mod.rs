//! The quantised types of ggml: blocks of a row that hold their own scales.
//!
//! A block has a scale, for some types also a minimum, and a small integer `q` per element: `scale * q` or
//! `scale * q + minimum` (`- minimum` in the K types, whose blocks have sub-blocks with their own scales).
//! Every type is widened in groups of 32 elements. The result has the same bits as `dequantize` of the
//! Python package gguf.
//!
//! Source: ggml, `ggml-common.h` and `ggml-quants.c`.

mod encode;
mod group;

pub use encode::{encode, first_not};
pub(crate) use encode::{first_infinite, first_not_finite};

/// Elements that are widened together; every block is a whole number of groups.
pub const GROUP: usize = 32;

/// The value of each code of IQ4_NL.
pub const IQ4_NL_VALUES: [i8; 16] = [
    -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113,
];

/// A quantised type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(non_camel_case_types, reason = "the names of ggml")]
#[expect(missing_docs, reason = "the names of ggml")]
pub enum BlockType {
    Q8_0,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q4_K,
    Q5_K,
    Q6_K,
    IQ4_NL,
}

impl BlockType {
    /// All types.
    pub const ALL: [Self; 9] = [
        Self::Q8_0,
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q4_K,
        Self::Q5_K,
        Self::Q6_K,
        Self::IQ4_NL,
    ];

    /// Its name in ggml.
    pub fn name(self) -> &'static str {
        match self {
            Self::Q8_0 => "Q8_0",
            Self::Q4_0 => "Q4_0",
            Self::Q4_1 => "Q4_1",
            Self::Q5_0 => "Q5_0",
            Self::Q5_1 => "Q5_1",
            Self::Q4_K => "Q4_K",
            Self::Q5_K => "Q5_K",
            Self::Q6_K => "Q6_K",
            Self::IQ4_NL => "IQ4_NL",
        }
    }

    /// The type with this name in ggml.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Elements of a block.
    #[inline(always)]
    pub fn block_len(self) -> usize {
        match self {
            Self::Q4_K | Self::Q5_K | Self::Q6_K => 256,
            _ => 32,
        }
    }

    /// Bytes of a block.
    #[inline(always)]
    pub fn block_bytes(self) -> usize {
        match self {
            Self::Q8_0 => 34,
            Self::Q4_0 | Self::IQ4_NL => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q4_K => 144,
            Self::Q5_K => 176,
            Self::Q6_K => 210,
        }
    }

    /// Bytes of a row of whole blocks.
    #[inline(always)]
    pub fn row_bytes(self, columns: usize) -> usize {
        columns / self.block_len() * self.block_bytes()
    }
}

/// Widens the elements from `start` on of a row of blocks, as many as `out` has.
///
/// # Panics
/// If the row has fewer elements.
#[inline(always)]
pub fn widen(kind: BlockType, row: &[u8], start: usize, out: &mut [f32]) {
    // one loop for each type, so that the type is known inside; a closure is inlined where a function that
    // is passed as one may not be
    macro_rules! widen {
        ($($kind:ident $group:ident),*) => {
            match kind {
                $(BlockType::$kind => groups(
                    row,
                    start,
                    out,
                    #[inline(always)]
                    |block, index, out| group::$group(block, index, out),
                ),)*
            }
        };
    }
    widen!(
        Q8_0 q8_0, Q4_0 q4_0, Q4_1 q4_1, Q5_0 q5_0, Q5_1 q5_1, IQ4_NL iq4_nl,
        Q4_K q4_k, Q5_K q5_k, Q6_K q6_k
    );
}

#[inline(always)]
fn groups<const BYTES: usize>(
    row: &[u8],
    start: usize,
    out: &mut [f32],
    widen: impl Fn(&[u8; BYTES], usize, &mut [f32; GROUP]),
) {
    let of_block = group::groups_of(BYTES);
    let (blocks, _) = row.as_chunks::<BYTES>();
    let mut index = start / GROUP;
    let mut rest = out;
    let before = start % GROUP;
    if before > 0 {
        let (part, after) = rest.split_at_mut((GROUP - before).min(rest.len()));
        part_of_group(
            &blocks[index / of_block],
            index % of_block,
            before,
            part,
            &widen,
        );
        (rest, index) = (after, index + 1);
    }
    let (whole, tail) = rest.as_chunks_mut::<GROUP>();
    for out in whole {
        // into an array of its own, which the compiler knows to be apart from the block
        let mut wide = [0.0; GROUP];
        widen(&blocks[index / of_block], index % of_block, &mut wide);
        *out = wide;
        index += 1;
    }
    if !tail.is_empty() {
        part_of_group(&blocks[index / of_block], index % of_block, 0, tail, &widen);
    }
}

/// Widens some elements of a group.
#[inline(never)]
fn part_of_group<const BYTES: usize>(
    block: &[u8; BYTES],
    index: usize,
    start: usize,
    out: &mut [f32],
    widen: &impl Fn(&[u8; BYTES], usize, &mut [f32; GROUP]),
) {
    let mut wide = [0.0; GROUP];
    widen(block, index, &mut wide);
    out.copy_from_slice(&wide[start..][..out.len()]);
}
