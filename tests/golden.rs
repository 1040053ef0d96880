//! Access to the goldens that transformers and PEFT made; see `tests/reference/README.md`.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use safetensors::SafeTensors;
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// The tiny LLaMA models, and the adapters of each.
const LLAMA: [(&str, &[&str]); 4] = [
    (
        "tied-gqa",
        &[
            "init",
            "qkvo",
            "rslora",
            "dora",
            "pissa",
            "ia3",
            "llama-adapter",
            "token-rows",
            "new-tokens",
            "new-token-rows",
        ],
    ),
    (
        "untied-mha",
        &[
            "all-linear",
            "saved-head",
            "lora-only-bias",
            "dora",
            "ia3",
            "adaption-prompt",
            "llama-adapter",
            "loraplus",
            "olora",
            "olora-head",
            "token-rows",
            "new-tokens",
        ],
    ),
    ("llama3-rope", &["qkvo", "adaption-prompt"]),
    ("linear-rope", &[]),
];

/// The tiny models of the other families, and the adapters of each. Their files have fewer tensors.
const FAMILIES: [(&str, &[&str]); 10] = [
    ("mistral", &["all-linear"]),
    ("qwen2", &["all-linear"]),
    ("qwen3", &["all-linear"]),
    ("smollm3", &["all-linear"]),
    ("phi3", &["all-linear"]),
    ("gemma", &["all-linear"]),
    ("gemma2", &["all-linear"]),
    ("gemma3_text", &["all-linear"]),
    ("olmo2", &["all-linear"]),
    ("granite", &["all-linear"]),
];

/// The adapters of prompts, which cannot be merged.
pub(crate) const PROMPTS: [&str; 2] = ["adaption-prompt", "llama-adapter"];

/// The adapters without low-rank branches.
pub(crate) const WITHOUT_RANK: [&str; 3] = ["ia3", "adaption-prompt", "llama-adapter"];

fn folders() -> impl Iterator<Item = (&'static str, &'static [&'static str])> {
    LLAMA.into_iter().chain(FAMILIES)
}

/// The tiny models.
pub(crate) fn models() -> impl Iterator<Item = &'static str> {
    folders().map(|(model, _)| model)
}

/// The adapters of all tiny models, each with its model.
pub(crate) fn adapters() -> impl Iterator<Item = (&'static str, &'static str)> {
    folders().flat_map(|(model, names)| names.iter().map(move |name| (model, *name)))
}

/// The adapters that can be merged into their base models.
pub(crate) fn merging_adapters() -> impl Iterator<Item = (&'static str, &'static str)> {
    adapters().filter(|(_, name)| !PROMPTS.contains(name))
}

/// The adapters of the LLaMA models alone.
pub(crate) fn llama_adapters() -> impl Iterator<Item = (&'static str, &'static str)> {
    adapters().filter(|(model, _)| LLAMA.iter().any(|(llama, _)| llama == model))
}

/// The tiny models that have the keys of transformers 4 beside those of transformers 5, in
/// `config.old.json`.
pub(crate) fn models_with_old_config() -> impl Iterator<Item = &'static str> {
    models().filter(|model| folder(model).join("config.old.json").exists())
}

#[derive(Deserialize)]
pub(crate) struct Row {
    pub(crate) input_ids: Vec<u32>,
    pub(crate) labels: Vec<i64>,
}

impl Row {
    /// What each position predicts: the next token, where it is trained on.
    pub(crate) fn targets(&self) -> Vec<Option<u32>> {
        let next = self.labels.iter().skip(1).copied().chain([-100]);
        next.map(|label| u32::try_from(label).ok()).collect()
    }
}

#[derive(Deserialize)]
pub(crate) struct Greedy {
    pub(crate) prompt: Vec<u32>,
    pub(crate) ids: Vec<u32>,
}

#[derive(Deserialize)]
pub(crate) struct ModelGolden {
    pub(crate) rows: Vec<Row>,
    pub(crate) loss: f64,
    pub(crate) greedy: Vec<GreedyStopping>,
    pub(crate) score: Vec<Score>,
}

#[derive(Deserialize)]
pub(crate) struct GreedyStopping {
    pub(crate) prompt: Vec<u32>,
    pub(crate) ids: Vec<u32>,
    pub(crate) until_eos: Vec<u32>,
}

#[derive(Deserialize)]
pub(crate) struct Score {
    pub(crate) ids: Vec<u32>,
    pub(crate) log_probs: Vec<f32>,
}

#[derive(Deserialize)]
pub(crate) struct AdapterGolden {
    /// In place of the model's, where the adapter knows tokens that the model does not.
    pub(crate) rows: Option<Vec<Row>>,
    pub(crate) loss: f64,
    pub(crate) greedy: Greedy,
    pub(crate) training: Training,
}

#[derive(Deserialize)]
pub(crate) struct Training {
    pub(crate) settings: Settings,
    pub(crate) steps: Vec<Step>,
    pub(crate) final_loss: f64,
}

#[derive(Deserialize)]
pub(crate) struct Settings {
    pub(crate) learning_rate: f64,
    pub(crate) schedule: String,
    pub(crate) warmup_steps: u64,
    pub(crate) steps: u64,
    pub(crate) batch_size: usize,
    pub(crate) beta1: f64,
    pub(crate) beta2: f64,
    pub(crate) epsilon: f64,
    pub(crate) weight_decay: f64,
    pub(crate) max_grad_norm: Option<f64>,
    /// Those of PEFT's LoRA+, with its groups of tensors.
    pub(crate) loraplus_lr_ratio: Option<f64>,
    pub(crate) loraplus_lr_embedding: Option<f64>,
}

#[derive(Deserialize)]
pub(crate) struct Step {
    pub(crate) rows: Vec<usize>,
    pub(crate) learning_rate: f64,
    pub(crate) loss: f64,
    pub(crate) trained_tokens: usize,
    pub(crate) grad_norm: f64,
}

/// Name of the device that models are tested on: that of `SIMMER_TEST_DEVICE`, else libtorch's
/// processor in a build with libtorch, ours in others.
pub(crate) fn device_name() -> String {
    let default = if cfg!(feature = "libtorch") {
        "libtorch"
    } else {
        "cpu"
    };
    std::env::var("SIMMER_TEST_DEVICE").unwrap_or_else(|_| default.to_owned())
}

/// The device that models are tested on.
pub(crate) fn device() -> Device {
    simmer_model::device::named(&device_name()).unwrap()
}

/// Where the repository is: as cargo says, or who starts the tests on a machine where they were not built.
fn root() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from)
}

pub(crate) fn folder(model: &str) -> PathBuf {
    root().join("tests/goldens").join(model)
}

pub(crate) fn adapter_folder(model: &str, adapter: &str) -> PathBuf {
    folder(model).join("adapters").join(adapter)
}

/// The rows that an adapter's golden numbers are of.
pub(crate) fn rows(model: &str, adapter: &str) -> Vec<Row> {
    let golden: AdapterGolden = json(adapter_folder(model, adapter).join("golden.json"));
    let of_model = || json::<ModelGolden>(folder(model).join("golden.json")).rows;
    golden.rows.unwrap_or_else(of_model)
}

pub(crate) fn json<T: DeserializeOwned>(path: impl AsRef<Path>) -> T {
    let text = std::fs::read_to_string(path.as_ref()).unwrap();
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.as_ref().display()))
}

/// A file of f32, bf16 and f16 tensors.
pub(crate) struct Tensors(Vec<u8>);

impl Tensors {
    pub(crate) fn open(path: impl AsRef<Path>) -> Self {
        Self(std::fs::read(path).unwrap())
    }

    pub(crate) fn names(&self) -> Vec<String> {
        let tensors = SafeTensors::deserialize(&self.0).unwrap();
        let mut names: Vec<String> = tensors.names().into_iter().map(str::to_owned).collect();
        names.sort();
        names
    }

    /// The rows whose logits a file has: all of a LLaMA model's, some of another family's.
    pub(crate) fn rows_with_logits(&self) -> Vec<usize> {
        let rows: Vec<usize> = self
            .names_after("logits.")
            .iter()
            .map(|row| row.parse().unwrap())
            .collect();
        assert!(!rows.is_empty(), "no logits");
        rows
    }

    /// The names with a prefix, without it.
    pub(crate) fn names_after(&self, prefix: &str) -> Vec<String> {
        let names = self.names();
        let after = names.iter().filter_map(|name| name.strip_prefix(prefix));
        after.map(str::to_owned).collect()
    }

    pub(crate) fn f32(&self, name: &str) -> Vec<f32> {
        let tensors = SafeTensors::deserialize(&self.0).unwrap();
        let view = tensors
            .tensor(name)
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(view.dtype(), safetensors::Dtype::F32, "{name}");
        view.data()
            .chunks_exact(4)
            .map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()))
            .collect()
    }
}

/// The largest absolute difference.
pub(crate) fn max_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter()
        .zip(b)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max)
}
