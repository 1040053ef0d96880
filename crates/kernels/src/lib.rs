//! The operations that a training step spends its time in.
//!
//! Each operation has a file or folder of its own: its formula, its reference implementation in
//! plain Burn operations, its backward pass if automatic differentiation would waste memory, and
//! its fused forms.

#![cfg_attr(
    feature = "libtorch",
    expect(
        deprecated,
        reason = "Burn deprecates its libtorch backend in favour of its own GPU backends, whose \
                  kernels are slower today"
    )
)]
#![expect(
    clippy::inline_always,
    reason = "a function is compiled for a vector instruction set only if it is inlined into one that is"
)]

mod attention;
mod buffer;
#[cfg(test)]
mod devices;
mod dropout;
mod flex;
mod instructions;
#[cfg(feature = "libtorch")]
pub mod libtorch;
mod linear;
mod linear_cross_entropy;
mod logits;
mod lora_linear;
mod peak;
mod product;
pub mod profile;
mod recycle;
mod rms_norm;
mod rope;
mod rows;
mod simd;
mod skinny;
mod swiglu;
mod threads;
mod tile;
mod upload;

pub use attention::{
    Attended, AttentionBackend, AttentionGradient, attention, attention_reference,
};
pub use dropout::{Dropout, mix};
pub use instructions::{Instructions, instructions};
pub use linear::{LinearBackend, LinearGradient, linear, linear_reference};
pub use linear_cross_entropy::{
    LinearCrossEntropyBackend, LinearCrossEntropyGradient, LossAndGradients, Wanted,
    linear_cross_entropy, linear_cross_entropy_reference,
};
pub use logits::{log_sum_exp, most_likely};
pub use lora_linear::{
    Adapted, AdaptedGradients, LoraLinearBackend, LoraLinearGradient, LowRank, lora_linear,
    lora_linear_reference,
};
pub use peak::{Peak, peak};
pub use product::{ProductUnit, product_unit};
pub use recycle::{RecyclingAllocator, Usage};
pub use rms_norm::{RmsNormBackend, RmsNormGradient, rms_norm, rms_norm_reference};
pub use rope::{RopeBackend, rope, rope_reference};
pub use rows::{Row, Rows};
pub use swiglu::{SwiGluBackend, SwiGluGradient, swiglu, swiglu_reference};
pub use upload::{upload_floats, upload_ints};
