//! Errors of `.pth` files.

use simmer_hint::Hint;

use crate::Dtype;
use crate::error::INCOMPLETE_DOWNLOAD;
use crate::pickle::PickleError;

/// Why a `.pth` file cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PthError {
    /// Neither an archive nor an old file of `torch.save`.
    #[error("not a file of torch.save: expected a zip archive, found bytes {found}")]
    Format {
        /// Its first bytes, in hexadecimal.
        found: String,
    },
    /// A pointer of git-lfs instead of the file.
    #[error("a git-lfs pointer: the file itself was not downloaded")]
    LfsPointer,
    /// An archive with contradictory tables.
    #[error("the zip archive is damaged: {what}{}", within(entry))]
    Zip {
        /// The problem.
        what: &'static str,
        /// The entry, if the problem is that of one; may be empty.
        entry: String,
    },
    /// An entry that is compressed or encrypted; those of torch never are.
    #[error("entry `{entry}` of the zip archive is {how}; torch.save stores entries uncompressed")]
    Packed {
        /// The entry.
        entry: String,
        /// "compressed".
        how: &'static str,
    },
    /// An archive with other contents.
    #[error("a zip archive with {found} data.pkl; torch.save writes one")]
    NoPickle {
        /// "no".
        found: &'static str,
    },
    /// Tensors of a big-endian machine.
    #[error("byte order `{found}`; only little endian is supported")]
    ByteOrder {
        /// The value in the file.
        found: String,
    },
    /// A version of the layout that PyTorch does not have.
    #[error("version `{found}` of the archive layout; expected 1 to 10")]
    Version {
        /// The value in the file.
        found: String,
    },
    /// A pickle that is larger than that of any state dict.
    #[error("data.pkl has {found} bytes, more than the state dict of any model")]
    PickleSize {
        /// Its length in bytes.
        found: usize,
    },
    /// The pickle does not hold tensors only.
    #[error("its pickle {0}")]
    Pickle(#[from] PickleError),
    /// A damaged file of an old version.
    #[error("a damaged file of torch.save before PyTorch 1.6: byte {at}: {what}")]
    Legacy {
        /// The byte offset.
        at: usize,
        /// The problem.
        what: &'static str,
    },
    /// A tensor whose storage is missing.
    #[error("tensor `{tensor}`: no storage `{key}` in the file")]
    StorageMissing {
        /// The tensor.
        tensor: String,
        /// The key of its storage.
        key: String,
    },
    /// A storage whose length contradicts the pickle.
    #[error("tensor `{tensor}`: its storage with {numel} {dtype} elements has {found} bytes")]
    StorageSize {
        /// The tensor.
        tensor: String,
        /// The storage's dtype.
        dtype: Dtype,
        /// Its expected number of elements.
        numel: u64,
        /// Its length in bytes.
        found: usize,
    },
    /// A tensor that exceeds its storage.
    #[error(
        "tensor `{tensor}`: shape {shape:?} at element {offset} exceeds its storage with {numel} elements"
    )]
    Outside {
        /// The tensor.
        tensor: String,
        /// Its shape.
        shape: Vec<u64>,
        /// Offset of its first element in the storage.
        offset: u64,
        /// Elements of the storage.
        numel: u64,
    },
    /// A view that is not contiguous, such as a transposed one.
    #[error("tensor `{tensor}`: not contiguous (shape {shape:?}, strides {stride:?})")]
    Strided {
        /// The tensor.
        tensor: String,
        /// Its shape.
        shape: Vec<u64>,
        /// Its strides.
        stride: Vec<u64>,
    },
}

impl Hint for PthError {
    fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Pickle(source) => return source.hint(),
            Self::LfsPointer => simmer_files::LFS_HINT,
            Self::Zip { .. } | Self::Legacy { .. } | Self::StorageMissing { .. } => {
                INCOMPLETE_DOWNLOAD
            }
            Self::Strided { .. } => {
                "save `tensor.contiguous()` of each tensor; the file holds views of larger tensors"
            }
            Self::Packed { .. } => {
                "download the original file; another program has compressed this one"
            }
            _ => return None,
        };
        Some(text.to_owned())
    }
}

fn within(entry: &str) -> String {
    if entry.is_empty() {
        String::new()
    } else {
        format!(" (entry `{entry}`)")
    }
}
