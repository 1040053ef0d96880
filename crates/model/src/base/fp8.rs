//! Weights whose products are in fp8 (`base.compute = "fp8"`): those of the linear modules of the layers. Embedding, norms
//! and output head stay as they are.

use burn::tensor::Device;
use simmer_checkpoint::family::ModuleKind;
use simmer_checkpoint::layout::{Part, TensorLayout};
use simmer_kernels::{Capabilities, FP8_STEP, StoredWeight};

use super::build::Source;
use super::{Base, BaseError, Compute};

/// Bytes of an element: one in each of both copies.
const ELEMENT: usize = 2;

impl Base {
    pub(super) fn check_fp8(&self, can: &Capabilities) -> Result<(), BaseError> {
        if let Some(precision) = self.precision.filter(|wanted| wanted.is_quantised()) {
            return Err(BaseError::Fp8Precision {
                precision: precision.name(),
            });
        }
        can.check_fp8().map_err(|why| BaseError::Fp8 {
            device: can.name(),
            why,
        })
    }

    /// Whether a weight is multiplied in fp8: that of a linear module, unless its sizes are not those that GPUs take.
    pub(super) fn multiplies_in_fp8(&self, tensor: &TensorLayout) -> bool {
        self.compute() == Compute::Fp8
            && tensor.part == Part::Weight
            && tensor.module.kind == ModuleKind::Linear
            && tensor.shape.iter().all(|size| size % FP8_STEP == 0)
    }

    /// Bytes of a weight that is multiplied in fp8: two copies with a scale for each of their rows.
    pub(super) fn fp8_bytes(&self, tensor: &TensorLayout) -> Option<u64> {
        let elements: usize = tensor.shape.iter().product();
        let scales: usize = tensor.shape.iter().sum();
        self.multiplies_in_fp8(tensor)
            .then_some((ELEMENT * elements + size_of::<f32>() * scales) as u64)
    }
}

/// A weight, quantised for products in fp8 on its device.
pub(super) fn in_fp8(weight: &Source, device: &Device) -> Source {
    Source::Fp8(match weight {
        Source::Dense(data) => StoredWeight::fp8_of_dense(data, device),
        Source::Quantised(matrix) => StoredWeight::fp8_of_quantised(matrix, device),
        Source::Fp8(weight) => weight.clone(),
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use burn::tensor::Device;
    use simmer_checkpoint::layout::tensors;
    use simmer_hint::Hint;

    use crate::base::{BaseConfig, BasePrecision, Compute, load};

    fn config(compute: Compute, precision: Option<BasePrecision>) -> BaseConfig {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/tiny-base");
        let mut config = BaseConfig::from_path(path);
        (config.compute, config.precision) = (Some(compute), precision);
        config
    }

    #[test]
    fn a_device_without_fp8_and_quantised_weights_are_refused() {
        let refused = |precision| {
            let config = config(Compute::Fp8, precision);
            let error = load(&config, 0, &Device::flex()).unwrap_err();
            format!("{error}\n{}", error.hint().unwrap_or_default())
        };
        insta::assert_snapshot!(refused(None), @r#"
        `base.compute`: the device `cpu` does not multiply in fp8
        set base.compute = "bf16", or compute on a GPU with device = "libtorch-cuda:0" (docs/guide/gpu.md)
        "#);
        insta::assert_snapshot!(refused(Some(BasePrecision::Nf4)), @r#"
        `base.compute` = "fp8" quantises the weights of linear modules, and `base.precision` = "nf4" does too
        remove `base.precision`, or set base.compute = "bf16"
        "#);
    }

    #[test]
    fn linear_weights_have_a_copy_for_each_direction() {
        let [fp8, bf16] =
            [Compute::Fp8, Compute::Bf16].map(|compute| config(compute, None).open().unwrap());
        assert_eq!(
            fp8.quantised_weight().unwrap().0,
            "model.layers.0.self_attn.q_proj.weight"
        );
        assert_eq!(bf16.quantised_weight(), None);
        // stored in bf16, so that two bytes an element are added to by the scales alone
        let rows_and_columns: u64 = tensors(&fp8.config)
            .iter()
            .filter(|tensor| fp8.multiplies_in_fp8(tensor))
            .map(|tensor| tensor.shape.iter().sum::<usize>() as u64)
            .sum();
        assert!(rows_and_columns > 0);
        assert_eq!(fp8.bytes()[0], bf16.bytes()[0] + 4 * rows_and_columns);
    }
}
