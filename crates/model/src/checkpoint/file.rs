//! One safetensors file, mapped into memory.

use std::collections::HashMap;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::{AllocationProperty, BoolStore, Bytes, DType, TensorData};
use memmap2::Mmap;
use safetensors::Dtype;
use simmer_kernels::{map_file, release_pages};

use super::header::{Entry, Header};
use super::{CheckpointError, TensorInfo};

/// An open safetensors file whose header has been checked.
///
/// Clones share the map.
#[derive(Clone)]
pub struct SafetensorsFile {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    metadata: Vec<(String, String)>,
    /// In the order of their bytes.
    tensors: Vec<Entry>,
    by_name: HashMap<String, usize>,
    map: Arc<Mmap>,
    /// The same bytes, in the form that tensors share without a copy.
    shared: bytes::Bytes,
}

/// Lets `bytes::Bytes` keep the map alive.
struct SharedMap(Arc<Mmap>);

impl AsRef<[u8]> for SharedMap {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl SafetensorsFile {
    /// Opens and maps a file.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with the header, see [`CheckpointError`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, CheckpointError> {
        let path = path.as_ref();
        let mut file = File::open(path).map_err(CheckpointError::io(path, "open"))?;
        let file_len = file
            .metadata()
            .map_err(CheckpointError::io(path, "read"))?
            .len();
        let header = Header::read(&mut file, path, file_len)?;
        let map = map_file(&file).map_err(CheckpointError::io(path, "map"))?;
        if map.len() as u64 != file_len {
            return Err(CheckpointError::Truncated {
                file: path.into(),
                tensor: header
                    .tensors
                    .last()
                    .map_or_else(String::new, |t| t.name.clone()),
                expected: file_len,
                found: map.len() as u64,
            });
        }
        let map = Arc::new(map);
        let by_name = header
            .tensors
            .iter()
            .enumerate()
            .map(|(position, entry)| (entry.name.clone(), position))
            .collect();
        Ok(Self {
            inner: Arc::new(Inner {
                path: path.into(),
                metadata: header.metadata,
                tensors: header.tensors,
                by_name,
                shared: bytes::Bytes::from_owner(SharedMap(map.clone())),
                map,
            }),
        })
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// The header's `__metadata__`, in file order.
    pub fn metadata(&self) -> &[(String, String)] {
        &self.inner.metadata
    }

    /// Every tensor's key, in the order of their bytes.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.inner.tensors.iter().map(|entry| entry.name.as_str())
    }

    /// Every tensor with its number type and shape, in the order of their bytes.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &TensorInfo)> {
        self.inner
            .tensors
            .iter()
            .map(|entry| (entry.name.as_str(), &entry.info))
    }

    /// Whether the file has this tensor.
    pub fn contains(&self, name: &str) -> bool {
        self.inner.by_name.contains_key(name)
    }

    /// Number type and shape of a tensor.
    ///
    /// # Errors
    ///
    /// When there is no such tensor; the message names the nearest.
    pub fn info(&self, name: &str) -> Result<&TensorInfo, CheckpointError> {
        Ok(&self.entry(name)?.info)
    }

    /// A tensor's bytes: row-major, little endian.
    ///
    /// # Errors
    ///
    /// When there is no such tensor; the message names the nearest.
    pub fn bytes(&self, name: &str) -> Result<&[u8], CheckpointError> {
        let entry = self.entry(name)?;
        Ok(&self.inner.map[entry.begin..entry.end])
    }

    /// A tensor's data in its stored precision, without a copy where the file keeps it aligned
    /// (every file that the reference library wrote does).
    ///
    /// The pages are shared with the file; whoever writes to the data gets a copy of their own.
    ///
    /// # Errors
    ///
    /// When there is no such tensor, or Burn has no such number type.
    pub fn data(&self, name: &str) -> Result<TensorData, CheckpointError> {
        let entry = self.entry(name)?;
        let dtype =
            burn_dtype(entry.info.dtype).ok_or_else(|| CheckpointError::UnsupportedDtype {
                file: self.inner.path.clone(),
                tensor: name.to_owned(),
                dtype: entry.info.dtype.to_string(),
            })?;
        let slice = &self.inner.map[entry.begin..entry.end];
        let aligned = slice.as_ptr().addr().is_multiple_of(dtype.size());
        // An empty slice of `bytes::Bytes` points at nothing that is aligned.
        let bytes = if aligned && !slice.is_empty() {
            let shared = self.inner.shared.slice(entry.begin..entry.end);
            Bytes::from_shared(shared, AllocationProperty::File)
        } else {
            Bytes::from_bytes_vec(slice.to_vec())
        };
        Ok(TensorData::from_bytes(
            bytes,
            entry.info.shape.clone(),
            dtype,
        ))
    }

    /// Lets go of the pages of some of a tensor's bytes, as far as it has so many; reading them
    /// again reads the file again.
    pub fn release(&self, name: &str, bytes: Range<usize>) {
        if let Ok(entry) = self.entry(name) {
            let begin = entry.end.min(entry.begin.saturating_add(bytes.start));
            let end = entry.end.min(entry.begin.saturating_add(bytes.end));
            release_pages(&self.inner.map, begin, end.saturating_sub(begin));
        }
    }

    fn entry(&self, name: &str) -> Result<&Entry, CheckpointError> {
        let position = self.inner.by_name.get(name);
        position
            .map(|&at| &self.inner.tensors[at])
            .ok_or_else(|| CheckpointError::TensorNotFound {
                path: self.inner.path.clone(),
                tensor: name.to_owned(),
                nearest: nearest(name, self.names()),
            })
    }
}

impl std::fmt::Debug for SafetensorsFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SafetensorsFile")
            .field("path", &self.inner.path)
            .field("tensors", &self.inner.tensors.len())
            .finish()
    }
}

/// The name most similar to `wanted`, if any is similar enough to be meant.
pub(crate) fn nearest<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Option<String> {
    names
        .map(|name| (strsim::jaro_winkler(wanted, name), name))
        .filter(|(similarity, _)| *similarity > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name.to_owned())
}

/// Burn's name of a stored number type; `None` when it has none.
pub(super) fn burn_dtype(dtype: Dtype) -> Option<DType> {
    Some(match dtype {
        Dtype::F64 => DType::F64,
        Dtype::F32 => DType::F32,
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::BF16,
        Dtype::I64 => DType::I64,
        Dtype::I32 => DType::I32,
        Dtype::I16 => DType::I16,
        Dtype::I8 => DType::I8,
        Dtype::U64 => DType::U64,
        Dtype::U32 => DType::U32,
        Dtype::U16 => DType::U16,
        Dtype::U8 => DType::U8,
        Dtype::BOOL => DType::Bool(BoolStore::Native),
        _ => return None,
    })
}

/// The stored name of one of Burn's number types; `None` when files have none.
pub(crate) fn stored_dtype(dtype: DType) -> Option<Dtype> {
    Some(match dtype {
        DType::F64 => Dtype::F64,
        DType::F32 | DType::Flex32 => Dtype::F32,
        DType::F16 => Dtype::F16,
        DType::BF16 => Dtype::BF16,
        DType::I64 => Dtype::I64,
        DType::I32 => Dtype::I32,
        DType::I16 => Dtype::I16,
        DType::I8 => Dtype::I8,
        DType::U64 => Dtype::U64,
        DType::U32 => Dtype::U32,
        DType::U16 => Dtype::U16,
        DType::U8 => Dtype::U8,
        DType::Bool(BoolStore::Native | BoolStore::U8) => Dtype::BOOL,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;

    use super::super::{PT_METADATA, write_safetensors};
    use super::*;

    fn written(dir: &Path) -> SafetensorsFile {
        let path = dir.join("m.safetensors");
        let tensors = BTreeMap::from([
            (
                "a.weight".to_owned(),
                TensorData::new(vec![1.5_f32, -2.0, 3.0, 0.25], [2, 2]),
            ),
            ("b".to_owned(), TensorData::new(vec![7_i64], [1])),
        ]);
        write_safetensors(&path, &tensors, PT_METADATA).unwrap();
        SafetensorsFile::open(path).unwrap()
    }

    #[test]
    fn data_shares_the_map_and_copies_on_write() {
        let dir = tempfile::tempdir().unwrap();
        let file = written(dir.path());
        let before = fs::read(file.path()).unwrap();
        let data = file.data("a.weight").unwrap();
        assert_eq!(
            data.as_bytes().as_ptr(),
            file.bytes("a.weight").unwrap().as_ptr()
        );
        assert_eq!(data.as_slice::<f32>().unwrap(), [1.5, -2.0, 3.0, 0.25]);

        let (mut bytes, _, _) = data.into_parts();
        bytes.fill(0xff);
        assert_ne!(bytes.as_ptr(), file.bytes("a.weight").unwrap().as_ptr());
        let again = file.data("a.weight").unwrap();
        assert_eq!(again.as_slice::<f32>().unwrap()[..1], [1.5]);
        assert_eq!(fs::read(file.path()).unwrap(), before);
    }

    #[test]
    fn data_outlives_the_file_handle() {
        let dir = tempfile::tempdir().unwrap();
        let file = written(dir.path());
        let data = file.data("b").unwrap();
        fs::remove_file(file.path()).unwrap();
        drop(file);
        assert_eq!(data.as_slice::<i64>().unwrap(), [7]);
    }

    #[test]
    fn misaligned_data_is_copied() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.safetensors");
        let header = r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"w":{"dtype":"F32","shape":[2],"data_offsets":[1,9]}}"#;
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.push(0);
        bytes.extend_from_slice(&1.0_f32.to_le_bytes());
        bytes.extend_from_slice(&2.0_f32.to_le_bytes());
        fs::write(&path, bytes).unwrap();
        let file = SafetensorsFile::open(&path).unwrap();
        assert_eq!(
            file.data("w").unwrap().as_slice::<f32>().unwrap(),
            [1.0, 2.0]
        );
    }

    #[test]
    fn a_missing_tensor_names_the_nearest() {
        let dir = tempfile::tempdir().unwrap();
        let error = written(dir.path()).data("a.weights").unwrap_err();
        let said = error
            .to_string()
            .replace(&dir.path().display().to_string(), "DIR");
        insta::assert_snapshot!(said, @"DIR/m.safetensors: no tensor `a.weights`; the nearest is `a.weight`");
    }

    #[test]
    fn a_dtype_without_arithmetic_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.safetensors");
        let header = r#"{"w":{"dtype":"F8_E4M3","shape":[1],"data_offsets":[0,1]}}"#;
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.push(0);
        fs::write(&path, bytes).unwrap();
        let error = SafetensorsFile::open(&path).unwrap().data("w").unwrap_err();
        let said = error
            .to_string()
            .replace(&dir.path().display().to_string(), "DIR");
        insta::assert_snapshot!(said, @"DIR/m.safetensors: tensor `w`: dtype F8_E4M3 is not supported (F32, F16, BF16, F64, integers and BOOL are)");
    }
}
