//! Files of `torch.save` before PyTorch 1.6: pickles of a magic number, a version, the machine, the state dict and the keys
//! of its storages, then the storages in that order, each after its number of elements.

use std::collections::HashMap;

use super::{PthError, PthTensor, place};
use crate::pickle::{Pickle, PickledStorage, Value};

/// 0x1950a86a20f9469cfc6c, little endian.
const MAGIC: &[u8] = &[0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
/// Its pickle: protocol 2, an integer of ten bytes.
const BEGINNING: &[u8] = &[0x80, 2, 0x8a, 10];
const VERSION: i64 = 1001;

pub(super) fn is_legacy(file: &[u8]) -> bool {
    let rest = file.strip_prefix(BEGINNING);
    rest.is_some_and(|rest| rest.starts_with(MAGIC))
}

pub(super) fn tensors(file: &[u8]) -> Result<Vec<PthTensor>, PthError> {
    let damaged = |at, what| PthError::Legacy { at, what };
    let mut at = 0;
    let mut next = || {
        let begin = at;
        let pickle = Pickle::read(&file[at..])?;
        at += pickle.len();
        Ok::<_, PthError>((begin, pickle))
    };
    let (begin, magic) = next()?;
    if magic.root() != Value::Long(MAGIC) {
        return Err(damaged(begin, "wrong magic number"));
    }
    let (begin, version) = next()?;
    if version.root() != Value::Int(VERSION) {
        return Err(damaged(begin, "the version is not 1001"));
    }
    let (begin, machine) = next()?;
    match machine.get(machine.root(), "little_endian") {
        Some(Value::Bool(true)) => {}
        Some(Value::Bool(false)) => {
            let found = "big".to_owned();
            return Err(PthError::ByteOrder { found });
        }
        _ => return Err(damaged(begin, "the byte order is missing")),
    }
    let (_, state) = next()?;
    let (begin, keys) = next()?;
    let tensors = state.tensors()?;
    let storages: HashMap<&str, PickledStorage<'_>> = tensors
        .iter()
        .map(|(_, tensor)| (tensor.storage.key, tensor.storage))
        .collect();
    let keys = keys.items(keys.root()).map(<[_]>::to_vec);
    let keys = keys.ok_or_else(|| damaged(begin, "the list of storages is missing"))?;
    let mut ranges = HashMap::new();
    for key in keys {
        let Value::Text(key) = key else {
            return Err(damaged(begin, "a storage key is not a string"));
        };
        let storage = storages.get(key);
        let storage = storage.ok_or_else(|| damaged(begin, "a storage belongs to no tensor"))?;
        let numel = file.get(at..).and_then(|rest| rest.first_chunk());
        let numel = numel.map(|numel| u64::from_le_bytes(*numel));
        if numel != Some(storage.numel) {
            return Err(damaged(
                at,
                "the length of a storage contradicts the pickle",
            ));
        }
        let len = storage
            .numel
            .checked_mul(storage.dtype.bitsize() as u64 / 8);
        let data = at + 8;
        let end = len.and_then(|len| usize::try_from(len).ok()?.checked_add(data));
        let end = end.filter(|&end| end <= file.len());
        at = end.ok_or_else(|| damaged(data, "the file ends inside a storage"))?;
        if ranges.insert(key, data..at).is_some() {
            return Err(damaged(begin, "duplicate storage"));
        }
    }
    let tensors = tensors.into_iter().map(|(name, tensor)| {
        let storage = ranges.get(tensor.storage.key);
        let storage = storage.ok_or_else(|| PthError::StorageMissing {
            tensor: name.to_owned(),
            key: tensor.storage.key.to_owned(),
        })?;
        place(name, tensor, storage.clone())
    });
    tensors.collect()
}
