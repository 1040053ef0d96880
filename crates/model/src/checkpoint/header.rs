//! The header of a safetensors file: read with suspicion, written exactly as the reference
//! library writes it.
//!
//! A file is the header's length (8 bytes, little endian), the header (JSON: name -> dtype, shape,
//! offsets; padded with spaces to a multiple of 8), and the tensors without a gap.

use std::collections::HashSet;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use safetensors::Dtype;
use serde::de::IntoDeserializer;
use serde::de::value::{Error as ValueError, StrDeserializer};
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::{Map, Value, json};

use super::{CheckpointError, TensorInfo, TensorSpec};

/// Bytes before the header: its length.
pub(super) const PREFIX: u64 = 8;
/// The reference library refuses larger headers, so no tool writes them.
const MAX_HEADER: u64 = 100_000_000;

/// A checked header: every tensor lies inside of the file and none touches another.
pub(super) struct Header {
    /// `__metadata__`, in file order.
    pub(super) metadata: Vec<(String, String)>,
    /// In the order of their bytes.
    pub(super) tensors: Vec<Entry>,
}

/// One tensor of a file.
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) info: TensorInfo,
    /// First byte in the file.
    pub(super) begin: usize,
    /// Byte after the last.
    pub(super) end: usize,
}

impl Header {
    /// Reads and checks the header of an open file of `file_len` bytes.
    pub(super) fn read(
        file: &mut File,
        path: &Path,
        file_len: u64,
    ) -> Result<Self, CheckpointError> {
        if file_len < PREFIX {
            return Err(CheckpointError::FileTooSmall {
                file: path.into(),
                found: file_len,
            });
        }
        let mut prefix = [0; PREFIX as usize];
        file.read_exact(&mut prefix)
            .map_err(CheckpointError::io(path, "read"))?;
        let declared = u64::from_le_bytes(prefix);
        let available = file_len - PREFIX;
        if declared > available {
            return Err(CheckpointError::HeaderLength {
                file: path.into(),
                declared,
                available,
            });
        }
        if declared > MAX_HEADER {
            return Err(CheckpointError::HeaderTooLarge {
                file: path.into(),
                declared,
            });
        }
        let mut bytes = vec![0; declared as usize];
        file.read_exact(&mut bytes)
            .map_err(CheckpointError::io(path, "read"))?;
        let raw: RawHeader =
            serde_json::from_slice(&bytes).map_err(|source| CheckpointError::HeaderJson {
                file: path.into(),
                source,
            })?;
        check(raw, path, PREFIX + declared, file_len)
    }
}

fn check(
    raw: RawHeader,
    path: &Path,
    data_start: u64,
    file_len: u64,
) -> Result<Header, CheckpointError> {
    let mut seen = HashSet::with_capacity(raw.tensors.len());
    if let Some((twice, _)) = raw
        .tensors
        .iter()
        .find(|(name, _)| !seen.insert(name.as_str()))
    {
        return Err(CheckpointError::DuplicateName {
            file: path.into(),
            tensor: twice.clone(),
        });
    }
    let mut sorted: Vec<(String, RawTensor)> = raw.tensors;
    sorted.sort_by_key(|(_, tensor)| tensor.data_offsets);

    let mut tensors: Vec<Entry> = Vec::with_capacity(sorted.len());
    let mut expected = 0;
    let mut cut = None;
    for (name, tensor) in sorted {
        let [begin, end] = tensor.data_offsets;
        let info = checked_info(path, &name, &tensor)?;
        if begin < expected {
            let other = tensors
                .last()
                .map_or_else(String::new, |entry| entry.name.clone());
            return Err(CheckpointError::Overlap {
                file: path.into(),
                tensor: name,
                begin,
                other,
                other_end: expected,
            });
        }
        if begin > expected {
            return Err(CheckpointError::Hole {
                file: path.into(),
                tensor: name,
                expected,
                found: begin,
            });
        }
        expected = end;
        // Saturation only meets files that are refused as truncated below.
        let absolute = |offset: u64| data_start.saturating_add(offset);
        if cut.is_none() && absolute(end) > file_len {
            cut = Some(name.clone());
        }
        tensors.push(Entry {
            name,
            info,
            begin: absolute(begin) as usize,
            end: absolute(end) as usize,
        });
    }
    let described = data_start.saturating_add(expected);
    if let Some(tensor) = cut {
        return Err(CheckpointError::Truncated {
            file: path.into(),
            tensor,
            expected: described,
            found: file_len,
        });
    }
    if described != file_len {
        return Err(CheckpointError::TrailingBytes {
            file: path.into(),
            expected: described,
            found: file_len,
        });
    }
    Ok(Header {
        metadata: raw.metadata,
        tensors,
    })
}

/// Dtype and shape of one tensor, and that its offsets span just what these need.
fn checked_info(path: &Path, name: &str, raw: &RawTensor) -> Result<TensorInfo, CheckpointError> {
    let named: StrDeserializer<'_, ValueError> = raw.dtype.as_str().into_deserializer();
    let dtype = Dtype::deserialize(named).map_err(|_| CheckpointError::UnknownDtype {
        file: path.into(),
        tensor: name.to_owned(),
        found: raw.dtype.clone(),
    })?;
    let overflow = || CheckpointError::ShapeOverflow {
        file: path.into(),
        tensor: name.to_owned(),
        dtype,
        shape: raw.shape.clone(),
    };
    let shape: Vec<usize> = raw
        .shape
        .iter()
        .map(|&dim| usize::try_from(dim))
        .collect::<Result<_, _>>()
        .map_err(|_| overflow())?;
    let expected = byte_len(dtype, &shape).ok_or_else(overflow)?;
    let [begin, end] = raw.data_offsets;
    if end.checked_sub(begin) != Some(expected) {
        return Err(CheckpointError::SizeMismatch {
            file: path.into(),
            tensor: name.to_owned(),
            dtype,
            shape,
            expected,
            begin,
            end,
        });
    }
    Ok(TensorInfo { dtype, shape })
}

/// Bytes of a tensor; `None` when they overflow or are no whole number.
pub(super) fn byte_len(dtype: Dtype, shape: &[usize]) -> Option<u64> {
    let bits = shape
        .iter()
        .try_fold(dtype.bitsize() as u64, |bits, &dim| {
            bits.checked_mul(dim as u64)
        })?;
    (bits % 8 == 0).then_some(bits / 8)
}

/// Sorts tensors into the order in which the format wants their bytes: the wider dtype first, then
/// by name, so that every tensor is aligned for its dtype.
pub(super) fn sort(tensors: &mut [TensorSpec]) {
    tensors.sort_by(|a, b| b.dtype.cmp(&a.dtype).then_with(|| a.name.cmp(&b.name)));
}

/// The first bytes of a file, length and header, for tensors in [`sort`]'s order.
///
/// `None` when the sizes overflow.
pub(super) fn encode(tensors: &[TensorSpec], metadata: &[(&str, &str)]) -> Option<Vec<u8>> {
    let mut header = Map::new();
    if !metadata.is_empty() {
        let entries: Map<String, Value> = metadata
            .iter()
            .map(|&(key, value)| (key.to_owned(), value.into()))
            .collect();
        header.insert("__metadata__".to_owned(), Value::Object(entries));
    }
    let mut begin = 0_u64;
    for TensorSpec { name, dtype, shape } in tensors {
        let end = begin.checked_add(byte_len(*dtype, shape)?)?;
        let entry = json!({
            "dtype": dtype.to_string(),
            "shape": shape,
            "data_offsets": [begin, end],
        });
        header.insert(name.clone(), entry);
        begin = end;
    }
    let mut text = Value::Object(header).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(PREFIX as usize), b' ');
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.append(&mut text);
    Some(bytes)
}

/// A header as it stands in the file, nothing checked.
struct RawHeader {
    metadata: Vec<(String, String)>,
    tensors: Vec<(String, RawTensor)>,
}

#[derive(serde::Deserialize)]
struct RawTensor {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: [u64; 2],
}

impl<'de> Deserialize<'de> for RawHeader {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct HeaderVisitor;

        impl<'de> Visitor<'de> for HeaderVisitor {
            type Value = RawHeader;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawHeader, A::Error> {
                let mut metadata = Vec::new();
                let mut tensors = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        let entries: Option<Map<String, Value>> = map.next_value()?;
                        metadata = strings(entries.unwrap_or_default())?;
                    } else {
                        let tensor = map.next_value().map_err(|error| {
                            A::Error::custom(format!("tensor `{name}`: {error}"))
                        })?;
                        tensors.push((name, tensor));
                    }
                }
                Ok(RawHeader { metadata, tensors })
            }
        }

        deserializer.deserialize_map(HeaderVisitor)
    }
}

fn strings<E: serde::de::Error>(entries: Map<String, Value>) -> Result<Vec<(String, String)>, E> {
    entries
        .into_iter()
        .map(|(key, value)| match value {
            Value::String(text) => Ok((key, text)),
            other => Err(E::custom(format!(
                "__metadata__: `{key}`: expected a string, found {other}"
            ))),
        })
        .collect()
}
