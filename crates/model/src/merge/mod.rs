//! Merges an adapter into its base model: `W' = W + s·B·A`, tensor by tensor, from file to file.
//!
//! The base model stays on disk. A block of rows at a time is widened, changed, and rounded once to the
//! stored dtype, so that memory use does not depend on the size of the model. The output has the same files
//! as the base model, with the same tensors in them.
//!
//! **Tied heads.** If the base model uses one tensor as embedding and as output head, and the adapter
//! changes only one of the two (or each differently), the merged model has two tensors: it also has
//! `lm_head.weight`, and its config.json has `"tie_word_embeddings": false`. So the merged model computes
//! the same as base model and adapter. (PEFT's `merge_and_unload` adds the change to the shared tensor,
//! and so also to the side that the adapter does not change.)
//!
//! **Quantised base models.** An adapter that was trained on quantised weights is exact for their widened values. They are
//! widened tensor by tensor; weights that training quantised while it loaded an ordinary model are quantised here in the
//! same way, and widened again. With the original weights at hand, the error of the quantisation is measured for each
//! tensor ([`OtherForm`]).
//!
//! **Precision.** The change is computed in f32 with the same rounding as PyTorch's matrix multiplication,
//! so that merged weights equal PEFT's to the last bit for adapters in f32. PEFT rounds the change of an
//! f16 or bf16 adapter to the adapter's dtype before adding it; here it stays in f32.

mod adapters;
pub mod agreement;
mod arithmetic;
mod beside;
mod error;
mod plan;
mod quantisation;
mod report;
mod several;
mod verify;
mod weights;

use std::borrow::Cow;
use std::ops::Range;
use std::path::Path;

use self::adapters::Adapters;
use self::arithmetic::{Change, change_rows};
pub use self::beside::files_beside;
use self::beside::{GENERATION_CONFIG, config_text, generation_config};
pub use self::error::MergeError;
use self::plan::{Origin, Output, Plan};
use self::quantisation::{Comparison, Other};
pub use self::quantisation::{OtherForm, QuantisedTensor};
pub use self::report::{MergeReport, MergedTensor};
pub use self::verify::{Altered, verify};
use self::weights::{Rows, Weights};
use crate::adapter::combine::WeightedAdapter;
use crate::base::QuantisedOnLoad;
use simmer_checkpoint::numbers::{convert, count_not_finite};
use simmer_checkpoint::{CheckpointWriter, Dtype};

/// Bytes of a block of rows after widening.
const BLOCK_BYTES: usize = 8 << 20;

/// Options of a merge.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MergeOptions<'a> {
    /// Dtype to store: F32, F16 or BF16. `None`: the dtype of each base tensor.
    pub dtype: Option<Dtype>,
    /// Maximum size of one file in bytes. `None`: the same files as the base model.
    pub max_shard_bytes: Option<u64>,
    /// Folder with the tokenizer to copy, if it is not that of the base model's folder. `None`: the adapter's folder if it
    /// has a whole tokenizer, else the base model's.
    pub tokenizer: Option<&'a Path>,
    /// Number of tokens of the base model's tokenizer; the other rows of its embedding are spare. `None`: not known.
    pub base_tokens: Option<usize>,
    /// Tokens that end an answer, if they are not those of the base model: they go into config.json and
    /// generation_config.json.
    pub eos: Option<&'a [u32]>,
    /// How the linear weights are quantised before they are widened and the adapter is added, for an adapter that was
    /// trained on an ordinary model quantised while it was loaded. `None`: as stored.
    pub quantised: Option<QuantisedOnLoad>,
    /// The other form of the base model, to measure the error of the quantisation.
    pub other: Option<OtherForm<'a>>,
}

/// Merges adapters into the base model in the folder `base`, and writes a checkpoint to the folder `out`, with copies of the
/// base model's tokenizer and other files. If an adapter has its own tokenizer, that is copied instead.
///
/// One adapter of weight 1 is merged as it is. Of several, each is merged into the base weights on its own, and the weighted
/// changes are added: `W' = W + Σ wᵢ (Wᵢ - W)`, where Wᵢ is the weight with adapter i. For low-rank branches that is
/// `W + Σ wᵢ sᵢ·Bᵢ·Aᵢ`.
///
/// `progress` gets the bytes of weights written so far, and the total.
///
/// # Errors
///
/// See [`MergeError`].
pub fn merge(
    base: &Path,
    adapters: &[WeightedAdapter],
    out: &Path,
    options: MergeOptions<'_>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<MergeReport, MergeError> {
    options.check()?;
    let weights = Weights::open(base, options.quantised)?;
    let other = options.other.map(|other| Other::open(other, &weights));
    let other = other.transpose()?;
    let mut adapters = Adapters::open(adapters, weights.config(), options.base_tokens)?;
    let plan = Plan::new(&weights, &adapters, options)?;

    let mut writer = CheckpointWriter::create(out, plan.shards.clone())?;
    let mut append = |output: &Output, _: usize, bytes: &[u8]| -> Result<(), MergeError> {
        Ok(writer.append(&output.spec.name, bytes)?)
    };
    let mut merge = Merge {
        weights: &weights,
        other: other.as_ref(),
        quantised: Vec::new(),
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
        quantised: Vec::new(),
        bytes: merge.total,
        untied: plan.untied,
        resized: adapters.resized.take(),
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
    report.quantised = merge.quantised;
    let config = config_text(&adapters.config, weights.checkpoint(), plan.untied, options)?;
    writer.folder().write("config.json", config.as_bytes())?;
    for file in files_beside(base, options.tokenizer.or(adapters.tokenizer_path()))? {
        let name = file.file_name().unwrap_or_default();
        report.copied.push(name.to_string_lossy().into_owned());
        if options.eos.is_none() || name != GENERATION_CONFIG {
            writer.folder().copy(&file)?;
        }
    }
    if let Some(eos) = options.eos {
        let text = generation_config(&base.join(GENERATION_CONFIG), eos)?;
        writer.folder().write(GENERATION_CONFIG, text.as_bytes())?;
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

/// Receives merged bytes of a tensor: the output, the index of the first row, and the bytes of the rows.
type Sink<'a> = dyn FnMut(&Output, usize, &[u8]) -> Result<(), MergeError> + 'a;

/// Computes the merged tensors in order.
struct Merge<'a> {
    weights: &'a Weights,
    /// The other form of the base model, if the error of the quantisation is to be measured.
    other: Option<&'a Other>,
    /// The error of the quantised tensors so far.
    quantised: Vec<QuantisedTensor>,
    sink: &'a mut Sink<'a>,
    done: u64,
    total: u64,
    progress: &'a mut dyn FnMut(u64, u64),
}

/// The rows that a tensor is made of.
enum Source<'a> {
    /// Rows of the base model, and zeros for those beyond its last one, which the adapter has.
    Base {
        base: Box<Rows<'a>>,
        rows: usize,
        row_bytes: usize,
    },
    Adapter {
        bytes: &'a [u8],
        row_bytes: usize,
    },
}

impl Source<'_> {
    fn read(&self, rows: Range<usize>) -> Result<Cow<'_, [u8]>, MergeError> {
        match self {
            Self::Base {
                base,
                rows: all,
                row_bytes,
            } if rows.end > *all => {
                let mut bytes = Vec::new();
                if rows.start < *all {
                    bytes.extend_from_slice(&base.read(rows.start..*all)?);
                }
                bytes.resize(rows.len() * row_bytes, 0);
                Ok(Cow::from(bytes))
            }
            Self::Base { base, .. } => base.read(rows),
            Self::Adapter { bytes, row_bytes } => Ok(Cow::from(
                &bytes[rows.start * row_bytes..rows.end * row_bytes],
            )),
        }
    }
}

impl<'a> Merge<'a> {
    /// Computes one tensor, block by block; returns statistics if an adapter was merged into it.
    fn tensor(&mut self, output: &Output) -> Result<Option<MergedTensor>, MergeError> {
        let Output {
            spec,
            origin,
            stored,
            merged,
        } = output;
        let columns = spec.shape.iter().skip(1).product::<usize>();
        let row_bytes = columns * stored.bitsize() / 8;
        if row_bytes == 0 {
            return Ok(None);
        }
        let source = match origin {
            Origin::Base(name) => Source::Base {
                base: Box::new(self.weights.rows(name)?),
                rows: self.weights.row_count(name),
                row_bytes,
            },
            Origin::Adapter(data) => Source::Adapter {
                bytes: data.as_bytes(),
                row_bytes,
            },
        };
        let mut comparison = self.comparison(output)?;
        let rows = spec.shape.first().copied().unwrap_or(1);
        let block_rows = (BLOCK_BYTES / (columns * size_of::<f32>())).max(1);
        let mut change = Change::default();
        for first in (0..rows).step_by(block_rows) {
            let block = first..rows.min(first + block_rows);
            let bytes = source.read(block.clone())?;
            if let Origin::Base(name) = origin {
                self.check_finite(name, &bytes, *stored, first)?;
            }
            if let Some(comparison) = &mut comparison {
                comparison.add(block.clone(), &bytes, *stored)?;
            }
            let converted;
            let written = match merged {
                None if spec.dtype == *stored => &bytes,
                None => {
                    converted = convert(&bytes, *stored, spec.dtype);
                    &converted[..]
                }
                Some(merged) => {
                    let (out, changed) =
                        change_rows(&bytes, *stored, spec.dtype, &**merged, columns, first);
                    converted = out;
                    change = change.and(changed);
                    &converted
                }
            };
            (self.sink)(output, first, written)?;
            self.done += written.len() as u64;
            if let Source::Base { base, rows, .. } = &source
                && block.end <= *rows
            {
                base.release(block);
            }
            (self.progress)(self.done, self.total);
        }
        if let Some(comparison) = comparison {
            self.quantised.push(comparison.finish()?);
        }
        if let Some(row) = change.not_finite {
            return Err(MergeError::NotFinite {
                tensor: spec.name.clone(),
                row,
                dtype: spec.dtype,
            });
        }
        let changed = merged.is_some();
        Ok(changed.then(|| MergedTensor::new(&spec.name, spec.dtype, &change)))
    }

    /// The comparison of a tensor of the base model with its other form, if one of them is quantised. An output head that
    /// is a copy of the embedding is not compared again.
    fn comparison<'b>(&self, output: &'b Output) -> Result<Option<Comparison<'b>>, MergeError>
    where
        'a: 'b,
    {
        match (self.other, &output.origin) {
            (Some(other), Origin::Base(name)) if *name == output.spec.name => {
                other.comparison(self.weights, name)
            }
            _ => Ok(None),
        }
    }

    /// Checks rows of the base model, from row `first` on.
    fn check_finite(
        &self,
        tensor: &str,
        bytes: &[u8],
        stored: Dtype,
        first: usize,
    ) -> Result<(), MergeError> {
        let count = count_not_finite(bytes, stored);
        if count == 0 {
            return Ok(());
        }
        Err(MergeError::BaseNotFinite {
            path: self.weights.checkpoint().path().to_owned(),
            tensor: tensor.to_owned(),
            count,
            row: first,
        })
    }
}

#[cfg(test)]
mod tests;
