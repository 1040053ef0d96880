//! The weight of a linear layer, of the embedding or of the output head.
//!
//! Axes: R rows (output features, or the vocabulary), C columns (input features).

use burn::module::{Module, Param, ParamId};
use burn::tensor::{Device, Tensor};
use simmer_kernels::{FrozenWeight, StoredWeight};

use crate::parameters::trained;

/// A weight: dense, and then frozen or trained; or quantised or in main memory, and then frozen.
#[derive(Module, Debug)]
pub struct Weight {
    /// `[R, C]`. [`crate::parameters`] leaves the name of this field out of keys.
    dense: Option<Param<Tensor<2>>>,
    #[module(skip)]
    stored: Option<StoredWeight>,
}

/// The field of [`Weight`] that holds a parameter.
pub(crate) const DENSE: &str = "dense";

impl Weight {
    /// A parameter, trained if it records gradients.
    pub(crate) fn dense(weight: Param<Tensor<2>>) -> Self {
        Self {
            dense: Some(weight),
            stored: None,
        }
    }

    /// A frozen tensor.
    pub(crate) fn frozen(weight: Tensor<2>) -> Self {
        Self::dense(Param::initialized(ParamId::new(), weight))
    }

    /// A quantised matrix, or one in main memory.
    pub(crate) fn of_stored(weight: StoredWeight) -> Self {
        Self {
            dense: None,
            stored: Some(weight),
        }
    }

    /// The weight, if it is quantised or in main memory.
    pub(crate) fn stored(&self) -> Option<&StoredWeight> {
        self.stored.as_ref()
    }

    /// The weight for an operation.
    ///
    /// # Panics
    /// Never: a weight has one of its two forms.
    pub(crate) fn val(&self) -> FrozenWeight {
        match (&self.dense, &self.stored) {
            (Some(dense), _) => dense.val().into(),
            (None, Some(stored)) => FrozenWeight::Stored(stored.clone()),
            (None, None) => unreachable!("a weight has one of both"),
        }
    }

    /// Whether it is trained.
    pub(crate) fn is_trained(&self) -> bool {
        let dense = self.dense.as_ref();
        dense.is_some_and(|weight| weight.val().is_require_grad())
    }

    /// All elements: as they are if it is a tensor, else in f32.
    ///
    /// # Shapes
    /// Result: `[R, C]`.
    pub(crate) fn tensor(&self, device: &Device) -> Tensor<2> {
        match self.val() {
            FrozenWeight::Dense(weight) => weight,
            stored @ FrozenWeight::Stored(_) => stored.widened(device),
        }
    }

    /// A trained copy in f32.
    pub(crate) fn trained(&self, device: &Device) -> Self {
        Self::dense(trained(self.tensor(device)))
    }
}
