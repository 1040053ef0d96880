//! Functions of ATen that tch does not bind: `aten.cpp` calls them.
//!
//! All of them have the signature that is used here in torch 2.9 to 2.11.

use std::ffi::{c_char, c_int};

use tch::Tensor;
use torch_sys::C_tensor;

/// Room for what a call says when it fails.
const SAID: usize = 4096;

type Input = *const C_tensor;
type Outputs = *mut *mut C_tensor;

/// Which rows of the queries see which rows of the keys, for the `simmer_*_attention` functions.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct Spans {
    starts_q: Input,
    starts_k: Input,
    longest_q: i64,
    longest_k: i64,
    scale: f64,
}

#[expect(unsafe_code, reason = "functions of aten.cpp")]
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
    fn simmer_fused_rms_norm_backward(
        inputs: *const Input,
        trained: bool,
        out: Outputs,
        said: *mut c_char,
        room: usize,
    ) -> c_int;
}

/// Runs a function of aten.cpp that gives `N` tensors; a null one is `None`.
///
/// # Panics
/// Where it fails, as every function of tch does.
fn call<const N: usize>(
    f: impl FnOnce(Outputs, *mut c_char, usize) -> c_int,
) -> [Option<Tensor>; N] {
    let mut out = [std::ptr::null_mut(); N];
    let mut said = [0 as c_char; SAID];
    let code = f(out.as_mut_ptr(), said.as_mut_ptr(), SAID);
    assert!(code == 0, "libtorch: {}", super::said(&said));
    out.map(|tensor| {
        // SAFETY: a tensor that aten.cpp made for us, which nobody else holds.
        #[expect(unsafe_code, reason = "tensors of aten.cpp")]
        (!tensor.is_null()).then(|| unsafe { Tensor::from_ptr(tensor) })
    })
}

fn all<const N: usize>(tensors: [Option<Tensor>; N]) -> [Tensor; N] {
    tensors.map(|tensor| match tensor {
        Some(tensor) => tensor,
        None => unreachable!("aten.cpp fills every result"),
    })
}

/// Rows of queries and keys that lie one after another.
#[derive(Debug)]
pub(crate) struct Packed<'a> {
    /// Where each row begins, and the end of the last, `[rows + 1]`, 32 bits each.
    pub(crate) starts: [&'a Tensor; 2],
    /// Tokens of the longest row.
    pub(crate) longest: [i64; 2],
    /// Factor of the scores.
    pub(crate) scale: f64,
}

impl Packed<'_> {
    fn spans(&self) -> Spans {
        Spans {
            starts_q: self.starts[0].as_ptr(),
            starts_k: self.starts[1].as_ptr(),
            longest_q: self.longest[0],
            longest_k: self.longest[1],
            scale: self.scale,
        }
    }
}

/// Result and log-sum-exp, in a layout of its own: the last query of a row stands at its last key.
///
/// `_flash_attention_forward`: 16-bit numbers, on a GPU.
///
/// # Shapes
/// `q`: `[T, N, D]`. `k`, `v`: `[S, K, D]`. Result: `[T, N, D]`.
pub(crate) fn flash_attention(qkv: [&Tensor; 3], packed: &Packed<'_>) -> [Tensor; 2] {
    let inputs = qkv.map(Tensor::as_ptr);
    // SAFETY: three tensors that outlive the call, and room for two.
    #[expect(unsafe_code, reason = "a function of aten.cpp")]
    all(call(|out, said, room| unsafe {
        simmer_flash_attention(inputs.as_ptr(), packed.spans(), out, said, room)
    }))
}

/// Gradients of `q`, `k` and `v`.
///
/// `_flash_attention_backward`.
pub(crate) fn flash_attention_backward(
    dy: &Tensor,
    qkv: [&Tensor; 3],
    [y, lse]: [&Tensor; 2],
    packed: &Packed<'_>,
) -> [Tensor; 3] {
    let [q, k, v] = qkv;
    let inputs = [dy, q, k, v, y, lse].map(Tensor::as_ptr);
    // SAFETY: six tensors that outlive the call, and room for three.
    #[expect(unsafe_code, reason = "a function of aten.cpp")]
    all(call(|out, said, room| unsafe {
        simmer_flash_attention_backward(inputs.as_ptr(), packed.spans(), out, said, room)
    }))
}

/// As [`flash_attention`], for every number type; as many heads of keys as of queries.
///
/// `_efficient_attention_forward`: on a GPU.
///
/// # Shapes
/// `q`, result: `[1, T, N, D]`. `k`, `v`: `[1, S, N, D]`.
pub(crate) fn efficient_attention(qkv: [&Tensor; 3], packed: &Packed<'_>) -> [Tensor; 2] {
    let inputs = qkv.map(Tensor::as_ptr);
    // SAFETY: three tensors that outlive the call, and room for two.
    #[expect(unsafe_code, reason = "a function of aten.cpp")]
    all(call(|out, said, room| unsafe {
        simmer_efficient_attention(inputs.as_ptr(), packed.spans(), out, said, room)
    }))
}

/// Gradients of `q`, `k` and `v`.
///
/// `_efficient_attention_backward`.
pub(crate) fn efficient_attention_backward(
    dy: &Tensor,
    qkv: [&Tensor; 3],
    [y, lse]: [&Tensor; 2],
    packed: &Packed<'_>,
) -> [Tensor; 3] {
    let [q, k, v] = qkv;
    let inputs = [dy, q, k, v, y, lse].map(Tensor::as_ptr);
    // SAFETY: six tensors that outlive the call, and room for three.
    #[expect(unsafe_code, reason = "a function of aten.cpp")]
    all(call(|out, said, room| unsafe {
        simmer_efficient_attention_backward(inputs.as_ptr(), packed.spans(), out, said, room)
    }))
}

/// Gradients of `x`, and of `weight` where it is `trained`.
///
/// `_fused_rms_norm_backward`: on a GPU.
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
    // SAFETY: four tensors that outlive the call, and room for two.
    #[expect(unsafe_code, reason = "a function of aten.cpp")]
    let [dx, d_weight] = call(|out, said, room| unsafe {
        simmer_fused_rms_norm_backward(inputs.as_ptr(), trained, out, said, room)
    });
    let [dx] = all([dx]);
    (dx, d_weight)
}
