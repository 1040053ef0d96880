//! Blocks of a product's result: what they are made of, and where their sums go.
//!
//! Axes: see [`bf16`](super).

use std::arch::x86_64::*;

use half::bf16;

use super::{LANES, Output, Part};

/// Where a task writes its sums.
pub(super) struct Target<'a> {
    pub(super) y: Output,
    /// Features of the result.
    pub(super) n: usize,
    pub(super) part: &'a Part,
    /// Sums of a result in bf16 that has several parts of K: the part's tokens and features.
    pub(super) sums: *mut f32,
}

impl Target<'_> {
    /// What a block at some token and feature adds to, and where its sums go, in the first part of K, in the last one, or
    /// in one between them.
    pub(super) fn places(
        &self,
        [token, feature]: [usize; 2],
        is_first: bool,
        is_last: bool,
    ) -> (Option<Place>, After) {
        let at = token * self.n + feature;
        let y = match self.y {
            Output::F32(y) => {
                let place = Place::new(y.wrapping_add(at), self.n);
                let adds = self.part.add || !is_first;
                return (adds.then_some(place), After::F32(place));
            }
            Output::Bf16(y) => y,
        };
        let Part {
            tokens, features, ..
        } = self.part;
        let at_sums = (token - tokens.start) * features.len() + feature - features.start;
        let place = Place::new(self.sums.wrapping_add(at_sums), features.len());
        let after = if is_last {
            After::Bf16(y.wrapping_add(at), self.n)
        } else {
            After::F32(place)
        };
        ((!is_first).then_some(place), after)
    }
}

/// An address in f32, and the elements from one row to the next.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) start: *mut f32,
    pub(super) stride: usize,
}

impl Place {
    pub(super) fn new(start: *mut f32, stride: usize) -> Self {
        Self { start, stride }
    }
}

/// Where sums go.
#[derive(Debug, Clone, Copy)]
pub(super) enum After {
    F32(Place),
    Bf16(*mut bf16, usize),
}

impl After {
    /// Writes those of sixteen sums that the mask selects, from a row and a column on.
    ///
    /// # Safety
    /// The selected elements can be written, and no other thread accesses them.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    pub(super) unsafe fn store(self, [row, column]: [usize; 2], mask: u16, sums: __m512) {
        // SAFETY: the caller promises the selected elements; the others are masked.
        unsafe {
            match self {
                Self::F32(Place { start, stride }) => {
                    let after = start.wrapping_add(row * stride + column);
                    _mm512_mask_storeu_ps(after, mask, sums);
                }
                Self::Bf16(start, stride) => {
                    let after = start.wrapping_add(row * stride + column);
                    _mm256_mask_storeu_epi16(after.cast(), mask, rounded(sums));
                }
            }
        }
    }
}

/// Some rows of a panel of the result.
pub(super) struct Block<'a> {
    pub(super) left: &'a [u32],
    pub(super) panel: &'a [u32],
    /// Packed words of K.
    pub(super) depth: usize,
    /// Features of the panel that are part of the result; the rest is padding.
    pub(super) width: usize,
    /// The sums of the parts before.
    pub(super) before: Option<Place>,
    pub(super) after: After,
}

impl Block<'_> {
    /// Those of the sixteen features from `first` on that are part of the result.
    pub(super) fn mask(&self, first: usize) -> u16 {
        let lanes = self.width.saturating_sub(first).min(LANES);
        ((1_u32 << lanes) - 1) as u16
    }
}

/// Sixteen values in bf16.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) fn rounded(values: __m512) -> __m256i {
    // SAFETY: both types are 256 bits, of which any pattern is valid.
    unsafe { std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(values)) }
}
