//! The operations that a training step spends its time in.
//!
//! Each operation has a file or folder of its own: its formula, its reference implementation in
//! plain tensor operations, its backward pass if automatic differentiation would waste memory, and
//! its fused forms. On a backend without a fused form, the reference implementation runs.
//! [`Capabilities`] describes what a device can do.

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

#[macro_use]
mod backends;

mod attention;
mod buffer;
mod capabilities;
mod decoding;
#[cfg(test)]
mod devices;
mod dropout;
mod flat;
mod flex;
mod frozen;
mod gated;
mod given_gradient;
mod instructions;
#[cfg(feature = "libtorch")]
mod libtorch;
mod linear;
mod linear_cross_entropy;
mod logits;
mod lora_linear;
mod memory;
mod operation;
mod optional;
mod peak;
mod product;
pub mod profile;
mod recycle;
mod reference;
mod residual;
mod rms_norm;
mod rope;
mod rounding;
mod rows;
mod simd;
mod skinny;
mod threads;
mod tile;
mod upload;

pub use attention::{
    Attended, AttentionBackend, AttentionForms, Scores, attention, attention_reference,
};
pub use backends::{Unavailable, features, gpus, has_cuda, not_compiled, open, out_of_memory};
pub use capabilities::{Capabilities, NoFp8, Overhead};
pub use decoding::{Decoding, NewestToken, StepInputs};
pub use dropout::{Dropout, mix};
pub use flat::{
    AdamWStep, AdamWTensors, FlatBackend, Part, adamw, adamw_reference, copy_again, norm,
};
pub use frozen::{
    FP8_STEP, FrozenForms, FrozenWeight, HostMemory, StoredRowsBackend, StoredWeight, WeightOn,
};
pub use gated::{Activation, GatedBackend, GatedForms, gated, gated_reference};
pub use given_gradient::{GivenGradientBackend, given_gradient};
pub use instructions::{Instructions, instructions};
#[cfg(feature = "libtorch")]
pub use libtorch::{Communicator, Nccl, ProcessGroup, Rendezvous, Transfer};
pub use linear::{LinearBackend, LinearForms, linear, linear_reference};
pub use linear_cross_entropy::{
    LinearCrossEntropyBackend, LinearCrossEntropyForms, LossAndGradients, OwnLogits, Wanted,
    linear_cross_entropy, linear_cross_entropy_reference, linear_cross_entropy_with, soft_capped,
};
pub use logits::{log_sum_exp, most_likely};
pub use lora_linear::{
    Adapted, AdaptedGradients, GradientsForm, Layer, LayerOn, LoraLinearBackend, LoraLinearForms,
    LowRank, Lows, MOST_TOGETHER, ResultsForm, Together, TogetherForms, TogetherGradients,
    TogetherResults, lora_linear, lora_linear_reference, lora_linears,
};
pub use memory::{Amounts, Memory};
pub use operation::{Operation, Operations};
pub use optional::{OptionalKernel, optional_kernels};
pub use peak::{Peak, peak};
pub use product::{ProductUnit, product_unit};
pub use recycle::{RecyclingAllocator, Usage};
pub use reference::{from_environment, with_reference};
pub use residual::{ResidualBackend, ResidualForms, residual};
pub use rms_norm::{RmsNormBackend, RmsNormForms, rms_norm, rms_norm_reference};
pub use rope::{RopeBackend, RopeForms, rope, rope_reference};
pub use rows::{Row, Rows};
pub use upload::{upload_floats, upload_ints, upload_weight};
