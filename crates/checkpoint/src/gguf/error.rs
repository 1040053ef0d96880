//! Errors of GGUF files.

use std::io;

use simmer_files::size::counted;
use simmer_hint::Hint;
use thiserror::Error;

use super::GgmlType;
use crate::error::INCOMPLETE_DOWNLOAD;

/// A GGUF file that cannot be read or written. Messages name the key or tensor, what was expected and what was found;
/// callers that know the file put its path first.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum GgufError {
    /// Another format.
    #[error("not a GGUF file: it starts with {found}, expected \"GGUF\"")]
    Magic {
        /// Up to four of the first bytes, as text.
        found: String,
    },
    /// A pointer of git-lfs instead of the file.
    #[error("a git-lfs pointer: the file itself was not downloaded")]
    LfsPointer,
    /// A version before 2 or after 3.
    #[error("GGUF version {found} is not supported; 2 and 3 are")]
    Version {
        /// The version.
        found: u32,
    },
    /// A file for big-endian machines.
    #[error("big-endian GGUF is not supported")]
    BigEndian,
    /// More entries than any model has.
    #[error("the header has {found} {what}; at most {limit} are supported")]
    TooMany {
        /// "metadata keys" or "tensors".
        what: &'static str,
        /// The count.
        found: u64,
        /// The limit.
        limit: u64,
    },
    /// An entry of metadata or of the table of tensors that cannot be read.
    #[error("{place}: {fault}")]
    Malformed {
        /// The key or tensor, by name or index.
        place: String,
        /// The problem.
        fault: Fault,
    },
    /// A duplicate key or tensor.
    #[error("duplicate {what} `{name}`")]
    Duplicate {
        /// "metadata key" or "tensor".
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// An alignment that no writer uses.
    #[error("`general.alignment`: expected a power of two up to 65536, found {found}")]
    Alignment {
        /// The value.
        found: u64,
    },
    /// A tensor of a type that ggml does not have, or no longer has.
    #[error("tensor `{tensor}`: {}", unknown_type(*number))]
    UnknownType {
        /// The tensor.
        tensor: String,
        /// The type's number.
        number: u32,
    },
    /// A shape with more than four dimensions, too large, or with rows that are not whole blocks.
    #[error("tensor `{tensor}`: {kind} {shape:?} is not a valid shape ({kind} has {} per block)", counted(kind.block_len(), "element"))]
    Shape {
        /// The tensor.
        tensor: String,
        /// Its dtype.
        kind: GgmlType,
        /// Dimensions, outermost first.
        shape: Vec<u64>,
    },
    /// An unaligned tensor.
    #[error(
        "tensor `{tensor}`: its offset {offset} is not a multiple of the alignment {alignment}"
    )]
    Offset {
        /// The tensor.
        tensor: String,
        /// Offset in the data, in bytes.
        offset: u64,
        /// The file's alignment.
        alignment: u64,
    },
    /// A tensor that exceeds the file.
    #[error("truncated: tensor `{tensor}` ends at byte {end}, but the file has {found} bytes")]
    Truncated {
        /// The tensor.
        tensor: String,
        /// Its end.
        end: u64,
        /// Bytes of the file.
        found: u64,
    },
    /// Overlapping tensors.
    #[error(
        "tensor `{tensor}` starts at byte {begin}, but tensor `{other}` ends at byte {other_end}: they overlap"
    )]
    Overlap {
        /// The tensor that starts too early.
        tensor: String,
        /// Its first byte.
        begin: usize,
        /// The tensor before it.
        other: String,
        /// The end of that tensor.
        other_end: usize,
    },
    /// A metadata value that is missing, has another type, or is not supported.
    #[error("`{key}`: expected {expected}, found {found}")]
    Key {
        /// The key.
        key: String,
        /// What is accepted.
        expected: String,
        /// The value found.
        found: String,
    },
    /// A type that simmer cannot dequantise, or cannot write.
    #[error("{}{kind} (type {}) is not supported; {} are", at(tensor.as_deref()), kind.number(), names(supported))]
    UnsupportedType {
        /// The tensor, if it is known.
        tensor: Option<String>,
        /// The type.
        kind: GgmlType,
        /// The supported types.
        supported: &'static [GgmlType],
    },
    /// Numbers of bytes and elements that contradict each other.
    #[error("{kind}: {bytes} bytes for {numbers} elements; a block is {} in {}", counted(kind.block_len(), "element"), counted(kind.block_bytes(), "byte"))]
    Blocks {
        /// The type.
        kind: GgmlType,
        /// Encoded bytes.
        bytes: usize,
        /// Elements.
        numbers: usize,
    },
    /// A value that the type cannot hold.
    #[error("element {index} is {value}, which {kind} cannot hold")]
    OutOfRange {
        /// The type.
        kind: GgmlType,
        /// Its index.
        index: usize,
        /// The value.
        value: f32,
    },
    /// A file that does not hold a model of the family.
    #[error("this GGUF file {found}; expected {expected}")]
    NotAModel {
        /// What it holds, as a verb phrase: "holds an adapter".
        found: String,
        /// What is accepted.
        expected: String,
    },
    /// A file such as llama.cpp's `ggml-vocab-*.gguf`, where weights are needed.
    #[error("this GGUF file holds a vocabulary and no weights")]
    VocabularyOnly,
    /// A wrong part of a split model.
    #[error("the file is {found}; expected {expected}")]
    Part {
        /// The part found.
        found: String,
        /// The expected part or name.
        expected: String,
    },
    /// Tensors that are missing, unknown, or of another shape than in the metadata.
    #[error("the tensors contradict the metadata:{}", lines(problems))]
    Mismatch {
        /// All contradictions.
        problems: Vec<String>,
    },
    /// Rotary frequencies that follow no known rule.
    #[error("`rope_freqs.weight`: {found}; only Llama 3's rule is supported")]
    RopeFactors {
        /// The value found.
        found: String,
    },
    /// A part of an adapter that llama.cpp cannot apply.
    #[error("`{module}` cannot be written as a GGUF adapter: {reason}")]
    NotForAdapter {
        /// The module or tensor.
        module: String,
        /// The reason.
        reason: String,
    },
    /// A model that GGUF cannot express.
    #[error("`{key}` {found}: the {architecture} architecture of llama.cpp does not support this")]
    Inexpressible {
        /// `general.architecture` of the model's family.
        architecture: &'static str,
        /// The key of the configuration.
        key: &'static str,
        /// Its value.
        found: String,
    },
    /// Data that contradicts the table of tensors.
    #[error("{found}; expected {expected}")]
    WriteOrder {
        /// The data written.
        found: String,
        /// The data in the table.
        expected: String,
    },
    /// The operating system refuses an operation.
    #[error("cannot write")]
    Write(#[from] io::Error),
}

/// A problem in the bytes of an entry.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Fault {
    /// The file ends too early.
    #[error("truncated: {needed} more bytes are needed, the file has {available}")]
    Short {
        /// Bytes that the entry needs.
        needed: u64,
        /// Bytes that are left.
        available: u64,
    },
    /// Text in another encoding.
    #[error("not valid UTF-8")]
    Text,
    /// A value type that the format does not have.
    #[error("unknown value type {0}")]
    ValueType(u32),
    /// Arrays that are nested too deeply.
    #[error("arrays nested more than {0} deep")]
    Nesting(usize),
    /// A boolean that is neither 0 nor 1.
    #[error("boolean: expected 0 or 1, found {0}")]
    Truth(u8),
    /// More dimensions than ggml has.
    #[error("expected at most 4 dimensions, found {0}")]
    Dimensions(u32),
}

impl Fault {
    /// The error with this fault at a place.
    pub(super) fn at(self, place: impl Into<String>) -> GgufError {
        GgufError::Malformed {
            place: place.into(),
            fault: self,
        }
    }
}

impl GgufError {
    /// Adds the name of the tensor whose type is not supported.
    pub(super) fn of_tensor(self, name: &str) -> Self {
        match self {
            Self::UnsupportedType {
                kind, supported, ..
            } => Self::UnsupportedType {
                tensor: Some(name.to_owned()),
                kind,
                supported,
            },
            other => other,
        }
    }
}

impl Hint for Fault {
    fn hint(&self) -> Option<String> {
        let cut = matches!(self, Self::Short { .. });
        cut.then(|| INCOMPLETE_DOWNLOAD.to_owned())
    }
}

impl Hint for GgufError {
    fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Magic { .. } => "download the file again; it is damaged, or not a GGUF file",
            Self::LfsPointer => simmer_files::LFS_HINT,
            Self::Version { .. } | Self::BigEndian => {
                "convert the model again with a current llama.cpp on a little-endian machine"
            }
            Self::Malformed { fault, .. } => return fault.hint(),
            Self::Truncated { .. } => INCOMPLETE_DOWNLOAD,
            Self::UnknownType { .. } | Self::UnsupportedType { .. } => {
                "download the model in another quantisation, such as Q8_0 or Q4_K_M"
            }
            Self::OutOfRange { .. } => "store it as F32 or BF16",
            Self::NotAModel { found, .. } if found.contains("adapter") => {
                "give the file or folder of the base model, not of an adapter"
            }
            Self::VocabularyOnly => {
                "give the file of a model with weights; a vocabulary alone can be used as `base.tokenizer`, and \
                 with `simmer tokenizer encode`"
            }
            Self::Part { .. } => {
                "put all parts of the model into one folder under their original names: \
                 NAME-00001-of-00003.gguf and so on"
            }
            Self::NotForAdapter { .. } => "merge the adapter, and convert the merged model",
            Self::Write(source) if source.kind() == io::ErrorKind::StorageFull => {
                "the disk is full; free some space and run the command again"
            }
            _ => return None,
        };
        Some(text.to_owned())
    }
}

/// For writers that may only fail with an [`io::Error`].
impl From<GgufError> for io::Error {
    fn from(error: GgufError) -> Self {
        match error {
            GgufError::Write(source) => source,
            other => Self::other(other),
        }
    }
}

fn unknown_type(number: u32) -> String {
    match GgmlType::removed(number) {
        Some(name) => format!("{name} (type {number}) is no longer part of ggml"),
        None => format!("unknown type {number}"),
    }
}

fn at(tensor: Option<&str>) -> String {
    tensor.map_or_else(String::new, |tensor| format!("tensor `{tensor}`: "))
}

fn names(kinds: &[GgmlType]) -> String {
    let names: Vec<_> = kinds.iter().map(|kind| kind.name()).collect();
    match names.as_slice() {
        [first @ .., last] if !first.is_empty() => format!("{} and {last}", first.join(", ")),
        all => all.join(", "),
    }
}

fn lines(problems: &[String]) -> String {
    let mut text = String::new();
    for problem in problems {
        text.push_str("\n  ");
        text.push_str(problem);
    }
    text
}
