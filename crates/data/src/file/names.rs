//! The data files that a path stands for.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use simmer_files::splits::{self, KINDS, TEST, TRAIN, VALIDATION};

use crate::error::DataError;

/// The files that a path stands for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Found {
    /// Those to read, in order.
    pub files: Vec<PathBuf>,
    /// Data files of a folder that are not read, and why.
    pub unread: Vec<(PathBuf, String)>,
}

/// The files that `path` stands for, sorted: the file itself, the data files in a folder and its subfolders, or the
/// files that match a pattern such as `rows/*.jsonl`.
///
/// # Errors
/// [`DataError`] if there are none.
pub fn files(path: &Path) -> Result<Vec<PathBuf>, DataError> {
    Ok(found(path)?.files)
}

/// Like [`files`], but only those of one split if the names in a folder say splits: the training split, or for rows that
/// are held out the validation split, or else the test split.
///
/// # Errors
/// [`DataError`] if there are none.
pub fn split_files(path: &Path, held_out: bool) -> Result<Found, DataError> {
    let mut found = found(path)?;
    if !path.is_dir() {
        return Ok(found);
    }
    let names: Vec<String> = found.files.iter().map(|file| below(path, file)).collect();
    let Some(splits) = splits::splits(names.iter().map(String::as_str)) else {
        return Ok(found);
    };
    let wanted: &[&str] = if held_out {
        &[VALIDATION, TEST]
    } else {
        &[TRAIN]
    };
    let has = |split: &&&str| splits.iter().any(|splits| *splits == [**split]);
    let Some(wanted) = wanted.iter().find(has) else {
        let files = names.iter().zip(&splits);
        let files = files.map(|(name, splits)| format!("{name} ({})", why(splits)));
        return Err(DataError::NoSplit {
            path: path.into(),
            wanted: if held_out { VALIDATION } else { "training" },
            files: files.collect(),
        });
    };
    let files = std::mem::take(&mut found.files);
    for (file, splits) in files.into_iter().zip(&splits) {
        if *splits == [*wanted] {
            found.files.push(file);
        } else {
            found.unread.push((file, why(splits)));
        }
    }
    Ok(found)
}

/// Why a file with these splits is not read.
fn why(splits: &[impl AsRef<str>]) -> String {
    let names: Vec<&str> = splits.iter().map(AsRef::as_ref).collect();
    match names.as_slice() {
        [] => "no split in its name".into(),
        names => names.join(" and "),
    }
}

/// The path of a file below a folder, with `/`.
fn below(folder: &Path, file: &Path) -> String {
    let file = file.strip_prefix(folder).unwrap_or(file);
    let parts: Vec<_> = file.iter().map(|part| part.to_string_lossy()).collect();
    parts.join("/")
}

fn found(path: &Path) -> Result<Found, DataError> {
    if path.is_dir() {
        return in_folder(path);
    }
    let text = path.to_string_lossy();
    if path.exists() || !text.contains(['*', '?', '[']) {
        return Ok(Found {
            files: vec![path.into()],
            unread: Vec::new(),
        });
    }
    let files = matching(path, &text)?;
    Ok(Found {
        files,
        unread: Vec::new(),
    })
}

/// The data files of a folder. Texts are data only if there is nothing else: beside rows they are rather licences.
fn in_folder(path: &Path) -> Result<Found, DataError> {
    let mut files = Vec::new();
    collect(path, &mut files)?;
    files.sort();
    if files.is_empty() {
        let kinds = KINDS.map(|kind| format!(".{kind}")).join(", ");
        return Err(DataError::NoFiles {
            path: path.into(),
            what: format!("the folder has no data files ({kinds})"),
        });
    }
    let is_text = |file: &PathBuf| kind(file).as_deref() == Some("txt");
    let mut unread = Vec::new();
    if !files.iter().all(is_text) {
        let texts;
        (texts, files) = files.into_iter().partition(is_text);
        let why = "text beside files of rows".to_owned();
        unread = Vec::into_iter(texts)
            .map(|file| (file, why.clone()))
            .collect();
    }
    Ok(Found { files, unread })
}

/// The files that match a pattern.
fn matching(path: &Path, pattern: &str) -> Result<Vec<PathBuf>, DataError> {
    let wrong = |what: String| DataError::NoFiles {
        path: path.into(),
        what,
    };
    let options = glob::MatchOptions {
        require_literal_leading_dot: true,
        ..glob::MatchOptions::new()
    };
    let mut found = Vec::new();
    for entry in glob::glob_with(pattern, options)
        .map_err(|error| wrong(format!("invalid pattern: {error}")))?
    {
        let file = entry.map_err(|error| DataError::Read {
            path: error.path().into(),
            source: error.into(),
        })?;
        if file.is_file() {
            found.push(file);
        }
    }
    if found.is_empty() {
        return Err(wrong("no file matches this pattern".into()));
    }
    Ok(found)
}

fn kind(path: &Path) -> Option<String> {
    splits::kind(&path.file_name()?.to_string_lossy())
}

/// Whether a file is a data file, by its extension.
pub fn has_known_ending(path: &Path) -> bool {
    kind(path).is_some_and(|kind| KINDS.contains(&kind.as_str()))
}

/// `state.json` in a folder of `datasets`' `save_to_disk`: other Arrow files beside it are caches.
#[derive(Deserialize)]
struct Saved {
    #[serde(rename = "_data_files")]
    data_files: Vec<SavedFile>,
}

#[derive(Deserialize)]
struct SavedFile {
    filename: PathBuf,
}

const STATE: &str = "state.json";

/// Collects the data files below a folder. Skips hidden files and folders, and does not follow links to folders.
fn collect(folder: &Path, found: &mut Vec<PathBuf>) -> Result<(), DataError> {
    let read = |source| DataError::Read {
        path: folder.into(),
        source,
    };
    let mut here = Vec::new();
    for entry in folder.read_dir().map_err(read)? {
        let entry = entry.map_err(read)?;
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type().map_err(read)?.is_dir() {
            if !name.starts_with('.') && !name.starts_with("__") {
                collect(&path, found)?;
            }
        } else if splits::is_data(&name) && path.is_file() {
            here.push(path);
        }
    }
    let is_arrow = |file: &PathBuf| kind(file).as_deref() == Some("arrow");
    if here.iter().any(is_arrow) && folder.join(STATE).is_file() {
        let named = saved(&folder.join(STATE));
        here.retain(|file| {
            let name = Path::new(file.file_name().unwrap_or_default());
            match &named {
                Some(named) => named.iter().any(|named| named.filename == name),
                None => is_arrow(file),
            }
        });
    }
    found.append(&mut here);
    Ok(())
}

/// The files that a `state.json` names.
fn saved(state: &Path) -> Option<Vec<SavedFile>> {
    // the list of a dataset with ten thousand files
    const MOST: u64 = 4 << 20;
    let text = simmer_files::read(state, MOST).ok()?;
    let saved: Saved = serde_json::from_slice(&text).ok()?;
    Some(saved.data_files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use tempfile::TempDir;

    #[test]
    fn a_path_means_its_files() {
        let folder = TempDir::new().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("more")).unwrap();
        for name in [
            "b.jsonl",
            "a.json.gz",
            "README.md",
            ".hidden.json",
            "more/c.parquet",
        ] {
            fs::write(at(name), "").unwrap();
        }
        let names = |path: &Path| -> Vec<String> {
            let short = |file: PathBuf| {
                file.strip_prefix(folder.path())
                    .unwrap()
                    .display()
                    .to_string()
            };
            files(path).unwrap().into_iter().map(short).collect()
        };
        assert_eq!(
            names(folder.path()),
            ["a.json.gz", "b.jsonl", "more/c.parquet"]
        );
        assert_eq!(names(&at("*.json*")), ["a.json.gz", "b.jsonl"]);
        assert_eq!(names(&at("b.jsonl")), ["b.jsonl"]);
        let error = |path: &Path| {
            files(path)
                .unwrap_err()
                .to_string()
                .replace(&folder.path().display().to_string(), "DIR")
        };
        insta::assert_snapshot!(error(&at("*.csv")), @"DIR/*.csv: no file matches this pattern");
        fs::create_dir(at("empty")).unwrap();
        insta::assert_snapshot!(error(&at("empty")), @"DIR/empty: the folder has no data files (.json, .jsonl, .ndjson, .csv, .tsv, .parquet, .arrow, .txt)");
    }

    /// A folder with these empty files.
    fn folder(names: &[&str]) -> TempDir {
        let folder = TempDir::new().unwrap();
        for name in names {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        folder
    }

    /// What is read of a folder, and what is not.
    fn read(folder: &TempDir, held_out: bool) -> (Vec<String>, Vec<String>) {
        let Found { files, unread } = split_files(folder.path(), held_out).unwrap();
        let name = |file: &Path| below(folder.path(), file);
        let unread = unread
            .iter()
            .map(|(file, why)| format!("{}: {why}", name(file)));
        let unread = unread.collect();
        (files.iter().map(|file| name(file)).collect(), unread)
    }

    #[test]
    fn test_rows_are_not_trained_on() {
        let split = folder(&[
            "train-00.parquet",
            "train-01.parquet",
            "test-00.parquet",
            "validation.parquet",
            "notes.json",
        ]);
        let (files, unread) = read(&split, false);
        assert_eq!(files, ["train-00.parquet", "train-01.parquet"]);
        assert_eq!(
            unread,
            [
                "notes.json: no split in its name",
                "test-00.parquet: test",
                "validation.parquet: validation"
            ]
        );
        assert_eq!(read(&split, true).0, ["validation.parquet"]);
        let folders = folder(&["train/a.jsonl", "train/b.jsonl", "test/a.jsonl"]);
        assert_eq!(read(&folders, false).0, ["train/a.jsonl", "train/b.jsonl"]);
        assert_eq!(read(&folders, true).0, ["test/a.jsonl"]);
        let plain = folder(&["a.jsonl", "b.csv"]);
        assert_eq!(read(&plain, false), read(&plain, true));
        assert_eq!(read(&plain, false).0.len(), 2);
    }

    #[test]
    fn a_folder_without_a_training_split_is_an_error() {
        let folder = folder(&["test.jsonl", "dev.jsonl"]);
        let error = split_files(folder.path(), false).unwrap_err().to_string();
        let error = error.replace(&folder.path().display().to_string(), "DIR");
        insta::assert_snapshot!(error, @"DIR: no file of the folder belongs to the training split; its files: dev.jsonl (validation), test.jsonl (test)");
        // all files of a folder, for callers that do not train on them
        assert_eq!(files(folder.path()).unwrap().len(), 2);
    }

    #[test]
    fn texts_beside_rows_are_no_rows() {
        assert_eq!(
            read(&folder(&["a.txt", "b.txt"]), false).0,
            ["a.txt", "b.txt"]
        );
        let (files, unread) = read(&folder(&["a.jsonl", "LICENSE.txt"]), false);
        assert_eq!(files, ["a.jsonl"]);
        assert_eq!(unread, ["LICENSE.txt: text beside files of rows"]);
    }

    #[test]
    fn a_saved_dataset_has_the_files_that_it_names() {
        let saved = folder(&[
            "dataset_dict.json",
            "train/data-00000-of-00001.arrow",
            "train/cache-1f.arrow",
            "train/dataset_info.json",
            "train/state.json",
            "test/data-00000-of-00001.arrow",
            "test/state.json",
        ]);
        let state =
            r#"{"_data_files": [{"filename": "data-00000-of-00001.arrow"}], "_split": "train"}"#;
        fs::write(saved.path().join("train/state.json"), state).unwrap();
        let (files, unread) = read(&saved, false);
        assert_eq!(files, ["train/data-00000-of-00001.arrow"]);
        assert_eq!(unread, ["test/data-00000-of-00001.arrow: test"]);
    }
}
