//! Reads the tensors and the configuration of an adapter of any format.

use simmer_checkpoint::pth::PthFile;
use simmer_checkpoint::{Bytes, SafetensorsFile, Tensor};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::adapter::config::CONFIG_FILE;
use crate::adapter::peft::WEIGHTS_FILE;
use crate::adapter::{AdapterConfig, AdapterError};

/// Name of the weight file in early versions of PEFT.
const PICKLED_FILE: &str = "adapter_model.bin";

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
        let (config, warnings) = if config.exists() {
            let (config, warnings) = AdapterConfig::describe(&config)?;
            (Some(config), warnings)
        } else {
            let warning = format!(
                "no {CONFIG_FILE} next to {}: alpha is unknown, and updates are shown as B·A, with scale 1",
                weights.display()
            );
            (None, vec![warning])
        };
        Ok(Self {
            config,
            tensors: tensors(&weights)?,
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
    let known = [WEIGHTS_FILE, PICKLED_FILE];
    let found = known
        .iter()
        .map(|name| path.join(name))
        .find(|file| file.exists());
    found.ok_or_else(|| AdapterError::NotAnAdapter {
        folder: path.into(),
        missing: WEIGHTS_FILE,
        found: match entries.next() {
            None => "; it is empty".to_owned(),
            Some(_) => crate::adapter::peft::what_is_there(path),
        },
    })
}

fn tensors(path: &Path) -> Result<BTreeMap<String, Tensor>, AdapterError> {
    if path
        .extension()
        .is_some_and(|extension| extension == "safetensors")
    {
        let file = SafetensorsFile::open(path)?;
        let read = file
            .names()
            .map(|name| Ok((name.to_owned(), file.tensor(name)?)));
        return read.collect();
    }
    let bytes = Bytes::from(fs::read(path).map_err(AdapterError::io(path, "read"))?);
    let pickled = PthFile::parse(&bytes).map_err(|source| AdapterError::Pickled {
        file: path.into(),
        source,
    })?;
    let tensors = pickled.tensors().iter().map(|tensor| {
        let read = Tensor {
            dtype: tensor.info.dtype,
            shape: tensor.info.shape.clone(),
            bytes: bytes.slice(tensor.range.clone()),
        };
        (tensor.name.clone(), read)
    });
    Ok(tensors.collect())
}
