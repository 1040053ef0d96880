//! Why a `config.json` cannot be used.

use std::path::PathBuf;

use simmer_hint::Hint;

/// Why a `config.json` cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// The file is not JSON.
    #[error("{path} is not valid JSON: {source}")]
    Json {
        /// The file.
        path: PathBuf,
        /// The error of the JSON parser.
        source: serde_json::Error,
    },
    /// A key is missing, has the wrong type, or has a value that simmer does not support.
    #[error("{path}: `{key}`: expected {expected}, found {found}")]
    Key {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// What is accepted.
        expected: String,
        /// The value found.
        found: String,
    },
    /// A model that simmer does not read, of a known kind.
    #[error("{path}: `{key}`: {found} is {is}")]
    Refused {
        /// The file.
        path: PathBuf,
        /// The key that shows it.
        key: Box<str>,
        /// The value found, in backticks; or "the model".
        found: Box<str>,
        /// What the model is.
        is: Box<str>,
        /// What to use instead.
        instead: Box<str>,
    },
}

impl Hint for ConfigError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Read { path, .. } if path.with_file_name("adapter_config.json").exists() => Some(
                "this is the folder of an adapter: give its base model as the model, and this folder as the adapter"
                    .to_owned(),
            ),
            Self::Read { path, .. } if path.with_file_name("recipe.toml").exists() => Some(
                "this is the folder of a run: give the base model as the model, and the run's folder `adapter` as the \
                 adapter"
                    .to_owned(),
            ),
            Self::Read { .. } => Some(
                "a model is a Hugging Face folder (config.json, *.safetensors), a Meta folder \
                 (params.json, consolidated.*.pth) or a .gguf file"
                    .to_owned(),
            ),
            Self::Refused { instead, .. } => Some(instead.to_string()),
            Self::Json { .. } | Self::Key { .. } => None,
        }
    }
}
