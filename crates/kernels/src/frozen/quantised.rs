//! A quantised weight on a device.

use std::fmt;
use std::sync::Arc;

use burn::backend::Flex;
use burn::backend::ops::IntTensorOps;
use burn::tensor::{Device, IntDType};
use burn_flex::FlexTensor;
use simmer_blocks::Quantised;

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

    /// Rows and columns.
    pub fn shape(&self) -> [usize; 2] {
        match &*self.0 {
            Parts::Host(matrix) => matrix.shape(),
            #[cfg(feature = "libtorch")]
            Parts::Torch(matrix) => matrix.shape(),
        }
    }

    /// The name of the type, such as `nf4` or `Q4_K`.
    pub fn kind(&self) -> &'static str {
        match &*self.0 {
            Parts::Host(matrix) => matrix.kind(),
            #[cfg(feature = "libtorch")]
            Parts::Torch(matrix) => matrix.kind(),
        }
    }

    /// Bytes of codes and scales.
    #[cfg_attr(
        not(feature = "libtorch"),
        expect(dead_code, reason = "for profiles of libtorch")
    )]
    pub(crate) fn bytes(&self) -> usize {
        match &*self.0 {
            Parts::Host(matrix) => matrix.bytes(),
            #[cfg(feature = "libtorch")]
            Parts::Torch(matrix) => matrix.bytes(),
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
            Parts::Torch(_) => panic!("a weight on libtorch is used on another device"),
        }
    }

    /// The matrix in tensors of libtorch.
    ///
    /// # Panics
    /// If it was placed elsewhere.
    #[cfg(feature = "libtorch")]
    pub(crate) fn torch(&self) -> &super::libtorch::Matrix {
        match &*self.0 {
            Parts::Torch(matrix) => matrix,
            Parts::Host(_) => panic!("a weight in the processor's memory is used on libtorch"),
        }
    }
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
