//! The header of a safetensors file: read as untrusted input, and written exactly as the reference library writes it.
//!
//! A file consists of the length of the header (8 bytes, little endian), the header (JSON: name -> dtype, shape, offsets;
//! padded with spaces to a multiple of 8), and the tensors without gaps.

use std::collections::HashSet;
use std::fmt;
use std::io::Read;
use std::path::Path;

use safetensors::Dtype;
use serde::de::IntoDeserializer;
use serde::de::value::{Error as ValueError, StrDeserializer};
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::{Map, Value, json};

use crate::{CheckpointError, TensorInfo, TensorSpec};

/// Bytes of the length field before the header.
pub(super) const PREFIX: u64 = 8;
/// Maximum length of a header. The reference library refuses larger headers, so no tool writes them.
const MAX_HEADER: u64 = 100_000_000;

/// A checked header: all tensors are inside the file, and none overlap.
pub(super) struct Header {
    /// `__metadata__`, in file order.
    pub(super) metadata: Vec<(String, String)>,
    /// In the order of their offsets.
    pub(super) tensors: Vec<Entry>,
}

/// One tensor of a file.
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) info: TensorInfo,
    /// First byte in the file.
    pub(super) begin: usize,
    /// End of its bytes.
    pub(super) end: usize,
}

/// Reads the tensors of a safetensors file of `file_len` bytes from its first bytes; `path` is for messages.
///
/// # Errors
///
/// If the header is invalid; see [`CheckpointError`].
pub fn read_header(
    file: &mut impl Read,
    path: &Path,
    file_len: u64,
) -> Result<Vec<(String, TensorInfo)>, CheckpointError> {
    let header = Header::read(file, path, file_len)?;
    let entries = header.tensors.into_iter();
    Ok(entries.map(|entry| (entry.name, entry.info)).collect())
}

impl Header {
    /// Reads and checks the header of a file of `file_len` bytes.
    pub(super) fn read(
        file: &mut impl Read,
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
        if prefix == *b"version " && is_pointer(file, prefix) {
            return Err(CheckpointError::LfsPointer { file: path.into() });
        }
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

/// Whether a file that starts with `prefix` is a pointer of git-lfs.
fn is_pointer(file: &mut impl Read, prefix: [u8; PREFIX as usize]) -> bool {
    let mut start = prefix.to_vec();
    let more = file.take(64).read_to_end(&mut start);
    more.is_ok() && simmer_files::is_lfs_pointer(&start)
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
        // Saturated values are refused as truncated below.
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

/// Dtype and shape of a tensor; checks that its offsets match them.
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

/// Bytes of a tensor; `None` if they overflow or are not a whole number.
pub(super) fn byte_len(dtype: Dtype, shape: &[usize]) -> Option<u64> {
    let bits = shape
        .iter()
        .try_fold(dtype.bitsize() as u64, |bits, &dim| {
            bits.checked_mul(dim as u64)
        })?;
    (bits % 8 == 0).then_some(bits / 8)
}

/// Sorts tensors into the order of the format: by descending size of the dtype, then by name, so that every tensor is
/// aligned for its dtype.
pub(super) fn sort(tensors: &mut [TensorSpec]) {
    tensors.sort_by(|a, b| b.dtype.cmp(&a.dtype).then_with(|| a.name.cmp(&b.name)));
}

/// The length field and the header of a file, for tensors in the order of [`sort`].
///
/// `None` if the sizes overflow.
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

/// A parsed header before any check.
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

#[cfg(test)]
mod tests {
    use std::fs;

    use insta::assert_snapshot;

    use super::super::{CheckpointError, SafetensorsFile};

    /// The error of opening a file with these bytes.
    fn said(bytes: &[u8]) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.safetensors");
        fs::write(&path, bytes).unwrap();
        let error: CheckpointError = SafetensorsFile::open(&path).unwrap_err();
        error
            .to_string()
            .replace(&dir.path().display().to_string(), "DIR")
    }

    fn file(header: &str, data: usize) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.resize(bytes.len() + data, 7);
        bytes
    }

    #[test]
    fn too_small() {
        assert_snapshot!(said(b"1234567"), @"DIR/m.safetensors: not a safetensors file: expected at least 8 bytes, found 7");
    }

    #[test]
    fn header_larger_than_the_file() {
        let mut bytes = 1_000_000_u64.to_le_bytes().to_vec();
        bytes.extend_from_slice(b"{}");
        assert_snapshot!(said(&bytes), @"DIR/m.safetensors: the header should have 1000000 bytes, but only 2 follow its length in the file (truncated, or not a safetensors file)");
        let all = u64::MAX.to_le_bytes();
        assert_snapshot!(said(&all), @"DIR/m.safetensors: the header should have 18446744073709551615 bytes, but only 0 follow its length in the file (truncated, or not a safetensors file)");
    }

    #[test]
    fn header_larger_than_the_format_allows() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.safetensors");
        fs::write(&path, 100_000_001_u64.to_le_bytes()).unwrap();
        // A sparse file: only its length matters.
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(100_000_100).unwrap();
        let error = SafetensorsFile::open(&path).unwrap_err();
        assert!(matches!(
            error,
            CheckpointError::HeaderTooLarge {
                declared: 100_000_001,
                ..
            }
        ));
    }

    #[test]
    fn not_json() {
        assert_snapshot!(said(&file("{\"a\": nonsense}", 0)), @"DIR/m.safetensors: the header is not valid: tensor `a`: expected ident at line 1 column 8");
        assert_snapshot!(said(&file("[1]", 0)), @"DIR/m.safetensors: the header is not valid: invalid type: sequence, expected an object of tensors at line 1 column 0");
        assert_snapshot!(said(&file("\u{0}\u{1}", 0)), @"DIR/m.safetensors: the header is not valid: expected value at line 1 column 1");
        assert_snapshot!(said(&file("", 0)), @"DIR/m.safetensors: the header is not valid: EOF while parsing a value at line 1 column 0");
    }

    #[test]
    fn tensor_without_offsets() {
        assert_snapshot!(said(&file(r#"{"w":{"dtype":"F32","shape":[1]}}"#, 0)), @"DIR/m.safetensors: the header is not valid: tensor `w`: missing field `data_offsets` at line 1 column 32");
        assert_snapshot!(said(&file(r#"{"w":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}"#, 4)), @"DIR/m.safetensors: the header is not valid: tensor `w`: invalid value: integer `-1`, expected u64 at line 1 column 31");
    }

    #[test]
    fn metadata_of_numbers() {
        assert_snapshot!(said(&file(r#"{"__metadata__":{"format":1}}"#, 0)), @"DIR/m.safetensors: the header is not valid: __metadata__: `format`: expected a string, found 1 at line 1 column 29");
    }

    #[test]
    fn unknown_dtype() {
        assert_snapshot!(said(&file(r#"{"w":{"dtype":"F33","shape":[1],"data_offsets":[0,4]}}"#, 4)), @"DIR/m.safetensors: tensor `w`: unknown dtype `F33`");
    }

    #[test]
    fn same_name_twice() {
        let tensor = r#"{"dtype":"U8","shape":[1],"data_offsets":[0,1]}"#;
        assert_snapshot!(said(&file(&format!(r#"{{"w":{tensor},"w":{tensor}}}"#), 1)), @"DIR/m.safetensors: duplicate tensor `w` in the header");
    }

    #[test]
    fn shape_and_offsets_disagree() {
        assert_snapshot!(said(&file(r#"{"w":{"dtype":"F32","shape":[2,3],"data_offsets":[0,20]}}"#, 20)), @"DIR/m.safetensors: tensor `w`: F32 [2, 3] needs 24 bytes, its offsets 0..20 span 20");
        assert_snapshot!(said(&file(r#"{"w":{"dtype":"F32","shape":[1],"data_offsets":[8,4]}}"#, 8)), @"DIR/m.safetensors: tensor `w`: F32 [1] needs 4 bytes, its offsets 8..4 span nothing: they are reversed");
    }

    #[test]
    fn shape_that_overflows() {
        let header =
            r#"{"w":{"dtype":"F32","shape":[4294967296,4294967296,4],"data_offsets":[0,0]}}"#;
        assert_snapshot!(said(&file(header, 0)), @"DIR/m.safetensors: tensor `w`: the length in bytes of F32 [4294967296, 4294967296, 4] overflows or is not a whole number");
        assert_snapshot!(said(&file(r#"{"w":{"dtype":"F4","shape":[3],"data_offsets":[0,1]}}"#, 1)), @"DIR/m.safetensors: tensor `w`: the length in bytes of F4 [3] overflows or is not a whole number");
    }

    #[test]
    fn overlapping_tensors() {
        let header = r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}}"#;
        assert_snapshot!(said(&file(header, 6)), @"DIR/m.safetensors: tensor `b` starts at byte 2, but tensor `a` ends at byte 4: they overlap");
    }

    #[test]
    fn a_hole_between_tensors() {
        let header = r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[8,12]}}"#;
        assert_snapshot!(said(&file(header, 12)), @"DIR/m.safetensors: tensor `b` starts at byte 8, expected 4: the bytes between are unused");
    }

    #[test]
    fn truncated_and_too_long() {
        let header = r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}}"#;
        assert_snapshot!(said(&file(header, 5)), @"DIR/m.safetensors: truncated: expected 121 bytes, found 118; the first incomplete tensor is `b`");
        assert_snapshot!(said(&file(header, 9)), @"DIR/m.safetensors: expected 121 bytes, found 122: there are extra bytes after the last tensor");
        let far = format!(
            r#"{{"a":{{"dtype":"U8","shape":[{0}],"data_offsets":[0,{0}]}}}}"#,
            u64::MAX / 8
        );
        assert_snapshot!(said(&file(&far, 0)), @"DIR/m.safetensors: truncated: expected 2305843009213694048 bytes, found 97; the first incomplete tensor is `a`");
    }

    #[test]
    fn any_order_of_bytes_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.safetensors");
        // Older writers sorted by name only; a tensor may also be empty.
        let header = r#"{"__metadata__":null,"b":{"dtype":"U8","shape":[1],"data_offsets":[4,5]},"e":{"dtype":"F32","shape":[0,3],"data_offsets":[4,4]},"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}   "#;
        fs::write(&path, file(header, 5)).unwrap();
        let open = SafetensorsFile::open(&path).unwrap();
        assert_eq!(open.names().collect::<Vec<_>>(), ["a", "e", "b"]);
        assert_eq!(open.bytes("b").unwrap(), [7]);
        assert_eq!(open.info("e").unwrap().shape, [0, 3]);
        assert!(open.bytes("e").unwrap().is_empty());
        assert_eq!(open.info("a").unwrap().shape.len(), 0);
    }
}
