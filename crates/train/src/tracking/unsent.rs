//! Why a server does not have a run.

use simmer_hint::Hint;

use crate::error::TrainError;

/// Why something could not be sent to a tracker's server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Unsent {
    /// No connection, or no answer in time.
    #[error("{server} cannot be reached: {reason}")]
    Unreachable {
        /// Scheme, host and port.
        server: String,
        /// The system's message.
        reason: String,
    },
    /// An answer that is an error.
    #[error("{url}: HTTP {status}{}", said.as_ref().map_or_else(String::new, |said| format!(": {said}")))]
    Status {
        /// The request.
        url: String,
        /// The status.
        status: u16,
        /// The server's message.
        said: Option<String>,
        /// The server's name of the error.
        code: Option<String>,
    },
    /// An answer that is not one of this server.
    #[error("{url}: {problem}")]
    Answer {
        /// The request.
        url: String,
        /// What is wrong.
        problem: String,
    },
    /// A file of the run.
    #[error("{0}")]
    File(String),
}

impl Unsent {
    /// Whether the same request may succeed later.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Status { status, .. } => *status >= 500 || *status == 429 || *status == 408,
            Self::Answer { .. } | Self::File(_) => false,
        }
    }

    /// Whether the server does not know what the request names.
    pub(super) fn is_missing(&self) -> bool {
        let known = |code: &Option<String>| code.as_deref() == Some("RESOURCE_DOES_NOT_EXIST");
        matches!(self, Self::Status { code, .. } if known(code))
    }
}

impl From<TrainError> for Unsent {
    fn from(error: TrainError) -> Self {
        Self::File(error.to_string())
    }
}

impl Hint for Unsent {
    fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Status {
                status: 401 | 403, ..
            } => {
                "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
            }
            error if error.is_missing() => {
                "create the experiment, or leave MLFLOW_EXPERIMENT_ID out"
            }
            Self::Answer { .. } | Self::Status { status: 404, .. } => {
                "check that MLFLOW_TRACKING_URI is the address of an MLflow server, without a page of it"
            }
            _ => return None,
        };
        Some(text.to_owned())
    }
}
