//! Models, adapters and data sets by their name on the Hugging Face Hub.

use std::path::{Path, PathBuf};

use simmer_checkpoint::hub::{Fetched, HubConfig, HubName, Progress, What, fetch};
use simmer_data::DataConfig;
use simmer_model::base::BaseConfig;

use crate::failure::{Context, Failure};
use crate::{output, progress};

/// The prefix that marks a path as the name of a data set on the hub.
const HUB: &str = "hf://datasets/";

/// The path if it exists; otherwise the folder that the model of this name is downloaded to.
pub(crate) fn locate(path: &Path, what: What) -> Result<PathBuf, Failure> {
    if path.exists() {
        return Ok(path.to_owned());
    }
    let name: HubName = path.to_string_lossy().parse()?;
    Ok(fetched(&name, what)?.path)
}

/// Downloads files, with a progress bar.
fn fetched(name: &HubName, what: What) -> Result<Fetched, Failure> {
    let bar = progress::bytes(0, "downloading");
    let mut advance = |progress: Progress<'_>| match progress {
        Progress::Received {
            file, done, total, ..
        } => {
            bar.set_message(file.to_owned());
            bar.set_length(total);
            bar.set_position(done);
        }
        Progress::Checking { file } => bar.set_message(format!("checking {file}")),
        Progress::Waiting { file } => {
            bar.set_message(format!("waiting: another process is downloading {file}"));
        }
        Progress::Retrying { error, pause } => bar.suspend(|| {
            output::note(&format!("{error}; retrying in {} s", pause.as_secs()));
        }),
    };
    let fetched = fetch(name, what, &HubConfig::from_env()?, &mut advance);
    bar.finish_and_clear();
    let fetched = fetched?;
    if let Some(note) = &fetched.note {
        output::note(note);
    }
    Ok(fetched)
}

/// Downloads the data sets that are given by their name on the hub.
pub(crate) fn locate_data(data: &mut DataConfig) -> Result<(), Failure> {
    for source in data.sources_mut() {
        let text = source.path.to_string_lossy();
        let is_file = simmer_data::file::has_known_ending(&source.path) && !text.starts_with(HUB);
        if source.path.exists() || is_file || text.contains(['*', '?', '[']) {
            continue;
        }
        let named: Result<HubName, _> = text.trim_start_matches(HUB).parse();
        // Otherwise it is a missing file, which is reported when it is read.
        if let Ok(name) = named {
            let fetched = fetched(&name.of_dataset(), What::Dataset).with_context(|| {
                format!("`{text}`: no such file, and no data set of this name could be downloaded")
            })?;
            source.locate(fetched.files);
        }
    }
    Ok(())
}

/// A folder of data: a local one, or that of a data set on the hub.
pub(crate) fn locate_folder(path: &Path) -> Result<PathBuf, Failure> {
    let text = path.to_string_lossy();
    let Some(name) = text.strip_prefix(HUB) else {
        return Ok(path.to_owned());
    };
    let name: HubName = name.parse()?;
    Ok(fetched(&name.of_dataset(), What::Dataset)?.path)
}

/// Finds or downloads the tokenizer of a base model, without its weights.
pub(crate) fn locate_tokenizer(base: &mut BaseConfig) -> Result<(), Failure> {
    let found = |path: Option<&Path>| path.map(|path| locate(path, What::Tokenizer)).transpose();
    let tokenizer = found(base.found_tokenizer())?;
    let path = match tokenizer {
        Some(_) => None,
        None => found(base.found_path())?,
    };
    base.locate(path, tokenizer);
    Ok(())
}

/// Finds or downloads a base model and its tokenizer.
pub(crate) fn locate_base(base: &mut BaseConfig) -> Result<(), Failure> {
    let found = |path: Option<&Path>| path.map(|path| locate(path, What::Model)).transpose();
    let path = found(base.found_path())?;
    let tokenizer = base
        .found_tokenizer()
        .map(|path| locate(path, What::Tokenizer))
        .transpose()?;
    base.locate(path, tokenizer);
    Ok(())
}
