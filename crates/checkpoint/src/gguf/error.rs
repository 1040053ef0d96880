//! What can be wrong with a GGUF file.

use std::io;

use simmer_hint::Hint;
use thiserror::Error;

use super::GgmlType;
use crate::error::INCOMPLETE_DOWNLOAD;

/// A GGUF file that cannot be read or written: which key or tensor, what was expected, what was
/// found. The file's name stands before it where the file is known.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum GgufError {
    /// Another format.
    #[error("not a GGUF file: it begins with {found}, expected \"GGUF\"")]
    Magic {
        /// The first four bytes as text, or what there is of them.
        found: String,
    },
    /// A version before 2 or after 3.
    #[error("GGUF version {found} is not supported; 2 and 3 are")]
    Version {
        /// The version.
        found: u32,
    },
    /// Made for a machine that counts bytes the other way round.
    #[error("big-endian GGUF is not supported")]
    BigEndian,
    /// More entries than any model has.
    #[error("the header counts {found} {what}; at most {limit} are read")]
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
        /// The key or the tensor, by its name or number.
        place: String,
        /// What is wrong there.
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
    /// A tensor of a type that ggml does not have, or no longer.
    #[error("tensor `{tensor}`: {}", unknown_type(*number))]
    UnknownType {
        /// The tensor.
        tensor: String,
        /// The type's number.
        number: u32,
    },
    /// A shape with more dimensions than four, too large, or with rows that are not whole blocks.
    #[error("tensor `{tensor}`: {kind} {shape:?} is no valid shape ({kind} has {} numbers a block)", kind.block_len())]
    Shape {
        /// The tensor.
        tensor: String,
        /// Its dtype.
        kind: GgmlType,
        /// Dimensions, outermost first.
        shape: Vec<u64>,
    },
    /// A tensor that begins where none can.
    #[error(
        "tensor `{tensor}`: its offset {offset} is not a multiple of the alignment {alignment}"
    )]
    Offset {
        /// The tensor.
        tensor: String,
        /// Bytes after the beginning of the data.
        offset: u64,
        /// The file's alignment.
        alignment: u64,
    },
    /// A tensor that the file ends before.
    #[error("truncated: tensor `{tensor}` ends at byte {end}, the file has {found}")]
    Truncated {
        /// The tensor.
        tensor: String,
        /// The byte after its last.
        end: u64,
        /// Bytes of the file.
        found: u64,
    },
    /// Two tensors that share bytes.
    #[error(
        "tensor `{tensor}` begins at byte {begin}, inside of `{other}`, which ends at {other_end}"
    )]
    Overlap {
        /// The tensor that begins too early.
        tensor: String,
        /// Its first byte.
        begin: usize,
        /// The tensor before it.
        other: String,
        /// Where that one ends.
        other_end: usize,
    },
    /// A value of metadata that is absent, of another type, or not one that simmer can use.
    #[error("`{key}`: expected {expected}, found {found}")]
    Key {
        /// The key.
        key: String,
        /// What is accepted.
        expected: String,
        /// The value found.
        found: String,
    },
    /// A number type that cannot be turned into f32, or not be made.
    #[error("{}{kind} (type {}) is not supported; {} are", at(tensor.as_deref()), kind.number(), names(supported))]
    UnsupportedType {
        /// The tensor, where it is known.
        tensor: Option<String>,
        /// The type.
        kind: GgmlType,
        /// Those that are.
        supported: &'static [GgmlType],
    },
    /// As many bytes or numbers as do not fit each other.
    #[error("{kind}: {bytes} bytes for {numbers} numbers; a block is {} numbers in {} bytes", kind.block_len(), kind.block_bytes())]
    Blocks {
        /// The type.
        kind: GgmlType,
        /// Encoded bytes.
        bytes: usize,
        /// Numbers.
        numbers: usize,
    },
    /// A number that is beyond the type it is to be stored as.
    #[error("number {index} is {value}, which {kind} cannot hold")]
    OutOfRange {
        /// The type.
        kind: GgmlType,
        /// Its place among the numbers that were given.
        index: usize,
        /// The number.
        value: f32,
    },
    /// A file of something else than a model of the family.
    #[error("this GGUF file {found}; expected {expected}")]
    NotAModel {
        /// What it is, as a verb's phrase: "holds an adapter".
        found: String,
        /// What is accepted.
        expected: &'static str,
    },
    /// A file of a split model that does not belong where it was found.
    #[error("the file is {found}; expected {expected}")]
    Part {
        /// Which it is.
        found: String,
        /// Which it should be, or its name.
        expected: String,
    },
    /// Tensors that are absent, unknown, or of another shape than the metadata says.
    #[error("tensors and metadata do not belong together:{}", lines(problems))]
    Mismatch {
        /// All contradictions.
        problems: Vec<String>,
    },
    /// Rotary frequencies that no known rule makes.
    #[error("`rope_freqs.weight`: {found}; only Llama 3's rule is known")]
    RopeFactors {
        /// The value found.
        found: String,
    },
    /// A part of an adapter that llama.cpp has no way to apply.
    #[error("`{module}` cannot be written as a GGUF adapter: {reason}")]
    NotForAdapter {
        /// The module or tensor.
        module: String,
        /// Why.
        reason: String,
    },
    /// A model that has no GGUF form.
    #[error("`{key}` {found}: llama.cpp has no such model in its llama architecture")]
    NotForLlama {
        /// The key of the configuration.
        key: &'static str,
        /// Its value.
        found: String,
    },
    /// Data that is not what the table of tensors announced.
    #[error("{found}; expected {expected}")]
    WriteOrder {
        /// What was written.
        found: String,
        /// What the table says.
        expected: String,
    },
    /// The operating system refuses an operation.
    #[error("cannot write")]
    Write(#[from] io::Error),
}

/// What is wrong with the bytes of an entry.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Fault {
    /// The file ends.
    #[error("truncated: needs {needed} more bytes, the file has {available}")]
    Short {
        /// Bytes that the entry asks for.
        needed: u64,
        /// Bytes that are left.
        available: u64,
    },
    /// Text in another encoding.
    #[error("not valid UTF-8")]
    Text,
    /// A type of value that the format does not have.
    #[error("unknown type of value {0}")]
    ValueType(u32),
    /// Arrays in arrays beyond what anyone writes.
    #[error("arrays nested more than {0} deep")]
    Nesting(usize),
    /// A truth value that is neither.
    #[error("a truth value of {0}, expected 0 or 1")]
    Truth(u8),
    /// More dimensions than ggml has.
    #[error("{0} dimensions, expected 4 at most")]
    Dimensions(u32),
}

impl Fault {
    /// The error of this fault at a place.
    pub(super) fn at(self, place: impl Into<String>) -> GgufError {
        GgufError::Malformed {
            place: place.into(),
            fault: self,
        }
    }
}

impl GgufError {
    /// Names the tensor whose type is not supported.
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
            Self::Magic { .. } => "the file is damaged, or in another format than GGUF",
            Self::Version { .. } | Self::BigEndian => {
                "convert the model again with a current llama.cpp on an ordinary machine"
            }
            Self::Malformed { fault, .. } => return fault.hint(),
            Self::Truncated { .. } => INCOMPLETE_DOWNLOAD,
            Self::UnknownType { .. } | Self::UnsupportedType { .. } => {
                "fetch the model in another quantisation, Q8_0 or Q4_K_M for two"
            }
            Self::OutOfRange { .. } => "store it as F32 or BF16",
            Self::NotAModel { found, .. } if found.contains("adapter") => {
                "an adapter stands on a base: name the base model's own file or folder"
            }
            Self::Part { .. } => {
                "the parts of a model lie in one folder, under the names that they were made with: \
                 NAME-00001-of-00003.gguf and so on"
            }
            Self::NotForAdapter { .. } => "merge the adapter and export the merged model",
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
        None => format!("unknown number type {number}"),
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
