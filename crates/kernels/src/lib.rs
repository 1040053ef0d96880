//! The operations where a training step spends its time.
//!
//! One file an operation: what it computes, its definition in plain Burn operations (the oracle),
//! its backward where automatic differentiation would waste memory, and its fused forms.

mod attention;
mod dropout;
mod linear;
mod linear_cross_entropy;
mod lora_linear;
mod map;
mod rms_norm;
mod rope;
mod rows;
mod swiglu;

pub use attention::attention;
pub use dropout::{dropout_mask, mix};
pub use linear::{LinearBackend, linear, linear_oracle};
pub use linear_cross_entropy::{
    LinearCrossEntropyBackend, linear_cross_entropy, linear_cross_entropy_oracle,
};
pub use lora_linear::{LowRank, lora_linear};
pub use map::{map_file, release_pages};
pub use rms_norm::rms_norm;
pub use rope::rope;
pub use rows::Rows;
pub use swiglu::swiglu;
