//! Reads the tensors and the configuration of an adapter of any format.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use simmer_checkpoint::Tensor;

use crate::adapter::config::CONFIG_FILE;
use crate::adapter::peft::WEIGHTS_FILE;
use crate::adapter::weights::{AdapterWeights, find};
use crate::adapter::{AdapterConfig, AdapterError, mlx};

/// An adapter on disk.
pub(super) struct AdapterFile {
    /// The weight file.
    pub(super) path: PathBuf,
    /// `None` if there is no adapter_config.json next to the weights.
    pub(super) config: Option<AdapterConfig>,
    pub(super) tensors: BTreeMap<String, Tensor>,
    pub(super) warnings: Vec<String>,
}

impl AdapterFile {
    /// Opens the folder or the weight file of an adapter.
    pub(super) fn open(path: &Path) -> Result<Self, AdapterError> {
        let weights = weights_path(path)?;
        let config = weights.with_file_name(CONFIG_FILE);
        let described = config
            .exists()
            .then(|| AdapterConfig::describe(&config))
            .transpose()?;
        let beside = described.as_ref().map(|(config, _)| config);
        let read = AdapterWeights::open(&weights, beside)?;
        let (mut config, mut warnings) = if let Some((config, warnings)) = described {
            (Some(config), warnings)
        } else if let Some(config) = read.config() {
            (Some(config.clone()), Vec::new())
        } else {
            let warning = format!(
                "no {CONFIG_FILE} next to {}: alpha is unknown, and updates are shown as B·A, with scale 1",
                weights.display()
            );
            (None, vec![warning])
        };
        if let Some(config) = config.as_mut().filter(|_| mlx::is_file(&weights)) {
            config.target_modules = Some(mlx::targets(&read));
        }
        let (tensors, notes) = read.into_parts();
        warnings.extend(notes);
        Ok(Self {
            config,
            tensors,
            path: weights,
            warnings,
        })
    }
}

/// The weight file of an adapter: that in the folder `path`, or the file `path` itself.
///
/// # Errors
/// If the folder has no weight file.
pub fn weights_path(path: &Path) -> Result<PathBuf, AdapterError> {
    if path.is_file() {
        return Ok(path.to_owned());
    }
    let mut entries = fs::read_dir(path).map_err(AdapterError::io(path, "open folder"))?;
    find(path).ok_or_else(|| AdapterError::NotAnAdapter {
        folder: path.into(),
        missing: WEIGHTS_FILE,
        found: match entries.next() {
            None => "; it is empty".to_owned(),
            Some(_) => crate::adapter::peft::what_is_there(path),
        },
    })
}
