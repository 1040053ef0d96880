//! A frozen weight that is no tensor of Burn.

use std::fmt;
use std::sync::Arc;

use burn::backend::Flex;
use burn::backend::ops::IntTensorOps;
use burn::tensor::{Device, IntDType, TensorData};
use burn_flex::FlexTensor;
use simmer_blocks::Quantised;

#[cfg(feature = "libtorch")]
use super::copied::CopiedWeight;
#[cfg(feature = "libtorch")]
use super::fp8::Fp8Weight;
#[cfg(feature = "libtorch")]
use super::libtorch::{Matrix, TorchWeight, dense_on};
use crate::buffer::buffer;
use crate::flex::{contiguous, tensor};
use crate::product::widen_row;
use crate::threads;

/// A frozen weight that is no tensor of Burn: quantised, or in main memory and on its device only while it is used. Clones share it.
#[derive(Clone)]
pub struct StoredWeight(Arc<Parts>);

enum Parts {
    /// Quantised, in the processor's memory.
    Host(Quantised),
    /// In tensors of libtorch.
    #[cfg(feature = "libtorch")]
    Torch(Arc<TorchWeight>),
    /// In main memory, and copied to tensors of libtorch.
    #[cfg(feature = "libtorch")]
    Copied(CopiedWeight),
}

impl fmt::Debug for StoredWeight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.kind(), self.shape())
    }
}

impl StoredWeight {
    /// A quantised matrix on a device. On the processor it stays where it is, mapped from its file for
    /// instance.
    pub fn new(matrix: Quantised, device: &Device) -> Self {
        #[cfg(feature = "libtorch")]
        if let Some(device) = crate::backends::torch_device(device) {
            let matrix = Matrix::on(device, &matrix);
            return Self::on_torch(TorchWeight::Quantised(matrix));
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
            return Self::fp8_of(&dense_on(device, weight));
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
            return Self::fp8_of(&Matrix::on(device, matrix).widened(tch::Kind::Float));
        }
        let _ = matrix;
        no_fp8(device)
    }

    #[cfg(feature = "libtorch")]
    fn fp8_of(weight: &tch::Tensor) -> Self {
        Self::on_torch(TorchWeight::Fp8(Arc::new(Fp8Weight::of(weight))))
    }

    #[cfg(feature = "libtorch")]
    fn on_torch(weight: TorchWeight) -> Self {
        Self(Arc::new(Parts::Torch(Arc::new(weight))))
    }

    /// A weight in main memory, which is copied to its device.
    #[cfg(feature = "libtorch")]
    pub(super) fn copied(weight: CopiedWeight) -> Self {
        Self(Arc::new(Parts::Copied(weight)))
    }

    /// Rows and columns.
    pub fn shape(&self) -> [usize; 2] {
        match &*self.0 {
            Parts::Host(matrix) => matrix.shape(),
            #[cfg(feature = "libtorch")]
            Parts::Torch(weight) => weight.shape(),
            #[cfg(feature = "libtorch")]
            Parts::Copied(weight) => weight.kept().shape(),
        }
    }

    /// The name of the type, such as `nf4`, `Q4_K` or `bf16`.
    pub fn kind(&self) -> &'static str {
        match &*self.0 {
            Parts::Host(matrix) => matrix.kind(),
            #[cfg(feature = "libtorch")]
            Parts::Torch(weight) => weight.kind(),
            #[cfg(feature = "libtorch")]
            Parts::Copied(weight) => weight.kept().kind(),
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
            Parts::Torch(weight) => weight.bytes(),
            #[cfg(feature = "libtorch")]
            Parts::Copied(weight) => weight.kept().bytes(),
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
            Parts::Torch(_) | Parts::Copied(_) => {
                panic!("a weight on libtorch is used on another device")
            }
        }
    }

    /// The weight in tensors of libtorch, on its device.
    ///
    /// # Panics
    /// If the matrix was placed elsewhere.
    #[cfg(feature = "libtorch")]
    pub(super) fn torch(&self) -> Arc<TorchWeight> {
        match &*self.0 {
            Parts::Torch(weight) => weight.clone(),
            Parts::Copied(weight) => weight.there(),
            Parts::Host(_) => panic!("{ELSEWHERE}"),
        }
    }

    /// The copies of a weight in main memory.
    #[cfg(feature = "libtorch")]
    pub(super) fn as_copied(&self) -> Option<&CopiedWeight> {
        match &*self.0 {
            Parts::Copied(weight) => Some(weight),
            Parts::Host(_) | Parts::Torch(_) => None,
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
        self.torch().widened(kind)
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
        self.torch().rows(ids)
    }

    /// The weight for products in fp8, if it is one.
    #[cfg(feature = "libtorch")]
    pub(crate) fn fp8(&self) -> Option<Arc<Fp8Weight>> {
        let kept = match &*self.0 {
            Parts::Host(_) => return None,
            Parts::Torch(weight) => weight,
            Parts::Copied(weight) => weight.kept(),
        };
        // only then copied to the device
        if !matches!(kept, TorchWeight::Fp8(_)) {
            return None;
        }
        match &*self.torch() {
            TorchWeight::Fp8(weight) => Some(weight.clone()),
            TorchWeight::Dense(_) | TorchWeight::Quantised(_) => None,
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
pub(super) fn rows_on_flex(weight: &StoredWeight, rows: FlexTensor) -> FlexTensor {
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
