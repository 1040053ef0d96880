//! Tensors of checkpoint files as Burn's [`TensorData`], and back.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::{AllocationProperty, BoolStore, DType, TensorData};
use simmer_checkpoint::{Checkpoint, CheckpointError, Dtype, SafetensorsFile, Tensor, TensorView};

/// A file or folder from which tensors are read.
pub trait ReadData {
    /// A tensor's data in its stored dtype, without a copy if it is aligned in the file (as in all files that the
    /// reference library writes).
    ///
    /// The memory is shared with the file; a write to the data copies it first.
    ///
    /// # Errors
    ///
    /// If the tensor is missing, or if Burn does not support its dtype.
    fn data(&self, name: &str) -> Result<TensorData, CheckpointError>;
}

impl ReadData for SafetensorsFile {
    fn data(&self, name: &str) -> Result<TensorData, CheckpointError> {
        to_data(self.tensor(name)?, self.path(), name)
    }
}

impl ReadData for Checkpoint {
    fn data(&self, name: &str) -> Result<TensorData, CheckpointError> {
        to_data(self.tensor(name)?, self.path(), name)
    }
}

/// A tensor as Burn's, without a copy if it is aligned; `path` and `name` are for messages.
pub(crate) fn to_data(
    tensor: Tensor,
    path: &Path,
    name: &str,
) -> Result<TensorData, CheckpointError> {
    let dtype = burn_dtype(tensor.dtype)
        .ok_or_else(|| unsupported(path, name, tensor.dtype.to_string()))?;
    let aligned = tensor.bytes.as_ptr().addr().is_multiple_of(dtype.size());
    // the pointer of an empty slice need not be aligned
    let bytes = if aligned && !tensor.bytes.is_empty() {
        burn::tensor::Bytes::from_shared(tensor.bytes, AllocationProperty::File)
    } else {
        burn::tensor::Bytes::from_bytes_vec(tensor.bytes.to_vec())
    };
    Ok(TensorData::from_bytes(bytes, tensor.shape, dtype))
}

/// [`simmer_checkpoint::write_safetensors`] for Burn's tensors.
///
/// # Errors
///
/// Errors of the operating system, and dtypes that safetensors does not have.
pub fn write_safetensors(
    path: impl AsRef<Path>,
    tensors: &BTreeMap<String, TensorData>,
    metadata: &[(&str, &str)],
) -> Result<(), CheckpointError> {
    let path = path.as_ref();
    simmer_checkpoint::write_safetensors(path, &views(path, tensors)?, metadata)
}

/// [`simmer_checkpoint::encode_safetensors`] for Burn's tensors.
///
/// # Errors
///
/// Dtypes that safetensors does not have.
pub fn encode_safetensors(
    path: impl AsRef<Path>,
    tensors: &BTreeMap<String, TensorData>,
    metadata: &[(&str, &str)],
) -> Result<Vec<u8>, CheckpointError> {
    let path = path.as_ref();
    simmer_checkpoint::encode_safetensors(path, &views(path, tensors)?, metadata)
}

fn views<'a>(
    path: &Path,
    tensors: &'a BTreeMap<String, TensorData>,
) -> Result<BTreeMap<String, TensorView<'a>>, CheckpointError> {
    let view = |(name, data): (&String, &'a TensorData)| {
        let dtype = stored_dtype(data.dtype())
            .ok_or_else(|| unsupported(path, name, format!("{:?}", data.dtype())))?;
        let view = TensorView {
            dtype,
            shape: data.shape(),
            bytes: data.as_bytes(),
        };
        Ok((name.clone(), view))
    };
    tensors.iter().map(view).collect()
}

fn unsupported(path: &Path, tensor: &str, dtype: String) -> CheckpointError {
    CheckpointError::UnsupportedDtype {
        file: path.into(),
        tensor: tensor.to_owned(),
        dtype,
    }
}

/// Burn's name of a stored dtype; `None` if Burn does not support it.
pub fn burn_dtype(dtype: Dtype) -> Option<DType> {
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

/// The stored name of one of Burn's dtypes; `None` if safetensors does not have it.
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
    use std::fs;

    use simmer_checkpoint::PT_METADATA;

    use super::*;

    #[test]
    fn data_shares_the_map_and_copies_on_write() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.safetensors");
        let weight = TensorData::new(vec![1.5_f32, -2.0], [2]);
        let tensors = BTreeMap::from([("w".to_owned(), weight.clone())]);
        write_safetensors(&path, &tensors, PT_METADATA).unwrap();
        let before = fs::read(&path).unwrap();
        let file = SafetensorsFile::open(&path).unwrap();
        let data = file.data("w").unwrap();
        assert_eq!(data, weight);
        let mapped = file.bytes("w").unwrap().as_ptr();
        assert_eq!(data.as_bytes().as_ptr(), mapped);

        let (mut bytes, _, _) = data.into_parts();
        bytes.fill(0xff);
        assert_ne!(bytes.as_ptr(), mapped);
        assert_eq!(file.data("w").unwrap(), weight);
        assert_eq!(fs::read(&path).unwrap(), before);
    }

    fn of(header: &str, content: &[u8]) -> (tempfile::TempDir, SafetensorsFile) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.safetensors");
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(content);
        fs::write(&path, bytes).unwrap();
        (dir, SafetensorsFile::open(&path).unwrap())
    }

    #[test]
    fn misaligned_data_is_copied() {
        let header = r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"w":{"dtype":"F32","shape":[1],"data_offsets":[1,5]}}"#;
        let (_dir, file) = of(header, &[0, 0, 0, 0x80, 0x3f]);
        assert_eq!(file.data("w").unwrap(), TensorData::from([1.0_f32]));
    }

    #[test]
    fn a_dtype_without_arithmetic_is_refused_by_name() {
        let header = r#"{"w":{"dtype":"F8_E4M3","shape":[1],"data_offsets":[0,1]}}"#;
        let (dir, file) = of(header, &[0]);
        let message = file.data("w").unwrap_err().to_string();
        let message = message.replace(&dir.path().display().to_string(), "DIR");
        insta::assert_snapshot!(message, @"DIR/m.safetensors: tensor `w`: dtype F8_E4M3 is not supported (F32, F16, BF16, F64, integers and BOOL are)");
    }
}
