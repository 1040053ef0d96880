//! What a linear layer reads.
//!
//! Axes: T tokens, I input features.

use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::{DType, Tensor};

use crate::sequence::ids;

/// The inputs of a linear layer, of every n-th token. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct InputRecord {
    every: usize,
    inputs: Arc<Mutex<Vec<Tensor<2>>>>,
}

impl InputRecord {
    /// No inputs yet. Of the tokens of a pass, the first is kept, and every n-th after it.
    pub(crate) fn of_every(every: usize) -> Self {
        Self {
            every: every.max(1),
            inputs: Arc::default(),
        }
    }

    /// Adds some tokens.
    ///
    /// # Shapes
    /// `x`: `[T, I]`, without automatic differentiation.
    pub(crate) fn add(&self, x: &Tensor<2>) {
        let mut x = x.clone();
        if self.every > 1 {
            let places = (0..x.dims()[0] as u32).step_by(self.every);
            let places = ids(places, &x.device());
            x = x.select(0, places);
        }
        let mut inputs = self.inputs.lock().unwrap_or_else(PoisonError::into_inner);
        inputs.push(x);
    }

    /// All inputs, token after token, which are forgotten: `[T, I]`.
    pub(crate) fn take(&self) -> Vec<f32> {
        let mut inputs = self.inputs.lock().unwrap_or_else(PoisonError::into_inner);
        let all = std::mem::take(&mut *inputs).into_iter();
        all.flat_map(|x| {
            let values = x.cast(DType::F32).into_data();
            values.iter::<f32>().collect::<Vec<f32>>()
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn every_nth_token_of_each_pass_is_kept() {
        let device = Device::flex();
        let of = |rows: [[f32; 2]; 3]| Tensor::<2>::from_data(rows, &device);
        for (every, expected) in [
            (
                1,
                &[1.0, 0.5, 5.0, 2.0, 6.0, 6.0, -3.0, 0.0, 1.0, 0.0, 7.0, 7.0][..],
            ),
            (2, &[1.0, 0.5, 6.0, 6.0, -3.0, 0.0, 7.0, 7.0]),
            (9, &[1.0, 0.5, -3.0, 0.0]),
        ] {
            let record = InputRecord::of_every(every);
            record
                .clone()
                .add(&of([[1.0, 0.5], [5.0, 2.0], [6.0, 6.0]]));
            record.add(&of([[-3.0, 0.0], [1.0, 0.0], [7.0, 7.0]]));
            assert_eq!(record.take(), expected);
            assert!(record.take().is_empty());
        }
    }
}
