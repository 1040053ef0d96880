//! Uninitialised memory for results.

/// An uninitialised vector. The caller writes every element before anything reads it.
///
/// Initialising it first would write all of the memory once more than the operation needs.
#[expect(
    unsafe_code,
    reason = "safe Rust has no vector of uninitialised elements that kernels can index"
)]
#[expect(
    clippy::uninit_vec,
    reason = "every caller writes all elements before one is read"
)]
pub(crate) fn buffer<T: Plain>(length: usize) -> Vec<T> {
    let mut values = Vec::with_capacity(length);
    // SAFETY: the capacity is `length`. `Plain` types have no invalid bit patterns and no drop, and
    // every caller is a kernel of this crate that writes each element before one is read.
    unsafe { values.set_len(length) };
    values
}

/// Element types without invalid bit patterns.
pub(crate) trait Plain: Copy {}

impl Plain for f32 {}
impl Plain for u16 {}
impl Plain for u32 {}
impl Plain for half::bf16 {}
