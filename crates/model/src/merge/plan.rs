//! The tensors of a merged checkpoint, and where each comes from.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::TensorData;
use simmer_checkpoint::family::{Family, Module};
use simmer_checkpoint::layout::{self, ModuleKind};
use simmer_checkpoint::{Dtype, Shard, TensorSpec, is_rotary_buffer, plan_shards};

use super::adapters::{Adapters, OpenedAdapter};
use super::weights::Weights;
use super::{MergeError, MergeOptions, several};
use crate::adapter::AdapterError;
use crate::adapter::init::Factors;
use crate::adapter::kind::{MergedRows, Stored, Trained};
use crate::adapter::peft::{AdapterTensors, KEY_PREFIX};
use crate::adapter::since_start::check_tied_head;
use crate::adapter::targets::{Selected, Selection};
use crate::adapter::tokens::{self, ReplacedRows};
use crate::numbers::to_f64;

/// The plan of a merge.
pub(super) struct Plan {
    /// The files and their tensors.
    pub(super) shards: Vec<Shard>,
    /// The same tensors, in the order of the base model's files.
    pub(super) outputs: Vec<Output>,
    pub(super) untied: bool,
    pub(super) warnings: Vec<String>,
}

/// One tensor to write.
pub(super) struct Output {
    pub(super) spec: TensorSpec,
    pub(super) origin: Origin,
    /// Dtype of the origin's bytes.
    pub(super) stored: Dtype,
    /// The weight that an adapter changes, with the adapter merged into it.
    pub(super) merged: Option<Box<dyn MergedRows>>,
}

impl Output {
    /// Whether the conversion from the origin to the output loses precision or range.
    pub(super) fn is_narrowed(&self) -> bool {
        use Dtype::{BF16, F16, F32};
        matches!(
            (self.stored, self.spec.dtype),
            (F32, F16 | BF16) | (BF16, F16) | (F16, BF16)
        )
    }
}

pub(super) enum Origin {
    /// A tensor of the base model, by its key.
    Base(String),
    /// A full tensor of the adapter.
    Adapter(TensorData),
}

impl Plan {
    /// The plan for a base model, which is resized to the vocabulary of the adapters.
    pub(super) fn new(
        weights: &Weights,
        adapters: &Adapters,
        options: MergeOptions<'_>,
    ) -> Result<Self, MergeError> {
        let config = &adapters.config;
        let family = config.family;
        let mut sources = Vec::new();
        let mut warnings = Vec::new();
        for opened in &adapters.all {
            let source = OfAdapter::new(opened, weights)?;
            warnings.extend_from_slice(opened.folder.warnings());
            warnings.extend(source.selection.warnings.iter().cloned());
            sources.push(source);
        }
        let untied = config.tie_word_embeddings && sources.iter().any(OfAdapter::unties);

        let mut shards = Vec::new();
        let mut outputs = Vec::new();
        let checkpoint = weights.checkpoint();
        for file in checkpoint.shards() {
            let mut specs = Vec::new();
            for tensor in &file.tensors {
                let kept = is_rotary_buffer(&tensor.name);
                let mut spec = TensorSpec {
                    dtype: options.dtype.filter(|_| !kept).unwrap_or(tensor.dtype),
                    ..tensor.clone()
                };
                let head = family.head.weight();
                let embedding = spec.name == family.embedding.weight();
                if embedding || spec.name == head {
                    // the adapter may have resized the vocabulary
                    spec.shape[0] = config.vocab_size;
                }
                if untied && embedding && !checkpoint.contains(&head) {
                    specs.push(TensorSpec {
                        name: head,
                        ..spec.clone()
                    });
                }
                specs.push(spec);
            }
            for spec in &specs {
                outputs.push(match &sources[..] {
                    [alone] if alone.weight.to_bits() == 1.0_f64.to_bits() => {
                        alone.output(spec.clone())?
                    }
                    several => several::output(several, adapters, spec.clone())?,
                });
            }
            shards.push(Shard {
                file: file.file.clone(),
                tensors: specs,
            });
        }
        if let Some(max_bytes) = options.max_shard_bytes {
            let all = shards.into_iter().flat_map(|shard| shard.tensors).collect();
            shards = plan_shards(all, max_bytes);
        }
        Ok(Self {
            shards,
            outputs,
            untied,
            warnings,
        })
    }

    /// Bytes of all tensors to write.
    pub(super) fn bytes(&self) -> u64 {
        self.outputs
            .iter()
            .map(|output| {
                let elements: usize = output.spec.shape.iter().product();
                (elements * output.spec.dtype.bitsize() / 8) as u64
            })
            .sum()
    }
}

/// Where the tensors of a merge with one adapter come from.
pub(super) struct OfAdapter<'a> {
    pub(super) folder: &'a Path,
    pub(super) weight: f64,
    pub(super) weights: &'a Weights,
    family: &'static Family,
    tied: bool,
    selection: Selection,
    tensors: AdapterTensors,
}

impl<'a> OfAdapter<'a> {
    fn new(opened: &'a OpenedAdapter, weights: &'a Weights) -> Result<Self, MergeError> {
        let OpenedAdapter {
            folder,
            weight,
            config,
        } = opened;
        let kind = folder.config().kind;
        if let Some(why) = kind.cannot_merge {
            return Err(MergeError::Adapter(AdapterError::NoMerge {
                folder: folder.folder().to_owned(),
                kind: kind.name,
                why,
            }));
        }
        let selection = folder.select(&layout::modules(config))?;
        let tensors = folder.tensors(&selection)?;
        check_tied_head(folder, &selection, &tensors, config.tie_word_embeddings)?;
        Ok(Self {
            folder: folder.folder(),
            weight: *weight,
            weights,
            family: config.family,
            tied: config.tie_word_embeddings,
            selection,
            tensors,
        })
    }

    /// Whether the merge makes embedding and head differ. A base weight in the adapter's file alone does not: it
    /// replaces the shared tensor.
    fn unties(&self) -> bool {
        let outermost = |kind| matches!(kind, ModuleKind::Embedding | ModuleKind::OutputHead);
        let replaced = |module: &Module| {
            let data = self.tensors.base_weights.get(module.name);
            data.map(TensorData::as_bytes)
        };
        let replaced_differ = match (
            replaced(&self.family.embedding),
            replaced(&self.family.head),
        ) {
            (Some(embedding), Some(head)) => embedding != head,
            _ => false,
        };
        let selection = &self.selection;
        replaced_differ
            || selection
                .adapted
                .iter()
                .any(|module| outermost(module.kind))
            || selection.saved.iter().any(|module| outermost(module.kind))
    }

    fn output(&self, spec: TensorSpec) -> Result<Output, MergeError> {
        let origin = match self.trained(&spec.name) {
            Some(data) => Origin::Adapter(data),
            None => self.base(&spec.name),
        };
        let stored = match &origin {
            Origin::Base(name) => {
                self.check_rows(&spec, name)?;
                self.weights.dtype(name)?
            }
            Origin::Adapter(data) => stored_dtype(data),
        };
        Ok(Output {
            merged: self.merged(&spec.name, &origin)?,
            spec,
            origin,
            stored,
        })
    }

    /// What the adapter changes in a tensor of this origin.
    pub(super) fn merged(
        &self,
        name: &str,
        origin: &Origin,
    ) -> Result<Option<Box<dyn MergedRows>>, MergeError> {
        let merged = match self.adapted(name) {
            None => None,
            Some(module) => {
                let factors = self.factors(module, origin)?;
                merged(module, &self.tensors.trained, factors.as_ref())
            }
        };
        Ok(merged.or_else(|| self.rows(name)))
    }

    /// The target module whose adapter changes a tensor: its weight, or its bias if the adapter multiplies that, too.
    fn adapted(&self, name: &str) -> Option<&Selected> {
        let of = |module: &str| {
            let mut adapted = self.selection.adapted.iter();
            adapted.find(|selected| selected.name == module)
        };
        let bias = || of(name.strip_suffix(".bias")?).filter(|module| module.adapter.scales_bias);
        name.strip_suffix(".weight").and_then(of).or_else(bias)
    }

    /// The factors of a weight that its adapter started with, if it started so.
    fn factors(&self, module: &Selected, origin: &Origin) -> Result<Option<Factors>, MergeError> {
        if !module.init.is_of_weight() {
            return Ok(None);
        }
        let Origin::Base(name) = origin else {
            // PEFT has subtracted the start from a weight that it saves
            return Ok(module.no_factors());
        };
        let [rows, _] = module.shape;
        let weight = self.weights.rows(name)?.floats(0..rows)?;
        // the seed of a randomised start is not in an adapter's files
        Ok(module.factors(&weight, 0))
    }

    /// Whether a tensor has a row for each token.
    pub(super) fn is_vocabulary(&self, name: &str) -> bool {
        [self.family.embedding, self.family.head]
            .iter()
            .any(|module| module.weight() == name)
    }

    /// Checks that the adapter has the rows that the base model's matrix lacks.
    pub(super) fn check_rows(&self, spec: &TensorSpec, name: &str) -> Result<(), MergeError> {
        let rows = spec.shape.first().copied().unwrap_or_default();
        let new = self.weights.row_count(name)..rows;
        let is_head = !self.tied && spec.name == self.family.head.weight();
        let kind = if is_head {
            ModuleKind::OutputHead
        } else {
            ModuleKind::Embedding
        };
        if new.is_empty() {
            return Ok(());
        }
        Ok(tokens::check_new(&self.selection.tokens, kind, new).map_err(AdapterError::from)?)
    }

    /// Trained rows of a matrix; a tied head has those of the embedding.
    fn rows(&self, name: &str) -> Option<Box<dyn MergedRows>> {
        let module = name.strip_suffix(".weight")?;
        let module = if self.tied && module == self.family.head.name {
            self.family.embedding.name
        } else {
            module
        };
        let mut tokens = self.selection.tokens.iter();
        let tokens = tokens.find(|tokens| tokens.name == module)?;
        let key = format!("{KEY_PREFIX}{module}{}", tokens::ROWS);
        let data = self.tensors.trained.get(&key)?;
        let values = to_f64(data.as_bytes(), stored_dtype(data));
        Some(Box::new(ReplacedRows::new(tokens, values)))
    }

    /// A fully trained tensor: of a saved module, or a bias.
    pub(super) fn trained(&self, name: &str) -> Option<TensorData> {
        let plain = self.tensors.trained.get(&format!("{KEY_PREFIX}{name}"));
        let module = name.strip_suffix(".bias");
        let wrapped = module.and_then(|module| {
            let key = format!("{KEY_PREFIX}{module}.base_layer.bias");
            self.tensors.trained.get(&key)
        });
        plain.or(wrapped).cloned()
    }

    /// A frozen tensor: of the base model, or the adapter's replacement for it.
    pub(super) fn base(&self, name: &str) -> Origin {
        let of = |module: &str| self.tensors.base_weights.get(module).cloned();
        let module = name.strip_suffix(".weight").unwrap_or(name);
        let [embedding, head] = [&self.family.embedding, &self.family.head];
        let other = if self.tied && module == embedding.name {
            Some(head.name)
        } else if self.tied && module == head.name {
            Some(embedding.name)
        } else {
            None
        };
        if let Some(data) = of(module).or_else(|| of(other?)) {
            return Origin::Adapter(data);
        }
        if module == head.name && !self.weights.checkpoint().contains(name) {
            return Origin::Base(embedding.weight());
        }
        Origin::Base(name.to_owned())
    }
}

/// The merged weight of a module.
fn merged(
    module: &Selected,
    tensors: &BTreeMap<String, TensorData>,
    factors: Option<&Factors>,
) -> Option<Box<dyn MergedRows>> {
    let values = |tensor: &Trained| {
        // loading has checked that the key exists
        let data = tensors.get(&format!("{KEY_PREFIX}{}{}", module.name, tensor.end));
        data.map_or_else(Vec::new, |data| to_f64(data.as_bytes(), stored_dtype(data)))
    };
    let stored = Stored {
        shape: module.shape,
        rank: module.rank,
        scale: module.scaling,
        values: &values,
        factors,
    };
    module.adapter.merged(module.is_embedding(), &stored)
}

pub(super) fn stored_dtype(data: &TensorData) -> Dtype {
    crate::tensor_file::stored_dtype(data.dtype()).unwrap_or(Dtype::F32)
}
