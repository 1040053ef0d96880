//! Stored weights as f64.

use half::{bf16, f16};
use simmer_checkpoint::Dtype;
use simmer_checkpoint::numbers::Number;

/// Widens a row.
#[expect(
    clippy::inline_always,
    reason = "compiled with the instructions of the function that it is called in"
)]
#[inline(always)]
pub(crate) fn widen(row: &[f32], wide: &mut [f64]) {
    for (wide, value) in wide.iter_mut().zip(row) {
        *wide = f64::from(*value);
    }
}

/// The values of a tensor's bytes. Every dtype but F16 and BF16 is read as F32.
pub(crate) fn to_f64(bytes: &[u8], dtype: Dtype) -> Vec<f64> {
    match dtype {
        Dtype::F16 => widened::<f16>(bytes),
        Dtype::BF16 => widened::<bf16>(bytes),
        _ => widened::<f32>(bytes),
    }
}

fn widened<T: Number>(bytes: &[u8]) -> Vec<f64> {
    let values = bytes.chunks_exact(T::BYTES);
    values.map(|value| T::widen(value).into()).collect()
}
