//! Joins an adapter to a model: a new one from a recipe, or one from a folder in PEFT's layout.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use burn::module::{Param, ParamId};
use burn::tensor::{DType, Tensor, TensorData};
use serde::{Deserialize, Serialize};
use simmer_checkpoint::Existing;
use simmer_checkpoint::config::ModelConfig;
use simmer_checkpoint::layout::{self, ModuleKind, ModuleLayout};

use super::AdapterError;
use super::card::Card;
use super::config::{AdapterConfig, Bias};
use super::lora::{EmbeddingLora, Lora, Settings};
use super::peft::{AdapterFolder, AdapterTensors, frozen_key};
use super::targets::{Layers, Patterns, Selection, Targets, Unmatched, select};
use crate::layer::{Embedding, Linear, RmsNorm};
use crate::llama::{EMBEDDING, HEAD, LlamaForCausalLM};
use crate::parameters::{Parameters, trained};

/// The recipe's `[method.lora]` table: which low-rank paths are trained.
///
/// Keys without an explanation of their own have PEFT's name and meaning.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[derive(schemars::JsonSchema)]
pub struct LoraConfig {
    /// Rank of the paths (PEFT: `r`).
    pub rank: usize,
    /// A path is scaled by `alpha / rank` (PEFT: `lora_alpha`).
    pub alpha: f64,
    /// Probability that a feature of a path's input is cleared (PEFT: `lora_dropout`).
    pub dropout: f64,
    /// Modules with a path: names, one regular expression, or "all-linear" (PEFT:
    /// `target_modules`).
    pub targets: Targets,
    /// Modules left out of `targets`: names or one regular expression.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exclude_modules: Option<Targets>,
    /// Layers that `targets` means; all of them where it is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layers_to_transform: Option<Layers>,
    /// Ranks of modules that differ from `rank`, by name or regular expression.
    #[serde(skip_serializing_if = "Patterns::is_empty")]
    pub rank_pattern: Patterns<usize>,
    /// Alphas of modules that differ from `alpha`, by name or regular expression.
    #[serde(skip_serializing_if = "Patterns::is_empty")]
    pub alpha_pattern: Patterns<f64>,
    /// Scale by `alpha / √rank` instead.
    pub use_rslora: bool,
    /// Biases that are trained beside the paths.
    pub bias: Bias,
    /// Modules that are trained whole and saved with the adapter.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub modules_to_save: Vec<String>,
    /// Folder of an adapter to go on training. It brings every key above but `dropout`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<PathBuf>,
}

impl Default for LoraConfig {
    fn default() -> Self {
        Self {
            rank: 8,
            alpha: 16.0,
            dropout: 0.0,
            targets: Targets::Names(["q_proj", "v_proj"].map(str::to_owned).to_vec()),
            exclude_modules: None,
            layers_to_transform: None,
            rank_pattern: Patterns::default(),
            alpha_pattern: Patterns::default(),
            use_rslora: false,
            bias: Bias::None,
            modules_to_save: Vec::new(),
            from: None,
        }
    }
}

impl LoraConfig {
    /// The same in PEFT's terms.
    fn to_peft(&self, base_name: &str) -> AdapterConfig {
        AdapterConfig {
            base_model_name_or_path: Some(base_name.to_owned()),
            task_type: Some("CAUSAL_LM".to_owned()),
            r: self.rank,
            lora_alpha: self.alpha,
            lora_dropout: self.dropout,
            use_rslora: self.use_rslora,
            bias: self.bias,
            target_modules: Some(self.targets.clone()),
            exclude_modules: self.exclude_modules.clone(),
            layers_to_transform: self.layers_to_transform.clone(),
            rank_pattern: self.rank_pattern.clone(),
            alpha_pattern: self.alpha_pattern.clone(),
            modules_to_save: Some(self.modules_to_save.clone()).filter(|list| !list.is_empty()),
            ..AdapterConfig::default()
        }
    }
}

/// A model with its adapter.
#[derive(Debug)]
pub struct Attached {
    /// The base with paths beside its weights.
    pub model: LlamaForCausalLM,
    /// The adapter in PEFT's terms.
    pub config: AdapterConfig,
    /// What matched nothing or was ignored, one sentence each.
    pub warnings: Vec<String>,
    /// What is to be said where the adapter brings another vocabulary than the base's.
    pub resized: Option<String>,
    /// Where the tokenizer is, if the adapter brings one.
    pub tokenizer: Option<PathBuf>,
}

/// Joins the adapter of a recipe to a base: new paths, A drawn from `seed`, or those of `from`.
///
/// `base_name` is what the adapter will say it belongs to.
///
/// # Errors
/// Targets that match nothing, settings out of range, and an adapter in `from` that does not fit.
pub fn attach(
    model: LlamaForCausalLM,
    lora: &LoraConfig,
    seed: u64,
    base_name: &str,
) -> Result<Attached, AdapterError> {
    if let Some(folder) = &lora.from {
        lora.check_from_alone()?;
        return join_folder(model, folder, lora.dropout);
    }
    let config = lora.to_peft(base_name);
    lora.check()?;
    let selection = select(&config, &layout::modules(model.config()), Unmatched::Refuse)?;
    let model = join(model, &selection, config.lora_dropout, seed);
    Ok(Attached {
        model,
        config: AdapterConfig {
            target_modules: Some(selection.target_modules),
            ..config
        },
        warnings: selection.warnings,
        resized: None,
        tokenizer: None,
    })
}

/// The modules that the adapter of a recipe changes in a model, before either is loaded.
///
/// # Errors
/// As [`attach`].
pub fn selection(lora: &LoraConfig, model: &ModelConfig) -> Result<Selection, AdapterError> {
    let modules = layout::modules(model);
    if let Some(folder) = &lora.from {
        lora.check_from_alone()?;
        return AdapterFolder::open(folder)?.select(&modules);
    }
    let config = lora.to_peft("");
    lora.check()?;
    Ok(select(&config, &modules, Unmatched::Refuse)?)
}

/// Joins an adapter in PEFT's layout to its base, for inference and merging.
///
/// Where the adapter holds embedding and head whole, the base takes them and their vocabulary.
///
/// # Errors
/// Everything that does not fit, in one error.
pub fn load(model: LlamaForCausalLM, folder: &Path) -> Result<Attached, AdapterError> {
    join_folder(model, folder, 0.0)
}

/// Writes the trained tensors of `model` as an adapter in PEFT's layout, with a README that says what
/// `card` knows, and copies of `beside` (tokenizer files). Where tokens were added to the base, its embedding and head lie beside them.
///
/// Source: PEFT 0.21, `save_embedding_layers="auto"`, which leaves out a head that is not tied to an
/// adapted embedding, and so loses its new rows; here both are always there.
///
/// # Errors
/// Where the folder cannot be written.
pub fn save(
    model: &LlamaForCausalLM,
    config: &AdapterConfig,
    folder: &Path,
    beside: &[PathBuf],
    card: &Card,
    existing: Existing,
) -> Result<(), AdapterError> {
    let shapes = model.trainable_shapes();
    let keys = PeftKeys::new(model);
    let mut tensors: BTreeMap<String, TensorData> = model
        .trainable()
        .into_iter()
        .map(|(name, value)| {
            let values: Vec<f32> = value.into_data().iter::<f32>().collect();
            let data = TensorData::new(values, shapes[&name].clone());
            (keys.of(&name), data)
        })
        .collect();
    if model.own_vocabulary {
        for (module, adapted, weight) in model.ends() {
            if !weight.is_require_grad() {
                let key = frozen_key(module, adapted);
                tensors.insert(key, weight.inner().into_data());
            }
        }
    }
    AdapterFolder::save(folder, config, &tensors, beside, card, existing)
}

/// PEFT's key of each trained tensor, by its name in [`LlamaForCausalLM::trainable`].
pub fn peft_keys(model: &LlamaForCausalLM) -> BTreeMap<String, String> {
    let keys = PeftKeys::new(model);
    let names = model.trainable_shapes().into_keys();
    names.map(|name| (name.clone(), keys.of(&name))).collect()
}

impl LoraConfig {
    /// With `from`, every other key comes from the folder.
    fn check_from_alone(&self) -> Result<(), AdapterError> {
        let alone = Self {
            from: self.from.clone(),
            dropout: self.dropout,
            ..Self::default()
        };
        if *self == alone {
            return Ok(());
        }
        Err(AdapterError::Setting {
            key: "from",
            expected: "no other key but `dropout` (the adapter brings rank, alpha and targets)",
            found: "others".to_owned(),
        })
    }

    fn check(&self) -> Result<(), AdapterError> {
        let wrong = |key, expected, found: &dyn ToString| {
            Err(AdapterError::Setting {
                key,
                expected,
                found: found.to_string(),
            })
        };
        if self.rank == 0 {
            return wrong("rank", "a positive integer", &self.rank);
        }
        if let Some((module, _)) = self.rank_pattern.iter().find(|(_, rank)| *rank == 0) {
            return wrong(
                "rank_pattern",
                "positive integers",
                &format!("0 for {module}"),
            );
        }
        if !(self.alpha.is_finite() && self.alpha > 0.0) {
            return wrong("alpha", "a positive number", &self.alpha);
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return wrong("dropout", "0 or more, below 1", &self.dropout);
        }
        Ok(())
    }
}

fn join_folder(
    mut model: LlamaForCausalLM,
    folder: &Path,
    dropout: f64,
) -> Result<Attached, AdapterError> {
    let adapter = AdapterFolder::open(folder)?;
    let resized = adapter.resize(&mut model.config);
    let selection = adapter.select(&layout::modules(model.config()))?;
    let tensors = adapter.tensors(&selection)?;
    let device = model.device().without_autodiff();
    model.own_vocabulary |= resized.is_some() || !tensors.base_weights.is_empty();
    model.replace_ends(&tensors, resized.is_some());
    let model = join(model, &selection, dropout, 0);
    let keys = PeftKeys::new(&model);
    let values: Parameters = model
        .trainable_shapes()
        .into_keys()
        .map(|name| {
            let data = tensors.trained[&keys.of(&name)].clone();
            let size = data.num_elements();
            let (bytes, _, dtype) = data.convert_dtype(DType::F32).into_parts();
            let flat = TensorData::from_bytes(bytes, [size], dtype);
            (name, Tensor::from_data(flat, &device))
        })
        .collect();
    let warnings = adapter.warnings().iter().chain(&selection.warnings);
    Ok(Attached {
        model: model.with_trainable(&values),
        config: adapter.config().clone(),
        warnings: warnings.cloned().collect(),
        resized,
        tokenizer: adapter.tokenizer_path().map(Path::to_owned),
    })
}

/// Puts new paths beside the selected weights, and makes trained copies of those to be saved.
fn join(
    mut model: LlamaForCausalLM,
    selection: &Selection,
    dropout: f64,
    seed: u64,
) -> LlamaForCausalLM {
    let device = model.device();
    for module in &selection.adapted {
        let settings = Settings {
            scale: module.scaling,
            dropout,
            seed,
        };
        let lora = || Lora::new(&module.name, module.shape, module.rank, settings, &device);
        match module.kind {
            ModuleKind::Embedding => {
                let branch =
                    EmbeddingLora::new(&module.name, module.shape, module.rank, settings, &device);
                model.model.embed_tokens.adapter = Some(branch);
            }
            ModuleKind::OutputHead => model.lm_head.adapter = Some(lora()),
            _ => model.linear_mut(&module.name).adapter = Some(lora()),
        }
    }
    for module in &selection.saved {
        model.train_module(module);
    }
    for (name, _) in &selection.biases {
        let linear = model.linear_mut(name);
        linear.bias = linear.bias.take().map(|bias| trained(bias.val()));
    }
    model
}

impl LlamaForCausalLM {
    /// The linear module of a path that [`layout::modules`] gives.
    fn linear_mut(&mut self, path: &str) -> &mut Linear {
        let mut parts = path.trim_start_matches("model.layers.").split('.');
        let layer = parts.next().and_then(|index| index.parse::<usize>().ok());
        let found = layer
            .and_then(|index| self.model.layers.get_mut(index))
            .and_then(|layer| match parts.next_back()? {
                "q_proj" => Some(&mut layer.self_attn.q_proj),
                "k_proj" => Some(&mut layer.self_attn.k_proj),
                "v_proj" => Some(&mut layer.self_attn.v_proj),
                "o_proj" => Some(&mut layer.self_attn.o_proj),
                "gate_proj" => Some(&mut layer.mlp.gate_proj),
                "up_proj" => Some(&mut layer.mlp.up_proj),
                "down_proj" => Some(&mut layer.mlp.down_proj),
                _ => None,
            });
        found.unwrap_or_else(|| panic!("{path} is no linear module of this model"))
    }

    /// The normalisation of a path that [`layout::modules`] gives.
    fn norm_mut(&mut self, path: &str) -> &mut RmsNorm {
        let mut parts = path.trim_start_matches("model.layers.").split('.');
        let layer = parts.next().and_then(|index| index.parse::<usize>().ok());
        let Some(layer) = layer.and_then(|index| self.model.layers.get_mut(index)) else {
            return &mut self.model.norm;
        };
        match parts.next_back() {
            Some("input_layernorm") => &mut layer.input_layernorm,
            _ => &mut layer.post_attention_layernorm,
        }
    }

    /// Embedding and head: path, whether a path is beside it, weight. A tied head has the
    /// embedding's.
    fn ends(&self) -> [(&'static str, bool, Tensor<2>); 2] {
        let Embedding {
            weight, adapter, ..
        } = &self.model.embed_tokens;
        let head = self.lm_head.weight.as_ref().unwrap_or(weight);
        [
            (EMBEDDING, adapter.is_some(), weight.val()),
            (HEAD, self.lm_head.adapter.is_some(), head.val()),
        ]
    }

    /// Takes the weights that an adapter brings for embedding and head: the frozen ones, and where
    /// it brings another vocabulary those that it trained, too. Of a tied pair one stands for both;
    /// two that differ part it.
    fn replace_ends(&mut self, tensors: &AdapterTensors, resized: bool) {
        let device = self.device();
        let weight = |data: &TensorData| {
            let weight = Tensor::from_data(data.clone(), (&device, data.dtype()));
            Param::initialized(ParamId::new(), weight)
        };
        let of = |module: &str| {
            let trained = tensors.trained.get(&frozen_key(module, false));
            let frozen = tensors.base_weights.get(module);
            frozen.or(trained.filter(|_| resized))
        };
        let [embedding, head] = [of(EMBEDDING), of(HEAD)];
        let tied = self.lm_head.weight.is_none();
        if let Some(data) = embedding.or(head.filter(|_| tied)) {
            self.model.embed_tokens.weight = weight(data);
        }
        let parted = |data: &&TensorData| {
            !tied || embedding.is_some_and(|other| other.as_bytes() != data.as_bytes())
        };
        if let Some(data) = head.filter(parted) {
            self.lm_head.weight = Some(weight(data));
        }
    }

    /// Makes trained copies of a module's weight and bias, as PEFT's `modules_to_save`.
    ///
    /// Copies are untied: a saved head no longer is the embedding, and beside a saved embedding
    /// the head keeps the weights that both had.
    fn train_module(&mut self, module: &ModuleLayout) {
        let embedding = self.model.embed_tokens.weight.val();
        match module.kind {
            ModuleKind::OutputHead => {
                let weight = self.lm_head.weight.take();
                let weight = weight.map_or(embedding, |weight| weight.val());
                self.lm_head.weight = Some(trained(weight));
            }
            ModuleKind::Embedding => {
                if self.lm_head.weight.is_none() {
                    let frozen = Param::initialized(ParamId::new(), embedding.clone());
                    self.lm_head.weight = Some(frozen);
                }
                self.model.embed_tokens.weight = trained(embedding);
            }
            ModuleKind::Norm => {
                let norm = self.norm_mut(&module.name);
                norm.weight = trained(norm.weight.val());
            }
            ModuleKind::Linear => {
                let linear = self.linear_mut(&module.name);
                linear.weight = trained(linear.weight.val());
                linear.bias = linear.bias.take().map(|bias| trained(bias.val()));
            }
            ModuleKind::Container => {}
        }
    }
}

/// PEFT's keys of trained tensors.
struct PeftKeys {
    /// Modules whose weight PEFT wraps in `base_layer`, and their bias with it.
    adapted: BTreeSet<String>,
}

impl PeftKeys {
    fn new(model: &LlamaForCausalLM) -> Self {
        let adapted = model
            .trainable_shapes()
            .into_keys()
            .filter_map(|name| Some(name.strip_suffix(".lora_A.weight")?.to_owned()))
            .collect();
        Self { adapted }
    }

    fn of(&self, name: &str) -> String {
        let bias = name.strip_suffix(".bias");
        match bias.filter(|module| self.adapted.contains(*module)) {
            Some(module) => format!("base_model.model.{module}.base_layer.bias"),
            None => format!("base_model.model.{name}"),
        }
    }
}
