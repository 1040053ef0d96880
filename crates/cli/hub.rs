//! Models, adapters and data sets by their name on the Hugging Face Hub.

use std::path::{Path, PathBuf};

use simmer_checkpoint::hub::{Fetched, HubConfig, HubError, HubName, Place, Progress, What, fetch};
use simmer_data::DataConfig;
use simmer_model::base::BaseConfig;
use simmer_train::{Method, Recipe};

use crate::failure::{Context, Failure};
use crate::{embedded, output, progress};

/// The path of a model, an adapter or a tokenizer that a user names: a path that exists, the program's own copy of the
/// quickstart's files, or the folder that a name on the hub is downloaded to.
pub(crate) fn locate(path: &Path, what: What) -> Result<PathBuf, Failure> {
    if !path.exists()
        && let Some(copy) = embedded::copy(path)?
    {
        return Ok(copy);
    }
    match Place::of(path)? {
        Place::Local(path) => Ok(path),
        Place::Hub { name, .. } if name.is_dataset() => {
            let name = path.display().to_string();
            Err(HubError::IsDataset { name }.into())
        }
        Place::Hub { name, explicit } => Ok(looked_for(path, &name, explicit, what)?.path),
    }
}

/// Downloads a name on the hub. If it is not marked as one, an error first says that there is no such path.
fn looked_for(
    given: &Path,
    name: &HubName,
    explicit: bool,
    what: What,
) -> Result<Fetched, Failure> {
    let found = fetched(name, what);
    if explicit {
        return found;
    }
    found.with_context(|| {
        format!(
            "{}: no such file or folder here, and it could not be downloaded from the hub",
            given.display()
        )
    })
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
        Progress::Retrying { error, pause } => {
            output::note(&format!("{error}; retrying in {} s", pause.as_secs()));
        }
    };
    let fetched = fetch(name, what, &HubConfig::from_env()?, &mut advance);
    bar.finish_and_clear();
    let fetched = fetched?;
    if let Some(note) = &fetched.note {
        output::note(note);
    }
    Ok(fetched)
}

/// Finds or downloads everything that a recipe names: the adapter to continue, the base model, the data.
pub(crate) fn locate_recipe(recipe: &mut Recipe) -> Result<(), Failure> {
    locate_adapter(&mut recipe.method)?;
    locate_base(&mut recipe.base)?;
    locate_data(&mut recipe.data)
}

/// Finds or downloads the adapter that a recipe continues to train.
pub(crate) fn locate_adapter(method: &mut Method) -> Result<(), Failure> {
    if let Some(table) = method.adapter_mut()
        && let Some(from) = table.continued_mut()
    {
        from.locate(locate(from.named(), What::Adapter)?);
    }
    Ok(())
}

/// Finds the data of a recipe: downloads the data sets that are given by their name on the hub.
pub(crate) fn locate_data(data: &mut DataConfig) -> Result<(), Failure> {
    for source in data.sources_mut() {
        let text = source.path.to_string_lossy();
        if source.path.exists() || text.contains(['*', '?', '[']) {
            continue;
        }
        if let Some(copy) = embedded::copy(&source.path)? {
            source.locate(vec![copy]);
            continue;
        }
        if let Place::Hub { name, explicit } = Place::of(&source.path)? {
            let name = name.of_dataset();
            let found = looked_for(&source.path, &name, explicit, What::Dataset)?;
            source.locate(found.files);
        }
    }
    Ok(())
}

/// A file of rows that exists, or the program's own copy of one.
pub(crate) fn locate_file(path: &Path) -> Result<PathBuf, Failure> {
    if path.exists() {
        return Ok(path.to_owned());
    }
    let copy = embedded::copy(path)?;
    copy.with_context(|| format!("{}: cannot read: no such file", path.display()))
}

/// A folder of data: a local one, or that of a data set on the hub (`hf://datasets/ORG/NAME`).
pub(crate) fn locate_folder(path: &Path) -> Result<PathBuf, Failure> {
    if !path.to_string_lossy().starts_with("hf://") {
        return Ok(path.to_owned());
    }
    match Place::of(path)? {
        Place::Local(path) => Ok(path),
        Place::Hub { name, .. } => Ok(fetched(&name.of_dataset(), What::Dataset)?.path),
    }
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
