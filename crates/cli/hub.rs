//! Models and adapters by their name on the hub.

use std::path::{Path, PathBuf};

use simmer_model::base::BaseConfig;
use simmer_model::checkpoint::hub::{HubConfig, HubName, Progress, What, fetch};

use crate::{output, progress};

/// What a path is on this disk: itself, or the folder that the model of this name is fetched into.
pub(crate) fn locate(path: &Path, what: What) -> anyhow::Result<PathBuf> {
    if path.exists() {
        return Ok(path.to_owned());
    }
    let name: HubName = path.to_string_lossy().parse()?;
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
    let fetched = fetch(&name, what, &HubConfig::from_env()?, &mut advance);
    bar.finish_and_clear();
    let fetched = fetched?;
    if let Some(note) = fetched.note {
        output::note(&note);
    }
    Ok(fetched.path)
}

/// Finds the tokenizer of a base; its weights only where the tokenizer is theirs.
pub(crate) fn locate_tokenizer(base: &mut BaseConfig) -> anyhow::Result<()> {
    if base.tokenizer.is_some() {
        let tokenizer = base.found_tokenizer().map(|path| locate(path, What::Model));
        let tokenizer = tokenizer.transpose()?;
        base.locate(None, tokenizer);
        return Ok(());
    }
    locate_base(base)
}

/// Finds a base and its tokenizer.
pub(crate) fn locate_base(base: &mut BaseConfig) -> anyhow::Result<()> {
    let found = |path: Option<&Path>| path.map(|path| locate(path, What::Model)).transpose();
    let path = found(base.found_path())?;
    let tokenizer = found(base.found_tokenizer())?;
    base.locate(path, tokenizer);
    Ok(())
}
