//! Attaches an adapter to a model: a new one from a recipe, or one from a folder in PEFT's layout.

use std::ops::Range;
use std::path::Path;

use burn::tensor::{DType, Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};
use simmer_checkpoint::config::ModelConfig;
use simmer_checkpoint::family::Module;
use simmer_checkpoint::layout::{self, ModuleKind, ModuleLayout};

use super::AdapterError;
use super::adaption_prompt::check_model;
use super::config::{AdapterConfig, Bias};
use super::continued::Continued;
use super::init::Init;
use super::kind::{AttentionStart, DORA, Kind, Start};
use super::peft::{AdapterFolder, AdapterTensors, frozen_key};
use super::saved::PeftKeys;
use super::settings::as_setting;
use super::since_start::{check_peft_form, check_tied_head};
use super::starting_factors::starting_factors;
use super::table::AdapterTable;
use super::targets::{Layers, Patterns, Selection, Targets, Unmatched, select};
use super::tokens::{self, SelectedTokens, TokenIndices};
use super::unmatched::check_layers;
use crate::layer::{Linear, LmHead, RmsNorm};
use crate::llama::LlamaForCausalLM;
use crate::parameters::{Parameters, trained};
use crate::token_rows::TokenRows;
use crate::weight::Weight;

/// The recipe's `[method.lora]` table.
///
/// Keys for which no PEFT name is given have the same name and meaning in PEFT, except `from`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[derive(schemars::JsonSchema)]
pub struct LoraConfig {
    /// The rank of the low-rank branches, at least 1 (PEFT: `r`).
    pub rank: usize,
    /// A branch is scaled by `alpha / rank` (PEFT: `lora_alpha`).
    pub alpha: f64,
    /// The dropout probability of a branch's input, from 0 to below 1 (PEFT: `lora_dropout`).
    pub dropout: f64,
    /// The modules with a branch: a list of names, one regular expression, or `"all-linear"` (PEFT: `target_modules`).
    pub targets: Targets,
    /// Modules excluded from `targets`: a list of names or one regular expression. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exclude_modules: Option<Targets>,
    /// The layers that a list of `targets` applies to: a number or a list, from 0. Default: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layers_to_transform: Option<Layers>,
    /// Ranks that differ from `rank`, by module name or regular expression.
    #[serde(skip_serializing_if = "Patterns::is_empty")]
    pub rank_pattern: Patterns<usize>,
    /// Alphas that differ from `alpha`, by module name or regular expression.
    #[serde(skip_serializing_if = "Patterns::is_empty")]
    pub alpha_pattern: Patterns<f64>,
    /// Scale by `alpha / √rank` instead of `alpha / rank`.
    pub use_rslora: bool,
    /// DoRA: a trained magnitude for each row of a weight, beside the low-rank branch, which changes the row's direction.
    pub use_dora: bool,
    /// How A and B start: `true` with A random and B zero, `"pissa"` with the largest singular values of the weight, `"pissa_niter_N"`
    /// with these by N iterations of a randomised decomposition, `"olora"` with its QR decomposition. The start is subtracted from the
    /// weight, so that training starts at the base model. With `base.precision = "nf4"`, `"fp4"` or `"int8"` also `"loftq"` and `"qera"`:
    /// they make up for the error of the quantisation, `"qera"` for that of the layers' outputs for 64 training rows.
    pub init_lora_weights: Init,
    /// Whether an adapter that started at factors of the weights is saved as plain LoRA of twice the rank, for the untouched base
    /// model; if false, in PEFT's form, for which PEFT computes the start again when it loads it.
    pub convert_to_lora: bool,
    /// Biases of the base model that are trained too: `"none"` (default), `"all"`, or `"lora_only"`, those of target
    /// modules.
    pub bias: Bias,
    /// Modules that are trained whole and saved with the adapter. Default: none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub modules_to_save: Vec<String>,
    /// Tokens whose rows of the embedding are trained, and of the output head, whether it is tied or not; or such lists by the
    /// name of the module. Kilobytes, where `modules_to_save` trains whole matrices. Tokens of `base.add_tokens` need not be
    /// listed. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trainable_token_indices: Option<TokenIndices>,
    /// The adapter to continue training: a folder, or a name on the hub. It sets every key above except `dropout`; no
    /// other key may be set with it. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Continued>,
    /// Tokens that are added to the base model; see [`LoraConfig::train_added`].
    #[serde(skip)]
    pub(super) added: Range<usize>,
}

impl Default for LoraConfig {
    fn default() -> Self {
        Self {
            rank: 16,
            alpha: 32.0,
            dropout: 0.0,
            targets: Targets::all_linear(),
            exclude_modules: None,
            layers_to_transform: None,
            rank_pattern: Patterns::default(),
            alpha_pattern: Patterns::default(),
            use_rslora: false,
            use_dora: false,
            init_lora_weights: Init::Zero,
            convert_to_lora: true,
            bias: Bias::None,
            modules_to_save: Vec::new(),
            trainable_token_indices: None,
            added: 0..0,
            from: None,
        }
    }
}

impl LoraConfig {
    /// Trains the rows of tokens that were added to the base model, in the embedding and the output head, unless one of the two
    /// has an adapter or is trained whole.
    pub fn train_added(&mut self, tokens: Range<usize>) {
        self.added = tokens;
    }

    /// PEFT's configuration for a model, whose vocabulary and tied weights decide which rows are trained.
    pub(super) fn for_model(&self, base_name: &str, modules: &[ModuleLayout]) -> AdapterConfig {
        let mut config = self.to_peft(base_name);
        let listed = tokens::for_model(
            self.trainable_token_indices.as_ref(),
            modules,
            &self.added,
            |module| self.touches(&config, module),
        );
        config.trainable_token_indices = listed;
        config
    }

    /// Whether a module has an adapter, or is trained whole.
    fn touches(&self, config: &AdapterConfig, module: &ModuleLayout) -> bool {
        let alone = AdapterConfig {
            trainable_token_indices: None,
            ..config.clone()
        };
        let found = select(&alone, std::slice::from_ref(module), Unmatched::Warn);
        let targeted = found.is_ok_and(|found| !found.adapted.is_empty());
        let saved = self.modules_to_save.iter();
        targeted
            || saved
                .clone()
                .any(|name| module.name.ends_with(name.as_str()))
    }

    /// The kind of adapter.
    pub fn kind(&self) -> &'static Kind {
        if self.use_dora {
            &DORA
        } else {
            self.init_lora_weights.kind()
        }
    }

    /// The same as PEFT's configuration.
    pub(super) fn to_peft(&self, base_name: &str) -> AdapterConfig {
        AdapterConfig {
            kind: self.kind(),
            base_model_name_or_path: Some(base_name.to_owned()),
            task_type: Some("CAUSAL_LM".to_owned()),
            r: self.rank,
            lora_alpha: self.alpha,
            lora_dropout: self.dropout,
            use_rslora: self.use_rslora,
            init_lora_weights: self.init_lora_weights.to_peft(),
            convert_to_lora: self.convert_to_lora,
            bias: self.bias,
            target_modules: Some(self.targets.clone()),
            exclude_modules: self.exclude_modules.clone(),
            layers_to_transform: self.layers_to_transform.clone(),
            rank_pattern: self.rank_pattern.clone(),
            alpha_pattern: self.alpha_pattern.clone(),
            modules_to_save: Some(self.modules_to_save.clone()).filter(|list| !list.is_empty()),
            trainable_token_indices: self.trainable_token_indices.clone(),
            ..AdapterConfig::default()
        }
    }
}

/// A model with its adapter.
#[derive(Debug)]
pub struct Attached {
    /// The base model with the adapter attached.
    pub model: LlamaForCausalLM,
    /// PEFT's configuration of the adapter.
    pub config: AdapterConfig,
    /// Names that matched nothing and keys that were ignored, one sentence each.
    pub warnings: Vec<String>,
    /// A message if the adapter's vocabulary differs from the base model's.
    pub resized: Option<String>,
}

/// Where adapters that start at factors of the weights (PiSSA, OLoRA) have these from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Starts {
    /// They are computed.
    OfWeights,
    /// From a training checkpoint: they are zero until [`LlamaForCausalLM::with_starts`] sets them.
    OfCheckpoint,
}

/// Attaches the adapter of a recipe to a base model: new branches, with A drawn from `seed`, or the adapter in
/// `from`.
///
/// `base_name` becomes the adapter's `base_model_name_or_path`, if the adapter in `from` names none.
///
/// # Errors
/// If targets match nothing, if a setting is out of range, and if the adapter in `from` does not fit.
pub fn attach(
    model: LlamaForCausalLM,
    table: &dyn AdapterTable,
    seed: u64,
    base_name: &str,
    starts: Starts,
) -> Result<Attached, AdapterError> {
    table.check()?;
    if let Some(from) = table.continued() {
        let adapter = open_from(table, from.found())?;
        let mut attached = join_folder(model, &adapter, table.dropout(), Some(starts))?;
        let named = &mut attached.config.base_model_name_or_path;
        let _ = named.get_or_insert_with(|| base_name.to_owned());
        return Ok(attached);
    }
    let modules = layout::modules(model.config());
    let config = table.for_model(base_name, &modules);
    let selection = new_selection(table, &config, model.config())?;
    check_peft_form(&config, &selection, &model)?;
    let start = |_: &str| false;
    let model = join(model, &selection, config.lora_dropout, seed, starts, &start)?;
    let config = AdapterConfig {
        target_modules: Some(selection.target_modules.clone()),
        ..config
    };
    Ok(Attached {
        model,
        config: table.complete(config, &selection)?,
        warnings: selection.warnings,
        resized: None,
    })
}

/// The modules of a model that the adapter of a recipe changes, without loading either.
///
/// # Errors
/// As [`attach`].
pub fn selection(table: &dyn AdapterTable, model: &ModelConfig) -> Result<Selection, AdapterError> {
    table.check()?;
    if let Some(from) = table.continued() {
        let adapter = open_from(table, from.found())?;
        let selection = adapter.select(&layout::modules(model))?;
        check_model(&selection, model)?;
        selection.check_trainable(adapter.config())?;
        return Ok(selection);
    }
    let modules = layout::modules(model);
    new_selection(table, &table.for_model("", &modules), model)
}

/// The modules of a new adapter.
fn new_selection(
    table: &dyn AdapterTable,
    config: &AdapterConfig,
    model: &ModelConfig,
) -> Result<Selection, AdapterError> {
    let modules = layout::modules(model);
    let selection =
        check_layers(config, &modules).and_then(|()| select(config, &modules, Unmatched::Refuse));
    let selection = selection.map_err(|error| as_setting(table.kind().peft.table, error.into()))?;
    check_model(&selection, model)?;
    let in_range = tokens::check_range(&selection.tokens);
    in_range.map_err(|error| as_setting(table.kind().peft.table, error.into()))?;
    Ok(selection)
}

/// Opens the adapter to continue training, which must be of the type that the table describes.
fn open_from(table: &dyn AdapterTable, folder: &Path) -> Result<AdapterFolder, AdapterError> {
    let adapter = AdapterFolder::open(folder)?;
    let (wanted, found) = (table.kind().peft, adapter.config().kind.peft);
    if wanted.table == found.table {
        return Ok(adapter);
    }
    Err(AdapterError::Setting {
        table: wanted.table,
        key: "from",
        why: format!(
            "{} is an adapter of the type {}",
            folder.display(),
            found.name
        ),
        hint: Some(format!("write it into [method.{}]", found.table)),
    })
}

/// Attaches an adapter in PEFT's layout to its base model, for inference.
///
/// If the adapter holds the full embedding and head, they replace those of the base model, with their vocabulary.
///
/// # Errors
/// Everything that does not fit, in one error.
pub fn load(model: LlamaForCausalLM, folder: &Path) -> Result<Attached, AdapterError> {
    load_folder(model, &AdapterFolder::open(folder)?)
}

/// [`load`] for an opened folder.
///
/// # Errors
/// As [`load`].
pub fn load_folder(
    model: LlamaForCausalLM,
    adapter: &AdapterFolder,
) -> Result<Attached, AdapterError> {
    join_folder(model, adapter, 0.0, None)
}

/// Attaches an adapter from its folder; to be trained further if `starts` is given.
fn join_folder(
    mut model: LlamaForCausalLM,
    adapter: &AdapterFolder,
    dropout: f64,
    starts: Option<Starts>,
) -> Result<Attached, AdapterError> {
    let resized = adapter.resize(&mut model.config);
    let selection = adapter.select(&layout::modules(model.config()))?;
    check_model(&selection, model.config())?;
    if starts.is_some() {
        selection.check_trainable(adapter.config())?;
    }
    let tensors = adapter.tensors(&selection)?;
    let is_tied = model.lm_head.weight.is_none();
    check_tied_head(adapter, &selection, &tensors, is_tied)?;
    let device = model.device().without_autodiff();
    model.frozen_ends = tensors.base_weights.keys().cloned().collect();
    model.own_vocabulary |= resized.is_some() || !model.frozen_ends.is_empty();
    replace_ends(&mut model, &tensors, resized.is_some());
    grow(&mut model, &selection)?;
    let starts = starts.unwrap_or(Starts::OfWeights);
    let in_file = |module: &str| tensors.base_weights.contains_key(module);
    let model = join(model, &selection, dropout, 0, starts, &in_file)?;
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
    })
}

/// Attaches new adapters to the selected modules, and makes modules to save and selected biases trainable. From the weights of
/// modules in `without_start`, the start of their adapter has been subtracted.
///
/// # Errors
/// A module of the family's table for which the model has no field.
fn join(
    mut model: LlamaForCausalLM,
    selection: &Selection,
    dropout: f64,
    seed: u64,
    starts: Starts,
    without_start: &dyn Fn(&str) -> bool,
) -> Result<LlamaForCausalLM, AdapterError> {
    let factors = starting_factors(&mut model, selection, seed, starts, without_start)?;
    for (module, factors) in selection.adapted.iter().zip(&factors) {
        let is_embedding = module.kind == ModuleKind::Embedding;
        let device = model.device_of_module(module.layer, is_embedding);
        let start = |weight: &Weight| Start {
            module: &module.name,
            shape: module.shape,
            rank: module.rank,
            scale: module.scaling,
            dropout,
            seed,
            weight: weight.val(),
            factors: factors.as_ref(),
            device: &device,
        };
        let linear = module.adapter.linear.as_ref();
        let begin = linear.ok_or_else(|| no_field(&module.name))?.start;
        match (module.kind, &module.adapter.embedding) {
            (ModuleKind::Embedding, Some(form)) => {
                let embedding = &mut model.model.embed_tokens;
                embedding.adapter = Some((form.start)(&start(&embedding.weight)));
            }
            (ModuleKind::OutputHead, _) => {
                let weight = model.lm_head.weight(&model.model.embed_tokens);
                model.lm_head.adapter = Some(begin(&start(weight)));
            }
            _ => {
                let linear = model.linear_mut(module.layer, module.module.role);
                let linear = linear.ok_or_else(|| no_field(&module.name))?;
                linear.adapter = Some(begin(&start(&linear.weight)));
            }
        }
    }
    for attention in &selection.attention {
        let device = model.device_of_module(Some(attention.layer), false);
        let start = AttentionStart {
            module: &attention.name,
            prompts: attention.prompts,
            hidden: attention.hidden,
            heads: attention.heads,
            activation: attention.activation,
            seed,
            device: &device,
        };
        let form = attention.adapter.attention.as_ref();
        let layer = model.model.layers.get_mut(attention.layer);
        let (Some(form), Some(layer)) = (form, layer) else {
            return Err(no_field(&attention.name));
        };
        layer.self_attn.adapter = Some((form.start)(&start));
    }
    for module in &selection.saved {
        train_module(&mut model, module)?;
    }
    for tokens in &selection.tokens {
        train_rows(&mut model, tokens);
    }
    for module in &selection.biases {
        let linear = linear_mut(&mut model, module)?;
        linear.bias = linear.bias.take().map(|bias| trained(bias.val()));
    }
    Ok(model)
}

pub(super) fn no_field(module: &str) -> AdapterError {
    AdapterError::NoField {
        module: module.to_owned(),
    }
}

fn linear_mut<'a>(
    model: &'a mut LlamaForCausalLM,
    module: &ModuleLayout,
) -> Result<&'a mut Linear, AdapterError> {
    let row = module.module;
    let linear = row.and_then(|row| model.linear_mut(module.layer, row.role));
    linear.ok_or_else(|| no_field(&module.name))
}

fn norm_mut<'a>(
    model: &'a mut LlamaForCausalLM,
    module: &ModuleLayout,
) -> Result<&'a mut RmsNorm, AdapterError> {
    let row = module.module;
    let norm = row.and_then(|row| model.norm_mut(module.layer, row.role));
    norm.ok_or_else(|| no_field(&module.name))
}

/// Adds rows to embedding and head for tokens that the base model lacks, if the adapter has their rows alone.
///
/// # Errors
/// If a new token has no row.
fn grow(model: &mut LlamaForCausalLM, selection: &Selection) -> Result<(), AdapterError> {
    let rows = model.config.vocab_size;
    let [first, last] = [true, false].map(|is_first| model.device_of_module(None, is_first));
    let embedding = &mut model.model.embed_tokens;
    let mut weights = vec![(ModuleKind::Embedding, &mut embedding.weight, &first)];
    let LmHead { weight, copy, .. } = &mut model.lm_head;
    let head = weight.as_mut();
    weights.extend(head.map(|weight| (ModuleKind::OutputHead, weight, &last)));
    let copy = copy.as_mut();
    weights.extend(copy.map(|weight| (ModuleKind::Embedding, weight, &last)));
    for (kind, weight, device) in weights {
        let [before, columns] = weight.val().shape();
        if before >= rows {
            continue;
        }
        tokens::check_new(&selection.tokens, kind, before..rows)?;
        let old = weight.tensor(device).inner();
        let new = Tensor::zeros([rows - before, columns], (&old.device(), old.dtype()));
        let grown = Tensor::cat(vec![old, new], 0);
        *weight = Weight::frozen(Tensor::from_inner(grown));
    }
    Ok(())
}

/// Replaces the weights of embedding and head by those of the adapter: the frozen ones, and the trained
/// ones if the adapter has another vocabulary. If the two are tied, one replaces both; two that differ
/// untie them.
fn replace_ends(model: &mut LlamaForCausalLM, tensors: &AdapterTensors, resized: bool) {
    let [first, last] = [true, false].map(|is_first| model.device_of_module(None, is_first));
    let weight = |data: &TensorData, device: &Device| {
        Weight::frozen(Tensor::from_data(data.clone(), (device, data.dtype())))
    };
    let of = |module: &Module| {
        let trained = tensors.trained.get(&frozen_key(module.name, false));
        let frozen = tensors.base_weights.get(module.name);
        frozen.or(trained.filter(|_| resized))
    };
    let family = model.config.family;
    let [embedding, head] = [of(&family.embedding), of(&family.head)];
    let tied = model.lm_head.weight.is_none();
    if let Some(data) = embedding.or(head.filter(|_| tied)) {
        model.model.embed_tokens.weight = weight(data, &first);
        if let Some(copy) = &mut model.lm_head.copy {
            *copy = weight(data, &last);
        }
    }
    let parted = |data: &&TensorData| {
        !tied || embedding.is_some_and(|other| other.as_bytes() != data.as_bytes())
    };
    if let Some(data) = head.filter(parted) {
        model.lm_head.weight = Some(weight(data, &last));
        model.lm_head.copy = None;
    }
}

/// Makes single rows of the embedding or of the output head trainable.
fn train_rows(model: &mut LlamaForCausalLM, tokens: &SelectedTokens) {
    let device = model.device_of_module(None, tokens.kind == ModuleKind::Embedding);
    let embedding = &mut model.model.embed_tokens;
    if tokens.kind == ModuleKind::Embedding {
        let rows = TokenRows::of(&embedding.weight, &tokens.ids, &device);
        embedding.token_adapter = Some(rows);
    } else {
        let weight = model.lm_head.weight(embedding);
        model.lm_head.token_adapter = Some(TokenRows::of(weight, &tokens.ids, &device));
    }
}

/// Makes a module's weight and bias trainable, as PEFT's `modules_to_save`.
///
/// This unties embedding and head: a trained head gets a weight of its own, and if the embedding is trained,
/// the head keeps the frozen weight that both had.
///
/// # Errors
/// If the model has no field for the module.
fn train_module(model: &mut LlamaForCausalLM, module: &ModuleLayout) -> Result<(), AdapterError> {
    let device = model.device_of_module(module.layer, module.kind == ModuleKind::Embedding);
    let embedding = model.model.embed_tokens.weight.clone();
    match module.kind {
        ModuleKind::OutputHead => {
            let copy = model.lm_head.copy.take();
            let weight = model.lm_head.weight.take().or(copy);
            let weight = weight.unwrap_or(embedding);
            model.lm_head.weight = Some(weight.trained(&device));
        }
        ModuleKind::Embedding => {
            model.model.embed_tokens.weight = embedding.trained(&device);
            let copy = model.lm_head.copy.take();
            let _ = model
                .lm_head
                .weight
                .get_or_insert(copy.unwrap_or(embedding));
        }
        ModuleKind::Norm => {
            let norm = norm_mut(model, module)?;
            norm.weight = trained(norm.weight.val());
        }
        ModuleKind::Linear => {
            let linear = linear_mut(model, module)?;
            linear.weight = linear.weight.trained(&device);
            linear.bias = linear.bias.take().map(|bias| trained(bias.val()));
        }
        ModuleKind::Container => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests;
