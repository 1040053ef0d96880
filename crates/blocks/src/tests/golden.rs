//! Matrices quantised and widened by bitsandbytes, torch and ggml.

use std::sync::Arc;

use bytes::Bytes;
use safetensors::SafeTensors;

pub(super) struct Golden(Vec<u8>);

impl Golden {
    pub(super) fn read() -> Self {
        let path = "/../../tests/goldens/blocks.safetensors";
        Self(std::fs::read(format!("{}{path}", env!("CARGO_MANIFEST_DIR"))).unwrap())
    }

    pub(super) fn bytes(&self, name: &str) -> Bytes {
        let tensors = SafeTensors::deserialize(&self.0).unwrap();
        Bytes::copy_from_slice(tensors.tensor(name).unwrap().data())
    }

    pub(super) fn shape(&self, name: &str) -> [usize; 2] {
        let tensors = SafeTensors::deserialize(&self.0).unwrap();
        tensors.tensor(name).unwrap().shape().try_into().unwrap()
    }

    pub(super) fn f32(&self, name: &str) -> Arc<[f32]> {
        let bytes = self.bytes(name);
        let (values, _) = bytes.as_chunks();
        values
            .iter()
            .map(|bytes| f32::from_le_bytes(*bytes))
            .collect()
    }

    /// Values of two bytes.
    pub(super) fn half(&self, name: &str, widen: impl Fn(u16) -> f32) -> Vec<f32> {
        let bytes = self.bytes(name);
        let (values, _) = bytes.as_chunks();
        values
            .iter()
            .map(|bytes| widen(u16::from_le_bytes(*bytes)))
            .collect()
    }
}

pub(super) fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}
