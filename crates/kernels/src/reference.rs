//! Reference implementations in plain tensor operations: how an operation without a fused form runs.
//!
//! They are written once, for any backend. A fused form is compared with them in tests, and can be
//! left out for them to find a fault: see [`with_reference`].

use std::cell::Cell;
use std::sync::LazyLock;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, AutodiffBackend, Backend, TensorMetadata};
use burn::tensor::DType;

use crate::operation::{Operation, Operations};
use crate::profile;

thread_local! {
    static CHOSEN: Cell<Operations> = const { Cell::new(Operations::NONE) };
}

/// The operations in the environment variable `SIMMER_REFERENCE`; none if a name is wrong, which
/// [`from_environment`] reports.
static FROM_ENVIRONMENT: LazyLock<Operations> =
    LazyLock::new(|| from_environment().unwrap_or_default());

/// The operations that the environment variable `SIMMER_REFERENCE` names: `all`, or names separated by
/// commas. They run by their reference implementations.
///
/// # Errors
/// The first name that is not the name of an operation.
pub fn from_environment() -> Result<Operations, String> {
    match std::env::var_os("SIMMER_REFERENCE") {
        None => Ok(Operations::NONE),
        Some(names) => Operations::parse(&names.to_string_lossy()),
    }
}

/// The operations whose fused forms are left out on this thread.
pub(crate) fn chosen() -> Operations {
    FROM_ENVIRONMENT.and(CHOSEN.get())
}

/// Whether an operation's fused form is left out.
pub(crate) fn is_chosen(operation: Operation) -> bool {
    chosen().contains(operation)
}

/// Runs `f` with the reference implementations of some operations in place of their fused forms, on
/// this thread.
pub fn with_reference<T>(operations: Operations, f: impl FnOnce() -> T) -> T {
    struct Before(Operations);

    impl Drop for Before {
        fn drop(&mut self) {
            CHOSEN.set(self.0);
        }
    }

    let _before = Before(CHOSEN.replace(operations));
    f()
}

/// Runs a reference implementation in a span of a profile. The work of plain tensor operations is not
/// counted.
pub(crate) fn run<T>(operation: Operation, f: impl FnOnce() -> T) -> T {
    let _span = profile::span(operation, 0, 0);
    f()
}

/// A tensor in a dtype.
pub(crate) fn in_dtype<B: Backend>(x: FloatTensor<B>, dtype: DType) -> FloatTensor<B> {
    if x.dtype() == dtype {
        x
    } else {
        B::float_cast(x, dtype.into())
    }
}

/// A tensor in f32.
pub(crate) fn widened<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    in_dtype::<B>(x, DType::F32)
}

/// Gradients of the `wanted` inputs of a function in plain tensor operations, from the gradient `dy` of
/// its result: automatic differentiation, which keeps nothing after the call.
pub(crate) fn gradients<B: Backend, const N: usize>(
    inputs: [FloatTensor<B>; N],
    wanted: [bool; N],
    f: impl FnOnce([FloatTensor<Autodiff<B>>; N]) -> FloatTensor<Autodiff<B>>,
    dy: FloatTensor<B>,
) -> [Option<FloatTensor<B>>; N] {
    differentiated::<Autodiff<B>, N>(inputs, wanted, f, dy)
}

/// As [`gradients`], of all inputs.
pub(crate) fn all_gradients<B: Backend, const N: usize>(
    inputs: [FloatTensor<B>; N],
    f: impl FnOnce([FloatTensor<Autodiff<B>>; N]) -> FloatTensor<Autodiff<B>>,
    dy: FloatTensor<B>,
) -> [FloatTensor<B>; N] {
    gradients::<B, N>(inputs, [true; N], f, dy).map(|gradient| match gradient {
        Some(gradient) => gradient,
        None => unreachable!("every input is wanted, and the result depends on it"),
    })
}

fn differentiated<A: AutodiffBackend, const N: usize>(
    inputs: [FloatTensor<A::InnerBackend>; N],
    wanted: [bool; N],
    f: impl FnOnce([FloatTensor<A>; N]) -> FloatTensor<A>,
    dy: FloatTensor<A::InnerBackend>,
) -> [Option<FloatTensor<A::InnerBackend>>; N] {
    if !wanted.contains(&true) {
        return [const { None }; N];
    }
    let mut each = wanted.into_iter();
    let leaves = inputs.map(|input| {
        let leaf = A::from_inner(input);
        A::float_set_require_grad(leaf, each.next().unwrap_or(false))
    });
    let y = f(leaves.clone());
    // the gradient of `Σ y · dy` is `dy` times that of `y`, without a rounding
    let y = in_dtype::<A>(y, dy.dtype());
    let weighted = A::float_sum(A::float_mul(y, A::from_inner(dy)));
    let mut found = A::backward(weighted);
    leaves.map(|leaf| A::grad_remove(&leaf, &mut found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_ends_with_its_function() {
        let inner = Operations::NONE.with(Operation::Rope);
        with_reference(Operations::ALL, || {
            with_reference(inner, || {
                assert!(is_chosen(Operation::Rope) && !is_chosen(Operation::Linear));
            });
            assert!(is_chosen(Operation::Linear));
            let ended = std::panic::catch_unwind(|| {
                with_reference::<()>(inner, || panic!("ended"));
            });
            ended.unwrap_err();
            assert_eq!(chosen(), Operations::ALL);
        });
        assert!(!is_chosen(Operation::Rope));
    }
}
