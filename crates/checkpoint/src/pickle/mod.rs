//! Reads pickles of `torch.save` with a machine that can only create tensors.
//!
//! A pickle is a program for a stack machine that may call any function of Python. This machine supports the opcodes of
//! protocols 2 to 5 that state dicts use, and four kinds of names: `collections.OrderedDict`,
//! `torch._utils._rebuild_tensor_v2`, `torch._utils._rebuild_parameter` and torch's typed storages. All other names are
//! refused with their name in the message. No code runs: a call adds an entry to a table.
//!
//! Time and memory are bounded by the number of opcodes: strings are slices of the pickle, and containers are in tables and
//! refer to each other by index, so that copies are free and neither depth nor cycles matter.
//!
//! Source: CPython, `Lib/pickletools.py`; PyTorch, `torch/_utils.py` and `torch/serialization.py`.

mod error;
mod machine;
mod tensor;
#[cfg(test)]
mod tests;
mod write;

use std::collections::HashSet;

pub use error::PickleError;
pub(crate) use error::shown;
pub(crate) use machine::Value;
use machine::{Machine, Objects};
pub use tensor::{PickledStorage, PickledTensor};
pub(crate) use write::state_dict;

/// Maximum opcodes of a pickle: enough for 50,000 tensors, about thirty times as many as a model has.
pub const MAX_OPCODES: usize = 1 << 21;

/// A parsed pickle.
#[derive(Debug)]
pub struct Pickle<'a> {
    root: Value<'a>,
    objects: Objects<'a>,
    len: usize,
}

impl<'a> Pickle<'a> {
    /// Reads the pickle at the start of `bytes`; more data may follow.
    ///
    /// # Errors
    /// If it is damaged, or holds anything but tensors.
    pub fn read(bytes: &'a [u8]) -> Result<Self, PickleError> {
        let (root, objects, len) = Machine::new(bytes).run()?;
        Ok(Self { root, objects, len })
    }

    /// Its length in bytes.
    #[expect(
        clippy::len_without_is_empty,
        reason = "a pickle has at least its last opcode"
    )]
    pub fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn root(&self) -> Value<'a> {
        self.root
    }

    /// The items of a list or tuple.
    pub(crate) fn items(&self, value: Value<'a>) -> Option<&[Value<'a>]> {
        match value {
            Value::List(index) | Value::Tuple(index) => Some(&self.objects.sequences[index]),
            _ => None,
        }
    }

    /// The value of a key in a dictionary.
    pub(crate) fn get(&self, value: Value<'a>, key: &str) -> Option<Value<'a>> {
        let Value::Dict(index) = value else {
            return None;
        };
        let entries = self.objects.dicts[index].iter().rev();
        let mut found =
            entries.filter(|(name, _)| matches!(name, Value::Text(text) if *text == key));
        found.next().map(|(_, value)| *value)
    }

    /// The tensors of a state dict, in its order.
    ///
    /// # Errors
    /// If it is not a dictionary from names to tensors.
    pub fn tensors(&self) -> Result<Vec<(&'a str, &PickledTensor<'a>)>, PickleError> {
        let Value::Dict(index) = self.root else {
            let found = self.root.describe();
            return Err(PickleError::NotAStateDict { found });
        };
        let mut names = HashSet::new();
        let entry = |(key, value): &(Value<'a>, Value<'a>)| {
            let Value::Text(name) = *key else {
                let found = format!("a dictionary with {} as a key", key.describe());
                return Err(PickleError::NotAStateDict { found });
            };
            if !names.insert(name) {
                let name = shown(name);
                return Err(PickleError::Twice { name });
            }
            match *value {
                Value::Tensor(tensor) => Ok((name, &self.objects.tensors[tensor])),
                other => Err(PickleError::NotATensor {
                    name: shown(name),
                    found: other.describe(),
                }),
            }
        };
        self.objects.dicts[index].iter().map(entry).collect()
    }
}
