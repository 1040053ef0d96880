//! The data files of a dataset and their splits, by their names: one rule for folders and for repositories on the hub.
//!
//! The rule is that of Hugging Face's `datasets` for folders of data files (`data_files.py`: `SPLIT_KEYWORDS`,
//! `SPLIT_PATTERN_SHARDED`, `NON_WORDS_CHARS`). Two details are stricter, so that no test row is trained on: upper and lower
//! case are the same, and a file outside the folders of splits belongs to the split in its own name.

use std::borrow::Cow;

/// The extensions of data files, without those of compression.
pub const KINDS: [&str; 8] = [
    "json", "jsonl", "ndjson", "csv", "tsv", "parquet", "arrow", "txt",
];

/// Files that describe a dataset and hold no rows.
const DESCRIPTIONS: [&str; 4] = [
    "config.json",
    "dataset_info.json",
    "dataset_infos.json",
    "dataset_dict.json",
];

/// The split that rows are trained on.
pub const TRAIN: &str = "train";
/// The split by which a training is watched.
pub const VALIDATION: &str = "validation";
/// The split by which a result is judged.
pub const TEST: &str = "test";

/// The words that stand for a split in the name of a file or folder.
const WORDS: [(&str, &[&str]); 3] = [
    (TRAIN, &["train", "training"]),
    (VALIDATION, &["validation", "valid", "dev", "val"]),
    (TEST, &["test", "testing", "eval", "evaluation"]),
];

/// The extension of a file's name without that of compression, in lower case.
pub fn kind(name: &str) -> Option<String> {
    let name = name.rsplit('/').next().unwrap_or(name).to_ascii_lowercase();
    let packed = [".gz", ".gzip", ".zst", ".zstd"];
    let plain = packed.iter().find_map(|ending| name.strip_suffix(ending));
    let (stem, kind) = plain.unwrap_or(&name).rsplit_once('.')?;
    (!stem.is_empty()).then(|| kind.to_owned())
}

/// Whether a file may hold rows, by its name. `file` is a path with `/`.
pub fn is_data(file: &str) -> bool {
    let name = file.rsplit('/').next().unwrap_or(file);
    let hidden = file.split('/').any(|part| part.starts_with('.'));
    let special = file.rsplit('/').skip(1).any(|part| part.starts_with("__"));
    let known = kind(file).is_some_and(|kind| KINDS.contains(&kind.as_str()));
    !hidden && !special && known && !DESCRIPTIONS.contains(&name)
}

/// The splits of each file; a file may have none, or several. `None` if no name says a split: then all rows are one
/// training split. `files` are paths with `/` below the dataset's folder.
pub fn splits<'f>(
    files: impl IntoIterator<Item = &'f str> + Clone,
) -> Option<Vec<Vec<Cow<'f, str>>>> {
    let sharded: Vec<_> = files.clone().into_iter().map(shard_of).collect();
    if sharded.iter().any(Option::is_some) {
        let one = sharded.into_iter().map(|split| split.into_iter().collect());
        return Some(one.collect());
    }
    let named: Vec<_> = files.into_iter().map(named).collect();
    let any = named.iter().any(|splits| !splits.is_empty());
    any.then_some(named)
}

/// The split of `data/SPLIT-00000-of-00001.parquet`, whatever its name.
fn shard_of(file: &str) -> Option<Cow<'_, str>> {
    let name = file.strip_prefix("data/")?;
    let (split, rest) = name.split_once('-')?;
    let (number, rest) = rest.split_once("-of-")?;
    let digits =
        |text: &str| text.len() >= 5 && text.as_bytes()[..5].iter().all(u8::is_ascii_digit);
    let is_split = !split.is_empty() && split.chars().all(|c| c.is_alphanumeric() || c == '_');
    (is_split && number.len() == 5 && digits(number) && digits(rest)).then_some(split.into())
}

/// The splits that the folders of a file name, or else its own name.
fn named(file: &str) -> Vec<Cow<'_, str>> {
    let (folders, name) = file.rsplit_once('/').unwrap_or(("", file));
    let mut splits = Vec::new();
    for folder in folders.split('/') {
        said(folder, &mut splits);
    }
    if splits.is_empty() {
        // what follows the last dot is the extension
        let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
        said(stem, &mut splits);
    }
    splits
}

/// Adds the splits whose words are in a name, between characters that are no letters.
fn said(name: &str, splits: &mut Vec<Cow<'_, str>>) {
    let name = name.to_ascii_lowercase();
    let between = |c: char| c.is_ascii_digit() || matches!(c, '-' | '.' | '_' | ' ');
    for word in name.split(between) {
        for (split, words) in WORDS {
            if words.contains(&word) && !splits.iter().any(|known| known == split) {
                splits.push(Cow::Borrowed(split));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each file with its splits.
    fn of(files: &[&str]) -> Option<Vec<String>> {
        let found = splits(files.iter().copied())?;
        Some(found.into_iter().map(|splits| splits.join("+")).collect())
    }

    #[test]
    fn names_say_splits() {
        assert_eq!(
            of(&["a.jsonl", "more/b.jsonl", "latest.json", "contrast-1.csv"]),
            None
        );
        let files = [
            "train.jsonl",
            "my_train_2.csv",
            "Test.json",
            "held-out.dev.jsonl.gz",
            "eval01.parquet",
            "other.jsonl",
            "train_test.jsonl",
        ];
        let expected = [
            "train",
            "train",
            "test",
            "validation",
            "test",
            "",
            "train+test",
        ];
        assert_eq!(of(&files).unwrap(), expected);
    }

    #[test]
    fn folders_come_before_names() {
        let files = [
            "train/test-like.csv",
            "en-test/train.csv",
            "a/b.csv",
            "train.csv",
        ];
        assert_eq!(of(&files).unwrap(), ["train", "test", "", "train"]);
    }

    #[test]
    fn shards_may_have_any_split() {
        let files = [
            "data/train_sft-00000-of-00002.parquet",
            "data/test_gen-00000-of-00001-0a1b.parquet",
            "train.csv",
            "data/train.csv",
        ];
        assert_eq!(of(&files).unwrap(), ["train_sft", "test_gen", "", ""]);
    }

    #[test]
    fn data_files_are_known_by_their_names() {
        for file in ["a.jsonl", "b/C.JSON.GZ", "a.b/c.arrow", "rows.txt.zst"] {
            assert!(is_data(file), "{file}");
        }
        for file in [
            "README.md",
            ".hidden.json",
            ".git/a.json",
            "__pycache__/a.json",
            "dataset_info.json",
            "x/dataset_infos.json",
            ".gz",
            "json",
        ] {
            assert!(!is_data(file), "{file}");
        }
    }
}
