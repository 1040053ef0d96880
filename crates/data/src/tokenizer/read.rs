//! Finds and reads a tokenizer's file, whatever its format.

use std::path::{Path, PathBuf};

use super::folder::{self, Folder};
use super::sentencepiece::{self, Model};
use super::{Made, Tokenizer, TokenizerError, tiktoken};

/// The size limit of a `tokenizer.model`, in bytes. A larger file is something else.
const LARGEST: u64 = 32 << 20;

impl Tokenizer {
    /// Reads the tokenizer of a model folder: `tokenizer.json`, or else `tokenizer.model`, which Meta keeps one level
    /// above the weights and `params.json`.
    ///
    /// # Errors
    /// [`TokenizerError`] if a file is missing or malformed, or names a special token that is not in the vocabulary.
    pub fn from_folder(folder: impl AsRef<Path>) -> Result<Tokenizer, TokenizerError> {
        let folder = folder.as_ref();
        let json = folder.join("tokenizer.json");
        if !json.exists() {
            let inside = folder.join("tokenizer.model");
            if inside.exists() {
                return model_file(&inside, folder);
            }
            if let Some(above) = above(folder).filter(|_| folder.join("params.json").exists()) {
                return model_file(&above, folder);
            }
        }
        let inner = folder::read_library(&json)?;
        Tokenizer::assemble(inner, folder, &Folder::read(folder)?)
    }

    /// Reads a tokenizer file, `tokenizer.json` or `tokenizer.model`, and the other files in its folder.
    ///
    /// # Errors
    /// As [`Tokenizer::from_folder`].
    pub fn from_file(file: impl AsRef<Path>) -> Result<Tokenizer, TokenizerError> {
        let file = file.as_ref();
        let folder = file.parent().unwrap_or(Path::new(""));
        if file
            .extension()
            .is_some_and(|extension| extension == "model")
        {
            return model_file(file, folder);
        }
        let inner = folder::read_library(file)?;
        Tokenizer::assemble(inner, folder, &Folder::read(folder)?)
    }

    /// Reads a folder or a file.
    ///
    /// # Errors
    /// As [`Tokenizer::from_folder`].
    pub fn from_path(path: impl AsRef<Path>) -> Result<Tokenizer, TokenizerError> {
        let path = path.as_ref();
        if path.is_file() {
            Tokenizer::from_file(path)
        } else {
            Tokenizer::from_folder(path)
        }
    }

    /// The tokenizer of a SentencePiece model that was read from `path`.
    ///
    /// # Errors
    /// [`TokenizerError::Invalid`] if a piece is invalid, or the model has a setting that this tokenizer cannot
    /// reproduce exactly.
    pub fn from_sentencepiece(model: &Model, path: &Path) -> Result<Tokenizer, TokenizerError> {
        finish(model.make(path)?, path, path, Folder::default())
    }
}

/// `tokenizer.model` one level up.
fn above(folder: &Path) -> Option<PathBuf> {
    let file = folder
        .canonicalize()
        .ok()?
        .parent()?
        .join("tokenizer.model");
    file.exists().then_some(file)
}

/// Reads a `tokenizer.model` of SentencePiece or tiktoken, for the model in `folder`.
fn model_file(file: &Path, folder: &Path) -> Result<Tokenizer, TokenizerError> {
    let read = |source| TokenizerError::Read {
        path: file.into(),
        source,
    };
    let invalid = |problem| TokenizerError::Invalid {
        path: file.into(),
        problem,
    };
    let size = std::fs::metadata(file).map_err(read)?.len();
    if size > LARGEST {
        return Err(invalid(format!(
            "expected at most {LARGEST} bytes, found {size}"
        )));
    }
    let bytes = simmer_files::read(file, LARGEST).map_err(read)?;
    if simmer_files::is_lfs_pointer(&bytes) {
        return Err(TokenizerError::LfsPointer { path: file.into() });
    }
    let others = Folder::read(folder)?;
    let made = if tiktoken::is_tiktoken(&bytes) {
        let tokens = tiktoken::parse(&bytes).map_err(|error| invalid(error.to_string()))?;
        tiktoken::convert(&tokens, others.release())?
    } else {
        let model = sentencepiece::parse(&bytes).map_err(|error| invalid(error.to_string()))?;
        model.make(file)?
    };
    finish(made, file, folder, others)
}

/// Applies the settings of the folder's other files to a tokenizer that was converted from `file`.
pub(super) fn finish(
    made: Made,
    file: &Path,
    path: &Path,
    others: Folder,
) -> Result<Tokenizer, TokenizerError> {
    let Made {
        mut inner,
        own,
        notes,
    } = made;
    let folder = others.with_own(file, own);
    folder.add_tokens(&mut inner)?;
    folder.surround(&mut inner)?;
    let mut tokenizer = Tokenizer::assemble(inner, path, &folder)?;
    tokenizer.notes.extend(notes);
    Ok(tokenizer)
}

#[cfg(test)]
mod tests;
