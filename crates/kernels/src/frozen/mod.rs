//! A frozen weight in the form in which it is stored: dense in f32, bf16 or f16, or quantised; on its device, or in main memory
//! while that does not use it.
//!
//! Matrix multiplications widen it inside, so that no widened copy of a whole weight exists on the
//! processor. On libtorch a quantised weight is widened as a whole for each multiplication, unless it is multiplied in fp8.
//!
//! Axes: T tokens, R rows (output features, or the vocabulary), C columns (input features).

#[cfg(feature = "libtorch")]
mod copied;
#[cfg(feature = "libtorch")]
pub(crate) mod fp8;
#[cfg(not(feature = "libtorch"))]
mod in_place;
#[cfg(feature = "libtorch")]
pub(crate) mod libtorch;
mod stored;

use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{
    Autodiff, AutodiffBackend, Backend, Dispatch, ExtensionType, Flex, TensorMetadata,
};
use burn::tensor::{DType, Device, Int, Tensor, TensorData};

#[cfg(feature = "libtorch")]
pub use copied::HostMemory;
#[cfg(not(feature = "libtorch"))]
pub use in_place::HostMemory;
pub use stored::StoredWeight;

/// The rows and columns of a weight that is multiplied in fp8 are multiples of this: the products of GPUs take no others.
pub const FP8_STEP: usize = 16;

/// A weight in the form in which it is stored. A weight that is trained is dense.
#[derive(Debug, Clone)]
#[expect(
    clippy::large_enum_variant,
    reason = "it is made for one call, and a box would be an allocation for each"
)]
pub enum FrozenWeight {
    /// `[R, C]`, in f32, bf16 or f16.
    Dense(Tensor<2>),
    /// `[R, C]`, quantised, or in main memory while its device does not use it.
    Stored(StoredWeight),
}

impl From<Tensor<2>> for FrozenWeight {
    fn from(weight: Tensor<2>) -> Self {
        Self::Dense(weight)
    }
}

impl FrozenWeight {
    /// Rows and columns.
    pub fn shape(&self) -> [usize; 2] {
        match self {
            Self::Dense(weight) => weight.dims(),
            Self::Stored(weight) => weight.shape(),
        }
    }

    /// Some rows, such as the embeddings of tokens.
    ///
    /// # Shapes
    /// `rows`: `[T]`, each below R. Result: `[T, C]`, f32.
    pub fn rows(&self, rows: Tensor<1, Int>) -> Tensor<2> {
        match self {
            Self::Dense(weight) => weight.clone().select(0, rows).cast(DType::F32),
            Self::Stored(weight) => {
                let weight = weight.clone();
                Tensor::from_dispatch(Dispatch::stored_rows(rows.into_dispatch(), weight))
            }
        }
    }

    /// All elements, in f32, on the device of the weight: a copy of a quantised weight, which may be large.
    ///
    /// # Shapes
    /// Result: `[R, C]`.
    pub fn widened(&self, device: &Device) -> Tensor<2> {
        match self {
            Self::Dense(weight) => weight.clone().cast(DType::F32),
            Self::Stored(weight) => {
                let [rows, _] = weight.shape();
                self.rows(Tensor::arange(0..rows as i64, device))
            }
        }
    }
}

/// A weight as the forms of an operation receive it.
#[derive(Debug, Clone, ExtensionType)]
pub enum WeightOn<B: Backend> {
    /// `[R, C]`, in f32, bf16 or f16.
    Dense(FloatTensor<B>),
    /// `[R, C]`, quantised, or in main memory while its device does not use it.
    Stored(StoredWeight),
}

impl<B: FrozenForms> WeightOn<B> {
    /// Rows and columns.
    pub(crate) fn shape(&self) -> [usize; 2] {
        match self {
            Self::Dense(weight) => weight.shape().dims(),
            Self::Stored(weight) => weight.shape(),
        }
    }

    /// A tensor with all elements; a dense one is not copied.
    pub(crate) fn tensor(self, device: &B::Device) -> FloatTensor<B> {
        match self {
            Self::Dense(weight) => weight,
            Self::Stored(weight) => B::widened_weight(&weight, device),
        }
    }
}

/// How a backend widens a quantised weight outside of a matrix multiplication.
pub trait FrozenForms: Backend {
    /// All elements in f32.
    ///
    /// # Shapes
    /// Result: `[R, C]`.
    fn widened_weight(weight: &StoredWeight, device: &Self::Device) -> FloatTensor<Self> {
        let matrix = weight.host();
        let values = matrix.rows(0..matrix.shape()[0]);
        Self::float_from_data(TensorData::new(values, matrix.shape()), device)
    }

    /// Some rows in f32.
    ///
    /// # Shapes
    /// `rows`: `[T]`. Result: `[T, C]`.
    fn widened_rows(weight: &StoredWeight, rows: IntTensor<Self>) -> FloatTensor<Self> {
        let all = Self::widened_weight(weight, &rows.device());
        Self::float_select(all, 0, rows)
    }
}

impl FrozenForms for Flex {
    fn widened_rows(weight: &StoredWeight, rows: IntTensor<Self>) -> FloatTensor<Self> {
        stored::rows_on_flex(weight, rows)
    }
}

backends! {
    /// [`FrozenWeight::rows`] of a quantised weight on a backend.
    pub trait StoredRowsBackend: Backend {
        /// See [`FrozenWeight::rows`].
        fn stored_rows(rows: IntTensor<Self>, weight: StoredWeight) -> FloatTensor<Self>;
    }
}

impl<B: FrozenForms> StoredRowsBackend for B {
    fn stored_rows(rows: IntTensor<B>, weight: StoredWeight) -> FloatTensor<B> {
        B::widened_rows(&weight, rows)
    }
}

impl<B: FrozenForms, C: CheckpointStrategy> StoredRowsBackend for Autodiff<B, C> {
    fn stored_rows(rows: IntTensor<Self>, weight: StoredWeight) -> FloatTensor<Self> {
        Self::from_inner(B::widened_rows(&weight, rows))
    }
}

#[cfg(test)]
mod tests;
