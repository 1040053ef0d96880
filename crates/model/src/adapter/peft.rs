//! The folder of an adapter, as PEFT's `save_pretrained` writes it.
//!
//! Keys are `base_model.model.` + module path + the end that the kind of adapter gives to each of its tensors
//! ([`super::kind`]). Trained biases and fully trained modules keep their own keys. If tokens were
//! added to the base model, the folder also has the full embedding and head, and the tokenizer.
//!
//! Source: PEFT 0.21, src/peft/utils/save_and_load.py, `get_peft_model_state_dict`.

mod vocabulary;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::TensorData;
use simmer_checkpoint::family::{Role, module_at};
use simmer_checkpoint::layout::ModuleLayout;
use simmer_checkpoint::{Bytes, Dtype, PT_METADATA, Tensor, compare};
use simmer_files::{Existing, StagedFolder};

use super::card::Card;
use super::config::{AdapterConfig, CONFIG_FILE};
use super::targets::{Selection, Unmatched, select};
use super::trained_with::{SETTINGS_FILE, TrainedWith};
use super::weights::{AdapterWeights, WEIGHT_FILES, check_finite, find, is_head};
use super::{AdapterError, diagnosis, gguf, mlx, tokens};
use crate::tensor_file::{encode_safetensors, to_data};

/// Name of the weight file.
pub const WEIGHTS_FILE: &str = "adapter_model.safetensors";
/// Prefix of PEFT's keys before the module path.
pub const KEY_PREFIX: &str = "base_model.model.";
/// Files from which a whole tokenizer is read.
const TOKENIZERS: [&str; 2] = ["tokenizer.json", "tokenizer.model"];
/// Files with settings of a tokenizer.
const TOKENIZER_SETTINGS: [&str; 4] = [
    "tokenizer_config.json",
    "special_tokens_map.json",
    "generation_config.json",
    "chat_template.jinja",
];
/// No vocabulary has more tokens.
const MOST_TOKENS: usize = 1 << 24;
/// Suffix of PEFT's key of the frozen weight of an adapted module.
const BASE_WEIGHT: &str = ".base_layer.weight";

/// An adapter on disk, opened but not yet compared with a base model.
#[derive(Debug)]
pub struct AdapterFolder {
    folder: PathBuf,
    config: AdapterConfig,
    weights: AdapterWeights,
    trained_with: Option<TrainedWith>,
    warnings: Vec<String>,
}

/// An adapter's tensors, under PEFT's keys.
#[derive(Debug)]
pub struct AdapterTensors {
    /// The trained tensors: every expected key, in the stored dtype.
    pub trained: BTreeMap<String, TensorData>,
    /// Base weights in the adapter's file, by module path: PEFT adds those of adapted embeddings. They
    /// replace the base model's own.
    pub base_weights: BTreeMap<String, TensorData>,
}

impl AdapterFolder {
    /// Opens a folder: reads its configuration, and checks and maps its weight file. Or a checkpoint of the original LLaMA-Adapter,
    /// a file.
    ///
    /// # Errors
    ///
    /// Missing or damaged files, and configurations of something other than LoRA.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self, AdapterError> {
        let folder = folder.as_ref();
        if folder.is_file() {
            return Self::open_file(folder);
        }
        fs::read_dir(folder).map_err(AdapterError::io(folder, "open folder"))?;
        let missing = |missing| AdapterError::NotAnAdapter {
            folder: folder.into(),
            missing,
            found: what_is_there(folder),
        };
        if !folder.join(CONFIG_FILE).exists() {
            return Err(missing(CONFIG_FILE));
        }
        let weights = find(folder).ok_or_else(|| missing(WEIGHTS_FILE))?;
        let (mut config, mut warnings) = AdapterConfig::read(&folder.join(CONFIG_FILE))?;
        let weights = AdapterWeights::open(&weights, Some(&config))?;
        if mlx::is_file(weights.path()) {
            config.target_modules = Some(mlx::targets(&weights));
        }
        warnings.extend_from_slice(weights.notes());
        if config.init().is_random() {
            return Err(AdapterError::Unsupported {
                file: folder.join(CONFIG_FILE),
                key: "init_lora_weights".to_owned(),
                found: config.init_lora_weights.to_string(),
                why: "the start is a randomised decomposition, whose random numbers are not in the file",
            });
        }
        Ok(Self {
            folder: folder.into(),
            config,
            weights,
            trained_with: TrainedWith::read(folder)?,
            warnings,
        })
    }

    /// Opens a file that needs no configuration beside it: a checkpoint of the original LLaMA-Adapter.
    fn open_file(file: &Path) -> Result<Self, AdapterError> {
        let weights = match AdapterWeights::open(file, None) {
            Ok(weights) => weights,
            Err(error @ AdapterError::Original { .. }) => return Err(error),
            Err(_) => return Err(not_a_folder(file)),
        };
        let config = weights.config().cloned();
        let config = config.ok_or_else(|| not_a_folder(file))?;
        Ok(Self {
            folder: file.into(),
            config,
            warnings: weights.notes().to_vec(),
            weights,
            trained_with: None,
        })
    }

    /// What it was trained with, if its folder says so (`simmer.json`).
    pub fn trained_with(&self) -> Option<&TrainedWith> {
        self.trained_with.as_ref()
    }

    /// The folder, or the file.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its configuration.
    pub fn config(&self) -> &AdapterConfig {
        &self.config
    }

    /// The weight file.
    pub fn weights(&self) -> &AdapterWeights {
        &self.weights
    }

    /// Keys of the configuration that were ignored, and what was changed in the keys of the weights, one sentence each.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The folder as the path of a tokenizer, if it has a whole one.
    pub fn tokenizer_path(&self) -> Option<&Path> {
        self.has_any(&TOKENIZERS).then_some(&self.folder)
    }

    /// Whether the folder has settings of a tokenizer: special tokens, the end of sequence, chat templates.
    pub fn has_tokenizer_settings(&self) -> bool {
        self.has_any(&TOKENIZER_SETTINGS)
    }

    fn has_any(&self, files: &[&str]) -> bool {
        files.iter().any(|file| self.folder.join(file).is_file())
    }

    /// The modules of a base model that the adapter changes.
    ///
    /// # Errors
    ///
    /// See [`SelectionError`](super::targets::SelectionError).
    pub fn select(&self, modules: &[ModuleLayout]) -> Result<Selection, AdapterError> {
        let mut selection = select(&self.config, modules, Unmatched::Warn)?;
        let has = |key: &str| self.weights.tensor(key).is_some();
        selection.add_tied_head(&self.config, &has)?;
        tokens::check_range(&selection.tokens)?;
        Ok(selection)
    }

    /// The tensors for the modules that [`Self::select`] returned, in the stored dtype and without a copy.
    ///
    /// # Errors
    ///
    /// All tensors that are missing, unexpected, or of another shape, in one error; a dtype other than F32, F16
    /// and BF16; values that are NaN or infinite; the head of a classifier.
    pub fn tensors(&self, selection: &Selection) -> Result<AdapterTensors, AdapterError> {
        let mut expected = tensor_shapes(selection);
        let base = base_weights(selection);
        let mut found = BTreeMap::new();
        let mut keys: BTreeMap<String, (&str, &Tensor)> = BTreeMap::new();
        for (key, tensor) in self.weights.tensors() {
            self.check_no_head(key, tensor)?;
            let Some(name) = current_key(key, &expected, self.weights.names()) else {
                continue;
            };
            let name = tokens::shared_key(selection, &name).unwrap_or(name);
            if let Some((first, other)) = keys.get(&name) {
                check_equal(self.weights.path(), [first, key], [other, tensor])?;
            }
            if let Some((_, shape)) = base.get(&name) {
                expected.insert(name.clone(), shape.clone());
            }
            found.insert(name.clone(), tensor.shape.clone());
            if !matches!(tensor.dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16) {
                return Err(AdapterError::Dtype {
                    file: self.weights.path().into(),
                    tensor: key.to_owned(),
                    found: tensor.dtype.to_string(),
                });
            }
            keys.insert(name, (key, tensor));
        }
        compare(&expected, &found).map_err(|difference| {
            let diagnosis = diagnosis::of(&expected, &found, &selection.names, &self.config);
            AdapterError::Mismatch {
                file: self.weights.path().into(),
                diagnosis: diagnosis.text,
                difference: (!diagnosis.is_other_base).then(|| Box::new(difference)),
            }
        })?;
        let mut tensors = AdapterTensors {
            trained: BTreeMap::new(),
            base_weights: BTreeMap::new(),
        };
        for (name, (key, tensor)) in keys {
            check_finite(self.weights.path(), key, tensor)?;
            let data = to_data(tensor.clone(), self.weights.path(), key)?;
            match base.get(&name) {
                Some((module, _)) => tensors.base_weights.insert(module.clone(), data),
                None => tensors.trained.insert(name, data),
            };
        }
        Ok(tensors)
    }

    fn check_no_head(&self, key: &str, tensor: &Tensor) -> Result<(), AdapterError> {
        if !is_head(key) {
            return Ok(());
        }
        Err(AdapterError::Head {
            file: self.weights.path().into(),
            tensor: key.to_owned(),
            shape: tensor.shape.clone(),
            task_type: self.config.task_type.clone(),
        })
    }

    /// Saves a folder that PEFT loads: configuration, weights, a README from `card`, and copies of the files
    /// `beside` (the tokenizer). The prompt templates and the quantised base model of `card` are in `simmer.json`, which PEFT does
    /// not read.
    ///
    /// The weight file is byte for byte the one that PEFT writes for the same tensors.
    ///
    /// # Errors
    ///
    /// Errors of the operating system. An existing folder then stays as it was.
    pub fn save(
        folder: impl AsRef<Path>,
        config: &AdapterConfig,
        tensors: &BTreeMap<String, TensorData>,
        beside: &[PathBuf],
        card: &Card,
        existing: Existing,
    ) -> Result<(), AdapterError> {
        let staged = StagedFolder::new(folder, existing)?;
        let path = staged.out().join(WEIGHTS_FILE);
        let weights = encode_safetensors(&path, tensors, PT_METADATA)?;
        staged.write(WEIGHTS_FILE, &weights)?;
        staged.write(CONFIG_FILE, config.to_json().as_bytes())?;
        let embedding = tensors.iter().find(|(key, _)| is_embedding(key));
        let vocab_size = embedding.map(|(_, embedding)| embedding.shape()[0]);
        let vocab_size = card.vocab_size.or(vocab_size);
        staged.write("README.md", card.text(config, vocab_size).as_bytes())?;
        if let Some(text) = TrainedWith::text(&card.templates, card.base.as_ref()) {
            staged.write(SETTINGS_FILE, text.as_bytes())?;
        }
        for file in beside {
            staged.copy(file)?;
        }
        Ok(staged.commit()?)
    }
}

/// Whether a key is that of the whole weight of an embedding.
fn is_embedding(key: &str) -> bool {
    let path = key.strip_prefix(KEY_PREFIX).unwrap_or(key);
    let module = path.strip_suffix(BASE_WEIGHT);
    let module = module.or_else(|| path.strip_suffix(".weight"));
    let module = module.and_then(module_at);
    module.is_some_and(|module| module.role == Role::Embedding)
}

/// Shapes of all tensors of an adapter for these modules, by PEFT's keys.
pub fn tensor_shapes(selection: &Selection) -> BTreeMap<String, Vec<usize>> {
    let mut shapes = BTreeMap::new();
    let mut insert = |module: &str, suffix: &str, shape: &[usize]| {
        shapes.insert(format!("{KEY_PREFIX}{module}{suffix}"), shape.to_vec());
    };
    for module in &selection.adapted {
        for tensor in module.tensors() {
            insert(
                &module.name,
                tensor.end,
                &tensor.dims(module.shape, module.rank),
            );
        }
    }
    for attention in &selection.attention {
        for (tensor, shape) in attention.tensors() {
            insert(&attention.name, tensor.end, &shape);
        }
    }
    for module in &selection.saved {
        insert(&module.name, ".weight", &module.shape);
        if module.bias {
            insert(&module.name, ".bias", &module.shape[..1]);
        }
    }
    for module in &selection.tokens {
        insert(
            &module.name,
            tokens::ROWS,
            &[module.ids.len(), module.columns],
        );
    }
    for module in &selection.biases {
        let mut adapted = selection.adapted.iter();
        let adapted = adapted.any(|other| other.name == module.name);
        let suffix = if adapted { ".base_layer.bias" } else { ".bias" };
        insert(&module.name, suffix, &module.shape[..1]);
    }
    shapes
}

/// Shapes of all tensors of an adapter for these modules, by their names in [`crate::Parameters`].
pub fn trained_shapes(selection: &Selection) -> BTreeMap<String, Vec<usize>> {
    let shapes = tensor_shapes(selection).into_iter();
    let named = shapes.map(|(key, shape)| {
        let name = key.strip_prefix(KEY_PREFIX).unwrap_or(&key);
        (name.replace(".base_layer.", "."), shape)
    });
    named.collect()
}

/// Base weights that PEFT may save with an adapter: those of embedding and head, adapted or not (not adapted if
/// the vocabulary was resized). Key -> module and shape.
fn base_weights(selection: &Selection) -> BTreeMap<String, (String, Vec<usize>)> {
    let mut weights = BTreeMap::new();
    for module in &selection.ends {
        if selection
            .saved
            .iter()
            .any(|saved| saved.name == module.name)
        {
            continue;
        }
        let adapted = selection
            .adapted
            .iter()
            .any(|other| other.name == module.name);
        let has_rows = selection.tokens.iter().any(|of| of.name == module.name);
        if has_rows {
            let key = format!("{KEY_PREFIX}{}{}", module.name, tokens::FROZEN);
            weights.insert(key, (module.name.clone(), module.shape.clone()));
        }
        let key = frozen_key(&module.name, adapted);
        weights.insert(key, (module.name.clone(), module.shape.clone()));
    }
    weights
}

/// The key of a frozen base weight in an adapter's file.
pub(super) fn frozen_key(module: &str, adapted: bool) -> String {
    let suffix = if adapted { BASE_WEIGHT } else { ".weight" };
    format!("{KEY_PREFIX}{module}{suffix}")
}

/// The key of a tensor in the current version of PEFT; `None` for the duplicates that `bias="all"` writes of
/// fully saved modules.
fn current_key<'a>(
    key: &str,
    expected: &BTreeMap<String, Vec<usize>>,
    mut all: impl Iterator<Item = &'a str>,
) -> Option<String> {
    for (inner, kept) in [(".modules_to_save.", true), (".original_module.", false)] {
        let plain = key.replacen(inner, ".", 1);
        if plain != key && expected.contains_key(&plain) {
            return (kept && !all.any(|other| other == plain)).then_some(plain);
        }
    }
    // A state dict that PEFT did not save has DoRA's magnitudes as a module's weight.
    if let Some(today) = key.strip_suffix(".weight")
        && expected.contains_key(today)
    {
        return Some(today.to_owned());
    }
    // Before PEFT 0.5 the key of an adapted module's bias had no `base_layer`.
    if let Some(module) = key.strip_suffix(".bias") {
        let today = format!("{module}.base_layer.bias");
        if expected.contains_key(&today) {
            return Some(today);
        }
    }
    Some(key.to_owned())
}

/// Checks that two copies of a tensor are equal: those of the embedding and of an output head that is tied to it.
fn check_equal(file: &Path, keys: [&str; 2], copies: [&Tensor; 2]) -> Result<(), AdapterError> {
    let [one, other] = copies;
    if one.dtype == other.dtype && one.shape == other.shape && one.bytes == other.bytes {
        return Ok(());
    }
    Err(AdapterError::Untied {
        file: file.into(),
        tensors: keys.map(str::to_owned),
    })
}

/// The error for a file in the place of an adapter's folder.
fn not_a_folder(file: &Path) -> AdapterError {
    let map = simmer_files::open(file).and_then(|file| simmer_files::map_file(&file));
    let gguf = map
        .ok()
        .and_then(|map| gguf::instead_of_peft(file, &Bytes::from_owner(map)));
    gguf.unwrap_or_else(|| AdapterError::FileInstead { file: file.into() })
}

/// Describes what a folder has instead of an adapter.
pub(super) fn what_is_there(folder: &Path) -> String {
    let weights = WEIGHT_FILES.iter().find(|name| folder.join(name).exists());
    if let Some(weights) = weights {
        return format!("; it has the weights ({weights}) alone");
    }
    let entries = || fs::read_dir(folder).into_iter().flatten().flatten();
    let gguf = entries().find(|entry| entry.path().extension().is_some_and(|ext| ext == "gguf"));
    if let Some(gguf) = gguf {
        let name = gguf.file_name();
        return format!(
            "; it has {}, a GGUF file for llama.cpp",
            name.to_string_lossy()
        );
    }
    if folder.join("adapters.npz").exists() {
        return "; it has adapters.npz of an early mlx-lm: convert it to adapters.safetensors with mlx"
            .to_owned();
    }
    let subfolders: BTreeSet<String> = entries()
        .filter(|entry| entry.path().join(CONFIG_FILE).exists())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    if let Some(first) = subfolders.first() {
        let all: Vec<&str> = subfolders.iter().map(String::as_str).collect();
        let path = folder.join(first);
        return format!(
            "; it has adapters in subfolders: {} (use {})",
            all.join(", "),
            path.display()
        );
    }
    if folder.join("config.json").exists() {
        return "; it looks like a full model".to_owned();
    }
    String::new()
}

#[cfg(test)]
mod tests;
