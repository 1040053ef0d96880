//! Quantisation to nf4 and fp4, with the same bits as bitsandbytes on the processor.

use bytes::Bytes;
use pulp::Arch;
use rayon::prelude::*;

use super::nested::nest;
use super::{Absmax, FP4, FourBit, NF4};
use crate::{FourBitKind, Rounding};

/// Elements that a thread takes at once, whole blocks of every length.
const PART: usize = 1 << 14;

/// Quantises elements of the flattened matrix as they come.
#[derive(Debug)]
pub(crate) struct FourBitEncoder {
    kind: FourBitKind,
    block: usize,
    nested: bool,
    rounding: Rounding,
    table: Table,
    /// The elements of the block that has begun.
    begun: Vec<f32>,
    codes: Vec<u8>,
    absmax: Vec<f32>,
}

/// Values between which the code changes, ascending, and the codes.
#[derive(Debug)]
struct Table {
    bounds: [f32; 15],
    codes: [u8; 16],
}

impl Table {
    fn of(kind: FourBitKind) -> Self {
        // in ascending order of their values; of fp4's two zeros, the one with a sign comes second
        let (values, codes) = match kind {
            FourBitKind::Nf4 => (NF4, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]),
            FourBitKind::Fp4 => (FP4, [11, 10, 13, 12, 15, 14, 9, 0, 8, 1, 6, 7, 4, 5, 2, 3]),
        };
        let value = |i: usize| values[usize::from(codes[i])];
        let bounds = std::array::from_fn(|i| f32::midpoint(value(i), value(i + 1)));
        Self { bounds, codes }
    }

    /// The code of a value from -1 to 1; a value that is a bound has the lower one.
    #[inline(always)]
    fn code(&self, value: f32) -> u8 {
        let above = |bound: &f32| u8::from(*bound < value);
        let index: u8 = self.bounds.iter().map(above).sum();
        self.codes[usize::from(index & 15)]
    }
}

impl FourBitEncoder {
    pub(crate) fn new(
        kind: FourBitKind,
        block: usize,
        nested: bool,
        rounding: Rounding,
        elements: usize,
    ) -> Self {
        Self {
            kind,
            block,
            nested,
            rounding,
            table: Table::of(kind),
            begun: Vec::with_capacity(block),
            codes: Vec::with_capacity(elements.div_ceil(2)),
            absmax: Vec::with_capacity(elements.div_ceil(block)),
        }
    }

    /// Quantises finite elements.
    pub(crate) fn push(&mut self, mut values: &[f32]) {
        if !self.begun.is_empty() {
            let missing = (self.block - self.begun.len()).min(values.len());
            let (of_block, rest) = values.split_at(missing);
            self.begun.extend_from_slice(of_block);
            values = rest;
            if self.begun.len() < self.block {
                return;
            }
            let begun = std::mem::take(&mut self.begun);
            self.whole_blocks(&begun);
        }
        let whole = values.len() / self.block * self.block;
        let (blocks, rest) = values.split_at(whole);
        self.whole_blocks(blocks);
        self.begun.clear();
        self.begun.extend_from_slice(rest);
    }

    fn whole_blocks(&mut self, values: &[f32]) {
        let (codes_before, blocks_before) = (self.codes.len(), self.absmax.len());
        self.codes.resize(codes_before + values.len() / 2, 0);
        self.absmax
            .resize(blocks_before + values.len() / self.block, 0.0);
        let (table, block, arch) = (&self.table, self.block, Arch::new());
        values
            .par_chunks(PART)
            .zip(self.codes[codes_before..].par_chunks_mut(PART / 2))
            .zip(self.absmax[blocks_before..].par_chunks_mut(PART / block))
            .for_each(|((values, codes), absmax)| {
                arch.dispatch(
                    #[inline(always)]
                    || {
                        let blocks = values.chunks_exact(block);
                        let codes = codes.chunks_exact_mut(block / 2);
                        for ((values, codes), absmax) in blocks.zip(codes).zip(absmax) {
                            *absmax = whole_block(table, values, codes);
                        }
                    },
                );
            });
    }

    /// The scales, and the codes.
    pub(crate) fn finish(mut self) -> (FourBit, Bytes) {
        // bitsandbytes divides the elements of the last block, if it is not whole, where it multiplies others
        if !self.begun.is_empty() {
            let absmax = largest(&self.begun).max(SMALLEST);
            self.absmax.push(absmax);
            let code = |value: &f32| self.table.code((value / absmax).clamp(-1.0, 1.0));
            for pair in self.begun.chunks(2) {
                let second = pair.get(1).unwrap_or(&0.0);
                self.codes.push(code(&pair[0]) << 4 | code(second));
            }
        }
        let absmax = if self.nested {
            nest(&self.absmax)
        } else {
            Absmax::Plain(self.absmax.into())
        };
        let four_bit = FourBit {
            name: self.kind.name(),
            values: self.kind.values(),
            block: self.block,
            absmax,
            rounding: self.rounding,
        };
        (four_bit, self.codes.into())
    }
}

/// What a block is divided by at least.
const SMALLEST: f32 = 1e-38;

#[inline(always)]
fn largest(values: &[f32]) -> f32 {
    let bits = values.iter().fold(0, |max, x| x.abs().to_bits().max(max));
    f32::from_bits(bits)
}

/// Writes the codes of a block, and returns its absmax.
#[inline(always)]
fn whole_block(table: &Table, values: &[f32], codes: &mut [u8]) -> f32 {
    let absmax = largest(values);
    let by = 1.0 / absmax.max(SMALLEST);
    let (pairs, _) = values.as_chunks::<2>();
    for (place, pair) in codes.iter_mut().zip(pairs) {
        let [first, second] = pair.map(|value| table.code((value * by).clamp(-1.0, 1.0)));
        *place = first << 4 | second;
    }
    absmax
}
