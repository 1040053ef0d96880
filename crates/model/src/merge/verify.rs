//! Verifies a merged model: reads it from disk and compares it with the merge computed again.

use std::path::Path;

use serde::{Serialize, Serializer};
use simmer_checkpoint::{CheckpointError, Dtype, Pretrained, compare};

use super::adapters::Adapters;
use super::plan::{Output, Plan};
use super::weights::Weights;
use super::{Merge, MergeError, MergeOptions};
use crate::adapter::combine::WeightedAdapter;

/// A tensor of a merged model that differs from the merge of base model and adapter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Altered {
    /// Its key.
    pub name: String,
    /// The first row that differs.
    pub row: usize,
    /// Number of elements that differ.
    pub numbers: u64,
}

/// Computes every tensor of a merge again and compares it with the bytes in the folder `merged`; returns the tensors
/// that differ.
///
/// Takes as much time and memory as the merge.
///
/// # Errors
/// As [`super::merge`], and if the merged model cannot be opened or has tensors of other names or shapes.
pub fn verify(
    base: &Path,
    adapters: &[WeightedAdapter],
    merged: &Path,
    options: MergeOptions<'_>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Vec<Altered>, MergeError> {
    options.check()?;
    let weights = Weights::open(base, options.quantised)?;
    let adapters = Adapters::open(adapters, weights.config(), options.base_tokens)?;
    let plan = Plan::new(&weights, &adapters, options)?;
    let merged = Pretrained::open(merged)?.checkpoint;
    let shapes = |name: &str| merged.info(name).map(|info| info.shape.clone());
    let expected = plan
        .outputs
        .iter()
        .map(|output| (output.spec.name.clone(), output.spec.shape.clone()));
    let found = merged
        .all_names()
        .map(|name| Ok((name.to_owned(), shapes(name)?)));
    compare(
        &expected.collect(),
        &found.collect::<Result<_, CheckpointError>>()?,
    )
    .map_err(|difference| MergeError::NotThisMerge {
        folder: merged.path().into(),
        difference,
    })?;
    let mut altered: Vec<Altered> = Vec::new();
    let mut check = |output: &Output, first: usize, bytes: &[u8]| -> Result<(), MergeError> {
        let spec = &output.spec;
        let width = spec.dtype.bitsize() / 8;
        let columns = spec.shape.iter().skip(1).product::<usize>();
        let rows = bytes.len() / (columns * width);
        let found = merged.rows(&spec.name, first..first + rows)?;
        if merged.info(&spec.name)?.dtype == spec.dtype && *found == *bytes {
            merged.release(&spec.name, first..first + rows);
            return Ok(());
        }
        let pairs = bytes.chunks(width).zip(found.chunks(width)).enumerate();
        let mut differ = pairs
            .filter(|(_, (one, other))| one != other)
            .map(|(at, _)| at);
        let row = first + differ.next().unwrap_or(0) / columns;
        let numbers = 1 + differ.count() as u64;
        match altered.last_mut().filter(|last| last.name == spec.name) {
            Some(last) => last.numbers += numbers,
            None => altered.push(Altered {
                name: spec.name.clone(),
                row,
                numbers,
            }),
        }
        Ok(())
    };
    let mut stream = Merge {
        weights: &weights,
        // the merge has measured it
        other: None,
        quantised: Vec::new(),
        sink: &mut check,
        done: 0,
        total: plan.bytes(),
        progress,
    };
    for output in &plan.outputs {
        stream.tensor(output)?;
    }
    Ok(altered)
}

/// Serialises a dtype as its name.
#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
pub(super) fn as_text<S: Serializer>(dtype: &Dtype, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(dtype)
}
