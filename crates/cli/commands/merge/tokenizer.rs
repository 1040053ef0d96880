//! The tokenizer of a merged model: the base model's, with what the adapter has of its own.

use std::fs;
use std::path::{Path, PathBuf};

use simmer_checkpoint::Pretrained;
use simmer_data::Tokenizer;
use simmer_model::adapter::peft::AdapterFolder;
use simmer_model::export::tokenizer_files;
use simmer_train::TrainError;
use simmer_train::tokenizer::Tokenizers;

use super::lacks_hugging_face_tokenizer;
use crate::failure::{Context, Failure};
use crate::loaded::tell;

/// The tokenizer of a merged model.
pub(super) struct OfMerge {
    /// `None` if neither base model nor adapter has one.
    pub(super) tokenizer: Result<Tokenizer, Failure>,
    /// The folder of its files; `None` if they are those of the base model's folder.
    pub(super) files: Option<PathBuf>,
    /// The tokens that end an answer, if they differ from the base model's.
    pub(super) eos: Option<Vec<u32>>,
}

/// Chooses the tokenizer, says what comes from the adapter, and writes its files to `folder` if they are not those of the
/// base model's folder. `own` is the base model's tokenizer.
pub(super) fn of_merge(
    base: &Path,
    own: Result<Tokenizer, TrainError>,
    adapter: &AdapterFolder,
    folder: &Path,
) -> Result<OfMerge, Failure> {
    let mut config = Pretrained::open(base)?.config;
    // merging says so
    let _ = adapter.resize(&mut config);
    let other = lacks_hugging_face_tokenizer(base);
    if other && let Err(error) = own {
        return Err(error.into());
    }
    let has_own = adapter.tokenizer_path().is_some();
    let chosen = match Tokenizers::of_adapter(own, adapter, config.vocab_size) {
        Ok(chosen) => chosen,
        // a merge needs no tokenizer
        Err(error) if !has_own => {
            return Ok(OfMerge {
                tokenizer: Err(error.into()),
                files: None,
                eos: None,
            });
        }
        Err(error) => return Err(error.into()),
    };
    tell(&chosen);
    let files = if other || chosen.told.is_some() {
        write(&chosen, adapter, folder)?;
        Some(folder)
    } else {
        // not those of the adapter, which are the same or cannot be used
        has_own.then_some(base)
    };
    let eos = chosen
        .has_own_eos()
        .then(|| chosen.ends(&config.eos_token_id));
    Ok(OfMerge {
        eos,
        files: files.map(Path::to_owned),
        tokenizer: Ok(chosen.tokenizer),
    })
}

/// Writes the files of the tokenizer: copies of the adapter's, if they are the whole tokenizer.
fn write(chosen: &Tokenizers, adapter: &AdapterFolder, folder: &Path) -> Result<(), Failure> {
    let tokenizer = &chosen.tokenizer;
    let path = adapter.folder();
    if chosen.is_changed || tokenizer.path() != path || !path.join("tokenizer.json").is_file() {
        return Ok(tokenizer.save(folder)?);
    }
    for file in tokenizer_files(path) {
        let name = file.file_name().unwrap_or_default();
        fs::copy(&file, folder.join(name))
            .with_context(|| format!("cannot copy {}", file.display()))?;
    }
    Ok(())
}
