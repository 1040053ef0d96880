//! Tests of whole matrices.

mod bitsandbytes;
mod ggml;
mod golden;
mod invariants;
mod refused;
