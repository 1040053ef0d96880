//! Errors of downloads from the hub.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use simmer_files::WriteError;
use simmer_hint::Hint;

use crate::CheckpointError;

/// Why a model cannot be downloaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// A dataset with several parts and no training split.
    #[error("the dataset `{name}` has no training split; its files with rows: {}", if files.is_empty() { "none".to_owned() } else { files.join(", ") })]
    WhichRows {
        /// The dataset.
        name: String,
        /// Its files with rows.
        files: Vec<String>,
    },
    /// A path that does not exist.
    #[error(
        "{path}: no such file or folder{}{}",
        missing.as_ref().map(|missing| format!(" (the folder {} does not exist)", missing.display())).unwrap_or_default(),
        problem.map(|problem| format!(", nor a name on the hub: {problem}")).unwrap_or_default()
    )]
    NoPath {
        /// The given value.
        path: String,
        /// The uppermost of its folders that does not exist.
        missing: Option<PathBuf>,
        /// A path with a similar name.
        nearest: Option<String>,
        /// Whether the value is also a valid name on the hub.
        is_name: bool,
        /// The rule of names on the hub that it violates, if it looks like one.
        problem: Option<&'static str>,
    },
    /// A dataset where a model, an adapter or a tokenizer is expected.
    #[error("`{name}` is a dataset on the hub; expected a model, an adapter or a tokenizer")]
    IsDataset {
        /// The given value.
        name: String,
    },
    /// Not a valid name on the hub.
    #[error("`{name}` is not a name on the hub: {problem}")]
    Name {
        /// The given value.
        name: String,
        /// The violated rule.
        problem: &'static str,
    },
    /// A token that is not valid in a request header.
    #[error("{from}: expected an access token, one word of ASCII characters")]
    Token {
        /// The variable or file.
        from: String,
    },
    /// No folder for the cache.
    #[error("no folder for the cache of models: the home folder is unknown")]
    NoHome,
    /// `HF_ENDPOINT` is not an address.
    #[error("HF_ENDPOINT is `{endpoint}`: {problem}")]
    Endpoint {
        /// The given value.
        endpoint: String,
        /// The error.
        problem: &'static str,
    },
    /// The hub does not answer.
    #[error("cannot reach {host}: {reason}")]
    Unreachable {
        /// The host.
        host: String,
        /// The error of the network.
        reason: String,
        /// Whether no connection was made; otherwise it was interrupted.
        down: bool,
    },
    /// The connection was lost during a download.
    #[error("{file}: the download stopped after {done} of {size} bytes: {reason}")]
    Interrupted {
        /// The file.
        file: String,
        /// Bytes on disk, from which the next attempt resumes.
        done: u64,
        /// Size of the file in bytes.
        size: u64,
        /// The error of the network.
        reason: String,
    },
    /// The user has disabled requests.
    #[error("HF_HUB_OFFLINE is set")]
    Offline,
    /// The hub is not available, and the cache has no complete copy.
    #[error("{why}, and {} has no complete copy of `{name}`: {missing}", cache.display())]
    NotCached {
        /// The model.
        name: String,
        /// Folder of the cache.
        cache: PathBuf,
        /// What the copy lacks.
        missing: String,
        /// Why the hub is not available.
        why: Box<HubError>,
    },
    /// The model does not exist.
    #[error("the model `{name}` does not exist at {endpoint}{}", near(nearest.as_deref()))]
    NotFound {
        /// The model.
        name: String,
        /// The hub.
        endpoint: String,
        /// A model in the cache with a similar name.
        nearest: Option<String>,
    },
    /// The revision does not exist.
    #[error("`{name}` has no branch, tag or commit `{revision}`")]
    NoRevision {
        /// The model.
        name: String,
        /// The given value.
        revision: String,
    },
    /// Access to the model is restricted.
    #[error("{endpoint} denies access to `{name}`: {}", refusal(*gated, *token))]
    Denied {
        /// The model.
        name: String,
        /// The hub.
        endpoint: String,
        /// Whether its licence must be accepted first.
        gated: bool,
        /// Whether a token was sent.
        token: bool,
    },
    /// Another HTTP status.
    #[error("{url}: the server answers {status}{}", said.as_ref().map(|said| format!(" ({said})")).unwrap_or_default())]
    Status {
        /// The requested address.
        url: String,
        /// HTTP status.
        status: u16,
        /// The server's message.
        said: Option<String>,
        /// The pause that the server requests.
        retry_after: Option<Duration>,
    },
    /// An answer that violates the hub's API.
    #[error("{url}: {problem}")]
    Answer {
        /// The requested address.
        url: String,
        /// The problem.
        problem: String,
    },
    /// A list of files with a path outside the model's folder.
    #[error(
        "`{name}` is refused: the server lists the file {file:?}, which is not a plain relative path"
    )]
    FileName {
        /// The model.
        name: String,
        /// The listed path.
        file: String,
    },
    /// No weights that simmer reads.
    #[error("`{name}` has no {wanted}{found}")]
    NoModel {
        /// The model.
        name: String,
        /// The expected files.
        wanted: String,
        /// What the model has instead, as the end of the sentence.
        found: String,
    },
    /// The requested file does not exist.
    #[error("`{name}` has no file `{file}`{}{}", near(nearest.as_deref()), among(files))]
    NoFile {
        /// The model.
        name: String,
        /// The given value.
        file: String,
        /// A file with a similar name.
        nearest: Option<String>,
        /// The model's `.gguf` files.
        files: Vec<String>,
    },
    /// A downloaded file with a wrong checksum.
    #[error(
        "{file}: wrong checksum after the download: expected {algorithm} {expected}, found {found}"
    )]
    Checksum {
        /// The file.
        file: String,
        /// The algorithm of the checksum.
        algorithm: &'static str,
        /// The checksum on the hub.
        expected: String,
        /// The checksum of the download.
        found: String,
    },
    /// The operating system refuses an operation.
    #[error("{}: cannot {action}", path.display())]
    Io {
        /// File or folder.
        path: PathBuf,
        /// The operation, as a verb.
        action: &'static str,
        /// The error of the operating system.
        source: io::Error,
    },
    /// A file of the cache cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A downloaded index cannot be read.
    #[error(transparent)]
    Index(#[from] CheckpointError),
}

impl Hint for HubError {
    fn hint(&self) -> Option<String> {
        let text = match self {
            Self::NoPath {
                path,
                nearest,
                is_name,
                ..
            } => return Some(of_missing(path, nearest.as_deref(), *is_name)),
            Self::Name { .. } => {
                "write a name on the hub as hf://ORG/NAME, ORG/NAME@REVISION or ORG/NAME:FILE.gguf, and a local folder as ./FOLDER"
            }
            Self::Token { .. } => {
                "create a token in the hub's settings, and set HF_TOKEN or run `hf auth login`"
            }
            Self::WhichRows { .. } => "choose one of the files: ORG/NAME:FILE",
            Self::NoHome => "set HF_HOME to a folder",
            Self::Endpoint { .. } => "set HF_ENDPOINT to an address such as https://huggingface.co",
            Self::Unreachable { reason, .. } if is_of_certificates(reason) => {
                "set SSL_CERT_FILE to the certificates of your network; this machine does not trust the server's certificate"
            }
            Self::Unreachable { .. } => {
                "check the network; behind a firewall set HTTPS_PROXY, or HF_ENDPOINT to a mirror; or download the model on another machine and give its folder"
            }
            Self::Interrupted { .. } => "run the command again to resume the download",
            Self::Offline => {
                "unset HF_HUB_OFFLINE to download, or download the model on another machine and give its folder"
            }
            Self::NotCached { why, .. } => return why.hint(),
            Self::NotFound { .. } => "check the name on the hub; for a private model set HF_TOKEN",
            Self::Denied {
                gated: true,
                endpoint,
                name,
                token,
            } => {
                let then = if *token {
                    ""
                } else {
                    ", then set HF_TOKEN or run `hf auth login`"
                };
                return Some(format!("accept the licence at {endpoint}/{name}{then}"));
            }
            Self::Denied { token: true, .. } => {
                "check the token in HF_TOKEN or of `hf auth login`; it may be wrong or expired, or have no access to this model"
            }
            Self::Denied { .. } => {
                "check the spelling; for a private or gated model set HF_TOKEN or run `hf auth login`"
            }
            Self::Status {
                status: 429 | 500..=599,
                ..
            } => "the server is busy or down; run the command again later",
            Self::NoModel { found, .. } if found.contains(".gguf") => {
                "choose one of the files: ORG/NAME:FILE.gguf"
            }
            Self::FileName { .. } => "do not trust this server; the hub never lists such a path",
            Self::Checksum { .. } => {
                "run the command again; nothing was kept. If it happens again, the mirror or a proxy changes files"
            }
            Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                "free some space or set HF_HOME to another disk, and run the command again to resume the download"
            }
            Self::Write(error) => return error.hint(),
            Self::Index(error) => return error.hint(),
            _ => return None,
        };
        Some(text.to_owned())
    }
}

impl HubError {
    /// Whether a retry may succeed; `known` means that the hub has answered before.
    pub(super) fn is_transient(&self, known: bool) -> bool {
        match self {
            Self::Interrupted { .. } => true,
            Self::Unreachable { reason, down, .. } => {
                (known || !down) && !is_of_certificates(reason)
            }
            Self::Status { status, .. } => matches!(status, 408 | 429 | 500..=599),
            _ => false,
        }
    }

    /// Whether a copy in the cache may be used instead.
    pub(super) fn leaves_the_cache(&self) -> bool {
        matches!(
            self,
            Self::Offline | Self::Unreachable { .. } | Self::Denied { .. }
        ) || self.is_transient(true)
    }

    pub(super) fn io(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_path_buf();
        move |source| Self::Io {
            path,
            action,
            source,
        }
    }
}

/// Whether the cause is an untrusted certificate.
fn is_of_certificates(reason: &str) -> bool {
    reason.contains("certificate")
}

/// What to do about a path that does not exist.
fn of_missing(path: &str, nearest: Option<&str>, is_name: bool) -> String {
    if let Some(nearest) = nearest {
        return format!("did you mean {nearest}?");
    }
    if path.starts_with('~') {
        return "write the whole path: only a shell replaces `~`, and only at the start of a word"
            .to_owned();
    }
    if is_name {
        return format!(
            "paths are relative to the current folder; for the name on the Hugging Face Hub write hf://{path}"
        );
    }
    "check the path, which is relative to the current folder; a name on the Hugging Face Hub is written hf://ORG/NAME"
        .to_owned()
}

fn near(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |name| format!("; the nearest is `{name}`"))
}

fn among(files: &[String]) -> String {
    if files.is_empty() {
        String::new()
    } else {
        format!("; it has {}", files.join(", "))
    }
}

fn refusal(gated: bool, token: bool) -> &'static str {
    match (gated, token) {
        (true, _) => "its licence must be accepted first",
        (false, true) => "the token does not grant access",
        (false, false) => "the model does not exist or is not public",
    }
}
