//! Settings of a thread that calls libtorch.

#[expect(unsafe_code, reason = "the function of thread.cpp is C++")]
unsafe extern "C" {
    fn simmer_without_autograd();
}

/// Lets this thread's calls go to their kernels directly, not first through PyTorch's automatic differentiation: Burn's
/// is in its place, and no tensor here records gradients for PyTorch's. A small operation takes about a fifth less time.
pub(crate) fn without_autograd() {
    #[expect(unsafe_code, reason = "calls a function of thread.cpp")]
    // SAFETY: the function takes nothing and sets a variable of the thread, which it can do at any time.
    unsafe {
        simmer_without_autograd();
    }
}
