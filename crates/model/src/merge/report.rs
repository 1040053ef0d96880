//! The report of a merge.

use serde::Serialize;
use simmer_checkpoint::Dtype;

use super::arithmetic::Change;
use super::quantisation::QuantisedTensor;

/// The result of a merge.
#[derive(Debug, Clone, PartialEq)]
pub struct MergeReport {
    /// Tensors that a low-rank branch was merged into.
    pub merged: Vec<MergedTensor>,
    /// Tensors that were replaced by full tensors of the adapter.
    pub replaced: Vec<String>,
    /// Number of tensors that are unchanged.
    pub kept: usize,
    /// Number of unchanged or replaced tensors whose conversion loses precision or range, by their new dtype.
    pub narrowed: Vec<(Dtype, usize)>,
    /// The quantised tensors, if the original weights are at hand: how far their values are from the original ones. Tensors
    /// that the adapter replaces are not among them.
    pub quantised: Vec<QuantisedTensor>,
    /// Bytes of weights written.
    pub bytes: u64,
    /// Whether the output head was tied to the embedding and is now a tensor of its own.
    pub untied: bool,
    /// A message if the adapter's vocabulary differs from the base model's.
    pub resized: Option<String>,
    /// Names of the copied files, such as the tokenizer's.
    pub copied: Vec<String>,
    /// Warnings, one sentence each.
    pub warnings: Vec<String>,
}

/// Statistics of one merged tensor. Norms are Frobenius norms.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MergedTensor {
    /// Its key.
    pub name: String,
    /// The dtype that it is stored in.
    #[serde(serialize_with = "super::verify::as_text")]
    pub dtype: Dtype,
    /// Largest element of |s·B·A|.
    pub max_change: f64,
    /// Largest difference between an element of W + s·B·A and its stored value.
    pub max_error: f64,
    /// ‖W + s·B·A‖
    pub norm: f64,
    /// ‖s·B·A‖
    pub change: f64,
    /// ‖stored - W‖: the change after rounding.
    pub stored_change: f64,
    /// ‖stored - (W + s·B·A)‖: the rounding error.
    pub error: f64,
    /// Share of the change that rounding lost: `1 - ⟨stored - W, s·B·A⟩ / ‖s·B·A‖²`. 1 if every element was rounded back
    /// to the base weight, 0 if the errors cancel out or the change is zero.
    pub lost: f64,
}

impl MergedTensor {
    pub(super) fn new(name: &str, dtype: Dtype, change: &Change) -> Self {
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

    /// ‖stored - (W + s·B·A)‖ / ‖s·B·A‖: the rounding error relative to the change.
    pub fn noise(&self) -> f64 {
        if self.change > 0.0 {
            self.error / self.change
        } else {
            0.0
        }
    }
}

impl MergeReport {
    /// Counts an unchanged or replaced tensor whose conversion loses precision or range.
    pub(super) fn narrow(&mut self, dtype: Dtype) {
        match self.narrowed.iter_mut().find(|(other, _)| *other == dtype) {
            Some((_, count)) => *count += 1,
            None => self.narrowed.push((dtype, 1)),
        }
    }

    /// Share of all changes that rounding lost, as [`MergedTensor::lost`].
    pub fn lost(&self) -> f64 {
        let squares = |of: fn(&MergedTensor) -> f64| self.merged.iter().map(of).sum::<f64>();
        let change = squares(|tensor| tensor.change.powi(2));
        let lost = squares(|tensor| tensor.lost * tensor.change.powi(2));
        if change > 0.0 { lost / change } else { 0.0 }
    }

    /// Root of the sum of the squared relative rounding errors of all tensors. A tensor that was only converted counts
    /// with the largest relative rounding error of its dtype.
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

/// Unit roundoff: half the distance from 1 to the next larger value.
fn roundoff(dtype: Dtype) -> f64 {
    match dtype {
        Dtype::BF16 => 2.0_f64.powi(-9),
        Dtype::F16 => 2.0_f64.powi(-12),
        _ => 2.0_f64.powi(-25),
    }
}
