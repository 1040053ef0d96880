//! What can be wrong with a `.pth` file.

use crate::Dtype;
use crate::pickle::PickleError;

/// Why a `.pth` file is not read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PthError {
    /// Neither an archive nor an old file of `torch.save`.
    #[error("not a file of torch.save: expected a zip archive, found bytes {found}")]
    Format {
        /// What it begins with, in hexadecimal.
        found: String,
    },
    /// An archive whose tables do not make sense.
    #[error("the zip archive is damaged: {what}{}", within(entry))]
    Zip {
        /// What is wrong.
        what: &'static str,
        /// The entry, where it is that of one.
        entry: String,
    },
    /// An entry that is compressed or encrypted, which those of torch never are.
    #[error("entry `{entry}` of the zip archive is {how}; torch.save stores entries as they are")]
    Packed {
        /// The entry.
        entry: String,
        /// "compressed".
        how: &'static str,
    },
    /// An archive of something else.
    #[error("a zip archive with {found} data.pkl; torch.save writes one")]
    NoPickle {
        /// "no".
        found: &'static str,
    },
    /// Numbers of a big-endian machine.
    #[error("byte order `{found}`; only little endian is supported")]
    ByteOrder {
        /// As the file says.
        found: String,
    },
    /// A layout that PyTorch does not have yet.
    #[error("version `{found}` of the archive's layout; expected 1 to 10")]
    Version {
        /// As the file says.
        found: String,
    },
    /// A pickle larger than any state dict's.
    #[error("data.pkl has {found} bytes, more than the names of a model's tensors take")]
    PickleSize {
        /// Its length.
        found: usize,
    },
    /// The pickle is not one of tensors.
    #[error("its pickle {0}")]
    Pickle(#[from] PickleError),
    /// An old file whose parts do not make sense.
    #[error("an old file of torch.save that is damaged at byte {at}: {what}")]
    Legacy {
        /// Where.
        at: usize,
        /// What is wrong.
        what: &'static str,
    },
    /// A tensor whose bytes are not in the file.
    #[error("tensor `{tensor}`: no storage `{key}` in the file")]
    StorageMissing {
        /// The tensor.
        tensor: String,
        /// The key of its storage.
        key: String,
    },
    /// A storage that is longer or shorter than the pickle says.
    #[error("tensor `{tensor}`: its storage of {numel} {dtype} has {found} bytes")]
    StorageSize {
        /// The tensor.
        tensor: String,
        /// The storage's number type.
        dtype: Dtype,
        /// How many numbers it should have.
        numel: u64,
        /// Its bytes.
        found: usize,
    },
    /// A tensor that goes beyond its storage.
    #[error(
        "tensor `{tensor}`: {shape:?} from number {offset} does not lie within its storage of {numel}"
    )]
    Outside {
        /// The tensor.
        tensor: String,
        /// Its shape.
        shape: Vec<u64>,
        /// Its first number.
        offset: u64,
        /// Numbers of the storage.
        numel: u64,
    },
    /// A transposed view, or one of some columns.
    #[error(
        "tensor `{tensor}`: its numbers do not lie one after the other (shape {shape:?}, strides {stride:?})"
    )]
    Strided {
        /// The tensor.
        tensor: String,
        /// Its shape.
        shape: Vec<u64>,
        /// Its strides.
        stride: Vec<u64>,
    },
}

impl PthError {
    /// What to do about it, where that is known.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Pickle(source) => source.hint(),
            Self::Zip { .. } | Self::Legacy { .. } | Self::StorageMissing { .. } => {
                Some("a download that did not finish looks like this; fetch the file again")
            }
            Self::Strided { .. } => Some(
                "a view of a larger tensor was saved, all of which is in the file: save `tensor.contiguous()` of each",
            ),
            Self::Packed { .. } => {
                Some("the file was packed again by another program; fetch the original")
            }
            _ => None,
        }
    }
}

fn within(entry: &str) -> String {
    if entry.is_empty() {
        String::new()
    } else {
        format!(" (entry `{entry}`)")
    }
}
