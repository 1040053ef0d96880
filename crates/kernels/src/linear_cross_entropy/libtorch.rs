//! The form on libtorch: one chunk of tokens after another. The gradient of the logits overwrites
//! the logits.
//!
//! Matrix multiplications are in the dtype of the hidden states, the softmax and the loss in f32. A kernel of
//! `cross_entropy.cu` computes both in one pass over the logits, in their dtype, or else ATen's functions do in f32.
//!
//! Axes as in [`super`].

use burn::backend::LibTorch;
use burn::backend::libtorch::TchTensor;
use tch::{Kind, Tensor};

use super::{LinearCrossEntropyForms, LossAndGradients, OwnLogits, Wanted};
use crate::OptionalKernel;
use crate::frozen::WeightOn;
use crate::libtorch::cuda::{self, Argument, Kernel};
use crate::libtorch::{bytes, fresh, stored_bytes, weight_in};
use crate::profile::{self, Operation};

/// Threads of a block in `cross_entropy.cu`.
const THREADS: usize = 512;

/// Elements of a chunk's logits. A GPU needs more tokens than a processor for matrix multiplications
/// at full speed, and has the memory: 1 GiB in f32.
fn elements(of: &Tensor) -> i64 {
    if of.device().is_cuda() {
        256 << 20
    } else {
        super::chunks::ELEMENTS as i64
    }
}

impl LinearCrossEntropyForms for LibTorch {
    const FUSED: bool = true;

    fn linear_cross_entropy_form(
        hidden: TchTensor,
        weight: WeightOn<Self>,
        targets: TchTensor,
        own: Option<OwnLogits<Self>>,
        soft_cap: Option<f64>,
        wanted: Wanted,
    ) -> LossAndGradients<Self> {
        let [hidden, targets] = [hidden.tensor, targets.tensor];
        let products = 1 + usize::from(wanted.hidden) + usize::from(wanted.weight);
        let [v, h] = weight.shape();
        let flops = 2 * hidden.size()[0] as usize * v * h;
        let size = stored_bytes(&weight) + bytes(&[&hidden, &hidden]);
        let _span = profile::span(Operation::LinearCrossEntropy, products * flops, size);
        let kind = hidden.kind();
        let weight = weight_in(&weight, kind); // [V, H]
        let tokens = hidden.size()[0];
        let rows = (elements(&hidden) / weight.size()[0]).max(1);
        let mut losses = Vec::new();
        let mut d_hidden = Vec::new();
        let mut d_weight: Option<Tensor> = None;
        let own = own.map(|own| (own.indices().tensor, own.logits.tensor));
        let mut d_own = Vec::new();
        for start in (0..tokens).step_by(rows as usize) {
            let c = rows.min(tokens - start);
            let x = hidden.narrow(0, start, c); // [c, H]
            let target = targets.narrow(0, start, c); // [c]
            let logits = x.mm(&weight.tr()); // [c, V]
            let of_kernel = kernel(&logits).filter(|_| own.is_none());
            let (loss, d_logits) = if let Some(kernel) = of_kernel {
                in_place(kernel, logits, &target, soft_cap, wanted.any())
            } else {
                let own = own.as_ref().map(|(ids, of)| (ids, of.narrow(0, start, c)));
                let found = in_f32(logits, &target, own, soft_cap, wanted.any());
                d_own.extend(found.own);
                (found.losses, found.logits)
            };
            losses.push(loss);
            let Some(d_logits) = d_logits else {
                continue;
            };
            if wanted.weight {
                let part = d_logits.tr().mm(&x).to_kind(Kind::Float); // [V, H]
                d_weight = Some(match d_weight {
                    None => part,
                    Some(mut sum) => sum.g_add_(&part),
                });
            }
            if wanted.hidden {
                d_hidden.push(d_logits.mm(&weight)); // [c, H]
            }
        }
        LossAndGradients {
            loss: fresh(Tensor::cat(&losses, 0).sum(Kind::Float).view([1])),
            hidden: wanted.hidden.then(|| fresh(Tensor::cat(&d_hidden, 0))), // [N, H]
            weight: d_weight.map(fresh),
            own: wanted.own.then(|| fresh(Tensor::cat(&d_own, 0))), // [N, K]
        }
    }
}

/// The kernel for logits of this dtype on this device.
fn kernel(logits: &Tensor) -> Option<Kernel> {
    let name = match logits.kind() {
        Kind::Float => "cross_entropy_f32",
        Kind::BFloat16 => "cross_entropy_bf16",
        _ => return None,
    };
    cuda::CROSS_ENTROPY.kernel(OptionalKernel::CrossEntropy, name, logits)
}

/// The loss of each token, and the gradient of the logits in their memory.
///
/// # Shapes
/// `logits`, their gradient: `[c, V]`. `target`, losses: `[c]`.
fn in_place(
    kernel: Kernel,
    logits: Tensor,
    target: &Tensor,
    soft_cap: Option<f64>,
    with_gradient: bool,
) -> (Tensor, Option<Tensor>) {
    let [count, vocabulary] = logits.size()[..] else {
        unreachable!("logits have two axes")
    };
    let target = target.to_kind(Kind::Int64).contiguous();
    let losses = Tensor::empty([count], (Kind::Float, logits.device()));
    let arguments = [
        Argument::Tensor(&logits),
        Argument::Tensor(&target),
        Argument::Tensor(&losses),
        Argument::Int(vocabulary),
        Argument::Float(soft_cap.unwrap_or(0.0)),
        Argument::Int(with_gradient.into()),
    ];
    kernel.on_blocks([count as usize, 1, 1], THREADS, 0, &arguments);
    (losses, with_gradient.then_some(logits))
}

/// What [`in_f32`] computes.
struct Found {
    /// `[c]`
    losses: Tensor,
    /// The gradient of the logits, `[c, V]`, zeros at those of their own.
    logits: Option<Tensor>,
    /// The gradient of logits of their own, `[c, K]`.
    own: Option<Tensor>,
}

/// The loss of each token and the gradient of the logits by ATen's functions. `own` are the places and values of logits
/// of their own.
///
/// # Shapes
/// `logits`: `[c, V]`. `target`: `[c]`. `own`: `[K]`, `[c, K]`.
fn in_f32(
    logits: Tensor,
    target: &Tensor,
    own: Option<(&Tensor, Tensor)>,
    soft_cap: Option<f64>,
    with_gradient: bool,
) -> Found {
    let kind = logits.kind();
    let mut logits = logits.to_kind(Kind::Float);
    let target = target.unsqueeze(1); // [c, 1]
    if let Some((ids, own)) = &own {
        let _ = logits.index_copy_(1, ids, own);
    }
    if let Some(cap) = soft_cap {
        let _ = logits.g_div_scalar_(cap).tanh_().g_mul_scalar_(cap);
    }
    let lse = logits.logsumexp([1_i64], true); // [c, 1]
    let losses = (&lse - logits.gather(1, &target, false)).squeeze_dim(1);
    if !with_gradient {
        return Found {
            losses,
            logits: None,
            own: None,
        };
    }
    let slope = soft_cap.map(|cap| {
        let mut share = &logits / cap; // [c, V]
        share.square_().neg_().g_add_scalar_(1.0)
    });
    let mut d_logits = logits.g_sub_(&lse).exp_(); // [c, V]
    let minus_one = lse.full_like(-1.0);
    let mut d_logits = d_logits.scatter_add_(1, &target, &minus_one);
    if let Some(slope) = slope {
        let _ = d_logits.g_mul_(&slope);
    }
    let own = own.map(|(ids, _)| {
        let found = d_logits.index_select(1, ids);
        let _ = d_logits.index_fill_(1, ids, 0.0);
        found
    });
    Found {
        losses,
        logits: Some(d_logits.to_kind(kind)),
        own,
    }
}
