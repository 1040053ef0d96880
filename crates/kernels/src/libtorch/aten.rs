//! Functions of ATen that tch does not bind. `aten.cpp` calls them.
//!
//! All of them have the signatures used here in torch 2.9 to 2.11.
//!
//! Axes: T tokens, S keys, N query heads, K key heads, D `head_dim`, H hidden size.

use std::ffi::{c_char, c_int};

use tch::Tensor;
use torch_sys::C_tensor;

/// Size of the buffer for a call's error message, in bytes.
pub(super) const SAID: usize = 4096;

pub(super) type Input = *const C_tensor;
pub(super) type Outputs = *mut *mut C_tensor;

/// The rows of queries and keys, as the `simmer_*_attention` functions take them.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct Spans {
    starts_q: Input,
    starts_k: Input,
    longest_q: i64,
    longest_k: i64,
    scale: f64,
    window: i64,
}

#[expect(unsafe_code, reason = "the functions of aten.cpp are C++")]
unsafe extern "C" {
    fn simmer_flash_attention(
        qkv: *const Input,
        spans: Spans,
        out: Outputs,
        said: *mut c_char,
        room: usize,
    ) -> c_int;
    fn simmer_flash_attention_backward(
        forward: *const Input,
        spans: Spans,
        out: Outputs,
        said: *mut c_char,
        room: usize,
    ) -> c_int;
    fn simmer_efficient_attention(
        qkv: *const Input,
        spans: Spans,
        out: Outputs,
        said: *mut c_char,
        room: usize,
    ) -> c_int;
    fn simmer_efficient_attention_backward(
        forward: *const Input,
        spans: Spans,
        out: Outputs,
        said: *mut c_char,
        room: usize,
    ) -> c_int;
    fn simmer_cudnn_attention(
        qkv: *const Input,
        scale: f64,
        out: Outputs,
        said: *mut c_char,
        room: usize,
    ) -> c_int;
    fn simmer_cudnn_attention_backward(
        forward: *const Input,
        scale: f64,
        out: Outputs,
        said: *mut c_char,
        room: usize,
    ) -> c_int;
    fn simmer_fused_rms_norm_backward(
        inputs: *const Input,
        trained: bool,
        out: Outputs,
        said: *mut c_char,
        room: usize,
    ) -> c_int;
}

/// Runs a function of aten.cpp that returns `N` tensors; a null pointer becomes `None`.
///
/// # Panics
/// If the function fails. Functions of tch do the same.
pub(super) fn call<const N: usize>(
    f: impl FnOnce(Outputs, *mut c_char, usize) -> c_int,
) -> [Option<Tensor>; N] {
    let mut out = [std::ptr::null_mut(); N];
    let mut said = [0 as c_char; SAID];
    let code = f(out.as_mut_ptr(), said.as_mut_ptr(), SAID);
    assert!(code == 0, "libtorch: {}", super::said(&said));
    out.map(|tensor| {
        // SAFETY: aten.cpp created the tensor with `new` for this call and keeps no pointer to it.
        #[expect(unsafe_code, reason = "takes ownership of a tensor that C++ created")]
        (!tensor.is_null()).then(|| unsafe { Tensor::from_ptr(tensor) })
    })
}

pub(super) fn all<const N: usize>(tensors: [Option<Tensor>; N]) -> [Tensor; N] {
    tensors.map(|tensor| match tensor {
        Some(tensor) => tensor,
        None => unreachable!("aten.cpp fills every result"),
    })
}

/// The rows of a packed sequence, whose queries and keys lie one after another.
#[derive(Debug)]
pub(crate) struct Packed<'a> {
    /// Offset of each row, and the end of the last one, for queries and for keys: `[rows + 1]` each,
    /// in i32.
    pub(crate) starts: [&'a Tensor; 2],
    /// Largest number of queries in a row, and of keys.
    pub(crate) longest: [i64; 2],
    /// Factor of the scores.
    pub(crate) scale: f64,
    /// Number of keys that a query sees at most, its own included. Only for flash attention.
    pub(crate) window: Option<usize>,
}

impl Packed<'_> {
    fn spans(&self) -> Spans {
        Spans {
            starts_q: self.starts[0].as_ptr(),
            starts_k: self.starts[1].as_ptr(),
            longest_q: self.longest[0],
            longest_k: self.longest[1],
            scale: self.scale,
            window: self.window.map_or(0, |window| window as i64),
        }
    }
}

/// Causal attention on a GPU for 16-bit dtypes, by `_flash_attention_forward`: the result, and the
/// log-sum-exp in a layout of its own. The last query of a row has the position of its last key, also
/// for a window.
///
/// # Shapes
/// `q`: `[T, N, D]`. `k`, `v`: `[S, K, D]`. Result: `[T, N, D]`.
pub(crate) fn flash_attention(qkv: [&Tensor; 3], packed: &Packed<'_>) -> [Tensor; 2] {
    let inputs = qkv.map(Tensor::as_ptr);
    // SAFETY: the function reads three tensors, which outlive the call, and writes at most two.
    #[expect(unsafe_code, reason = "calls a function of aten.cpp with raw pointers")]
    all(call(|out, said, room| unsafe {
        simmer_flash_attention(inputs.as_ptr(), packed.spans(), out, said, room)
    }))
}

/// Gradients of `q`, `k` and `v`, by `_flash_attention_backward`.
pub(crate) fn flash_attention_backward(
    dy: &Tensor,
    qkv: [&Tensor; 3],
    [y, lse]: [&Tensor; 2],
    packed: &Packed<'_>,
) -> [Tensor; 3] {
    let [q, k, v] = qkv;
    let inputs = [dy, q, k, v, y, lse].map(Tensor::as_ptr);
    // SAFETY: the function reads six tensors, which outlive the call, and writes at most three.
    #[expect(unsafe_code, reason = "calls a function of aten.cpp with raw pointers")]
    all(call(|out, said, room| unsafe {
        simmer_flash_attention_backward(inputs.as_ptr(), packed.spans(), out, said, room)
    }))
}

/// As [`flash_attention`], for every dtype, by `_efficient_attention_forward`. Keys must have as many
/// heads as queries. Without a window: the backward kernel places it wrongly in a row with fewer queries
/// than keys (`kernel_backward.h` in torch 2.9).
///
/// # Shapes
/// `q`, result: `[1, T, N, D]`. `k`, `v`: `[1, S, N, D]`.
pub(crate) fn efficient_attention(qkv: [&Tensor; 3], packed: &Packed<'_>) -> [Tensor; 2] {
    let inputs = qkv.map(Tensor::as_ptr);
    // SAFETY: the function reads three tensors, which outlive the call, and writes at most two.
    #[expect(unsafe_code, reason = "calls a function of aten.cpp with raw pointers")]
    all(call(|out, said, room| unsafe {
        simmer_efficient_attention(inputs.as_ptr(), packed.spans(), out, said, room)
    }))
}

/// Gradients of `q`, `k` and `v`, by `_efficient_attention_backward`.
pub(crate) fn efficient_attention_backward(
    dy: &Tensor,
    qkv: [&Tensor; 3],
    [y, lse]: [&Tensor; 2],
    packed: &Packed<'_>,
) -> [Tensor; 3] {
    let [q, k, v] = qkv;
    let inputs = [dy, q, k, v, y, lse].map(Tensor::as_ptr);
    // SAFETY: the function reads six tensors, which outlive the call, and writes at most three.
    #[expect(unsafe_code, reason = "calls a function of aten.cpp with raw pointers")]
    all(call(|out, said, room| unsafe {
        simmer_efficient_attention_backward(inputs.as_ptr(), packed.spans(), out, said, room)
    }))
}

/// Causal attention within rows of one length on a GPU, by `_scaled_dot_product_cudnn_attention`, which keeps a plan
/// for each shape: the result, and the log-sum-exp in a layout of its own.
///
/// # Shapes
/// `q`, result: `[B, N, L, D]`. `k`, `v`: `[B, K, L, D]`.
pub(crate) fn cudnn_attention(qkv: [&Tensor; 3], scale: f64) -> [Tensor; 2] {
    let inputs = qkv.map(Tensor::as_ptr);
    // SAFETY: the function reads three tensors, which outlive the call, and writes at most two.
    #[expect(unsafe_code, reason = "calls a function of aten.cpp with raw pointers")]
    all(call(|out, said, room| unsafe {
        simmer_cudnn_attention(inputs.as_ptr(), scale, out, said, room)
    }))
}

/// Gradients of `q`, `k` and `v`, by `_scaled_dot_product_cudnn_attention_backward`.
pub(crate) fn cudnn_attention_backward(
    dy: &Tensor,
    qkv: [&Tensor; 3],
    [y, lse]: [&Tensor; 2],
    scale: f64,
) -> [Tensor; 3] {
    let [q, k, v] = qkv;
    let inputs = [dy, q, k, v, y, lse].map(Tensor::as_ptr);
    // SAFETY: the function reads six tensors, which outlive the call, and writes at most three.
    #[expect(unsafe_code, reason = "calls a function of aten.cpp with raw pointers")]
    all(call(|out, said, room| unsafe {
        simmer_cudnn_attention_backward(inputs.as_ptr(), scale, out, said, room)
    }))
}

/// Gradients of `x`, and of `weight` if it is `trained`, on a GPU by `_fused_rms_norm_backward`.
///
/// # Shapes
/// `dy`, `x`: `[T, H]`. `scale`: `[T, 1]`, f32. `weight`: `[H]`.
pub(crate) fn fused_rms_norm_backward(
    dy: &Tensor,
    x: &Tensor,
    scale: &Tensor,
    weight: &Tensor,
    trained: bool,
) -> (Tensor, Option<Tensor>) {
    let inputs = [dy, x, scale, weight].map(Tensor::as_ptr);
    // SAFETY: the function reads four tensors, which outlive the call, and writes at most two.
    #[expect(unsafe_code, reason = "calls a function of aten.cpp with raw pointers")]
    let [dx, d_weight] = call(|out, said, room| unsafe {
        simmer_fused_rms_norm_backward(inputs.as_ptr(), trained, out, said, room)
    });
    let [dx] = all([dx]);
    (dx, d_weight)
}
