//! Folds an adapter into its base: `W' = W + s·B·A`, tensor by tensor, from file to file.
//!
//! The base stays on disk: a block of rows at a time is widened, changed and rounded once to the
//! precision that is stored, so that the memory in use does not depend on the model's size. Files
//! and the tensors in them stay as the base has them.
//!
//! **Tied heads.** Where the base uses one tensor as embedding and as output head, and the adapter
//! changes one of the two (or each in its own way), the merged model has two: `lm_head.weight` is
//! written beside the embedding, and config.json says `"tie_word_embeddings": false`. The merged
//! model then computes what base and adapter compute together. (PEFT's `merge_and_unload` adds the
//! change to the shared tensor, and so to the side that the adapter did not touch, too.)
//!
//! **Precision.** The change is computed in f32 with the roundings of PyTorch's matrix product, so
//! that merged weights are PEFT's to the last bit for adapters in f32. PEFT rounds the change of an
//! f16 or bf16 adapter to the adapter's precision before it is added; here it stays in f32.

pub mod agreement;
mod arithmetic;
mod plan;
mod verify;

use std::borrow::Cow;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;
use thiserror::Error;

pub(crate) use self::arithmetic::widened;
use self::arithmetic::{Change, change_rows};
use self::plan::{Origin, Output, Plan};
pub use self::verify::{Altered, verify};
use crate::adapter::AdapterError;
use crate::adapter::peft::AdapterFolder;
use crate::adapter::targets::Patterns;
use crate::checkpoint::numbers::{convert, torch_name};
use crate::checkpoint::{
    Checkpoint, CheckpointError, CheckpointWriter, Difference, Dtype, Layout, ModelConfig,
    Pretrained, PretrainedError,
};
use crate::config::ConfigError;
use crate::export::{TOKENIZER_FILES, tokenizer_files};

/// Bytes of a block of rows, widened.
const BLOCK_BYTES: usize = 8 << 20;

/// What a merge may change beside the weights.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MergeOptions<'a> {
    /// Number type to store: F32, F16 or BF16; that of each base tensor when `None`.
    pub dtype: Option<Dtype>,
    /// Most bytes of one file; the base's own files when `None`.
    pub max_shard_bytes: Option<u64>,
    /// Folder whose tokenizer goes beside the weights, for a base in a layout without one that
    /// others read. The adapter's own goes before it.
    pub tokenizer: Option<&'a Path>,
}

/// What a merge did.
#[derive(Debug, Clone, PartialEq)]
pub struct MergeReport {
    /// Tensors with a low-rank path folded in.
    pub merged: Vec<MergedTensor>,
    /// Tensors that the adapter holds whole.
    pub replaced: Vec<String>,
    /// How many tensors are the base's.
    pub kept: usize,
    /// How many of those that are kept or replaced are stored in fewer bits than they came in, by number type.
    pub narrowed: Vec<(Dtype, usize)>,
    /// Bytes of all weights written.
    pub bytes: u64,
    /// Whether a head that was tied to the embedding became a tensor of its own.
    pub untied: bool,
    /// What is to be said where the adapter brings another vocabulary than the base's.
    pub resized: Option<String>,
    /// Files beside the weights that were copied.
    pub copied: Vec<String>,
    /// What was ignored, one sentence each.
    pub warnings: Vec<String>,
}

/// One merged tensor. Norms are Frobenius norms.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MergedTensor {
    /// Its key.
    pub name: String,
    /// The number type it is stored in.
    #[serde(serialize_with = "verify::as_text")]
    pub dtype: Dtype,
    /// Largest element of |s·B·A|.
    pub max_change: f64,
    /// Largest difference between an element of W + s·B·A and what is stored.
    pub max_error: f64,
    /// ‖W + s·B·A‖
    pub norm: f64,
    /// ‖s·B·A‖
    pub change: f64,
    /// ‖stored - W‖: the change that is left.
    pub stored_change: f64,
    /// ‖stored - (W + s·B·A)‖: what rounding added and took.
    pub error: f64,
    /// Share of the change that rounding took: `1 - ⟨stored - W, s·B·A⟩ / ‖s·B·A‖²`. 1 where every element fell back to
    /// the base's, 0 where the errors cancel out; 0 of a change that is zero.
    pub lost: f64,
}

impl MergedTensor {
    fn new(name: &str, dtype: Dtype, change: &Change) -> Self {
        let squares = change.squares;
        Self {
            name: name.to_owned(),
            dtype,
            max_change: change.largest,
            max_error: change.error,
            norm: squares.sum.sqrt(),
            change: squares.change.sqrt(),
            stored_change: squares.stored_change.sqrt(),
            error: squares.error.sqrt(),
            lost: if squares.change > 0.0 {
                1.0 - squares.along / squares.change
            } else {
                0.0
            },
        }
    }

    /// ‖stored - (W + s·B·A)‖ / ‖W + s·B·A‖
    pub fn relative_error(&self) -> f64 {
        if self.norm > 0.0 {
            self.error / self.norm
        } else {
            0.0
        }
    }

    /// ‖stored - (W + s·B·A)‖ / ‖s·B·A‖: rounding beside the change itself.
    pub fn noise(&self) -> f64 {
        if self.change > 0.0 {
            self.error / self.change
        } else {
            0.0
        }
    }
}

impl MergeReport {
    /// Share of all changes that rounding took, as of one tensor.
    pub fn lost(&self) -> f64 {
        let squares = |of: fn(&MergedTensor) -> f64| self.merged.iter().map(of).sum::<f64>();
        let change = squares(|tensor| tensor.change.powi(2));
        let lost = squares(|tensor| tensor.lost * tensor.change.powi(2));
        if change > 0.0 { lost / change } else { 0.0 }
    }

    /// Root of the sum of the squared relative rounding errors of all tensors: how far the weights as a whole are from
    /// what they stand for. Those that were stored in another precision without a change count as rounded everywhere.
    pub fn rounding(&self) -> f64 {
        let merged = self
            .merged
            .iter()
            .map(|tensor| tensor.relative_error().powi(2));
        let narrowed = self.narrowed.iter();
        let narrowed = narrowed.map(|(dtype, count)| *count as f64 * roundoff(*dtype).powi(2));
        (merged.sum::<f64>() + narrowed.sum::<f64>()).sqrt()
    }
}

/// Half of the distance from 1 to the next number.
fn roundoff(dtype: Dtype) -> f64 {
    match dtype {
        Dtype::BF16 => 2.0_f64.powi(-9),
        Dtype::F16 => 2.0_f64.powi(-12),
        _ => 2.0_f64.powi(-25),
    }
}

/// A merge that cannot be done. What was at the output before is still there.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum MergeError {
    /// The base model.
    #[error(transparent)]
    Base(#[from] PretrainedError),
    /// The adapter, or that it does not fit the base.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    /// The output.
    #[error(transparent)]
    Output(#[from] CheckpointError),
    /// A merged model that has other tensors than this merge makes.
    #[error("{}: not what these base and adapter merge to:\n{difference}", folder.display())]
    NotThisMerge {
        /// The merged model.
        folder: PathBuf,
        /// All differences.
        difference: Difference,
    },
    /// A number type that models are not stored in.
    #[error("dtype: expected F32, F16 or BF16, found {found}")]
    Dtype {
        /// The number type asked for.
        found: Dtype,
    },
    /// A merged weight that is no number.
    #[error("tensor `{tensor}`, row {row}: a merged weight is not finite in {dtype}")]
    NotFinite {
        /// The tensor.
        tensor: String,
        /// The row of the first such weight.
        row: usize,
        /// The number type it was to be stored in.
        dtype: Dtype,
    },
}

impl From<ConfigError> for MergeError {
    fn from(error: ConfigError) -> Self {
        Self::Base(error.into())
    }
}

impl MergeError {
    /// What the person at the keyboard can do about it, where there is something to say.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Base(error) => error.hint(),
            Self::Adapter(error) => error.hint(),
            Self::Output(error) => error.hint(),
            Self::NotFinite { dtype, .. } if *dtype == Dtype::F16 => Some(
                "f16 ends at 65504: store the merged model as bf16 or f32, or train with a \
                 smaller learning rate"
                    .to_owned(),
            ),
            Self::NotFinite { .. } => Some(
                "the adapter holds numbers that are not finite; its training diverged".to_owned(),
            ),
            Self::Dtype { .. } | Self::NotThisMerge { .. } => None,
        }
    }
}

/// Merges the adapter in the folder `adapter` into the checkpoint in the folder `base`, and writes
/// a checkpoint to the folder `out`, with the base's tokenizer and other files beside it; the
/// adapter's tokenizer, where it brings one with its own embedding.
///
/// `progress` is told the bytes of weights written so far, and of all.
///
/// # Errors
///
/// A base, an adapter or an output that is not as it should be, or an adapter of another base; see
/// [`MergeError`].
pub fn merge(
    base: &Path,
    adapter: &Path,
    out: &Path,
    options: MergeOptions<'_>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<MergeReport, MergeError> {
    options.check()?;
    let Pretrained {
        mut config,
        checkpoint,
    } = Pretrained::open(base)?;
    let adapter = AdapterFolder::open(adapter)?;
    let resized = adapter.resize(&mut config);
    let plan = Plan::new(&config, &checkpoint, &adapter, options)?;

    let mut writer = CheckpointWriter::create(out, plan.shards.clone())?;
    let mut append = |output: &Output, _: usize, bytes: &[u8]| -> Result<(), MergeError> {
        Ok(writer.append(&output.spec.name, bytes)?)
    };
    let mut merge = Merge {
        checkpoint: &checkpoint,
        sink: &mut append,
        done: 0,
        total: plan.bytes(),
        progress,
    };
    let mut report = MergeReport {
        merged: Vec::new(),
        replaced: Vec::new(),
        kept: 0,
        narrowed: Vec::new(),
        bytes: merge.total,
        untied: plan.untied,
        resized,
        copied: Vec::new(),
        warnings: plan.warnings,
    };
    for output in &plan.outputs {
        if let Some(merged) = merge.tensor(output)? {
            report.merged.push(merged);
            continue;
        }
        if output.is_narrowed() {
            report.narrow(output.spec.dtype);
        }
        match output.origin {
            Origin::Adapter(_) => report.replaced.push(output.spec.name.clone()),
            Origin::Base(_) => report.kept += 1,
        }
    }
    let vocab_size = report.resized.is_some().then_some(config.vocab_size);
    let text = config_text(&config, &checkpoint)?;
    let config = config_json(text, base, plan.untied, vocab_size, options)?;
    writer.folder().write("config.json", &config)?;
    for file in files_beside(base, adapter.tokenizer_path().or(options.tokenizer))? {
        writer.folder().copy(&file)?;
        let name = file.file_name().unwrap_or_default();
        report.copied.push(name.to_string_lossy().into_owned());
    }
    writer.finish()?;
    Ok(report)
}

impl MergeOptions<'_> {
    fn check(&self) -> Result<(), MergeError> {
        match self.dtype {
            None | Some(Dtype::F32 | Dtype::F16 | Dtype::BF16) => Ok(()),
            Some(found) => Err(MergeError::Dtype { found }),
        }
    }
}

impl MergeReport {
    fn narrow(&mut self, dtype: Dtype) {
        match self.narrowed.iter_mut().find(|(other, _)| *other == dtype) {
            Some((_, count)) => *count += 1,
            None => self.narrowed.push((dtype, 1)),
        }
    }
}

/// Takes the merged bytes of some rows of a tensor, the first of which is given.
type Sink<'a> = dyn FnMut(&Output, usize, &[u8]) -> Result<(), MergeError> + 'a;

/// The stream of tensors.
struct Merge<'a> {
    checkpoint: &'a Checkpoint,
    sink: &'a mut Sink<'a>,
    done: u64,
    total: u64,
    progress: &'a mut dyn FnMut(u64, u64),
}

impl Merge<'_> {
    /// Makes one tensor, block by block; what changed, if a path was folded in.
    fn tensor(&mut self, output: &Output) -> Result<Option<MergedTensor>, MergeError> {
        let Output {
            spec,
            origin,
            stored,
            path,
        } = output;
        let columns = spec.shape.iter().skip(1).product::<usize>();
        let row_bytes = columns * stored.bitsize() / 8;
        if row_bytes == 0 {
            return Ok(None);
        }
        let rows = spec.shape.first().copied().unwrap_or(1);
        let block_rows = (BLOCK_BYTES / (columns * size_of::<f32>())).max(1);
        let mut change = Change::default();
        for first in (0..rows).step_by(block_rows) {
            let block = first..rows.min(first + block_rows);
            let bytes = match origin {
                Origin::Base(name) => self.checkpoint.rows(name, block.clone())?,
                Origin::Adapter(data) => {
                    Cow::from(&data.as_bytes()[block.start * row_bytes..block.end * row_bytes])
                }
            };
            let converted;
            let written = match path {
                None if spec.dtype == *stored => &bytes,
                None => {
                    converted = convert(&bytes, *stored, spec.dtype);
                    &converted[..]
                }
                Some(path) => {
                    let (out, changed) = change_rows(&bytes, *stored, spec.dtype, path, first);
                    converted = out;
                    change = change.and(changed);
                    &converted
                }
            };
            (self.sink)(output, first, written)?;
            self.done += written.len() as u64;
            if let Origin::Base(name) = origin {
                self.checkpoint.release(name, block);
            }
            (self.progress)(self.done, self.total);
        }
        if let Some(row) = change.not_finite {
            return Err(MergeError::NotFinite {
                tensor: spec.name.clone(),
                row,
                dtype: spec.dtype,
            });
        }
        let changed = path.is_some();
        Ok(changed.then(|| MergedTensor::new(&spec.name, spec.dtype, &change)))
    }
}

/// The base's config.json, or what it would be.
fn config_text(config: &ModelConfig, checkpoint: &Checkpoint) -> Result<String, MergeError> {
    if checkpoint.layout() == Layout::HuggingFace {
        let path = checkpoint.path().join("config.json");
        let text = fs::read_to_string(&path).map_err(CheckpointError::io(&path, "read"))?;
        return Ok(text);
    }
    let matrix = checkpoint.info("model.embed_tokens.weight")?.dtype;
    let mut json = config.to_json();
    json["dtype"] = torch_name(matrix).into();
    Ok(format!("{json:#}\n"))
}

/// A config.json with what the merge changes; keys that stay keep their text and their order.
fn config_json(
    text: String,
    base: &Path,
    untied: bool,
    vocab_size: Option<usize>,
    options: MergeOptions<'_>,
) -> Result<Vec<u8>, MergeError> {
    if !untied && vocab_size.is_none() && options.dtype.is_none() {
        return Ok(text.into_bytes());
    }
    let mut entries: Patterns<Box<RawValue>> =
        serde_json::from_str(&text).map_err(|source| ConfigError::Json {
            path: base.join("config.json"),
            source,
        })?;
    let mut set = |keys: &[&str], value: &Value| {
        let mut found = false;
        for (key, entry) in &mut entries.0 {
            if keys.contains(&key.as_str()) {
                *entry = raw(value);
                found = true;
            }
        }
        if !found {
            entries.0.push((keys[0].to_owned(), raw(value)));
        }
    };
    if untied {
        set(&["tie_word_embeddings"], &Value::Bool(false));
    }
    if let Some(vocab_size) = vocab_size {
        set(&["vocab_size"], &vocab_size.into());
    }
    if let Some(dtype) = options.dtype {
        set(&["torch_dtype", "dtype"], &torch_name(dtype).into());
    }
    let lines: Vec<String> = entries
        .iter()
        .map(|(key, value)| format!("  {}: {value}", Value::from(key.as_str())))
        .collect();
    Ok(format!("{{\n{}\n}}\n", lines.join(",\n")).into_bytes())
}

fn raw(value: &Value) -> Box<RawValue> {
    // The text of a value is always valid.
    RawValue::from_string(value.to_string()).unwrap_or_default()
}

/// Everything in the base's folder that is neither weights nor says what the base is: tokenizer,
/// templates, generation defaults, licences. The tokenizer is that of the folder `tokenizer` where
/// there is one.
///
/// # Errors
/// A folder that cannot be read.
pub fn files_beside(
    base: &Path,
    tokenizer: Option<&Path>,
) -> Result<Vec<PathBuf>, CheckpointError> {
    const WEIGHTS: [&str; 9] = [
        "safetensors",
        "bin",
        "pt",
        "pth",
        "gguf",
        "h5",
        "msgpack",
        "onnx",
        "ot",
    ];
    let io = |error| CheckpointError::io(base, "read")(error);
    let mut files = Vec::new();
    // a .gguf file has nothing beside it that is its own
    let entries = base.is_dir().then(|| fs::read_dir(base).map_err(io));
    for entry in entries.transpose()?.into_iter().flatten() {
        let path = entry.map_err(io)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let extension = path.extension().unwrap_or_default().to_string_lossy();
        let left_out = name.starts_with('.')
            || name == "config.json"
            || name == "params.json"
            || name.eq_ignore_ascii_case("README.md")
            || name.ends_with(".index.json")
            || (tokenizer.is_some() && TOKENIZER_FILES.contains(&&*name))
            || WEIGHTS.contains(&&*extension);
        if !left_out && path.is_file() {
            files.push(path);
        }
    }
    files.extend(tokenizer.into_iter().flat_map(tokenizer_files));
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests;
