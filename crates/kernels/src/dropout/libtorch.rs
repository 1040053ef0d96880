//! Dropout masks on libtorch's devices: the same generator in integer tensors.
//!
//! Axes as in [`super`].

use std::cell::RefCell;
use std::sync::Arc;

use tch::{Device, Kind, Tensor};

use super::{Dropout, mix};
use crate::libtorch::{bytes, uploaded};
use crate::profile::{self, Operation};

/// Elements per block. While a block is drawn, it needs several tensors of eight bytes per element.
const BLOCK: i64 = 4 << 20;

impl Dropout {
    /// As `Dropout::apply`, on a copy.
    ///
    /// # Shapes
    /// `x`, result: `[T, I]`.
    ///
    /// # Panics
    /// If the probability is not in `[0, 1)`.
    pub(crate) fn masked(&self, x: &Tensor) -> Tensor {
        let probability = self.probability;
        assert!(
            (0.0..1.0).contains(&probability),
            "dropout of {probability}"
        );
        let _span = profile::span(Operation::Dropout, x.numel(), 2 * bytes(&[x]));
        let threshold = (probability * 2_f64.powi(32)) as i64;
        let [tokens, features] = x.size2().map_or([0, 0], |(t, i)| [t, i]);
        let y = x * (1.0 / (1.0 - probability));
        let keys = on_device(&self.keys, x.device()); // [T, 1]
        let stream = mixed(keys.bitwise_xor(mix(self.site) as i64)); // [T, 1]
        let counter = Tensor::arange(features, (Kind::Int64, x.device())); // [I]
        let rows = (BLOCK / features.max(1)).max(1);
        for start in (0..tokens).step_by(rows as usize) {
            let c = rows.min(tokens - start);
            let random = mixed(stream.narrow(0, start, c) + &counter); // [c, I]
            let cleared = shifted(&random, 32).lt(threshold);
            let _ = y.narrow(0, start, c).masked_fill_(&cleared, 0.0);
        }
        y
    }
}

/// [`mix`] of each element. Integer multiplication and addition wrap around in ATen.
fn mixed(x: Tensor) -> Tensor {
    let mut x = x.g_add_scalar(0x9e37_79b9_7f4a_7c15_u64 as i64);
    for (bits, factor) in [(30, 0xbf58_476d_1ce4_e5b9_u64), (27, 0x94d0_49bb_1331_11eb)] {
        x = x.bitwise_xor_tensor(&shifted(&x, bits)) * (factor as i64);
    }
    x.bitwise_xor_tensor(&shifted(&x, 31))
}

/// A logical right shift: ATen's shift of signed integers would copy the sign bit.
fn shifted(x: &Tensor, bits: i64) -> Tensor {
    let kept = (1_i64 << (64 - bits)) - 1;
    x.bitwise_right_shift_tensor_scalar(bits).bitwise_and_(kept)
}

/// The keys as a column on a device, `[T, 1]`. They are copied once for all layers of a micro-batch.
fn on_device(keys: &Arc<[u64]>, device: Device) -> Tensor {
    type Copied = (Arc<[u64]>, Device, Tensor);
    thread_local! {
        static LAST: RefCell<Option<Copied>> = const { RefCell::new(None) };
    }
    LAST.with_borrow_mut(|last| {
        if let Some((of, on, tensor)) = last
            && Arc::ptr_eq(of, keys)
            && *on == device
        {
            return tensor.shallow_clone();
        }
        let signed: Vec<i64> = keys.iter().map(|key| *key as i64).collect();
        let tensor = uploaded(&Tensor::from_slice(&signed).unsqueeze(1), device);
        *last = Some((Arc::clone(keys), device, tensor.shallow_clone()));
        tensor
    })
}
