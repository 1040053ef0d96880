//! Files of `torch.save`: tensors by name, and a pickle with their places.
//!
//! Since PyTorch 1.6 a `.pth` file is a zip archive with uncompressed entries:
//!
//! ```text
//! NAME/data.pkl    the pickle; each tensor is a view of a storage
//! NAME/byteorder   "little" (missing before PyTorch 2.1)
//! NAME/data/KEY    the bytes of a storage
//! NAME/version     version of this layout
//! ```
//!
//! Before that, a file was a sequence of pickles followed by the storages. Both layouts are read from a memory map without
//! copying the tensors; the first is written.
//!
//! Source: PyTorch, `torch/serialization.py` and `caffe2/serialize/inline_container.cc`.

mod error;
mod legacy;
#[cfg(test)]
mod tests;
mod write;
mod zip;

use std::ops::Range;

pub use error::PthError;
pub(crate) use write::PthWriter;
pub use write::encode;
use zip::Archive;

use crate::TensorInfo;
use crate::pickle::{Pickle, PickledTensor, shown};

/// Maximum bytes of the pickle of an archive; that of a model has about 200 per tensor.
const MAX_PICKLE: usize = 64 << 20;
/// Existing versions of the archive layout.
const VERSIONS: std::ops::RangeInclusive<u64> = 1..=10;

/// A checked file of tensors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PthFile {
    tensors: Vec<PthTensor>,
}

/// The place of a tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PthTensor {
    /// Its key.
    pub name: String,
    /// Dtype and shape.
    pub info: TensorInfo,
    /// Its byte range in the file: row-major, little endian.
    pub range: Range<usize>,
}

impl PthFile {
    /// Reads the places of the tensors in a file.
    ///
    /// # Errors
    /// If this is not a file of `torch.save`, is damaged, holds anything but a dictionary of tensors, or holds tensors that
    /// are not contiguous; see [`PthError`].
    pub fn parse(file: &[u8]) -> Result<Self, PthError> {
        if file.starts_with(zip::MAGIC) {
            return Self::archive(file);
        }
        if simmer_files::is_lfs_pointer(file) {
            return Err(PthError::LfsPointer);
        }
        if legacy::is_legacy(file) {
            let tensors = legacy::tensors(file)?;
            return Ok(Self { tensors });
        }
        let found = file.iter().take(8).map(|byte| format!("{byte:02x}"));
        Err(PthError::Format {
            found: found.collect(),
        })
    }

    fn archive(file: &[u8]) -> Result<Self, PthError> {
        let archive = Archive::read(file)?;
        let root = root(&archive)?;
        let entry = |name: &str| archive.entry(&format!("{root}/{name}"));
        if let Some(range) = entry("byteorder")
            && &file[range.clone()] != b"little"
        {
            let found =
                String::from_utf8_lossy(&file[range.start..range.end.min(range.start + 16)]);
            return Err(PthError::ByteOrder {
                found: shown(&found),
            });
        }
        if let Some(range) = entry("version") {
            let text = String::from_utf8_lossy(&file[range.start..range.end.min(range.start + 16)]);
            let version = text.trim().parse().ok();
            if !version.is_some_and(|version| VERSIONS.contains(&version)) {
                return Err(PthError::Version {
                    found: shown(text.trim()),
                });
            }
        }
        let pickle = entry("data.pkl").unwrap_or_default();
        if pickle.len() > MAX_PICKLE {
            return Err(PthError::PickleSize {
                found: pickle.len(),
            });
        }
        // a copy, because structured data must not change while it is parsed
        let pickle = file[pickle].to_vec();
        let state = Pickle::read(&pickle)?;
        let tensors = state.tensors()?.into_iter().map(|(name, tensor)| {
            let key = tensor.storage.key;
            let range = entry(&format!("data/{key}"));
            let storage = range.ok_or_else(|| PthError::StorageMissing {
                tensor: shown(name),
                key: shown(key),
            })?;
            place(name, tensor, storage)
        });
        let tensors = tensors.collect::<Result<_, _>>()?;
        Ok(Self { tensors })
    }

    /// The tensors, in the order of the file.
    pub fn tensors(&self) -> &[PthTensor] {
        &self.tensors
    }

    pub(crate) fn into_tensors(self) -> impl Iterator<Item = PthTensor> {
        self.tensors.into_iter()
    }
}

/// The root folder of the archive; it has the name of the file when it was saved.
fn root(archive: &Archive) -> Result<&str, PthError> {
    let mut roots = archive
        .names()
        .filter_map(|name| name.strip_suffix("/data.pkl"))
        .filter(|root| !root.contains('/'));
    match (roots.next(), roots.next()) {
        (Some(root), None) => Ok(root),
        (None, _) => Err(PthError::NoPickle { found: "no" }),
        _ => Err(PthError::NoPickle {
            found: "more than one",
        }),
    }
}

/// Checks that a tensor is a contiguous part of its storage.
fn place(
    name: &str,
    tensor: &PickledTensor<'_>,
    storage: Range<usize>,
) -> Result<PthTensor, PthError> {
    let dtype = tensor.storage.dtype;
    let width = dtype.bitsize() as u64 / 8;
    if tensor.storage.numel.checked_mul(width) != Some(storage.len() as u64) {
        return Err(PthError::StorageSize {
            tensor: shown(name),
            dtype,
            numel: tensor.storage.numel,
            found: storage.len(),
        });
    }
    let outside = || PthError::Outside {
        tensor: shown(name),
        shape: tensor.shape.clone(),
        offset: tensor.offset,
        numel: tensor.storage.numel,
    };
    let product = |count: u64, size: &u64| count.checked_mul(*size);
    let numel = tensor
        .shape
        .iter()
        .try_fold(1, product)
        .ok_or_else(outside)?;
    let end = tensor.offset.checked_add(numel);
    if end.is_none_or(|end| end > tensor.storage.numel) {
        return Err(outside());
    }
    if !is_contiguous(&tensor.shape, &tensor.stride) {
        return Err(PthError::Strided {
            tensor: shown(name),
            shape: tensor.shape.clone(),
            stride: tensor.stride.clone(),
        });
    }
    // inside the storage, which is mapped: no overflow
    let begin = storage.start + (tensor.offset * width) as usize;
    Ok(PthTensor {
        name: name.to_owned(),
        info: TensorInfo {
            dtype,
            shape: tensor.shape.iter().map(|&size| size as usize).collect(),
        },
        range: begin..begin + (numel * width) as usize,
    })
}

/// Whether a tensor is contiguous and row-major; the stride of a dimension of size 1 has no meaning.
fn is_contiguous(shape: &[u64], stride: &[u64]) -> bool {
    let mut expected = 1;
    let mut sizes = shape.iter().zip(stride).rev();
    shape.contains(&0)
        || sizes.all(|(&size, &stride)| {
            let fits = size == 1 || stride == expected;
            expected *= size;
            fits
        })
}
