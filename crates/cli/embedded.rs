//! A tiny base model and the data of small recipes, which are part of the program, so that these recipes run in any folder.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use simmer_files::write_file;

use crate::failure::{Context, Failure};
use crate::output::note;

/// Paths and contents of files in data/.
macro_rules! files {
    ($($path:literal),* $(,)?) => {
        &[$(($path, include_bytes!(concat!("../../", $path)))),*]
    };
}

const FILES: &[(&str, &[u8])] = files![
    "data/tiny-base/config.json",
    "data/tiny-base/model.safetensors",
    "data/tiny-base/tokenizer.json",
    "data/tiny-base/tokenizer_config.json",
    "data/kitchen/heldout.json",
    "data/kitchen/instructions.json",
    "data/kitchen/text.jsonl",
    "recipes/generate/kitchen-method.toml",
    "recipes/generate/kitchen-questions.txt",
    "recipes/judge/kitchen-answers.jsonl",
    "recipes/judge/kitchen-questions.jsonl",
];

/// The folder that may be named as a whole.
const FOLDER: &str = "data/tiny-base";

/// Whether a path is one of these, as the recipes name them.
pub(crate) fn is_embedded(path: &Path) -> bool {
    !contents(path).is_empty()
}

/// The files that a path stands for.
fn contents(path: &Path) -> Vec<(&'static str, &'static [u8])> {
    let path = path.strip_prefix(".").unwrap_or(path);
    let is_named = |file: &str| {
        path == Path::new(file) || (path == Path::new(FOLDER) && Path::new(file).starts_with(path))
    };
    let named = FILES.iter().filter(|(file, _)| is_named(file));
    named.copied().collect()
}

/// The program's own copy of a file or folder, written to the cache; `None` if the program has none. Says where it is.
///
/// A file of the cache that differs is written anew.
pub(crate) fn copy(path: &Path) -> Result<Option<PathBuf>, Failure> {
    let files = contents(path);
    if files.is_empty() {
        return Ok(None);
    }
    let path = path.strip_prefix(".").unwrap_or(path);
    let folder = folder()?;
    for (file, bytes) in files {
        let to = folder.join(file);
        if fs::read(&to).is_ok_and(|found| found == bytes) {
            continue;
        }
        let parent = to.parent().unwrap_or(&folder);
        fs::create_dir_all(parent)
            .with_context(|| format!("{}: cannot create the folder", parent.display()))
            .with_context(|| not_written(path))?;
        write_file(&to, |file| file.write_all(bytes)).with_context(|| not_written(path))?;
    }
    let copy = folder.join(path);
    note(&format!(
        "{}: not in this folder; using the copy that is part of simmer, {}",
        path.display(),
        copy.display()
    ));
    Ok(Some(copy))
}

/// A file as it is named, or the program's own copy if it is not there and the program has one.
pub(crate) fn or_copy(path: &Path) -> Result<PathBuf, Failure> {
    let copied = if path.exists() { None } else { copy(path)? };
    Ok(copied.unwrap_or_else(|| path.to_owned()))
}

fn not_written(path: &Path) -> String {
    format!(
        "{}: not in this folder, and the copy that is part of simmer cannot be written (XDG_CACHE_HOME names another cache)",
        path.display()
    )
}

/// The folder in the user's cache.
fn folder() -> Result<PathBuf, Failure> {
    let given = |name: &str| env::var_os(name).map(PathBuf::from);
    let cache = given("XDG_CACHE_HOME").filter(|path| path.is_absolute());
    let cache = cache.or_else(|| {
        let home = env::home_dir().filter(|home| home.is_absolute())?;
        Some(home.join(".cache"))
    });
    let cache = cache.context(
        "no folder for the quickstart's files: set XDG_CACHE_HOME to a folder for caches",
    )?;
    Ok(cache.join("simmer").join(env!("CARGO_PKG_VERSION")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_the_shipped_recipes_are_known() {
        let files = |path: &str| contents(Path::new(path)).len();
        assert_eq!(files("data/tiny-base"), 4);
        assert_eq!(files("./data/tiny-base/"), 4);
        assert_eq!(files("data/kitchen/instructions.json"), 1);
        assert_eq!(files("data/kitchen"), 0);
        assert_eq!(files("data"), 0);
        assert_eq!(files("data/tiny"), 0);
        assert_eq!(files("/data/tiny-base"), 0);
        assert!(FILES.iter().all(|(_, bytes)| !bytes.is_empty()));
    }
}
