//! The form on flex: slabs for a frozen head, chunks for a trained one.
//!
//! Axes as in [`super`].

use burn::backend::Flex;
use burn::backend::ops::IntTensorOps;
use burn::tensor::IntDType;
use burn_flex::{FlexDevice, FlexTensor};

use super::{LinearCrossEntropyForms, LossAndGradients, OwnLogits, Wanted, chunks, slabs};
use crate::flex::{self, contiguous};
use crate::frozen::WeightOn;
use crate::product::Side;
use crate::profile::{self, Operation};

impl LinearCrossEntropyForms for Flex {
    const FUSED: bool = true;

    fn linear_cross_entropy_form(
        hidden: FlexTensor,
        weight: WeightOn<Self>,
        targets: FlexTensor,
        own: Option<OwnLogits<Self>>,
        soft_cap: Option<f64>,
        wanted: Wanted,
    ) -> LossAndGradients<Self> {
        let [n, h] = hidden.layout().shape().dims();
        let [v, _] = weight.shape();
        let weight = flex::held(weight);
        let products = 1 + usize::from(wanted.hidden) + usize::from(wanted.weight);
        let bytes = flex::weight(&weight, Side::Transposed).bytes() + 4 * 2 * n * h;
        let _span = profile::span(
            Operation::LinearCrossEntropy,
            products * 2 * n * v * h,
            bytes,
        );
        if wanted.weight {
            let weight = weight.tensor(&FlexDevice);
            return chunks::loss::<Self>(hidden, weight, targets, own, soft_cap, wanted);
        }
        let targets = Self::int_cast(targets, IntDType::I64);
        let [hidden, targets] = [hidden, targets].map(contiguous);
        let start = targets.layout().start_offset();
        let targets = &targets.storage::<i64>()[start..start + n];
        let weight = flex::weight(&weight, Side::Transposed);
        let cap = soft_cap.map(|cap| cap as f32);
        let own = own.map(|own| (contiguous(own.logits), own.ids));
        let own = own.as_ref().map(|(logits, ids)| slabs::Own {
            logits: flex::values(logits),
            ids,
        });
        let hidden = flex::numbers(&hidden);
        let found = slabs::loss(hidden, weight, targets, own, cap, wanted);
        let k = own.map_or(0, |own| own.ids.len());
        LossAndGradients {
            loss: flex::tensor(vec![found.loss], [1]),
            hidden: found.hidden.map(|of| flex::tensor(of, [n, h])),
            weight: None,
            own: found.own.map(|of| flex::tensor(of, [n, k])),
        }
    }
}
