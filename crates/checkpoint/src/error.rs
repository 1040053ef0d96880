//! Errors of reading and writing checkpoints.

use std::io;
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use simmer_blocks::BlocksError;
use simmer_files::WriteError;
use simmer_files::size::are;
use simmer_hint::Hint;
use thiserror::Error;

/// Hint for a file that ends too early.
pub(crate) const INCOMPLETE_DOWNLOAD: &str =
    "download the file again; the last download may be incomplete";

/// A checkpoint that cannot be read or written. Messages name the file, the tensor, what was expected and what was found.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The operating system refuses an operation.
    #[error("{}: cannot {action}", path.display())]
    Io {
        /// File or folder.
        path: PathBuf,
        /// The operation, as a verb: "open", "read".
        action: &'static str,
        /// The error of the operating system.
        source: io::Error,
    },
    /// A folder without weights that simmer reads.
    #[error("{}: no model.safetensors and no model.safetensors.index.json in this folder{found}", folder.display())]
    NoWeights {
        /// The folder.
        folder: PathBuf,
        /// What the folder holds instead, as the end of the sentence; may be empty.
        found: String,
    },
    /// A pointer of git-lfs instead of the file.
    #[error("{}: a git-lfs pointer: the file itself was not downloaded", file.display())]
    LfsPointer {
        /// The file.
        file: PathBuf,
    },
    /// A file that is too short for the length field of the header.
    #[error("{}: not a safetensors file: expected at least 8 bytes, found {found}", file.display())]
    FileTooSmall {
        /// The file.
        file: PathBuf,
        /// Its length in bytes.
        found: u64,
    },
    /// A header that is longer than the file.
    #[error(
        "{}: the header should have {declared} bytes, but only {available} follow its length in the file \
         (truncated, or not a safetensors file)", file.display()
    )]
    HeaderLength {
        /// The file.
        file: PathBuf,
        /// Length of the header according to the first 8 bytes.
        declared: u64,
        /// Bytes of the file after the first 8.
        available: u64,
    },
    /// A header that is larger than the format allows.
    #[error("{}: the header should have {declared} bytes; the format allows 100000000", file.display())]
    HeaderTooLarge {
        /// The file.
        file: PathBuf,
        /// Length of the header according to the first 8 bytes.
        declared: u64,
    },
    /// A header that is not the JSON of the format.
    #[error("{}: the header is not valid: {source}", file.display())]
    HeaderJson {
        /// The file.
        file: PathBuf,
        /// The error of the JSON parser, with the tensor's name if it is known.
        source: serde_json::Error,
    },
    /// A duplicate name in a header.
    #[error("{}: duplicate tensor `{tensor}` in the header", file.display())]
    DuplicateName {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// A dtype that the format does not have.
    #[error("{}: tensor `{tensor}`: unknown dtype `{found}`", file.display())]
    UnknownDtype {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// The name in the header.
        found: String,
    },
    /// A shape whose byte length overflows or is not a whole number.
    #[error("{}: tensor `{tensor}`: the length in bytes of {dtype} {shape:?} overflows or is not a whole number", file.display())]
    ShapeOverflow {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its dtype.
        dtype: Dtype,
        /// Its shape.
        shape: Vec<u64>,
    },
    /// Offsets that contradict shape and dtype.
    #[error(
        "{}: tensor `{tensor}`: {dtype} {shape:?} needs {expected} bytes, its offsets \
         {begin}..{end} span {}", file.display(), span(*begin, *end)
    )]
    SizeMismatch {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its dtype.
        dtype: Dtype,
        /// Its shape.
        shape: Vec<usize>,
        /// Bytes of this shape and dtype.
        expected: u64,
        /// Start offset after the header.
        begin: u64,
        /// End offset after the header.
        end: u64,
    },
    /// Overlapping tensors.
    #[error("{}: tensor `{tensor}` starts at byte {begin}, but tensor `{other}` ends at byte {other_end}: they overlap", file.display())]
    Overlap {
        /// The file.
        file: PathBuf,
        /// The tensor that starts too early.
        tensor: String,
        /// Its first byte.
        begin: u64,
        /// The tensor before it.
        other: String,
        /// The end of that tensor.
        other_end: u64,
    },
    /// Unused bytes between two tensors.
    #[error("{}: tensor `{tensor}` starts at byte {found}, expected {expected}: the bytes between are unused", file.display())]
    Hole {
        /// The file.
        file: PathBuf,
        /// The tensor after the hole.
        tensor: String,
        /// The expected start.
        expected: u64,
        /// The start found.
        found: u64,
    },
    /// A file that ends before its last tensor.
    #[error("{}: truncated: expected {expected} bytes, found {found}; the first incomplete tensor is `{tensor}`", file.display())]
    Truncated {
        /// The file.
        file: PathBuf,
        /// The first incomplete tensor.
        tensor: String,
        /// Length of the file in bytes according to the header.
        expected: u64,
        /// Actual length of the file in bytes.
        found: u64,
    },
    /// A file that changed after it was opened.
    #[error("{}: the file changed while it was in use: {before} bytes before, now {now}{}", file.display(), same_length(*before, *now))]
    Changed {
        /// The file.
        file: PathBuf,
        /// Its length in bytes when it was opened.
        before: u64,
        /// Its length in bytes now.
        now: u64,
    },
    /// A file with extra bytes after its last tensor.
    #[error("{}: expected {expected} bytes, found {found}: there are extra bytes after the last tensor", file.display())]
    TrailingBytes {
        /// The file.
        file: PathBuf,
        /// Length of the file in bytes according to the header.
        expected: u64,
        /// Actual length of the file in bytes.
        found: u64,
    },
    /// An index that is not valid JSON.
    #[error("{}: not a valid index: {source}", file.display())]
    IndexJson {
        /// The index file.
        file: PathBuf,
        /// The error of the JSON parser.
        source: serde_json::Error,
    },
    /// An index with a path outside its folder.
    #[error("{}: `{}` is not the name of a file in the same folder", index.display(), shard.escape_debug())]
    ShardOutside {
        /// The index file.
        index: PathBuf,
        /// The name in it.
        shard: String,
    },
    /// Missing shards.
    #[error("{}: {} of {} missing: {}", index.display(), missing.len(), are(*total, "file"), missing.join(", "))]
    ShardsMissing {
        /// The index file.
        index: PathBuf,
        /// The missing ones.
        missing: Vec<String>,
        /// Number of files in the index.
        total: usize,
    },
    /// An index that contradicts the files.
    #[error("{}: the index contradicts the files:{}", index.display(), lines(problems))]
    IndexMismatch {
        /// The index file.
        index: PathBuf,
        /// All contradictions.
        problems: Vec<String>,
    },
    /// A tensor that does not exist.
    #[error("{}: no tensor `{tensor}`{}", path.display(), near(nearest.as_deref()))]
    TensorNotFound {
        /// File or folder.
        path: PathBuf,
        /// The requested name.
        tensor: String,
        /// The most similar name in the file.
        nearest: Option<String>,
    },
    /// A dtype that simmer does not support.
    #[error("{}: tensor `{tensor}`: dtype {dtype} is not supported (F32, F16, BF16, F64, integers and BOOL are)", file.display())]
    UnsupportedDtype {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its dtype.
        dtype: String,
    },
    /// Parts of a quantised tensor that do not make up a matrix.
    #[error("{}: tensor `{tensor}`: {source}", file.display())]
    Quantised {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// What is wrong.
        source: Box<BlocksError>,
    },
    /// A part of a quantised tensor that is missing, or not as the others need it.
    #[error("{}: tensor `{tensor}`: expected {expected}, found {found}", file.display())]
    QuantisedPart {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// What is needed.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A configuration of quantised weights beside plain weights.
    #[error("{}: config.json has `quantization_config`, but no weight is quantised", folder.display())]
    NotQuantised {
        /// The folder.
        folder: PathBuf,
    },
    /// A file or folder cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A tensor that is listed twice for writing.
    #[error("{}: duplicate tensor `{tensor}` in the plan of the output", path.display())]
    WrittenTwice {
        /// The output.
        path: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// More or fewer bytes were written than the tensor has.
    #[error("{}: tensor `{tensor}`: expected {expected} bytes, got {found}", path.display())]
    WrongLength {
        /// The output.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Bytes of its shape and dtype.
        expected: u64,
        /// Bytes given.
        found: u64,
    },
}

impl Hint for CheckpointError {
    fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Write(error) => return error.hint(),
            Self::LfsPointer { .. } => simmer_files::LFS_HINT,
            Self::FileTooSmall { .. }
            | Self::HeaderLength { .. }
            | Self::Truncated { .. }
            | Self::ShardsMissing { .. } => INCOMPLETE_DOWNLOAD,
            Self::HeaderTooLarge { .. } | Self::HeaderJson { .. } => {
                "download the file again; it is damaged, or not a safetensors file"
            }
            Self::Quantised { .. } | Self::QuantisedPart { .. } => {
                "download the model again, or quantise the original again and save it with save_pretrained"
            }
            Self::NotQuantised { .. } => {
                "remove `quantization_config` from config.json to use the weights as they are"
            }
            Self::IndexMismatch { .. } => {
                "download the model again into an empty folder; files of two models may be mixed"
            }
            Self::ShardOutside { .. } => {
                "write the checkpoint again with transformers; an index may only name files in its own folder"
            }
            Self::Changed { .. } => {
                "do not change a model's files while they are in use; write new files under another name and rename them"
            }
            _ => return None,
        };
        Some(text.to_owned())
    }
}

impl CheckpointError {
    /// Converts an error of the operating system; `action` is a verb.
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
        " and a new modification time"
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
