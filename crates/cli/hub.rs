//! Models and adapters by their name on the hub.

use std::path::{Path, PathBuf};

use anyhow::Context;
use simmer_checkpoint::hub::{Fetched, HubConfig, HubName, Progress, What, fetch};
use simmer_data::DataConfig;
use simmer_model::base::BaseConfig;

use crate::{output, progress};

/// What the name of a data set may begin with.
const HUB: &str = "hf://datasets/";

/// What a path is on this disk: itself, or the folder that the model of this name is fetched into.
pub(crate) fn locate(path: &Path, what: What) -> anyhow::Result<PathBuf> {
    if path.exists() {
        return Ok(path.to_owned());
    }
    let name: HubName = path.to_string_lossy().parse()?;
    Ok(fetched(&name, what)?.path)
}

/// Fetches something, with a bar.
fn fetched(name: &HubName, what: What) -> anyhow::Result<Fetched> {
    let bar = progress::bytes(0, "fetching");
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
            bar.set_message(format!("{file}: another process is fetching it"));
        }
        Progress::Retrying { error, pause } => bar.suspend(|| {
            output::note(&format!("{error}; again in {} s", pause.as_secs()));
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

/// Finds the files of data sets that are named as on the hub.
pub(crate) fn locate_data(data: &mut DataConfig) -> anyhow::Result<()> {
    for source in data.sources_mut() {
        let text = source.path.to_string_lossy();
        let is_file = simmer_data::file::has_known_ending(&source.path) && !text.starts_with(HUB);
        if source.path.exists() || is_file || text.contains(['*', '?', '[']) {
            continue;
        }
        let named: Result<HubName, _> = text.trim_start_matches(HUB).parse();
        // What is no name is a file that is missing, and reading it says so.
        if let Ok(name) = named {
            let fetched = fetched(&name.of_dataset(), What::Dataset).with_context(|| {
                format!("`{text}` is neither a file here nor a data set that can be fetched")
            })?;
            source.locate(fetched.files);
        }
    }
    Ok(())
}

/// A folder of data: one here, or that of a data set on the hub.
pub(crate) fn locate_folder(path: &Path) -> anyhow::Result<PathBuf> {
    let text = path.to_string_lossy();
    let Some(name) = text.strip_prefix(HUB) else {
        return Ok(path.to_owned());
    };
    let name: HubName = name.parse()?;
    Ok(fetched(&name.of_dataset(), What::Dataset)?.path)
}

/// Finds the tokenizer of a base, without its weights.
pub(crate) fn locate_tokenizer(base: &mut BaseConfig) -> anyhow::Result<()> {
    let found = |path: Option<&Path>| path.map(|path| locate(path, What::Tokenizer)).transpose();
    let tokenizer = found(base.found_tokenizer())?;
    let path = match tokenizer {
        Some(_) => None,
        None => found(base.found_path())?,
    };
    base.locate(path, tokenizer);
    Ok(())
}

/// Finds a base and its tokenizer.
pub(crate) fn locate_base(base: &mut BaseConfig) -> anyhow::Result<()> {
    let found = |path: Option<&Path>| path.map(|path| locate(path, What::Model)).transpose();
    let path = found(base.found_path())?;
    let tokenizer = base
        .found_tokenizer()
        .map(|path| locate(path, What::Tokenizer))
        .transpose()?;
    base.locate(path, tokenizer);
    Ok(())
}
