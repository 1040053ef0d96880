//! The weights of a base model in the form that an adapter is merged into: as stored, or quantised as in training and
//! widened again.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use simmer_blocks::Quantised;
use simmer_checkpoint::config::ModelConfig;
use simmer_checkpoint::layout::{self, TensorLayout};
use simmer_checkpoint::numbers::{convert, floats};
use simmer_checkpoint::{Checkpoint, Dtype, Pretrained};

use super::MergeError;
use crate::base::{Base, QuantisedOnLoad};

/// A base model in one form.
pub(super) struct Weights {
    base: Base,
    checkpoint: Checkpoint,
    layouts: BTreeMap<String, TensorLayout>,
}

/// The rows of a tensor.
pub(super) struct Rows<'a> {
    checkpoint: &'a Checkpoint,
    name: &'a str,
    /// A tensor that was quantised for this.
    quantised: Option<Quantised>,
    /// Dtype of [`Self::read`].
    pub(super) dtype: Dtype,
}

impl Weights {
    /// Opens a base model whose linear weights are quantised first, if so asked.
    pub(super) fn open(
        path: &Path,
        quantised: Option<QuantisedOnLoad>,
    ) -> Result<Self, MergeError> {
        let model = Pretrained::open(path)?;
        let layouts = layout::tensors(&model.config).into_iter();
        let layouts = layouts.map(|tensor| (tensor.name.clone(), tensor));
        Ok(Self {
            layouts: layouts.collect(),
            checkpoint: model.checkpoint.clone(),
            base: Base::of(model, quantised),
        })
    }

    pub(super) fn config(&self) -> &ModelConfig {
        &self.base.config
    }

    /// The rows of a tensor.
    pub(super) fn row_count(&self, name: &str) -> usize {
        let shape = self.layouts.get(name).map(|layout| &layout.shape);
        shape
            .and_then(|shape| shape.first().copied())
            .unwrap_or(usize::MAX)
    }

    pub(super) fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The quantised type of a tensor, stored or made while it is loaded; `None` for floats, and for other tensors.
    pub(super) fn quantised_type(&self, name: &str) -> Option<&'static str> {
        let stored = self.checkpoint.quantised_type(name).ok().flatten();
        stored.or_else(|| Some(self.type_on_load(name)?.0))
    }

    /// Dtype that the rows of a tensor are read in.
    pub(super) fn dtype(&self, name: &str) -> Result<Dtype, MergeError> {
        if let Some((_, dtype)) = self.type_on_load(name) {
            return Ok(dtype);
        }
        Ok(self.checkpoint.info(name)?.dtype)
    }

    /// A tensor that is stored in a quantised type stays as it is, as in training.
    fn type_on_load(&self, name: &str) -> Option<(&'static str, Dtype)> {
        match self.checkpoint.quantised_type(name) {
            Ok(None) => self.base.type_on_load(self.layouts.get(name)?),
            _ => None,
        }
    }

    /// Opens a tensor. One that is quantised for this is read once as a whole; its codes are in memory until the rows are
    /// dropped.
    pub(super) fn rows<'a>(&'a self, name: &'a str) -> Result<Rows<'a>, MergeError> {
        let quantised = match (self.type_on_load(name), self.layouts.get(name)) {
            // the seed is that of random weights, which a base model on disk does not have
            (Some(_), Some(layout)) => self.base.quantised_on_load(layout, 0)?,
            _ => None,
        };
        Ok(Rows {
            checkpoint: &self.checkpoint,
            name,
            quantised,
            dtype: self.dtype(name)?,
        })
    }
}

impl Rows<'_> {
    /// Some rows, in [`Self::dtype`].
    pub(super) fn read(&self, rows: Range<usize>) -> Result<Cow<'_, [u8]>, MergeError> {
        let Some(matrix) = &self.quantised else {
            return Ok(self.checkpoint.rows(self.name, rows)?);
        };
        let wide = matrix.rows(rows);
        let wide: Vec<u8> = wide.into_iter().flat_map(f32::to_le_bytes).collect();
        Ok(Cow::Owned(match self.dtype {
            Dtype::F32 => wide,
            // exact: four-bit values are rounded to this dtype already
            dtype => convert(&wide, Dtype::F32, dtype),
        }))
    }

    /// Some rows in f32.
    pub(super) fn floats(&self, rows: Range<usize>) -> Result<Vec<f32>, MergeError> {
        Ok(floats(&self.read(rows)?, self.dtype))
    }

    /// Releases the pages of some rows.
    pub(super) fn release(&self, rows: Range<usize>) {
        self.checkpoint.release(self.name, rows);
    }
}
