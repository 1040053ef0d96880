//! A memory-mapped safetensors file.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::header::{Entry, Header};
use crate::mapped::Mapped;
use crate::{CheckpointError, Tensor, TensorInfo, nearest};

/// An open safetensors file with a checked header.
///
/// Clones share the map.
#[derive(Clone)]
pub struct SafetensorsFile {
    inner: Arc<Inner>,
}

struct Inner {
    file: Mapped,
    metadata: Vec<(String, String)>,
    /// In the order of their offsets.
    tensors: Vec<Entry>,
    by_name: HashMap<String, usize>,
}

impl SafetensorsFile {
    /// Opens and maps a file.
    ///
    /// # Errors
    ///
    /// If the header is invalid; see [`CheckpointError`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, CheckpointError> {
        let path = path.as_ref();
        let mut file = simmer_files::open(path).map_err(CheckpointError::io(path, "open"))?;
        let file_len = file
            .metadata()
            .map_err(CheckpointError::io(path, "read"))?
            .len();
        let header = Header::read(&mut file, path, file_len)?;
        let file = Mapped::new(file, path)?;
        if file.len() as u64 != file_len {
            let last = header.tensors.last();
            return Err(CheckpointError::Truncated {
                file: path.into(),
                tensor: last.map_or_else(String::new, |t| t.name.clone()),
                expected: file_len,
                found: file.len() as u64,
            });
        }
        let by_name = header
            .tensors
            .iter()
            .enumerate()
            .map(|(position, entry)| (entry.name.clone(), position))
            .collect();
        Ok(Self {
            inner: Arc::new(Inner {
                file,
                metadata: header.metadata,
                tensors: header.tensors,
                by_name,
            }),
        })
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        self.inner.file.path()
    }

    /// The header's `__metadata__`, in file order.
    pub fn metadata(&self) -> &[(String, String)] {
        &self.inner.metadata
    }

    /// The keys of all tensors, in the order of their offsets.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.inner.tensors.iter().map(|entry| entry.name.as_str())
    }

    /// All tensors with dtype and shape, in the order of their offsets.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &TensorInfo)> {
        self.inner
            .tensors
            .iter()
            .map(|entry| (entry.name.as_str(), &entry.info))
    }

    /// All tensors with their byte range in the file, in the order of their offsets.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&str, &TensorInfo, Range<usize>)> {
        self.inner.tensors.iter().map(|entry| {
            let range = entry.begin..entry.end;
            (entry.name.as_str(), &entry.info, range)
        })
    }

    /// The mapped file.
    pub(crate) fn mapped(&self) -> Mapped {
        self.inner.file.clone()
    }

    /// Whether the file has this tensor.
    pub fn contains(&self, name: &str) -> bool {
        self.inner.by_name.contains_key(name)
    }

    /// Dtype and shape of a tensor.
    ///
    /// # Errors
    ///
    /// If no such tensor exists; the message names the most similar one.
    pub fn info(&self, name: &str) -> Result<&TensorInfo, CheckpointError> {
        Ok(&self.entry(name)?.info)
    }

    /// A tensor's bytes: row-major, little endian.
    ///
    /// # Errors
    ///
    /// If no such tensor exists (the message names the most similar one), or the file has changed.
    pub fn bytes(&self, name: &str) -> Result<&[u8], CheckpointError> {
        let entry = self.entry(name)?;
        self.inner.file.check_unchanged()?;
        Ok(&self.inner.file[entry.begin..entry.end])
    }

    /// A tensor in its stored precision, sharing the file's pages.
    ///
    /// # Errors
    ///
    /// If no such tensor exists (the message names the most similar one), or the file has changed.
    pub fn tensor(&self, name: &str) -> Result<Tensor, CheckpointError> {
        let entry = self.entry(name)?;
        self.inner.file.check_unchanged()?;
        Ok(Tensor {
            dtype: entry.info.dtype,
            shape: entry.info.shape.clone(),
            bytes: self.inner.file.bytes(entry.begin..entry.end),
        })
    }

    fn entry(&self, name: &str) -> Result<&Entry, CheckpointError> {
        let position = self.inner.by_name.get(name);
        position
            .map(|&at| &self.inner.tensors[at])
            .ok_or_else(|| CheckpointError::TensorNotFound {
                path: self.path().into(),
                tensor: name.to_owned(),
                nearest: nearest(name, self.names()),
            })
    }
}

impl std::fmt::Debug for SafetensorsFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SafetensorsFile")
            .field("path", &self.path())
            .field("tensors", &self.inner.tensors.len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;

    use super::super::write_safetensors;
    use super::*;
    use crate::{Dtype, PT_METADATA, TensorView};

    fn written(dir: &Path) -> SafetensorsFile {
        let path = dir.join("m.safetensors");
        let view = |dtype, shape, bytes| TensorView {
            dtype,
            shape,
            bytes,
        };
        let numbers = bytemuck::cast_slice(&[1.5_f32, -2.0, 3.0, 0.25]);
        let seven = 7_i64.to_le_bytes();
        let tensors = BTreeMap::from([
            ("a.weight".to_owned(), view(Dtype::F32, &[2, 2], numbers)),
            ("b".to_owned(), view(Dtype::I64, &[1], &seven)),
        ]);
        write_safetensors(&path, &tensors, PT_METADATA).unwrap();
        SafetensorsFile::open(path).unwrap()
    }

    #[test]
    fn a_tensor_shares_the_map() {
        let dir = tempfile::tempdir().unwrap();
        let file = written(dir.path());
        let tensor = file.tensor("a.weight").unwrap();
        let bytes = file.bytes("a.weight").unwrap();
        assert_eq!(tensor.bytes.as_ptr(), bytes.as_ptr());
        assert_eq!(
            bytemuck::cast_slice::<u8, f32>(bytes),
            [1.5, -2.0, 3.0, 0.25]
        );
    }

    #[test]
    fn a_tensor_outlives_the_file_handle() {
        let dir = tempfile::tempdir().unwrap();
        let file = written(dir.path());
        let tensor = file.tensor("b").unwrap();
        fs::remove_file(file.path()).unwrap();
        drop(file);
        assert_eq!(tensor.bytes[..], 7_i64.to_le_bytes());
    }

    #[test]
    fn a_file_that_changes_while_it_is_used_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let file = written(dir.path());
        file.tensor("b").unwrap();
        let said = |file: &SafetensorsFile| {
            let error = file.tensor("b").unwrap_err();
            let said = error.to_string();
            said.replace(&dir.path().display().to_string(), "DIR")
        };
        let again = fs::File::options().write(true).open(file.path()).unwrap();
        let modified = again.metadata().unwrap().modified().unwrap();
        again
            .set_modified(modified + std::time::Duration::from_secs(1))
            .unwrap();
        insta::assert_snapshot!(said(&file), @"DIR/m.safetensors: the file changed while it was in use: 184 bytes before, now 184 and a new modification time");
        again.set_modified(modified).unwrap();
        file.tensor("b").unwrap();
        again.set_len(160).unwrap();
        insta::assert_snapshot!(said(&file), @"DIR/m.safetensors: the file changed while it was in use: 184 bytes before, now 160");
        // a file that was renamed to this name is another file
        let path = file.path().to_owned();
        fs::remove_file(&path).unwrap();
        let file = written(dir.path());
        fs::write(dir.path().join("aside"), "").unwrap();
        fs::rename(dir.path().join("aside"), path).unwrap();
        file.tensor("b").unwrap();
    }

    #[test]
    fn a_missing_tensor_names_the_nearest() {
        let dir = tempfile::tempdir().unwrap();
        let error = written(dir.path()).tensor("a.weights").unwrap_err();
        let said = error
            .to_string()
            .replace(&dir.path().display().to_string(), "DIR");
        insta::assert_snapshot!(said, @"DIR/m.safetensors: no tensor `a.weights`; the nearest is `a.weight`");
    }
}
