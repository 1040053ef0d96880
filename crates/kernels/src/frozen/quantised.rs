//! A quantised weight on a device.

use std::fmt;
use std::sync::Arc;

use burn::backend::Flex;
use burn::backend::ops::IntTensorOps;
use burn::tensor::{Device, IntDType, TensorData};
use burn_flex::FlexTensor;
use simmer_blocks::Quantised;

#[cfg(feature = "libtorch")]
use super::fp8::Fp8Weight;
use crate::buffer::buffer;
use crate::flex::{contiguous, tensor};
use crate::product::widen_row;
use crate::threads;

/// A quantised weight on a device. Clones share it.
#[derive(Clone)]
pub struct QuantisedWeight(Arc<Parts>);

enum Parts {
    /// In the processor's memory.
    Host(Quantised),
    /// In tensors of libtorch.
    #[cfg(feature = "libtorch")]
    Torch(super::libtorch::Matrix),
    /// In tensors of libtorch, for products in fp8.
    #[cfg(feature = "libtorch")]
    Fp8(Fp8Weight),
}

impl fmt::Debug for QuantisedWeight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.kind(), self.shape())
    }
}

impl QuantisedWeight {
    /// A quantised matrix on a device. On the processor it stays where it is, mapped from its file for
    /// instance.
    pub fn new(matrix: Quantised, device: &Device) -> Self {
        #[cfg(feature = "libtorch")]
        if let Some(device) = crate::backends::torch_device(device) {
            let matrix = super::libtorch::Matrix::on(device, &matrix);
            return Self(Arc::new(Parts::Torch(matrix)));
        }
        let _ = device;
        Self(Arc::new(Parts::Host(matrix)))
    }

    /// A dense matrix for products in fp8 (`base.compute = "fp8"`): quantised by row for `x Wᵀ`, and once more by column for
    /// `dy W`.
    ///
    /// # Shapes
    /// `weight`: `[R, C]`, f32, bf16 or f16; both are multiples of [`FP8_STEP`](super::FP8_STEP).
    ///
    /// # Panics
    /// If the device does not [multiply in fp8](crate::Capabilities::check_fp8).
    pub fn fp8_of_dense(weight: &TensorData, device: &Device) -> Self {
        #[cfg(feature = "libtorch")]
        if let Some(device) = crate::backends::torch_device(device) {
            let weight = super::libtorch::dense_on(device, weight);
            return Self(Arc::new(Parts::Fp8(Fp8Weight::of(&weight))));
        }
        let _ = weight;
        no_fp8(device)
    }

    /// As [`fp8_of_dense`](Self::fp8_of_dense), of a matrix that is stored in another quantised type.
    ///
    /// # Panics
    /// As [`fp8_of_dense`](Self::fp8_of_dense).
    pub fn fp8_of_quantised(matrix: &Quantised, device: &Device) -> Self {
        #[cfg(feature = "libtorch")]
        if let Some(device) = crate::backends::torch_device(device) {
            let weight = super::libtorch::Matrix::on(device, matrix).widened(tch::Kind::Float);
            return Self(Arc::new(Parts::Fp8(Fp8Weight::of(&weight))));
        }
        let _ = matrix;
        no_fp8(device)
    }

    /// Rows and columns.
    pub fn shape(&self) -> [usize; 2] {
        match &*self.0 {
            Parts::Host(matrix) => matrix.shape(),
            #[cfg(feature = "libtorch")]
            Parts::Torch(matrix) => matrix.shape(),
            #[cfg(feature = "libtorch")]
            Parts::Fp8(weight) => weight.shape(),
        }
    }

    /// The name of the type, such as `nf4` or `Q4_K`.
    pub fn kind(&self) -> &'static str {
        match &*self.0 {
            Parts::Host(matrix) => matrix.kind(),
            #[cfg(feature = "libtorch")]
            Parts::Torch(matrix) => matrix.kind(),
            #[cfg(feature = "libtorch")]
            Parts::Fp8(_) => "fp8",
        }
    }

    /// Bytes of codes and scales that a product reads.
    #[cfg_attr(
        not(feature = "libtorch"),
        expect(dead_code, reason = "for profiles of libtorch")
    )]
    pub(crate) fn bytes(&self) -> usize {
        match &*self.0 {
            Parts::Host(matrix) => matrix.bytes(),
            #[cfg(feature = "libtorch")]
            Parts::Torch(matrix) => matrix.bytes(),
            #[cfg(feature = "libtorch")]
            Parts::Fp8(weight) => weight.bytes(),
        }
    }

    /// The matrix in the processor's memory.
    ///
    /// # Panics
    /// If it was placed on a device of libtorch.
    pub(crate) fn host(&self) -> &Quantised {
        match &*self.0 {
            Parts::Host(matrix) => matrix,
            #[cfg(feature = "libtorch")]
            Parts::Torch(_) | Parts::Fp8(_) => {
                panic!("a weight on libtorch is used on another device")
            }
        }
    }

    /// All elements in a dtype, in a tensor of libtorch.
    ///
    /// # Shapes
    /// Result: `[R, C]`.
    ///
    /// # Panics
    /// If the matrix was placed elsewhere.
    #[cfg(feature = "libtorch")]
    pub(crate) fn torch_widened(&self, kind: tch::Kind) -> tch::Tensor {
        match &*self.0 {
            Parts::Torch(matrix) => matrix.widened(kind),
            Parts::Fp8(weight) => weight.widened(kind),
            Parts::Host(_) => panic!("{ELSEWHERE}"),
        }
    }

    /// Some rows in f32, in a tensor of libtorch.
    ///
    /// # Shapes
    /// `ids`: `[T]`, i64. Result: `[T, C]`.
    ///
    /// # Panics
    /// If the matrix was placed elsewhere.
    #[cfg(feature = "libtorch")]
    pub(crate) fn torch_rows(&self, ids: &tch::Tensor) -> tch::Tensor {
        match &*self.0 {
            Parts::Torch(matrix) => matrix.rows(ids),
            Parts::Fp8(weight) => weight.rows(ids),
            Parts::Host(_) => panic!("{ELSEWHERE}"),
        }
    }

    /// The weight for products in fp8, if it is one.
    #[cfg(feature = "libtorch")]
    pub(crate) fn fp8(&self) -> Option<&Fp8Weight> {
        match &*self.0 {
            Parts::Fp8(weight) => Some(weight),
            Parts::Host(_) | Parts::Torch(_) => None,
        }
    }
}

#[cfg(feature = "libtorch")]
const ELSEWHERE: &str = "a weight in the processor's memory is used on libtorch";

fn no_fp8(device: &Device) -> ! {
    panic!("only libtorch multiplies in fp8, found {device:?}")
}

/// Some rows of a weight, in f32.
///
/// # Shapes
/// `rows`: `[T]`. Result: `[T, C]`.
pub(super) fn rows_on_flex(weight: &QuantisedWeight, rows: FlexTensor) -> FlexTensor {
    let matrix = weight.host();
    let [_, columns] = matrix.shape();
    let rows = contiguous(Flex::int_cast(rows, IntDType::I64));
    let start = rows.layout().start_offset();
    let count = rows.layout().num_elements();
    let ids = &rows.storage::<i64>()[start..start + count];
    let mut out = buffer(count * columns);
    threads::chunks(&mut out, columns, |index, out| {
        widen_row(matrix, ids[index] as usize, 0, out);
    });
    tensor(out, [count, columns])
}
