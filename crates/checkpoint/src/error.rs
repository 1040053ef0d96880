//! What can be wrong with the files of a checkpoint.

use std::io;
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use thiserror::Error;

/// A checkpoint that cannot be read or written: which file, which tensor, what was expected, what
/// was found.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The operating system refused something.
    #[error("{}: cannot {action}", path.display())]
    Io {
        /// File or folder.
        path: PathBuf,
        /// What was tried, as a verb: "open", "write".
        action: &'static str,
        /// Its answer.
        source: io::Error,
    },
    /// A folder without weights that can be read.
    #[error("{}: no model.safetensors and no model.safetensors.index.json in this folder{found}", folder.display())]
    NoWeights {
        /// The folder.
        folder: PathBuf,
        /// What is there instead, as the end of the sentence; empty when nothing is.
        found: String,
    },
    /// A file too short for the length of a header.
    #[error("{}: not a safetensors file: expected at least 8 bytes, found {found}", file.display())]
    FileTooSmall {
        /// The file.
        file: PathBuf,
        /// Its length in bytes.
        found: u64,
    },
    /// A header that claims more bytes than the file has.
    #[error(
        "{}: the header claims {declared} bytes, but only {available} follow it in the file \
         (truncated, or not a safetensors file)", file.display()
    )]
    HeaderLength {
        /// The file.
        file: PathBuf,
        /// Length of the header that the first 8 bytes declare.
        declared: u64,
        /// Bytes of the file after those 8.
        available: u64,
    },
    /// A header larger than any that the format allows.
    #[error("{}: the header claims {declared} bytes; the format allows 100000000", file.display())]
    HeaderTooLarge {
        /// The file.
        file: PathBuf,
        /// Length of the header that the first 8 bytes declare.
        declared: u64,
    },
    /// A header that is not the JSON the format asks for.
    #[error("{}: the header is not valid: {source}", file.display())]
    HeaderJson {
        /// The file.
        file: PathBuf,
        /// What the parser says, with the tensor's name where it got as far.
        source: serde_json::Error,
    },
    /// The same name twice in one header.
    #[error("{}: tensor `{tensor}` is in the header twice", file.display())]
    DuplicateName {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// A number type that the format does not have.
    #[error("{}: tensor `{tensor}`: unknown dtype `{found}`", file.display())]
    UnknownDtype {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// The name in the header.
        found: String,
    },
    /// A shape whose byte length overflows, or is no whole number of bytes.
    #[error("{}: tensor `{tensor}`: {dtype} {shape:?} has no valid length in bytes", file.display())]
    ShapeOverflow {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its number type.
        dtype: Dtype,
        /// Its shape.
        shape: Vec<u64>,
    },
    /// Offsets that do not span what shape and dtype need.
    #[error(
        "{}: tensor `{tensor}`: {dtype} {shape:?} needs {expected} bytes, its offsets \
         {begin}..{end} span {}", file.display(), span(*begin, *end)
    )]
    SizeMismatch {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its number type.
        dtype: Dtype,
        /// Its shape.
        shape: Vec<usize>,
        /// Bytes that these need.
        expected: u64,
        /// First byte after the header, as declared.
        begin: u64,
        /// Byte after the last, as declared.
        end: u64,
    },
    /// Two tensors that share bytes.
    #[error("{}: tensor `{tensor}` begins at byte {begin}, inside of `{other}`, which ends at {other_end}", file.display())]
    Overlap {
        /// The file.
        file: PathBuf,
        /// The tensor that begins too early.
        tensor: String,
        /// Its first byte.
        begin: u64,
        /// The tensor before it.
        other: String,
        /// Where that one ends.
        other_end: u64,
    },
    /// Bytes between two tensors that belong to neither.
    #[error("{}: tensor `{tensor}` begins at byte {found}, expected {expected}: the bytes between belong to no tensor", file.display())]
    Hole {
        /// The file.
        file: PathBuf,
        /// The tensor after the hole.
        tensor: String,
        /// Where it should begin.
        expected: u64,
        /// Where it begins.
        found: u64,
    },
    /// A file that ends before its last tensor does.
    #[error("{}: truncated: expected {expected} bytes, found {found}; the first tensor cut is `{tensor}`", file.display())]
    Truncated {
        /// The file.
        file: PathBuf,
        /// The first tensor whose bytes are not all there.
        tensor: String,
        /// Length in bytes that the header describes.
        expected: u64,
        /// Length of the file.
        found: u64,
    },
    /// A file that was changed after it was opened.
    #[error("{}: changed while it was in use: it had {before} bytes, now {now}{}", file.display(), same_length(*before, *now))]
    Changed {
        /// The file.
        file: PathBuf,
        /// Its length when it was opened.
        before: u64,
        /// Its length now.
        now: u64,
    },
    /// A file that goes on after its last tensor.
    #[error("{}: expected {expected} bytes, found {found}: the rest belongs to no tensor", file.display())]
    TrailingBytes {
        /// The file.
        file: PathBuf,
        /// Length in bytes that the header describes.
        expected: u64,
        /// Length of the file.
        found: u64,
    },
    /// An index that is not the JSON that Hugging Face writes.
    #[error("{}: not a valid index: {source}", file.display())]
    IndexJson {
        /// The index file.
        file: PathBuf,
        /// What the parser says.
        source: serde_json::Error,
    },
    /// An index that names a file in another folder.
    #[error("{}: `{}` is not the name of a file in the same folder", index.display(), shard.escape_debug())]
    ShardOutside {
        /// The index file.
        index: PathBuf,
        /// The name in it.
        shard: String,
    },
    /// Files that the index names and the folder does not have.
    #[error("{}: {} of {total} files are missing: {}", index.display(), missing.len(), missing.join(", "))]
    ShardsMissing {
        /// The index file.
        index: PathBuf,
        /// The missing ones.
        missing: Vec<String>,
        /// How many the index names.
        total: usize,
    },
    /// An index and files that do not agree.
    #[error("{}: index and files do not belong together:{}", index.display(), lines(problems))]
    IndexMismatch {
        /// The index file.
        index: PathBuf,
        /// Each disagreement.
        problems: Vec<String>,
    },
    /// A tensor that was asked for and is not there.
    #[error("{}: no tensor `{tensor}`{}", path.display(), near(nearest.as_deref()))]
    TensorNotFound {
        /// File or folder.
        path: PathBuf,
        /// The name asked for.
        tensor: String,
        /// The most similar name that is there.
        nearest: Option<String>,
    },
    /// A number type that simmer does not compute with.
    #[error("{}: tensor `{tensor}`: dtype {dtype} is not supported (F32, F16, BF16, F64, integers and BOOL are)", file.display())]
    UnsupportedDtype {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its number type.
        dtype: String,
    },
    /// An output that would overwrite something.
    #[error("{}: already exists and is not an empty folder", path.display())]
    OutputExists {
        /// The output.
        path: PathBuf,
    },
    /// A plan for writing that has a tensor twice.
    #[error("{}: tensor `{tensor}` is to be written twice", path.display())]
    WrittenTwice {
        /// The output.
        path: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// More or fewer bytes written than the tensor has.
    #[error("{}: tensor `{tensor}`: expected {expected} bytes, got {found}", path.display())]
    WrongLength {
        /// The output.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Bytes that its shape and dtype need.
        expected: u64,
        /// Bytes given.
        found: u64,
    },
}

impl CheckpointError {
    /// What the person at the keyboard can do about it, where there is something to say.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                "the disk is full; nothing that was there before was changed. Free some space and run the command again"
            }
            Self::FileTooSmall { .. }
            | Self::HeaderLength { .. }
            | Self::Truncated { .. }
            | Self::ShardsMissing { .. } => {
                "a download that did not finish looks like this; fetch the file again"
            }
            Self::HeaderTooLarge { .. } | Self::HeaderJson { .. } => {
                "the file is damaged, or in another format than safetensors"
            }
            Self::IndexMismatch { .. } => {
                "files of two models may be mixed in one folder; fetch the model again into an empty one"
            }
            Self::ShardOutside { .. } => {
                "an index may only name files beside it; this one was not made by the usual tools"
            }
            Self::Changed { .. } => {
                "files of a model must stay as they are while they are used; write a new one aside and rename it into place"
            }
            Self::OutputExists { .. } => "name another folder, or remove this one first",
            _ => return None,
        };
        Some(text.to_owned())
    }

    /// What the operating system refused: `action` is a verb.
    pub fn io(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_path_buf();
        move |source| Self::Io {
            path,
            action,
            source,
        }
    }
}

fn span(begin: u64, end: u64) -> String {
    match end.checked_sub(begin) {
        Some(bytes) => bytes.to_string(),
        None => "nothing: they are reversed".to_owned(),
    }
}

fn same_length(before: u64, now: u64) -> &'static str {
    if before == now {
        " of a later time"
    } else {
        ""
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

fn near(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |name| format!("; the nearest is `{name}`"))
}
