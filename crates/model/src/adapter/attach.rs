//! Joins an adapter to a model: a new one from a recipe, or one from a folder in PEFT's layout.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use burn::module::{Param, ParamId};
use burn::tensor::{DType, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use super::AdapterError;
use super::config::{AdapterConfig, Bias};
use super::lora::{EmbeddingLora, Lora, Settings};
use super::peft::AdapterFolder;
use super::targets::{Layers, Patterns, Selection, Targets, Unmatched, select};
use crate::checkpoint::Existing;
use crate::layer::{Linear, RmsNorm};
use crate::layout::{self, ModuleKind, ModuleLayout};
use crate::llama::LlamaForCausalLM;
use crate::parameters::{Parameters, trained};

/// The recipe's `[method.lora]` table: which low-rank paths are trained.
///
/// Keys without an explanation of their own have PEFT's name and meaning.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
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
    })
}

/// Joins an adapter in PEFT's layout to its base, for inference and merging.
///
/// # Errors
/// Everything that does not fit, in one error.
pub fn load(model: LlamaForCausalLM, folder: &Path) -> Result<Attached, AdapterError> {
    join_folder(model, folder, 0.0)
}

/// Writes the trained tensors of `model` as an adapter in PEFT's layout.
///
/// # Errors
/// Where the folder cannot be written.
pub fn save(
    model: &LlamaForCausalLM,
    config: &AdapterConfig,
    folder: &Path,
    existing: Existing,
) -> Result<(), AdapterError> {
    let shapes = model.trainable_shapes();
    let keys = Keys::of(model);
    let tensors = model
        .trainable()
        .into_iter()
        .map(|(name, value)| {
            let values: Vec<f32> = value.into_data().iter::<f32>().collect();
            let data = TensorData::new(values, shapes[&name].clone());
            (keys.peft(&name), data)
        })
        .collect();
    AdapterFolder::save(folder, config, &tensors, existing)
}

/// PEFT's key of each trained tensor, by its name in [`LlamaForCausalLM::trainable`].
pub fn peft_keys(model: &LlamaForCausalLM) -> BTreeMap<String, String> {
    let keys = Keys::of(model);
    let names = model.trainable_shapes().into_keys();
    names.map(|name| (name.clone(), keys.peft(&name))).collect()
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
    model: LlamaForCausalLM,
    folder: &Path,
    dropout: f64,
) -> Result<Attached, AdapterError> {
    let adapter = AdapterFolder::open(folder)?;
    let selection = adapter.select(&layout::modules(model.config()))?;
    let tensors = adapter.tensors(&selection)?;
    let device = model.device().without_autodiff();
    let mut model = join(model, &selection, dropout, 0);
    for (module, data) in tensors.base_weights {
        model.replace_embedding(&module, data);
    }
    let keys = Keys::of(&model);
    let values: Parameters = model
        .trainable_shapes()
        .into_keys()
        .map(|name| {
            let data = tensors.trained[&keys.peft(&name)].clone();
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
                let path =
                    EmbeddingLora::new(&module.name, module.shape, module.rank, settings, &device);
                model.model.embed_tokens.adapter = Some(path);
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

    /// Takes the frozen weight that an adapter brings for the embedding or the head.
    fn replace_embedding(&mut self, module: &str, data: TensorData) {
        let dtype = data.dtype();
        let weight = Tensor::from_data(data, (&self.device(), dtype));
        let weight = Param::initialized(ParamId::new(), weight);
        match module {
            "lm_head" => self.lm_head.weight = Some(weight),
            _ => self.model.embed_tokens.weight = weight,
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

/// Names of trained tensors as PEFT's files have them.
struct Keys {
    /// Modules whose weight PEFT wraps, so that their bias has a longer path.
    adapted: BTreeSet<String>,
}

impl Keys {
    fn of(model: &LlamaForCausalLM) -> Self {
        let adapted = model
            .trainable_shapes()
            .into_keys()
            .filter_map(|name| Some(name.strip_suffix(".lora_A.weight")?.to_owned()))
            .collect();
        Self { adapted }
    }

    fn peft(&self, name: &str) -> String {
        let bias = name.strip_suffix(".bias");
        match bias.filter(|module| self.adapted.contains(*module)) {
            Some(module) => format!("base_model.model.{module}.base_layer.bias"),
            None => format!("base_model.model.{name}"),
        }
    }
}
