//! The form on libtorch: one chunk of tokens after another. The gradient of the logits overwrites
//! the logits.
//!
//! Matrix multiplications are in the dtype of the hidden states, the softmax and the loss in f32.
//!
//! Axes as in [`super`].

use burn::backend::LibTorch;
use burn::backend::libtorch::TchTensor;
use tch::{Kind, Tensor};

use super::{LinearCrossEntropyForms, LossAndGradients, OwnLogits, Wanted};
use crate::frozen::WeightOn;
use crate::libtorch::{bytes, fresh, stored_bytes, weight_in};
use crate::profile::{self, Operation};

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
            let target = targets.narrow(0, start, c).unsqueeze(1); // [c, 1]
            let mut logits = x.mm(&weight.tr()).to_kind(Kind::Float); // [c, V]
            if let Some((ids, own)) = &own {
                let _ = logits.index_copy_(1, ids, &own.narrow(0, start, c));
            }
            if let Some(cap) = soft_cap {
                let _ = logits.g_div_scalar_(cap).tanh_().g_mul_scalar_(cap);
            }
            let lse = logits.logsumexp([1_i64], true); // [c, 1]
            losses.push(&lse - logits.gather(1, &target, false));
            if !wanted.any() {
                continue;
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
            if let Some((ids, _)) = &own {
                d_own.push(d_logits.index_select(1, ids));
                let _ = d_logits.index_fill_(1, ids, 0.0);
            }
            let d_logits = d_logits.to_kind(kind);
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
