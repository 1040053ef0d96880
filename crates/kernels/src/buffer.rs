//! Memory for results that are written whole.

/// Numbers that the caller writes, every one, before anything reads them.
///
/// Clearing them first would touch the memory once more than the operation needs.
#[expect(unsafe_code, reason = "a length without initial values")]
#[expect(
    clippy::uninit_vec,
    reason = "every caller writes all of it before reading"
)]
pub(crate) fn buffer<T: Plain>(length: usize) -> Vec<T> {
    let mut values = Vec::with_capacity(length);
    // SAFETY: the capacity is there. `Plain` types have no invalid bit patterns and no drop, and
    // every caller is a kernel of this crate that writes each element before one is read.
    unsafe { values.set_len(length) };
    values
}

/// Numbers without invalid bit patterns.
pub(crate) trait Plain: Copy {}

impl Plain for f32 {}
impl Plain for u16 {}
