//! The names that a pickle may call, and the results of the calls.

use super::PickleError;
use super::machine::{Objects, Value};
use crate::Dtype;

/// Maximum dimensions of a tensor; weights have at most two.
const MAX_DIMENSIONS: usize = 8;
/// Maximum arguments of a call, which are copied.
const MAX_ARGUMENTS: usize = 8;
/// Maximum bytes of a storage key: a small number, or an address in old files.
const MAX_KEY: usize = 64;

const REBUILD_TENSOR: &str = "torch._utils._rebuild_tensor_v2";

/// The names that a pickle may refer to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Global {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    Storage(Dtype),
}

impl Global {
    pub(super) fn named(module: &str, name: &str) -> Option<Self> {
        Some(match (module, name) {
            ("collections", "OrderedDict") => Self::OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2") => Self::RebuildTensor,
            ("torch._utils", "_rebuild_parameter") => Self::RebuildParameter,
            ("torch", name) => Self::Storage(
                STORAGES
                    .iter()
                    .find(|(_, storage)| *storage == name)
                    .map(|(dtype, _)| *dtype)?,
            ),
            _ => return None,
        })
    }
}

/// The typed storages of torch.
pub(super) const STORAGES: &[(Dtype, &str)] = &[
    (Dtype::F16, "HalfStorage"),
    (Dtype::BF16, "BFloat16Storage"),
    (Dtype::F32, "FloatStorage"),
    (Dtype::F64, "DoubleStorage"),
    (Dtype::I64, "LongStorage"),
    (Dtype::I32, "IntStorage"),
    (Dtype::I16, "ShortStorage"),
    (Dtype::I8, "CharStorage"),
    (Dtype::U8, "ByteStorage"),
    (Dtype::BOOL, "BoolStorage"),
    (Dtype::C64, "ComplexFloatStorage"),
];

/// The storage of one or several tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PickledStorage<'a> {
    /// The name of its bytes outside the pickle.
    pub key: &'a str,
    /// Its dtype.
    pub dtype: Dtype,
    /// Number of elements.
    pub numel: u64,
}

/// A view of a storage; it may exceed the storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PickledTensor<'a> {
    /// Its storage.
    pub storage: PickledStorage<'a>,
    /// Offset of its first element.
    pub offset: u64,
    /// Dimensions, outermost first.
    pub shape: Vec<u64>,
    /// Strides, in elements.
    pub stride: Vec<u64>,
}

impl<'a> Objects<'a> {
    /// The result of a call.
    pub(super) fn call(
        &mut self,
        function: Global,
        arguments: Value<'a>,
        at: usize,
    ) -> Result<Value<'a>, PickleError> {
        let arguments = match arguments {
            Value::Tuple(index) if self.sequences[index].len() <= MAX_ARGUMENTS => {
                self.sequences[index].clone()
            }
            _ => {
                let what = "the arguments are not a short tuple";
                return Err(PickleError::Damaged { at, what });
            }
        };
        match function {
            Global::OrderedDict if arguments.is_empty() => Ok(self.dict()),
            Global::OrderedDict => Err(PickleError::Call {
                function: "collections.OrderedDict",
                at,
                expected: "none",
                found: described(&arguments),
            }),
            Global::RebuildTensor => self.rebuild_tensor(&arguments, at),
            Global::RebuildParameter => match arguments.as_slice() {
                [
                    tensor @ Value::Tensor(_),
                    Value::Bool(_),
                    Value::Dict(_) | Value::None,
                ] => Ok(*tensor),
                _ => Err(PickleError::Call {
                    function: "torch._utils._rebuild_parameter",
                    at,
                    expected: "a tensor, requires_grad, and hooks",
                    found: described(&arguments),
                }),
            },
            Global::Storage(dtype) => {
                let known = STORAGES.iter().find(|(kind, _)| *kind == dtype);
                let name = known.map_or("", |(_, name)| name);
                let wanted = format!("torch.{name}(...)");
                Err(PickleError::Forbidden { wanted, at })
            }
        }
    }

    fn rebuild_tensor(
        &mut self,
        arguments: &[Value<'a>],
        at: usize,
    ) -> Result<Value<'a>, PickleError> {
        let call = |expected, found| PickleError::Call {
            function: REBUILD_TENSOR,
            at,
            expected,
            found,
        };
        let (view, rest) = arguments.split_at(arguments.len().min(4));
        let (
            [storage, offset, shape, stride],
            [Value::Bool(_), Value::Dict(_) | Value::None, more @ ..],
        ) = (view, rest)
        else {
            let expected = "a storage, offset, shape, strides, requires_grad, and hooks";
            return Err(call(expected, described(arguments)));
        };
        // flags of conjugated and negated views, which weights are not
        let plain = match more {
            [] | [Value::None] => true,
            [Value::Dict(index)] => self.dicts[*index].is_empty(),
            _ => false,
        };
        if !plain {
            return Err(call("no metadata", described(more)));
        }
        let Value::Storage(storage) = *storage else {
            return Err(call("a storage", storage.describe()));
        };
        let first = offset.count();
        let offset =
            first.ok_or_else(|| call("the offset of its first element", offset.describe()))?;
        let sizes = |value: Value<'a>| {
            let sizes = self.counts(value);
            sizes.ok_or_else(|| call("at most 8 sizes", value.describe()))
        };
        let (shape, stride) = (sizes(*shape)?, sizes(*stride)?);
        if shape.len() != stride.len() {
            let found = format!("{} of {}", stride.len(), shape.len());
            return Err(call("a stride for each dimension", found));
        }
        self.tensors.push(PickledTensor {
            storage: self.storages[storage],
            offset,
            shape,
            stride,
        });
        Ok(Value::Tensor(self.tensors.len() - 1))
    }

    fn counts(&self, value: Value<'a>) -> Option<Vec<u64>> {
        let Value::Tuple(index) = value else {
            return None;
        };
        let items = &self.sequences[index];
        if items.len() > MAX_DIMENSIONS {
            return None;
        }
        items.iter().map(|item| item.count()).collect()
    }

    /// A storage by its persistent id: `("storage", type, key, location, numel)`, and in old files the storage that it is
    /// a view of, which must be `None`.
    pub(super) fn storage(&mut self, id: Value<'a>, at: usize) -> Result<Value<'a>, PickleError> {
        let items = match id {
            Value::Tuple(index) => self.sequences[index].as_slice(),
            _ => &[],
        };
        let storage = match items {
            [
                Value::Text("storage"),
                Value::Global(Global::Storage(dtype)),
                Value::Text(key),
                Value::Text(_),
                numel,
            ]
            | [
                Value::Text("storage"),
                Value::Global(Global::Storage(dtype)),
                Value::Text(key),
                Value::Text(_),
                numel,
                Value::None,
            ] if key.len() <= MAX_KEY => numel.count().map(|numel| PickledStorage {
                key,
                dtype: *dtype,
                numel,
            }),
            _ => None,
        };
        let storage = storage.ok_or_else(|| PickleError::Call {
            function: "persistent_load",
            at,
            expected: "a storage: (\"storage\", type, key, location, number of elements)",
            found: described(items),
        })?;
        self.storages.push(storage);
        Ok(Value::Storage(self.storages.len() - 1))
    }
}

/// The kinds of the values: "(a string, an integer)".
fn described(values: &[Value<'_>]) -> String {
    let shown = values.iter().take(8).map(|value| value.describe());
    let more = if values.len() > 8 { ", ..." } else { "" };
    format!("({}{more})", shown.collect::<Vec<_>>().join(", "))
}
