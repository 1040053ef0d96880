//! How far the quantised weights of a base model are from the original ones.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Serialize;
use simmer_checkpoint::convert::WeightError;
use simmer_checkpoint::numbers::floats;
use simmer_checkpoint::{Dtype, compare, layout};

use super::MergeError;
use super::weights::{Rows, Weights};
use crate::base::QuantisedOnLoad;

/// The largest error of a tensor, relative to its norm, that quantisation explains. Four-bit types have a tenth; two models
/// that have nothing to do with each other differ by more than 1.
pub(super) const LARGEST: f64 = 0.5;

/// The other form of the base model that an adapter is merged into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OtherForm<'a> {
    /// The adapter is merged into quantised weights: the model that they were quantised from.
    Original(&'a Path),
    /// The adapter is merged into the original weights: the model that it was trained on.
    Quantised {
        /// The folder or file.
        path: &'a Path,
        /// How its linear weights are quantised while it is loaded; `None`: as stored.
        on_load: Option<QuantisedOnLoad>,
    },
}

/// The error of a quantised tensor. Norms are Frobenius norms.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct QuantisedTensor {
    /// Its key.
    pub name: String,
    /// The quantised type.
    pub kind: &'static str,
    /// ‖W‖ of the original.
    pub norm: f64,
    /// ‖W - dequantised W‖
    pub error: f64,
    /// ‖W - dequantised W‖ / ‖W‖
    pub relative: f64,
}

/// The other form, opened.
pub(super) struct Other {
    weights: Weights,
    is_original: bool,
    original: PathBuf,
    quantised: PathBuf,
}

/// A tensor in both forms.
pub(super) struct Comparison<'a> {
    other: &'a Other,
    name: &'a str,
    rows: Rows<'a>,
    kind: &'static str,
    error: WeightError,
}

impl Other {
    /// Opens the other form of a base model.
    ///
    /// # Errors
    /// If it cannot be opened, the original is quantised, or the two have tensors of other names or shapes.
    pub(super) fn open(form: OtherForm<'_>, target: &Weights) -> Result<Self, MergeError> {
        let (path, on_load, is_original) = match form {
            OtherForm::Original(path) => (path, None, true),
            OtherForm::Quantised { path, on_load } => (path, on_load, false),
        };
        let weights = Weights::open(path, on_load)?;
        let (original, quantised) = if is_original {
            (&weights, target)
        } else {
            (target, &weights)
        };
        if let Some((tensor, kind)) = original.checkpoint().most_quantised() {
            return Err(MergeError::OriginalQuantised {
                path: original.checkpoint().path().to_owned(),
                tensor: tensor.to_owned(),
                kind,
            });
        }
        let (expected, found) = shapes(quantised, original);
        let path = |weights: &Weights| weights.checkpoint().path().to_owned();
        let [original, quantised] = [path(original), path(quantised)];
        compare(&expected, &found).map_err(|difference| MergeError::OtherTensors {
            original: original.clone(),
            quantised: quantised.clone(),
            difference,
        })?;
        Ok(Self {
            weights,
            is_original,
            original,
            quantised,
        })
    }

    /// The comparison of a tensor, if it is quantised in one of the forms.
    pub(super) fn comparison<'a>(
        &'a self,
        target: &Weights,
        name: &'a str,
    ) -> Result<Option<Comparison<'a>>, MergeError> {
        let quantised = if self.is_original {
            target
        } else {
            &self.weights
        };
        // a tied output head need not be in both
        let Some(kind) = quantised.quantised_type(name) else {
            return Ok(None);
        };
        if !self.weights.checkpoint().contains(name) {
            return Ok(None);
        }
        Ok(Some(Comparison {
            other: self,
            name,
            rows: self.weights.rows(name)?,
            kind,
            error: WeightError::default(),
        }))
    }
}

/// The shapes of the tensors of two models by their keys. A head that is tied in one of them is left out.
fn shapes(
    quantised: &Weights,
    original: &Weights,
) -> (BTreeMap<String, Vec<usize>>, BTreeMap<String, Vec<usize>>) {
    let of = |weights: &Weights| -> BTreeMap<String, Vec<usize>> {
        let tensors = layout::tensors(weights.config()).into_iter();
        tensors.map(|tensor| (tensor.name, tensor.shape)).collect()
    };
    let (mut first, mut second) = (of(quantised), of(original));
    let [one, other] = [quantised, original].map(Weights::config);
    if one.tie_word_embeddings != other.tie_word_embeddings {
        first.remove(&one.family.head.weight());
        second.remove(&other.family.head.weight());
    }
    (first, second)
}

impl Comparison<'_> {
    /// Adds rows of the form that the adapter is merged into.
    pub(super) fn add(
        &mut self,
        rows: Range<usize>,
        target: &[u8],
        dtype: Dtype,
    ) -> Result<(), MergeError> {
        let target = floats(target, dtype);
        let other = self.rows.floats(rows.clone())?;
        if self.other.is_original {
            self.error.add(&other, &target);
        } else {
            self.error.add(&target, &other);
        }
        self.rows.release(rows);
        Ok(())
    }

    /// The error of the whole tensor.
    ///
    /// # Errors
    /// If it is larger than quantisation explains.
    pub(super) fn finish(self) -> Result<QuantisedTensor, MergeError> {
        let error = self.error.relative();
        if error.is_nan() || error > LARGEST {
            return Err(MergeError::OtherWeights {
                original: self.other.original.clone(),
                quantised: self.other.quantised.clone(),
                tensor: self.name.to_owned(),
                kind: self.kind,
                error,
            });
        }
        Ok(QuantisedTensor {
            name: self.name.to_owned(),
            kind: self.kind,
            norm: self.error.weights.sqrt(),
            error: self.error.differences.sqrt(),
            relative: error,
        })
    }
}

#[cfg(test)]
mod tests;
