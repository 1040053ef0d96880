//! The weight of a linear layer, of the embedding or of the output head.
//!
//! Axes: R rows (output features, or the vocabulary), C columns (input features).

use burn::module::{Module, Param, ParamId};
use burn::tensor::{Device, Tensor};
use simmer_kernels::{FrozenWeight, QuantisedWeight};

use crate::parameters::trained;

/// A weight: dense, and then frozen or trained; or quantised, and then frozen.
#[derive(Module, Debug)]
pub struct Weight {
    /// `[R, C]`. [`crate::parameters`] leaves the name of this field out of keys.
    dense: Option<Param<Tensor<2>>>,
    #[module(skip)]
    quantised: Option<QuantisedWeight>,
}

/// The field of [`Weight`] that holds a parameter.
pub(crate) const DENSE: &str = "dense";

impl Weight {
    /// A parameter, trained if it records gradients.
    pub(crate) fn dense(weight: Param<Tensor<2>>) -> Self {
        Self {
            dense: Some(weight),
            quantised: None,
        }
    }

    /// A frozen tensor.
    pub(crate) fn frozen(weight: Tensor<2>) -> Self {
        Self::dense(Param::initialized(ParamId::new(), weight))
    }

    /// A quantised matrix.
    pub(crate) fn quantised(weight: QuantisedWeight) -> Self {
        Self {
            dense: None,
            quantised: Some(weight),
        }
    }

    /// The weight for an operation.
    ///
    /// # Panics
    /// Never: a weight has one of its two forms.
    pub(crate) fn val(&self) -> FrozenWeight {
        match (&self.dense, &self.quantised) {
            (Some(dense), _) => dense.val().into(),
            (None, Some(quantised)) => FrozenWeight::Quantised(quantised.clone()),
            (None, None) => unreachable!("a weight is dense or quantised"),
        }
    }

    /// Whether it is trained.
    pub(crate) fn is_trained(&self) -> bool {
        let dense = self.dense.as_ref();
        dense.is_some_and(|weight| weight.val().is_require_grad())
    }

    /// All elements: as stored if it is dense, in f32 if it is quantised.
    ///
    /// # Shapes
    /// Result: `[R, C]`.
    pub(crate) fn tensor(&self, device: &Device) -> Tensor<2> {
        match self.val() {
            FrozenWeight::Dense(weight) => weight,
            quantised @ FrozenWeight::Quantised(_) => quantised.widened(device),
        }
    }

    /// A trained copy in f32.
    pub(crate) fn trained(&self, device: &Device) -> Self {
        Self::dense(trained(self.tensor(device)))
    }
}
