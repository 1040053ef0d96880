//! The data files that a path stands for.

use std::path::{Path, PathBuf};

use super::decompress;
use crate::error::DataError;

/// The extensions of data files, without those of compression.
const KINDS: [&str; 6] = ["json", "jsonl", "ndjson", "csv", "tsv", "parquet"];

/// The files that `path` stands for, sorted: the file itself, the data files in a folder and its subfolders, or the
/// files that match a pattern such as `rows/*.jsonl`.
///
/// # Errors
/// [`DataError`] if there are none.
pub fn files(path: &Path) -> Result<Vec<PathBuf>, DataError> {
    if path.is_dir() {
        let mut found = Vec::new();
        collect(path, &mut found)?;
        found.sort();
        if found.is_empty() {
            let kinds = KINDS.map(|kind| format!(".{kind}")).join(", ");
            return Err(DataError::NoFiles {
                path: path.into(),
                what: format!("the folder has no data files ({kinds})"),
            });
        }
        return Ok(found);
    }
    let text = path.to_string_lossy();
    if path.exists() || !text.contains(['*', '?', '[']) {
        return Ok(vec![path.into()]);
    }
    let wrong = |what: String| DataError::NoFiles {
        path: path.into(),
        what,
    };
    let options = glob::MatchOptions {
        require_literal_leading_dot: true,
        ..glob::MatchOptions::new()
    };
    let mut found = Vec::new();
    for entry in glob::glob_with(&text, options)
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

/// Whether a file is a data file, by its extension.
pub fn has_known_ending(path: &Path) -> bool {
    let (kind, _) = decompress::kind(path);
    kind.is_some_and(|kind| KINDS.contains(&kind.as_str()))
}

/// Collects the data files below a folder. Skips hidden files and folders, and does not follow links to folders.
fn collect(folder: &Path, found: &mut Vec<PathBuf>) -> Result<(), DataError> {
    let read = |source| DataError::Read {
        path: folder.into(),
        source,
    };
    for entry in folder.read_dir().map_err(read)? {
        let entry = entry.map_err(read)?;
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        let path = entry.path();
        if entry.file_type().map_err(read)?.is_dir() {
            collect(&path, found)?;
        } else if has_known_ending(&path) && path.is_file() {
            found.push(path);
        }
    }
    Ok(())
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
        insta::assert_snapshot!(error(&at("empty")), @"DIR/empty: the folder has no data files (.json, .jsonl, .ndjson, .csv, .tsv, .parquet)");
    }
}
