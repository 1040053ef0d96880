//! What can go wrong between here and the hub.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use simmer_files::WriteError;
use simmer_hint::Hint;

use crate::CheckpointError;

/// Why a model could not be fetched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// A data set of several parts, none of which is the training split.
    #[error("which rows of `{name}`? Its files are {}", if files.is_empty() { "none with rows".to_owned() } else { files.join(", ") })]
    WhichRows {
        /// The data set.
        name: String,
        /// Its files with rows.
        files: Vec<String>,
    },
    /// Neither something on this disk nor something that could be on the hub.
    #[error("`{name}` is neither a file or folder here nor a name on the hub: {problem}")]
    Name {
        /// As given.
        name: String,
        /// The rule it breaks.
        problem: &'static str,
    },
    /// A token that no request could carry.
    #[error("{from} does not hold an access token, which is one word of plain characters")]
    Token {
        /// The variable or the file.
        from: String,
    },
    /// Nowhere to put a cache.
    #[error("no place for the cache of models: there is no home folder")]
    NoHome,
    /// `HF_ENDPOINT` is not an address.
    #[error("HF_ENDPOINT is `{endpoint}`: {problem}")]
    Endpoint {
        /// As given.
        endpoint: String,
        /// The error.
        problem: &'static str,
    },
    /// No answer.
    #[error("cannot reach {host}: {reason}")]
    Unreachable {
        /// Whose answer it was that did not come.
        host: String,
        /// What the network says.
        reason: String,
        /// Whether there was no connection at all, rather than one that broke.
        down: bool,
    },
    /// The connection broke within a file.
    #[error("{file}: the download broke off after {done} of {size} bytes: {reason}")]
    Interrupted {
        /// The file.
        file: String,
        /// Bytes that are here, for the next attempt.
        done: u64,
        /// Bytes of the whole file.
        size: u64,
        /// What the network says.
        reason: String,
    },
    /// Requests are not wanted.
    #[error("HF_HUB_OFFLINE is set")]
    Offline,
    /// The hub was not asked or did not answer, and the cache does not have it either.
    #[error("{why}, and {} has no complete copy of `{name}`: {missing}", cache.display())]
    NotCached {
        /// The model.
        name: String,
        /// Folder of the cache.
        cache: PathBuf,
        /// What a complete copy would have.
        missing: String,
        /// Why the hub could not help.
        why: Box<HubError>,
    },
    /// No such model.
    #[error("there is no model `{name}` at {endpoint}, and no such folder here{}", near(nearest.as_deref()))]
    NotFound {
        /// The model.
        name: String,
        /// The hub.
        endpoint: String,
        /// One with a similar name, which the cache has.
        nearest: Option<String>,
    },
    /// No such branch, tag or commit.
    #[error("`{name}` has no branch, tag or commit `{revision}`")]
    NoRevision {
        /// The model.
        name: String,
        /// As given.
        revision: String,
    },
    /// The hub does not give this model to everybody.
    #[error("{endpoint} refuses `{name}`: {}", refusal(*gated, *token))]
    Denied {
        /// The model.
        name: String,
        /// The hub.
        endpoint: String,
        /// Whether a licence has to be accepted first.
        gated: bool,
        /// Whether a token was sent.
        token: bool,
    },
    /// Any other answer that is not the file.
    #[error("{url}: the server answers {status}{}", said.as_ref().map(|said| format!(" ({said})")).unwrap_or_default())]
    Status {
        /// What was asked for.
        url: String,
        /// HTTP status.
        status: u16,
        /// The server's own words.
        said: Option<String>,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// An answer that is not what the hub's interface says.
    #[error("{url}: {problem}")]
    Answer {
        /// What was asked for.
        url: String,
        /// The problem.
        problem: String,
    },
    /// A list of files that names one outside the model's folder.
    #[error(
        "`{name}` is refused: the server lists the file {file:?}, which is not a plain relative path"
    )]
    FileName {
        /// The model.
        name: String,
        /// As listed.
        file: String,
    },
    /// No weights that simmer reads.
    #[error("`{name}` has no {wanted}{found}")]
    NoModel {
        /// The model.
        name: String,
        /// What was looked for.
        wanted: String,
        /// What is there instead, as the end of the sentence.
        found: String,
    },
    /// The one file that was asked for is not there.
    #[error("`{name}` has no file `{file}`{}{}", near(nearest.as_deref()), among(files))]
    NoFile {
        /// The model.
        name: String,
        /// As given.
        file: String,
        /// One with a similar name.
        nearest: Option<String>,
        /// The `.gguf` files it has.
        files: Vec<String>,
    },
    /// A file that arrived, and is not the one that was sent off.
    #[error(
        "{file}: wrong checksum after the download: expected {algorithm} {expected}, found {found}"
    )]
    Checksum {
        /// The file.
        file: String,
        /// Of the checksum.
        algorithm: &'static str,
        /// What the hub says.
        expected: String,
        /// What arrived.
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
    /// A file of the cache could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A downloaded index cannot be read.
    #[error(transparent)]
    Index(#[from] CheckpointError),
}

impl Hint for HubError {
    fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Name { .. } => {
                "a name on the hub is ORG/NAME, ORG/NAME@REVISION or ORG/NAME:FILE.gguf; write a folder's path as ./FOLDER"
            }
            Self::Token { .. } => {
                "make a token in the hub's settings, and set HF_TOKEN or run `hf auth login`"
            }
            Self::WhichRows { .. } => "name one of them: ORG/NAME:FILE",
            Self::NoHome => "set HF_HOME to a folder",
            Self::Endpoint { .. } => "it is an address such as https://huggingface.co",
            Self::Unreachable { reason, .. } if is_of_certificates(reason) => {
                "this machine does not trust the server's certificate; name the file of your network's own in SSL_CERT_FILE"
            }
            Self::Unreachable { .. } => {
                "check the network; behind a firewall set HTTPS_PROXY, or HF_ENDPOINT to a mirror; or fetch the model on another machine and give its folder"
            }
            Self::Interrupted { .. } => {
                "run the command again: it goes on where the download stopped"
            }
            Self::Offline => {
                "unset HF_HUB_OFFLINE to download, or fetch the model on another machine and give its folder"
            }
            Self::NotCached { why, .. } => return why.hint(),
            Self::NotFound { .. } => {
                "look for the name on the hub; a private model needs a token in HF_TOKEN"
            }
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
                "the token in HF_TOKEN, or of `hf auth login`, may be wrong or expired, or not allow this model"
            }
            Self::Denied { .. } => {
                "check the spelling; for a private or gated model set HF_TOKEN or run `hf auth login`"
            }
            Self::Status {
                status: 429 | 500..=599,
                ..
            } => "the server is busy or down; run the command again later",
            Self::NoModel { found, .. } if found.contains(".gguf") => {
                "name one of them: ORG/NAME:FILE.gguf"
            }
            Self::FileName { .. } => "no hub lists such a file; do not trust this server",
            Self::Checksum { .. } => {
                "nothing of it was kept; run the command again, and if it happens again the mirror or a proxy changes files"
            }
            Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                "free some space or set HF_HOME to another disk, and run the command again: it goes on where it stopped"
            }
            Self::Write(error) => return error.hint(),
            Self::Index(error) => return error.hint(),
            _ => return None,
        };
        Some(text.to_owned())
    }
}

impl HubError {
    /// Whether another attempt may fare better; `known` is a hub that has answered before.
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

    /// Whether a copy that is here may stand in for what the hub would say.
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

/// Whether it is the server's certificate that is not trusted.
fn is_of_certificates(reason: &str) -> bool {
    reason.contains("certificate")
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
        (true, _) => "its licence has to be accepted first",
        (false, true) => "the token that was sent does not open it",
        (false, false) => "there is no such model, or it is not public",
    }
}
