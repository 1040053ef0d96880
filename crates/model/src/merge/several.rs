//! A tensor that several adapters change, or one with a weight: `W' = W + Σ wᵢ (Wᵢ - W)`.

use burn::tensor::TensorData;
use simmer_checkpoint::TensorSpec;

use super::MergeError;
use super::adapters::Adapters;
use super::plan::{OfAdapter, Origin, Output, stored_dtype};
use crate::adapter::kind::MergedRows;
use crate::numbers::{to_f64, widen};

/// The output for a tensor.
pub(super) fn output(
    adapters: &[OfAdapter<'_>],
    opened: &Adapters,
    spec: TensorSpec,
) -> Result<Output, MergeError> {
    let origin = common_origin(adapters, &spec.name)?;
    let (stored, first_new) = match &origin {
        Origin::Base(name) => {
            let weights = adapters[0].weights;
            let rows = weights.row_count(name);
            (weights.dtype(name)?, rows.min(opened.base_tokens))
        }
        Origin::Adapter(data) => (stored_dtype(data), opened.base_tokens),
    };
    let is_vocabulary = adapters
        .iter()
        .any(|adapter| adapter.is_vocabulary(&spec.name));
    let mut changes = Vec::new();
    for (at, adapter) in adapters.iter().enumerate() {
        let whole = adapter.trained(&spec.name);
        let adds_tokens = is_vocabulary && opened.adding == Some(at);
        if let (Origin::Base(name), None, true) = (&origin, &whole, adds_tokens) {
            adapter.check_rows(&spec, name)?;
        }
        let own = whole.clone().map(Origin::Adapter);
        let merged = adapter.merged(&spec.name, own.as_ref().unwrap_or(&origin))?;
        if whole.is_some() || merged.is_some() {
            changes.push(Change {
                weight: adapter.weight,
                whole: whole.map(values),
                merged,
                adds_tokens,
            });
        }
    }
    let merged = (!changes.is_empty())
        .then(|| -> Box<dyn MergedRows> { Box::new(WeightedSum { changes, first_new }) });
    Ok(Output {
        spec,
        origin,
        stored,
        merged,
    })
}

/// The frozen tensor of all adapters.
///
/// # Errors
/// Copies of base weights in two adapters that differ.
fn common_origin(adapters: &[OfAdapter<'_>], name: &str) -> Result<Origin, MergeError> {
    let mut chosen: Option<(&OfAdapter<'_>, TensorData)> = None;
    for adapter in adapters {
        let Origin::Adapter(data) = adapter.base(name) else {
            continue;
        };
        match &chosen {
            Some((other, known)) if known.as_bytes() != data.as_bytes() => {
                return Err(MergeError::Together {
                    first: other.folder.to_owned(),
                    second: adapter.folder.to_owned(),
                    why: format!("both bring base weights for `{name}`, and they differ"),
                });
            }
            Some(_) => (),
            None => chosen = Some((adapter, data)),
        }
    }
    Ok(match chosen {
        Some((_, data)) => Origin::Adapter(data),
        None => adapters[0].base(name),
    })
}

fn values(data: TensorData) -> Vec<f32> {
    let wide = to_f64(data.as_bytes(), stored_dtype(&data));
    wide.into_iter().map(|value| value as f32).collect()
}

/// What one adapter makes of a tensor.
struct Change {
    weight: f64,
    /// All values, if it trained the whole tensor.
    whole: Option<Vec<f32>>,
    /// What it then changes.
    merged: Option<Box<dyn MergedRows>>,
    adds_tokens: bool,
}

impl Change {
    /// The row with this adapter alone.
    fn row(&self, row: usize, old: &[f32], new: &mut [f64]) {
        let columns = old.len();
        let own = self.whole.as_ref();
        let old = own.map_or(old, |whole| &whole[row * columns..][..columns]);
        match &self.merged {
            Some(merged) => merged.row(row, old, new),
            None => widen(old, new),
        }
    }
}

/// A weight with the weighted changes of several adapters. The row of a token that the base model lacks is that of the adapter that
/// adds it.
struct WeightedSum {
    changes: Vec<Change>,
    /// The row of the first token that the base model lacks; counts only if an adapter adds tokens.
    first_new: usize,
}

impl MergedRows for WeightedSum {
    fn row(&self, row: usize, old: &[f32], new: &mut [f64]) {
        if row >= self.first_new {
            let mut changes = self.changes.iter();
            if let Some(change) = changes.find(|change| change.adds_tokens) {
                return change.row(row, old, new);
            }
        }
        widen(old, new);
        let mut alone = vec![0.0; old.len()];
        for change in &self.changes {
            change.row(row, old, &mut alone);
            for ((new, old), alone) in new.iter_mut().zip(old).zip(&alone) {
                *new += change.weight * (alone - f64::from(*old));
            }
        }
    }
}
