//! Matrices whose elements are quantised: small codes, and scales that a block of them shares.
//!
//! [`Quantised`] is such a matrix as it lies in a file or in memory. It is widened to f32 a part of a row
//! at a time, so that a matrix multiplication can widen it while it packs it. The crate knows neither
//! files nor tensors: `checkpoint` finds the parts in files, `kernels` multiplies by them.
//!
//! Axes: R rows (output features), C columns (input features).

#![expect(
    clippy::inline_always,
    clippy::needless_bitwise_bool,
    reason = "the compiler is to vectorise loops, in the callers too"
)]

mod encoder;
mod error;
mod four_bit;
mod fp8;
mod int8;
mod matrix;
mod matrix_checks;
mod types;

pub mod ggml;

pub use encoder::{Encoder, Encoding, FourBitKind};
pub use error::BlocksError;
pub use four_bit::{Absmax, FP4, FourBit, NF4, Pairs, nested_values};
pub use fp8::{Fp8, Fp8Scales, e4m3};
pub use int8::Int8;
pub use matrix::{Form, Quantised, paired_row};
pub use types::Rounding;

#[cfg(test)]
mod tests;
