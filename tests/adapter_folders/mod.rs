//! What belongs to an adapter comes from its folder, and what is wrong with a folder is named.

mod loading;
mod own;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use burn::module::Module;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::Value;
use simmer_model::adapter;

use crate::commands::simmer;
use crate::golden;
use crate::model::load;

type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let golden = path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("golden"));
        if path.is_file() && !golden {
            fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
        }
    }
}

/// Folders of a base model and of an adapter of PEFT, to be changed.
struct Folders {
    folder: tempfile::TempDir,
}

impl Folders {
    fn new() -> Self {
        let folders = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        copy(&golden::folder("tied-gqa"), &folders.path("base"));
        // room for the text of every template; the positions are computed, so the weights are the same
        let file = folders.path("base/config.json");
        let mut config: Value = golden::json(file.clone());
        config["max_position_embeddings"] = 512.into();
        fs::write(file, config.to_string()).unwrap();
        let adapter = golden::adapter_folder("tied-gqa", "qkvo");
        copy(&adapter, &folders.path("adapter"));
        folders
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        fs::write(self.path(name), text).unwrap();
    }

    /// Changes the adapter's tensors and writes them to a file of its folder.
    fn tensors(&self, file: &str, change: impl FnOnce(Tensors) -> Tensors) {
        let original = golden::adapter_folder("tied-gqa", "qkvo");
        let bytes = fs::read(original.join("adapter_model.safetensors")).unwrap();
        let read = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let tensors = read.tensors().into_iter().map(|(key, view)| {
            let values = view.data().chunks_exact(4);
            let values = values.map(|x| f32::from_le_bytes(x.try_into().unwrap()));
            (key, (view.shape().to_vec(), values.collect()))
        });
        let bytes: BTreeMap<String, (Vec<usize>, Vec<u8>)> = change(tensors.collect())
            .into_iter()
            .map(|(key, (shape, values))| {
                let bytes = values.iter().flat_map(|x: &f32| x.to_le_bytes());
                (key, (shape, bytes.collect()))
            })
            .collect();
        let views = bytes.iter().map(|(key, (shape, bytes))| {
            let view = TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap();
            (key, view)
        });
        fs::remove_file(self.path("adapter/adapter_model.safetensors")).unwrap();
        let out = safetensors::serialize(views, None).unwrap();
        fs::write(self.path("adapter").join(file), out).unwrap();
    }

    fn config(&self, change: impl FnOnce(&mut Value)) {
        let path = self.path("adapter/adapter_config.json");
        let mut config: Value = golden::json(path.clone());
        change(&mut config);
        fs::write(path, config.to_string()).unwrap();
    }

    /// Exit code, output and messages of a command in the folder.
    fn run(&self, args: &[&str]) -> (i32, String, String) {
        let output = simmer(self.folder.path(), args);
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (
            output.status.code().unwrap(),
            text(output.stdout),
            text(output.stderr),
        )
    }

    /// The JSON that a command prints, and its messages.
    fn json(&self, args: &[&str]) -> (Value, String) {
        let (code, out, said) = self.run(args);
        assert_eq!(code, 0, "{said}");
        (serde_json::from_str(&out).unwrap(), said)
    }

    /// The messages of a command that fails.
    fn failure(&self, args: &[&str]) -> String {
        let (code, _, said) = self.run(args);
        assert_eq!(code, 1, "{args:?}: {said}");
        said
    }

    fn logits(&self) -> Vec<f32> {
        let base = load("tied-gqa", &golden::device());
        let attached = adapter::load(base, &self.path("adapter")).unwrap();
        logits(&attached.model.valid())
    }
}

fn logits(model: &simmer_model::LlamaForCausalLM) -> Vec<f32> {
    let hidden = model.hidden(
        &simmer_model::Sequence::from_rows(&[&[1, 5, 9, 33, 70]]),
        None,
    );
    model.logits(hidden).into_data().iter::<f32>().collect()
}

const GENERATE: [&str; 9] = [
    "generate",
    "--base",
    "base",
    "--greedy",
    "--max-new-tokens",
    "8",
    "--prompt",
    "soup",
    "--json",
];

const SCORE: [&str; 7] = [
    "score",
    "--base",
    "base",
    "--adapter",
    "adapter",
    "--text",
    "soup",
];

const MERGE: [&str; 8] = [
    "merge",
    "--base",
    "base",
    "--adapter",
    "adapter",
    "--out",
    "merged",
    "--no-check",
];

fn with<'a>(args: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    [args, more].concat()
}
