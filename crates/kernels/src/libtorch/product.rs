//! Matrix multiplications that write where a result belongs: with a factor, on top of a sum, in a wider dtype. Each is one
//! kernel, and no other operation follows it.
//!
//! Axes: T tokens, K inner dimension (summed over), N output features.

use std::ffi::{c_char, c_int};
use std::sync::Arc;

use burn::backend::LibTorch;
use tch::{Kind, Tensor};
use torch_sys::C_tensor;

use super::aten::{Input, SAID};
use super::{said, stored_bytes, weight_in};
use crate::frozen::WeightOn;
use crate::frozen::fp8::{Fp8Weight, Operand};
use crate::product::Side;
use crate::profile::{self, Operation};

#[expect(unsafe_code, reason = "the function of product.cpp is C++")]
unsafe extern "C" {
    fn simmer_scaled_product(
        out: *mut C_tensor,
        a: Input,
        b: Input,
        factor: f64,
        said: *mut c_char,
        room: usize,
    ) -> c_int;
}

/// `out = factor · a b`
///
/// # Shapes
/// `a`: `[T, K]`. `b`: `[K, N]`. `out`: `[T, N]`, which may be columns of a wider matrix.
///
/// # Panics
/// If the function fails. Functions of tch do the same.
pub(crate) fn scaled_product_into(out: &mut Tensor, a: &Tensor, b: &Tensor, factor: f64) {
    let mut message = [0 as c_char; SAID];
    let (to, a, b) = (out.as_mut_ptr(), a.as_ptr(), b.as_ptr());
    // SAFETY: the function reads two tensors and writes one, which all outlive the call.
    #[expect(
        unsafe_code,
        reason = "calls a function of product.cpp with raw pointers"
    )]
    let code = unsafe { simmer_scaled_product(to, a, b, factor, message.as_mut_ptr(), SAID) };
    assert!(code == 0, "libtorch: {}", said(&message));
}

/// `factor · a b`
///
/// # Shapes
/// As [`scaled_product_into`].
pub(crate) fn scaled_product(a: &Tensor, b: &Tensor, factor: f64) -> Tensor {
    let shape = [a.size()[0], b.size()[1]];
    let mut out = Tensor::empty(shape, (a.kind(), a.device()));
    scaled_product_into(&mut out, a, b, factor);
    out
}

/// `a b` in f32: the sums of a GPU, which are in f32, are not rounded in between.
///
/// # Shapes
/// `a`: `[T, K]`. `b`: `[K, N]`. Result: `[T, N]`.
pub(crate) fn wide_product(a: &Tensor, b: &Tensor) -> Tensor {
    match a.kind() {
        Kind::Float => a.mm(b),
        _ if a.device().is_cuda() => a.mm_dtype(b, Kind::Float),
        _ => a.mm(b).to_kind(Kind::Float),
    }
}

/// `x Wᵀ` or `x W` in the dtype of `x`; a weight in another dtype, or a quantised one, is converted first, unless it is
/// multiplied in fp8.
///
/// # Shapes
/// `x`: `[T, K]`. `weight`: `[N, K]` or `[K, N]`, see [`Side`]. Result: `[T, N]`.
pub(crate) fn product_with(x: &Operand<'_>, weight: &WeightOn<LibTorch>, side: Side) -> Tensor {
    let _span = span(x.x, weight);
    match fp8(weight) {
        Some(weight) => weight.product(x, side),
        None => x.x.mm(&turned(weight, x.x.kind(), side)),
    }
}

/// Adds [`product_with`] to `sum`, in the matrix multiplication itself if that is not in fp8.
///
/// # Shapes
/// `sum`: `[T, N]`, in the dtype of `x`.
pub(crate) fn add_product_with(
    sum: &mut Tensor,
    x: &Operand<'_>,
    weight: &WeightOn<LibTorch>,
    side: Side,
) {
    let _span = span(x.x, weight);
    let _ = match fp8(weight) {
        Some(weight) => sum.g_add_(&weight.product(x, side)),
        None => sum.addmm_(x.x, &turned(weight, x.x.kind(), side)),
    };
}

/// [`product_with`] plus the product of two small factors, the second of the two in one pass: the large product adds
/// itself to the small one, or the small one to the large one where that is in fp8 and cannot add.
///
/// # Shapes
/// `low`: `[T, r]`. `up`: `[r, N]`. Both are in the dtype of `x`.
pub(crate) fn product_beside(
    low: &Tensor,
    up: &Tensor,
    x: &Operand<'_>,
    weight: &WeightOn<LibTorch>,
    side: Side,
) -> Tensor {
    // the operations of the branch are counted by its own span
    let branch = || profile::span(Operation::LowRank, 0, 0);
    if fp8(weight).is_some() {
        let mut y = product_with(x, weight, side);
        let _span = branch();
        let _ = y.addmm_(low, up);
        return y;
    }
    let mut y = {
        let _span = branch();
        low.mm(up)
    };
    add_product_with(&mut y, x, weight, side);
    y
}

fn fp8(weight: &WeightOn<LibTorch>) -> Option<Arc<Fp8Weight>> {
    match weight {
        WeightOn::Dense(_) => None,
        WeightOn::Stored(weight) => weight.fp8(),
    }
}

fn turned(weight: &WeightOn<LibTorch>, kind: Kind, side: Side) -> Tensor {
    let weight = weight_in(weight, kind);
    match side {
        Side::Transposed => weight.tr(),
        Side::Plain => weight,
    }
}

fn span(x: &Tensor, weight: &WeightOn<LibTorch>) -> profile::Recording {
    let [rows, columns] = weight.shape();
    let tokens = x.size()[0] as usize;
    let size = tokens * (rows + columns) * x.kind().elt_size_in_bytes() + stored_bytes(weight);
    profile::span(Operation::Linear, 2 * tokens * rows * columns, size)
}

/// A tensor in a dtype: itself if it has that.
pub(crate) fn in_kind(x: &Tensor, kind: Kind) -> Tensor {
    if x.kind() == kind {
        x.shallow_clone()
    } else {
        x.to_kind(kind)
    }
}
