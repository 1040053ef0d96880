//! Hugging Face's layout: a folder with one safetensors file, or several and an index.

mod file;
mod header;
mod write;

pub use file::SafetensorsFile;
pub use header::read_header;
pub(crate) use write::plan_shards_of;
pub use write::{CheckpointWriter, Shard, encode_safetensors, plan_shards, write_safetensors};

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::{Component, Path};

use serde::Deserialize;

use crate::checkpoint::{Checkpoint, Layout};
use crate::stored::Stored;
use crate::{CheckpointError, INDEX_FILE, MAX_TEXT_BYTES, SINGLE_FILE, TensorSpec};

/// Opens `model.safetensors`, or the files in `model.safetensors.index.json`. If a folder has both, the single file is
/// used, as in transformers.
pub(crate) fn open(folder: &Path) -> Result<Checkpoint, CheckpointError> {
    fs::read_dir(folder).map_err(CheckpointError::io(folder, "open folder"))?;
    let single = folder.join(SINGLE_FILE);
    if single.exists() {
        let file = SafetensorsFile::open(single)?;
        return Ok(checkpoint(folder, &[SINGLE_FILE], vec![file]));
    }
    let index = folder.join(INDEX_FILE);
    if !index.exists() {
        return Err(CheckpointError::NoWeights {
            folder: folder.into(),
            found: what_is_there(folder),
        });
    }
    open_sharded(folder, &index)
}

fn open_sharded(folder: &Path, index: &Path) -> Result<Checkpoint, CheckpointError> {
    let weight_map = read_index(index)?;
    let shards: BTreeSet<&str> = weight_map.values().map(String::as_str).collect();
    if let Some(shard) = shards.iter().find(|shard| !is_file_name(shard)) {
        return Err(CheckpointError::ShardOutside {
            index: index.into(),
            shard: (*shard).to_owned(),
        });
    }
    let missing: Vec<String> = shards
        .iter()
        .filter(|shard| !folder.join(shard).exists())
        .map(|shard| (*shard).to_owned())
        .collect();
    if !missing.is_empty() {
        return Err(CheckpointError::ShardsMissing {
            index: index.into(),
            missing,
            total: shards.len(),
        });
    }
    let files: Vec<SafetensorsFile> = shards
        .iter()
        .map(|shard| SafetensorsFile::open(folder.join(shard)))
        .collect::<Result<_, _>>()?;
    let shards: Vec<&str> = shards.into_iter().collect();
    agreed(&weight_map, &shards, &files).map_err(|problems| CheckpointError::IndexMismatch {
        index: index.into(),
        problems,
    })?;
    Ok(checkpoint(folder, &shards, files))
}

fn checkpoint(folder: &Path, names: &[&str], files: Vec<SafetensorsFile>) -> Checkpoint {
    let mut tensors = BTreeMap::new();
    let mut shards = Vec::with_capacity(files.len());
    for (position, (file, name)) in files.iter().zip(names).enumerate() {
        let mut specs = Vec::new();
        for (tensor, info, range) in file.entries() {
            specs.push(TensorSpec {
                name: tensor.to_owned(),
                dtype: info.dtype,
                shape: info.shape.clone(),
            });
            tensors.insert(
                tensor.to_owned(),
                Stored::plain(info.clone(), position, range),
            );
        }
        shards.push(Shard {
            file: (*name).to_owned(),
            tensors: specs,
        });
    }
    Checkpoint {
        path: folder.into(),
        layout: Layout::HuggingFace,
        files: files.iter().map(SafetensorsFile::mapped).collect(),
        tensors,
        shards,
    }
}

/// The part of an index that is used; `metadata.total_size` is wrong in many real files.
#[derive(Deserialize)]
struct Index {
    weight_map: HashMap<String, String>,
}

pub(crate) fn read_index(index: &Path) -> Result<HashMap<String, String>, CheckpointError> {
    let text =
        simmer_files::read(index, MAX_TEXT_BYTES).map_err(CheckpointError::io(index, "read"))?;
    let parsed: Index =
        serde_json::from_slice(&text).map_err(|source| CheckpointError::IndexJson {
            file: index.into(),
            source,
        })?;
    Ok(parsed.weight_map)
}

/// Whether this is a plain file name on every system: no folder, no root, no "..".
pub(crate) fn is_file_name(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!(parts.next(), Some(Component::Normal(_)))
        && parts.next().is_none()
        && !name.contains(['/', '\\', ':', '\0'])
}

/// Checks that index and files agree on the file of each tensor, and lists all contradictions.
fn agreed(
    weight_map: &HashMap<String, String>,
    shards: &[&str],
    files: &[SafetensorsFile],
) -> Result<(), Vec<String>> {
    let mut tensors: BTreeMap<String, usize> = BTreeMap::new();
    let mut problems = Vec::new();
    for (position, (file, shard)) in files.iter().zip(shards).enumerate() {
        for name in file.names() {
            if let Some(first) = tensors.insert(name.to_owned(), position) {
                problems.push(format!(
                    "tensor `{name}` is in {} and in {shard}",
                    shards[first]
                ));
            } else if !weight_map.contains_key(name) {
                problems.push(format!(
                    "tensor `{name}` is in {shard}, but not in the index"
                ));
            }
        }
    }
    let mut indexed: Vec<_> = weight_map.iter().collect();
    indexed.sort();
    for (name, shard) in indexed {
        match tensors.get(name) {
            Some(&at) if shards[at] == shard => {}
            Some(&at) if files[at].contains(name) && is_in(files, shards, shard, name) => {}
            Some(&at) => problems.push(format!(
                "tensor `{name}` is in {}, the index says {shard}",
                shards[at]
            )),
            None => problems.push(format!("tensor `{name}` is not in {shard}")),
        }
    }
    if problems.is_empty() {
        Ok(())
    } else {
        Err(problems)
    }
}

/// Whether a shard holds a tensor, for tensors in two shards.
fn is_in(files: &[SafetensorsFile], shards: &[&str], shard: &str, name: &str) -> bool {
    let position = shards.iter().position(|other| *other == shard);
    position.is_some_and(|at| files[at].contains(name))
}

/// What a folder without safetensors weights holds instead.
fn what_is_there(folder: &Path) -> String {
    let names: Vec<String> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    let has = |start: &str, end: &str| {
        let mut names = names.iter();
        names.any(|name| name.starts_with(start) && name.ends_with(end))
    };
    if has("adapter_model", ".safetensors") || has("adapter_config", ".json") {
        "; it holds an adapter, not a base model"
    } else if has("pytorch_model", ".bin") {
        "; its weights are pickled (pytorch_model.bin): save the model again with safe_serialization=True"
    } else if has("consolidated.", ".pth") {
        "; it is a checkpoint in Meta's layout, not in Hugging Face's"
    } else if has("", ".gguf") {
        "; it holds a .gguf file, not a Hugging Face checkpoint"
    } else {
        ""
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Dtype, PT_METADATA, TensorView};

    fn shard(dir: &Path, file: &str, names: &[&str]) {
        let one = TensorView {
            dtype: Dtype::F32,
            shape: &[1],
            bytes: &1.0_f32.to_le_bytes(),
        };
        let tensors = names.iter().map(|name| ((*name).to_owned(), one)).collect();
        write_safetensors(dir.join(file), &tensors, PT_METADATA).unwrap();
    }

    fn index(dir: &Path, weight_map: &[(&str, &str)]) {
        let map: BTreeMap<&str, &str> = weight_map.iter().copied().collect();
        let index = serde_json::json!({"metadata": {"total_size": 0}, "weight_map": map});
        fs::write(dir.join(INDEX_FILE), index.to_string()).unwrap();
    }

    fn said(dir: &Path) -> String {
        let error = Checkpoint::open(dir).unwrap_err();
        error.to_string().replace(&dir.display().to_string(), "DIR")
    }

    #[test]
    fn one_file_or_several_read_the_same() {
        let one = tempfile::tempdir().unwrap();
        shard(
            one.path(),
            SINGLE_FILE,
            &["a", "b", "model.layers.0.self_attn.rotary_emb.inv_freq"],
        );
        let two = tempfile::tempdir().unwrap();
        shard(two.path(), "x.safetensors", &["b"]);
        shard(
            two.path(),
            "y.safetensors",
            &["a", "model.layers.0.self_attn.rotary_emb.inv_freq"],
        );
        index(
            two.path(),
            &[
                ("a", "y.safetensors"),
                ("b", "x.safetensors"),
                (
                    "model.layers.0.self_attn.rotary_emb.inv_freq",
                    "y.safetensors",
                ),
            ],
        );
        for dir in [&one, &two] {
            let checkpoint = Checkpoint::open(dir.path()).unwrap();
            assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["a", "b"]);
            assert_eq!(checkpoint.rotary_buffers(), 1);
            assert_eq!(checkpoint.total_bytes(), 8);
            assert_eq!(checkpoint.info("b").unwrap().shape, [1]);
            assert_eq!(
                checkpoint.tensor("a").unwrap().bytes[..],
                1.0_f32.to_le_bytes()
            );
        }
        assert_eq!(Checkpoint::open(two.path()).unwrap().shards().len(), 2);
    }

    #[test]
    fn folders_without_weights_say_what_they_hold() {
        let dir = tempfile::tempdir().unwrap();
        insta::assert_snapshot!(said(dir.path()), @"DIR: no model.safetensors and no model.safetensors.index.json in this folder");
        for (name, end) in [
            (
                "adapter_config.json",
                "it holds an adapter, not a base model",
            ),
            (
                "pytorch_model-00001-of-00002.bin",
                "its weights are pickled (pytorch_model.bin): save the model again with safe_serialization=True",
            ),
            (
                "consolidated.00.pth",
                "it is a checkpoint in Meta's layout, not in Hugging Face's",
            ),
            (
                "model-q8.gguf",
                "it holds a .gguf file, not a Hugging Face checkpoint",
            ),
        ] {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join(name), "").unwrap();
            assert!(said(dir.path()).ends_with(end), "{}", said(dir.path()));
        }
        let missing = dir.path().join("nowhere");
        let error = Checkpoint::open(&missing).unwrap_err();
        assert!(matches!(
            error,
            CheckpointError::Io {
                action: "open folder",
                ..
            }
        ));
    }

    #[test]
    fn missing_shards_are_all_named() {
        let dir = tempfile::tempdir().unwrap();
        shard(dir.path(), "m-2.safetensors", &["b"]);
        index(
            dir.path(),
            &[
                ("a", "m-1.safetensors"),
                ("b", "m-2.safetensors"),
                ("c", "m-3.safetensors"),
            ],
        );
        insta::assert_snapshot!(said(dir.path()), @"DIR/model.safetensors.index.json: 2 of 3 files are missing: m-1.safetensors, m-3.safetensors");
    }

    #[test]
    fn index_and_files_must_agree() {
        let dir = tempfile::tempdir().unwrap();
        shard(
            dir.path(),
            "m-1.safetensors",
            &["a", "both", "unlisted", "elsewhere"],
        );
        shard(dir.path(), "m-2.safetensors", &["b", "both"]);
        index(
            dir.path(),
            &[
                ("a", "m-1.safetensors"),
                ("b", "m-2.safetensors"),
                ("both", "m-1.safetensors"),
                ("elsewhere", "m-2.safetensors"),
                ("gone", "m-2.safetensors"),
            ],
        );
        insta::assert_snapshot!(said(dir.path()), @r"
        DIR/model.safetensors.index.json: the index contradicts the files:
          tensor `unlisted` is in m-1.safetensors, but not in the index
          tensor `both` is in m-1.safetensors and in m-2.safetensors
          tensor `elsewhere` is in m-1.safetensors, the index says m-2.safetensors
          tensor `gone` is not in m-2.safetensors
        ");
    }

    #[test]
    fn an_index_cannot_leave_its_folder() {
        for name in [
            "../x.safetensors",
            "/etc/passwd",
            "sub/x.safetensors",
            "..",
            ".",
            "",
            "c:x",
            "a\\b",
        ] {
            let dir = tempfile::tempdir().unwrap();
            index(dir.path(), &[("a", name)]);
            assert_eq!(
                said(dir.path()),
                format!(
                    "DIR/model.safetensors.index.json: `{}` is not the name of a file in the same folder",
                    name.escape_debug()
                )
            );
        }
    }

    #[test]
    fn an_index_without_a_map_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(INDEX_FILE), r#"{"weights": {}}"#).unwrap();
        insta::assert_snapshot!(said(dir.path()), @"DIR/model.safetensors.index.json: not a valid index: missing field `weight_map` at line 1 column 15");
    }
}
