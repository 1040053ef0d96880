//! `simmer show`: shows a recipe or a model.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;
use simmer_checkpoint::ModelConfig;
use simmer_checkpoint::config::RopeScaling;
use simmer_checkpoint::hub::What;
use simmer_checkpoint::layout::{modules, parameter_count};
use simmer_checkpoint::{Checkpoint, CheckpointError, Layout, Pretrained, nearest, sizes};
use simmer_files::size::{counted, grouped, plural, readable};
use simmer_model::adapter::AdapterConfig;
use simmer_model::adapter::peft::tensor_shapes;
use simmer_model::adapter::targets::{Targets, Unmatched, select};
use simmer_train::Recipe;

use crate::failure::{Failure, bail};
use crate::{hub, output};

/// Show a recipe with all its defaults, or the shape and size of a model
///
/// A model is a folder in Hugging Face's or Meta's layout, a .gguf file, a name on the Hugging Face
/// Hub, or the name of a published size: llama-7b, llama-3.2-1b, smollm2-135m, mistral-7b, qwen3-0.6b,
/// gemma-2-2b, phi-4-mini ...
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  simmer show my.toml
  simmer show HuggingFaceTB/SmolLM2-135M-Instruct
  simmer show llama-7b --rank 16 --targets all-linear")]
pub(crate) struct Show {
    /// Recipe, model, or name of a published size
    #[arg(value_name = "RECIPE|MODEL|SIZE")]
    what: PathBuf,
    /// Override a key of the recipe, such as train.learning_rate=1e-4; repeatable
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Rank of the adapter whose trainable parameters are counted
    #[arg(long, default_value_t = 8, value_name = "N")]
    rank: usize,
    /// Target modules of that adapter, or all-linear. Default: those of PEFT for the family, such as
    /// q_proj,v_proj; all-linear if it has none
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    targets: Vec<String>,
    /// Print the model as JSON
    #[arg(long)]
    json: bool,
}

impl Show {
    pub(crate) fn run(self) -> Result<(), Failure> {
        if self.what.is_dir() || is_gguf(&self.what) {
            return self.on_disk(&self.what);
        }
        let name = self.what.to_string_lossy();
        if let Some(config) = sizes::named(&name).filter(|_| !self.what.exists()) {
            return self.model(&config, None);
        }
        let is_recipe = self.what.extension().is_some_and(|ext| ext == "toml");
        if !self.what.exists() && !is_recipe && name.contains('/') {
            return self.on_disk(&hub::locate(&self.what, What::Model)?);
        }
        if !self.what.exists() && !is_recipe {
            let near = nearest(&name, sizes::names())
                .map_or_else(String::new, |near| format!("; the nearest size is {near}"));
            let known: Vec<_> = sizes::names().collect();
            bail!(
                "{name}: no such file, folder or published size{near}\nsizes: {}",
                known.join(", ")
            );
        }
        output::print(&Recipe::from_file(&self.what, &self.set)?.resolved())
    }

    fn on_disk(&self, path: &Path) -> Result<(), Failure> {
        let Pretrained { config, checkpoint } = Pretrained::open(path)?;
        self.model(&config, Some(Files::of(&checkpoint)?))
    }

    fn model(&self, config: &ModelConfig, files: Option<Files>) -> Result<(), Failure> {
        let targets = self.targets(config);
        let shown = Shown {
            model: self.what.display().to_string(),
            parameters: parameter_count(config),
            trainable: self.trainable(config, &targets)?,
            rank: self.rank,
            targets: targets.join(", "),
            files,
            config: config.clone(),
        };
        if self.json {
            output::json(&shown)
        } else {
            output::text(&shown.text())
        }
    }

    /// The targets of the adapter whose parameters are counted.
    fn targets(&self, config: &ModelConfig) -> Vec<String> {
        if !self.targets.is_empty() {
            return self.targets.clone();
        }
        let default: Vec<_> = config.family.default_targets().map(str::to_owned).collect();
        if default.is_empty() {
            return vec!["all-linear".to_owned()];
        }
        default
    }

    /// The trainable parameters of an adapter.
    fn trainable(&self, config: &ModelConfig, targets: &[String]) -> Result<usize, Failure> {
        let targets = match targets {
            [one] if one == "all-linear" => Targets::Regex(one.clone()),
            names => Targets::Names(names.to_vec()),
        };
        let adapter = AdapterConfig {
            r: self.rank,
            target_modules: Some(targets),
            ..AdapterConfig::default()
        };
        adapter.check()?;
        let selection = select(&adapter, &modules(config), Unmatched::Refuse)?;
        let shapes = tensor_shapes(&selection);
        Ok(shapes
            .values()
            .map(|shape| shape.iter().product::<usize>())
            .sum())
    }
}

fn is_gguf(path: &Path) -> bool {
    path.is_file() && path.extension().is_some_and(|ext| ext == "gguf")
}

/// Dtypes that are not quantised.
const PLAIN: [&str; 4] = ["F32", "BF16", "F16", "another dtype"];

/// The files of a model.
#[derive(Serialize)]
struct Files {
    layout: &'static str,
    count: usize,
    bytes: u64,
    dtypes: Vec<String>,
    /// Weights and bytes by type, if some are quantised.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    stored: BTreeMap<String, Stored>,
}

/// The weights of a type.
#[derive(Default, Serialize)]
struct Stored {
    weights: usize,
    bytes: u64,
}

impl Files {
    fn of(checkpoint: &Checkpoint) -> Result<Self, CheckpointError> {
        let dtypes: BTreeSet<String> = checkpoint.encodings().map(str::to_owned).collect();
        let mut stored: BTreeMap<String, Stored> = BTreeMap::new();
        if dtypes.iter().any(|dtype| !PLAIN.contains(&dtype.as_str())) {
            for name in checkpoint.names() {
                let kind = checkpoint.encoding(name)?.to_owned();
                let stored = stored.entry(kind).or_default();
                stored.weights += 1;
                stored.bytes += checkpoint.stored_bytes(name)?;
            }
        }
        Ok(Self {
            layout: match checkpoint.layout() {
                Layout::HuggingFace => "Hugging Face",
                Layout::Meta => "Meta",
                Layout::Gguf => "GGUF",
            },
            count: checkpoint.files(),
            bytes: checkpoint.file_bytes(),
            dtypes: dtypes.into_iter().collect(),
            stored,
        })
    }

    /// Bytes and weights of each type.
    fn by_type(&self) -> String {
        let types = self.stored.iter().map(|(kind, stored)| {
            format!(
                "{kind} {} in {}",
                readable(stored.bytes),
                counted(stored.weights, "weight")
            )
        });
        types.collect::<Vec<_>>().join(", ")
    }
}

#[derive(Serialize)]
struct Shown {
    model: String,
    parameters: usize,
    trainable: usize,
    rank: usize,
    targets: String,
    files: Option<Files>,
    config: ModelConfig,
}

impl Shown {
    fn text(&self) -> String {
        let config = &self.config;
        let files = match &self.files {
            Some(files) => format!(
                "{} in {} {} {}, {}",
                readable(files.bytes),
                files.count,
                files.layout,
                plural(files.count, "file"),
                files.dtypes.join(", ")
            ),
            None => format!(
                "{} in bf16 or f16, {} in f32",
                readable(self.parameters as u64 * 2),
                readable(self.parameters as u64 * 4)
            ),
        };
        let files = match &self.files {
            Some(stored) if !stored.stored.is_empty() => {
                format!("{files}\ntypes            {}", stored.by_type())
            }
            _ => files,
        };
        let head = if config.tie_word_embeddings {
            "tied to the embedding"
        } else {
            "not tied"
        };
        format!(
            "{}\n\
             parameters       {}\n\
             bytes            {files}\n\
             adapter          {} trainable ({:.3}%) at rank {} on {}; {} in f32\n\
             layers           {} with hidden size {}\n\
             attention        {} query heads, {} key/value heads, head size {}{}\n\
             feed-forward     intermediate size {}\n\
             vocabulary       {}, output head {head}\n\
             context          {} tokens, rope_theta {}{}",
            self.model,
            grouped(self.parameters as u64),
            grouped(self.trainable as u64),
            self.trainable as f64 / self.parameters as f64 * 100.0,
            self.rank,
            self.targets,
            readable(self.trainable as u64 * 4),
            config.num_hidden_layers,
            config.hidden_size,
            config.num_attention_heads,
            config.num_key_value_heads,
            config.head_dim,
            windows(config),
            config.intermediate_size,
            config.vocab_size,
            config.max_position_embeddings,
            config.rope_theta,
            scaling(&config.rope_scaling),
        )
    }
}

/// The layers with a sliding window, if there are any.
fn windows(config: &ModelConfig) -> String {
    let layers = config.num_hidden_layers;
    let windows: Vec<usize> = (0..layers)
        .filter_map(|layer| config.window(layer))
        .collect();
    match windows.first() {
        Some(window) if windows.len() == layers => format!(", window of {window} tokens"),
        Some(window) => format!(
            ", window of {window} tokens in {} of {layers} layers",
            windows.len()
        ),
        None => String::new(),
    }
}

fn scaling(scaling: &RopeScaling) -> String {
    match scaling {
        RopeScaling::Default => String::new(),
        RopeScaling::Linear { factor } => format!(", scaled {factor}x"),
        RopeScaling::Dynamic { factor } => format!(", scaled {factor}x as needed (dynamic NTK)"),
        RopeScaling::Yarn {
            factor,
            original_max_position_embeddings: original,
            ..
        } => format!(", scaled {factor}x from {original} by YaRN"),
        RopeScaling::LongRope {
            original_max_position_embeddings: original,
            ..
        } => format!(", scaled from {original} by LongRoPE"),
        RopeScaling::Llama3 {
            factor,
            original_max_position_embeddings: original,
            ..
        } => format!(", scaled {factor}x from {original} as in Llama 3"),
    }
}
