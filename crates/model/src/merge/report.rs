//! What a merge did, in numbers.

use serde::Serialize;
use simmer_checkpoint::Dtype;

use super::arithmetic::Change;

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
    #[serde(serialize_with = "super::verify::as_text")]
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
    /// Counts a tensor that is stored in fewer bits than it came in.
    pub(super) fn narrow(&mut self, dtype: Dtype) {
        match self.narrowed.iter_mut().find(|(other, _)| *other == dtype) {
            Some((_, count)) => *count += 1,
            None => self.narrowed.push((dtype, 1)),
        }
    }

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
