//! The operations where a training step spends its time.
//!
//! One file an operation: what it computes, its definition in plain Burn operations (the oracle),
//! its backward where automatic differentiation would waste memory, and its fused forms.

#![cfg_attr(
    feature = "libtorch",
    expect(
        deprecated,
        reason = "Burn counts on its own GPU backends; libtorch has the kernels that are fast today"
    )
)]
#![expect(
    clippy::inline_always,
    reason = "what is not inlined into a function for a vector instruction set is not compiled for it"
)]

mod attention;
mod buffer;
#[cfg(test)]
mod devices;
mod dropout;
mod flex;
#[cfg(feature = "libtorch")]
pub mod libtorch;
mod linear;
mod linear_cross_entropy;
mod logits;
mod lora_linear;
mod low_rank;
mod peak;
mod product;
pub mod profile;
mod recycle;
mod rms_norm;
mod rope;
mod rows;
mod simd;
mod swiglu;
mod threads;
mod tile;
mod upload;

pub use attention::{Attended, AttentionBackend, AttentionGradient, attention, attention_oracle};
pub use dropout::{Dropout, mix};
pub use linear::{LinearBackend, LinearGradient, linear, linear_oracle};
pub use linear_cross_entropy::{
    LinearCrossEntropyBackend, LinearCrossEntropyGradient, LossAndGradients, Wanted,
    linear_cross_entropy, linear_cross_entropy_oracle,
};
pub use logits::{log_sum_exp, most_likely};
pub use lora_linear::{
    Adapted, AdaptedGradients, LoraLinearBackend, LoraLinearGradient, LowRank, lora_linear,
    lora_linear_oracle,
};
pub use peak::{Peak, peak};
pub use product::{ProductUnit, product_unit};
pub use recycle::{RecyclingAllocator, Usage};
pub use rms_norm::{RmsNormBackend, RmsNormGradient, rms_norm, rms_norm_oracle};
pub use rope::{RopeBackend, rope, rope_oracle};
pub use rows::{Row, Rows};
pub use swiglu::{SwiGluBackend, SwiGluGradient, swiglu, swiglu_oracle};
pub use upload::{upload_floats, upload_ints};
