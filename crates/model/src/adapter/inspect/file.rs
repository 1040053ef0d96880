//! An adapter's tensors and configuration, whatever wrote them.

use simmer_checkpoint::pth::PthFile;
use simmer_checkpoint::{Bytes, SafetensorsFile, Tensor};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::adapter::config::CONFIG_FILE;
use crate::adapter::peft::WEIGHTS_FILE;
use crate::adapter::{AdapterConfig, AdapterError};

/// The weights' file of early versions of PEFT.
const PICKLED_FILE: &str = "adapter_model.bin";

/// What lies on the disk.
pub(super) struct AdapterFile {
    /// The weights.
    pub(super) path: PathBuf,
    /// `None` where there is none beside the weights.
    pub(super) config: Option<AdapterConfig>,
    pub(super) tensors: BTreeMap<String, Tensor>,
    pub(super) warnings: Vec<String>,
}

impl AdapterFile {
    /// Opens the folder of an adapter, or its weights' file.
    pub(super) fn open(path: &Path) -> Result<Self, AdapterError> {
        let weights = weights_path(path)?;
        let config = weights.with_file_name(CONFIG_FILE);
        let (config, warnings) = if config.exists() {
            let (config, warnings) = AdapterConfig::describe(&config)?;
            (Some(config), warnings)
        } else {
            let warning = format!(
                "there is no {CONFIG_FILE} beside {}: alpha is not known, and updates are shown as B·A, with the scale 1",
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

/// The weights' file of an adapter: that of a folder, or the file itself.
///
/// # Errors
/// A folder without one.
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
