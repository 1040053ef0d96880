//! Selects the files of a model to download.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use simmer_files::splits::{TRAIN, is_data, kind, splits};

use super::name::is_relative_file;
use super::{HubError, HubName, What};
use crate::hugging_face::{is_file_name, read_index};
use crate::{INDEX_FILE, SINGLE_FILE, nearest};

const CONFIG: &str = "config.json";
const PARAMS: &str = "params.json";
const ADAPTER: &[&str] = &["adapter_config.json", "adapter_model.safetensors"];
/// The weights of an adapter: of PEFT, of its early versions, of mlx-lm. The first is used.
const ADAPTER_WEIGHTS: [&str; 3] = [
    "adapter_model.safetensors",
    "adapter_model.bin",
    "adapters.safetensors",
];
/// What simmer keeps of an adapter's training.
const ADAPTER_SETTINGS: &str = "simmer.json";

/// The files from which a tokenizer is read.
const TOKENIZERS: &[&str] = &["tokenizer.json", "tokenizer.model"];

/// Optional files, downloaded before the weights.
const SMALL: &[&str] = &[
    CONFIG,
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.model",
    "chat_template.jinja",
];

/// The files to download first, and those that follow.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan<'a> {
    pub(super) first: Vec<&'a str>,
    pub(super) then: Then<'a>,
}

/// The weights.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Then<'a> {
    Files(Vec<&'a str>),
    /// The files in the index.
    Indexed,
}

/// Chooses from the files on the hub.
pub(super) fn plan<'a>(
    name: &HubName,
    what: What,
    listed: &'a [String],
) -> Result<Plan<'a>, HubError> {
    if let Some(file) = listed.iter().find(|file| !is_relative_file(file)) {
        return Err(HubError::FileName {
            name: name.repo().to_owned(),
            file: file.clone(),
        });
    }
    let has = |wanted: &str| listed.iter().any(|file| file == wanted);
    let present = |wanted: &[&str]| -> Vec<&'a str> {
        let listed = listed.iter().map(String::as_str);
        listed.filter(|file| wanted.contains(file)).collect()
    };
    let none = |wanted: &str| HubError::NoModel {
        name: name.repo().to_owned(),
        wanted: wanted.to_owned(),
        found: instead(listed),
    };
    if let Some(file) = name.file() {
        let found = present(&[file]);
        if found.is_empty() {
            return Err(no_file(name, file, listed));
        }
        return Ok(Plan {
            first: Vec::new(),
            then: Then::Files(found),
        });
    }
    let mut first = present(SMALL);
    if what == What::Dataset {
        return Ok(Plan {
            first: Vec::new(),
            then: Then::Files(rows(name, listed)?),
        });
    }
    if what == What::Tokenizer {
        if !first.iter().any(|file| TOKENIZERS.contains(file)) {
            return Err(none(&TOKENIZERS.join(" or ")));
        }
        return Ok(Plan {
            first,
            then: Then::Files(Vec::new()),
        });
    }
    if what == What::Adapter {
        let weights = ADAPTER_WEIGHTS.into_iter().find(|file| has(file));
        let Some(weights) = weights.filter(|_| has(ADAPTER[0])) else {
            return Err(none(&ADAPTER.join(" and ")));
        };
        // the base model's, if the adapter has a copy
        first.retain(|file| *file != CONFIG);
        first.extend(present(&[ADAPTER_SETTINGS]));
        let then = Then::Files(present(&[ADAPTER[0], weights]));
        return Ok(Plan { first, then });
    }
    let then = if has(CONFIG) && has(SINGLE_FILE) {
        Then::Files(present(&[SINGLE_FILE]))
    } else if has(CONFIG) && has(INDEX_FILE) {
        first.extend(present(&[INDEX_FILE]));
        Then::Indexed
    } else if has(PARAMS) && listed.iter().any(|file| is_meta_weights(file)) {
        first.extend(present(&[PARAMS]));
        let weights = listed.iter().filter(|file| is_meta_weights(file));
        Then::Files(weights.map(String::as_str).collect())
    } else {
        return Err(none("config.json with safetensors weights"));
    };
    Ok(Plan { first, then })
}

/// The files with rows of a dataset: its only file, or those of its training split.
fn rows<'a>(name: &HubName, listed: &'a [String]) -> Result<Vec<&'a str>, HubError> {
    // a text beside rows is rather a licence
    let is_rows = |file: &&str| is_data(file) && kind(file).is_some_and(|kind| kind != "txt");
    let data = listed.iter().map(String::as_str).filter(is_rows);
    let data: Vec<&str> = data.collect();
    let folder = |file: &str| {
        file.rsplit_once('/')
            .map_or("", |(folder, _)| folder)
            .to_owned()
    };
    // several files without the names of splits may be anything
    let splits = splits(data.iter().copied()).unwrap_or_default();
    let chosen = match data.as_slice() {
        [one] if splits.is_empty() => vec![*one],
        several => {
            let files = several.iter().zip(splits);
            let train = files.filter(|(_, splits)| *splits == [TRAIN]);
            train.map(|(file, _)| *file).collect()
        }
    };
    let folders: BTreeSet<String> = chosen.iter().map(|file| folder(file)).collect();
    if chosen.is_empty() || folders.len() > 1 {
        return Err(HubError::WhichRows {
            name: name.repo().to_owned(),
            files: data
                .iter()
                .take(20)
                .map(|file| (*file).to_owned())
                .collect(),
        });
    }
    Ok(chosen)
}

/// The shards in an index; the hub must have all of them.
pub(super) fn shards(
    name: &HubName,
    index: &Path,
    listed: &[String],
) -> Result<Vec<String>, HubError> {
    let shards: BTreeSet<String> = read_index(index)?.into_values().collect();
    for shard in &shards {
        if !is_file_name(shard) || !listed.contains(shard) {
            return Err(HubError::NoModel {
                name: name.repo().to_owned(),
                wanted: format!("file {shard:?}, which its {INDEX_FILE} lists"),
                found: String::new(),
            });
        }
    }
    Ok(shards.into_iter().collect())
}

/// The first file that a snapshot lacks. The files on the hub are unknown here; weights are downloaded last.
pub(super) fn missing(snapshot: &Path, name: &HubName, what: What) -> Option<String> {
    let lacks = |file: &str| (!snapshot.join(file).exists()).then(|| format!("no {file}"));
    if !snapshot.is_dir() {
        return Some(format!(
            "the revision `{}` is not in the cache",
            name.revision()
        ));
    }
    if let Some(file) = name.file() {
        return lacks(file);
    }
    match what {
        What::Adapter => return ADAPTER.iter().find_map(|file| lacks(file)),
        What::Tokenizer if TOKENIZERS.iter().all(|file| lacks(file).is_some()) => {
            return Some("no tokenizer".to_owned());
        }
        // the number of files is unknown here; a reference is written when all are complete
        What::Tokenizer | What::Dataset => return None,
        What::Model => {}
    }
    if !snapshot.join(CONFIG).exists() && snapshot.join(PARAMS).exists() {
        return (!has_meta_weights(snapshot)).then(|| "no consolidated.*.pth".to_owned());
    }
    lacks(CONFIG).or_else(|| {
        lacks(SINGLE_FILE)?;
        if lacks(INDEX_FILE).is_some() {
            return Some("no weights".to_owned());
        }
        match read_index(&snapshot.join(INDEX_FILE)) {
            Ok(index) => index.values().find_map(|shard| lacks(shard)),
            Err(error) => Some(error.to_string()),
        }
    })
}

fn has_meta_weights(snapshot: &Path) -> bool {
    let entries = fs::read_dir(snapshot).into_iter().flatten().flatten();
    let mut names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.any(|name| is_meta_weights(&name) && snapshot.join(name).exists())
}

fn is_meta_weights(file: &str) -> bool {
    let number = file.strip_prefix("consolidated.");
    let number = number.and_then(|rest| rest.strip_suffix(".pth"));
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}

fn no_file(name: &HubName, file: &str, listed: &[String]) -> HubError {
    HubError::NoFile {
        name: name.repo().to_owned(),
        file: file.to_owned(),
        nearest: nearest(file, listed.iter().map(String::as_str)),
        files: ending(listed, ".gguf"),
    }
}

/// What a model without the expected files has instead.
fn instead(listed: &[String]) -> String {
    let has = |file: &str| listed.iter().any(|other| other == file);
    let gguf = ending(listed, ".gguf");
    if !gguf.is_empty() {
        format!("; it has {}", gguf.join(", "))
    } else if ADAPTER.iter().all(|file| has(file)) {
        "; it holds an adapter".to_owned()
    } else if has(SINGLE_FILE) || has(INDEX_FILE) {
        "; it holds a model".to_owned()
    } else if !ending(listed, ".bin").is_empty() {
        "; its weights are pickled (.bin), which simmer refuses: a pickle can run any program"
            .to_owned()
    } else if listed.is_empty() {
        "; it has no files".to_owned()
    } else {
        String::new()
    }
}

fn ending(listed: &[String], end: &str) -> Vec<String> {
    let ending = listed.iter().filter(|file| file.ends_with(end));
    // enough to choose from, in a short message
    ending.take(20).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(files: &[&str]) -> Vec<String> {
        files.iter().map(|file| (*file).to_owned()).collect()
    }

    fn name(text: &str) -> HubName {
        text.parse().unwrap()
    }

    #[test]
    fn twins_of_the_weights_stay_there() {
        let files = listed(&[
            ".gitattributes",
            "README.md",
            "config.json",
            "model.safetensors",
            "model.fp16.safetensors",
            "pytorch_model.bin",
            "consolidated.00.pth",
            "params.json",
            "onnx/model.onnx",
            "original/tokenizer.model",
            "tokenizer.json",
            "chat_template.jinja",
        ]);
        let plan = plan(&name("o/n"), What::Model, &files).unwrap();
        assert_eq!(
            plan.first,
            ["config.json", "tokenizer.json", "chat_template.jinja"]
        );
        assert_eq!(plan.then, Then::Files(vec!["model.safetensors"]));
    }

    #[test]
    fn the_rows_of_a_data_set() {
        let rows = |files: &[&str]| -> Result<Vec<String>, String> {
            let listed = listed(files);
            let plan =
                plan(&name("o/n"), What::Dataset, &listed).map_err(|error| error.to_string())?;
            match plan.then {
                Then::Files(files) => Ok(files.into_iter().map(str::to_owned).collect()),
                Then::Indexed => Err("an index".to_owned()),
            }
        };
        let one = rows(&[
            "README.md",
            ".gitattributes",
            "alpaca_data_cleaned.json",
            "dataset_infos.json",
        ]);
        assert_eq!(one.unwrap(), ["alpaca_data_cleaned.json"]);
        let shards = [
            "data/train-00000-of-00002.parquet",
            "data/train-00001-of-00002.parquet",
        ];
        let split = rows(&["data/test-00000-of-00001.parquet", shards[0], shards[1]]);
        assert_eq!(split.unwrap(), shards);
        assert_eq!(
            rows(&["train.csv", "dev.csv", "LICENSE.txt"]).unwrap(),
            ["train.csv"]
        );
        insta::assert_snapshot!(rows(&["test.jsonl"]).unwrap_err(), @"the dataset `o/n` has no training split; its files with rows: test.jsonl");
        insta::assert_snapshot!(rows(&["a.json", "b.json"]).unwrap_err(), @"the dataset `o/n` has no training split; its files with rows: a.json, b.json");
        insta::assert_snapshot!(rows(&["de/train.json", "en/train.json"]).unwrap_err(), @"the dataset `o/n` has no training split; its files with rows: de/train.json, en/train.json");
        insta::assert_snapshot!(rows(&["README.md"]).unwrap_err(), @"the dataset `o/n` has no training split; its files with rows: none");
        let tokenizer = listed(&["tokenizer.model", "model.safetensors", "config.json"]);
        let tokenizer = plan(&name("o/n"), What::Tokenizer, &tokenizer).unwrap();
        assert_eq!(tokenizer.first, ["tokenizer.model", "config.json"]);
        assert_eq!(tokenizer.then, Then::Files(Vec::new()));
    }

    #[test]
    fn other_forms() {
        let meta = listed(&[
            "params.json",
            "consolidated.00.pth",
            "consolidated.01.pth",
            "tokenizer.model",
            "consolidated.md",
        ]);
        let meta = plan(&name("o/n"), What::Model, &meta).unwrap();
        assert_eq!(meta.first, ["tokenizer.model", "params.json"]);
        assert_eq!(
            meta.then,
            Then::Files(vec!["consolidated.00.pth", "consolidated.01.pth"])
        );

        let gguf = listed(&["a-q8_0.gguf", "b/a-q4_0.gguf"]);
        let one = plan(&name("o/n:b/a-q4_0.gguf"), What::Model, &gguf).unwrap();
        assert_eq!(
            (one.first.len(), one.then),
            (0, Then::Files(vec!["b/a-q4_0.gguf"]))
        );

        let adapter = listed(&[
            "adapter_config.json",
            "adapter_model.safetensors",
            "config.json",
            "tokenizer.json",
        ]);
        let adapter = plan(&name("o/n"), What::Adapter, &adapter).unwrap();
        assert_eq!(adapter.first, ["tokenizer.json"]);

        let adapter = listed(&["adapter_config.json", "adapters.safetensors", "simmer.json"]);
        let adapter = plan(&name("o/n"), What::Adapter, &adapter).unwrap();
        assert_eq!(adapter.first, ["simmer.json"]);
        let weights = vec!["adapter_config.json", "adapters.safetensors"];
        assert_eq!(adapter.then, Then::Files(weights));
    }

    #[test]
    fn what_cannot_be_used_is_told_with_what_there_is() {
        let said = |text: &str, what, files: &[&str]| {
            plan(&name(text), what, &listed(files))
                .unwrap_err()
                .to_string()
        };
        let gguf = &["m-q4_0.gguf", "m-q8_0.gguf", "README.md"];
        let pickled = &["config.json", "pytorch_model-00001-of-00002.bin"];
        let lines = [
            said("o/n", What::Model, gguf),
            said("o/n:m-Q8_0.gguf", What::Model, gguf),
            said("o/n", What::Model, pickled),
            said("o/n", What::Model, ADAPTER),
            said("o/n", What::Adapter, &["config.json", "model.safetensors"]),
            said("o/n", What::Model, &["config.json", "../../.bashrc"]),
            said("o/n", What::Model, &["a\u{1b}[2J"]),
        ];
        insta::assert_snapshot!(lines.join("\n"), @r#"
        `o/n` has no config.json with safetensors weights; it has m-q4_0.gguf, m-q8_0.gguf
        `o/n` has no file `m-Q8_0.gguf`; the nearest is `m-q8_0.gguf`; it has m-q4_0.gguf, m-q8_0.gguf
        `o/n` has no config.json with safetensors weights; its weights are pickled (.bin), which simmer refuses: a pickle can run any program
        `o/n` has no config.json with safetensors weights; it holds an adapter
        `o/n` has no adapter_config.json and adapter_model.safetensors; it holds a model
        `o/n` is refused: the server lists the file "../../.bashrc", which is not a plain relative path
        `o/n` is refused: the server lists the file "a\u{1b}[2J", which is not a plain relative path
        "#);
    }

    #[test]
    fn what_a_snapshot_lacks() {
        let dir = tempfile::tempdir().unwrap();
        let lacks = |text| missing(dir.path(), &name(text), What::Model);
        assert_eq!(lacks("o/n").unwrap(), "no config.json");
        fs::write(dir.path().join(CONFIG), "{}").unwrap();
        assert_eq!(lacks("o/n").unwrap(), "no weights");
        let index = r#"{"weight_map": {"a": "x.safetensors"}}"#;
        fs::write(dir.path().join(INDEX_FILE), index).unwrap();
        assert_eq!(lacks("o/n").unwrap(), "no x.safetensors");
        fs::write(dir.path().join("x.safetensors"), "").unwrap();
        assert_eq!(lacks("o/n"), None);
        assert_eq!(lacks("o/n:x.gguf").unwrap(), "no x.gguf");
        let gone = missing(&dir.path().join("gone"), &name("o/n@v1"), What::Model);
        assert_eq!(gone.unwrap(), "the revision `v1` is not in the cache");
    }
}
