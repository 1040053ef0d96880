//! What quantisation did to the weights.

use std::collections::BTreeSet;

use crate::{Checkpoint, CheckpointError};

/// What quantisation did to the weights of a model.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct QuantisationReport {
    /// Quantised weights by the name of their module, in the order of the model.
    pub modules: Vec<QuantisedModule>,
    /// Bytes of all weights of the model.
    pub before: u64,
    /// Bytes of all weights that were written.
    pub after: u64,
    /// Weights whose rows are not whole blocks of the type that was asked for.
    pub instead: Vec<Instead>,
}

/// The quantised weights of the modules of a name, in all layers.
#[derive(Debug, Clone, PartialEq)]
pub struct QuantisedModule {
    /// The last part of the module's path, such as `q_proj`.
    pub name: String,
    /// The types.
    pub kinds: BTreeSet<&'static str>,
    /// The number of weights.
    pub weights: usize,
    /// Their bytes in the model.
    pub before: u64,
    /// Their bytes as written, with their scales.
    pub after: u64,
    /// How far the written weights are from those of the model.
    pub error: WeightError,
}

/// Weights that have another type than the one that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instead {
    /// The type that was asked for.
    pub wanted: &'static str,
    /// The type that they have.
    pub kind: &'static str,
    /// Elements of a row.
    pub columns: usize,
    /// The number of weights.
    pub weights: usize,
}

/// Sums of squares over weights.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct WeightError {
    /// Of the differences.
    pub differences: f64,
    /// Of the weights.
    pub weights: f64,
}

impl WeightError {
    /// Root mean square of the differences, relative to that of the weights: 0.07 is 7%.
    pub fn relative(&self) -> f64 {
        if self.weights > 0.0 {
            (self.differences / self.weights).sqrt()
        } else {
            0.0
        }
    }

    /// Adds weights, and what they became.
    pub fn add(&mut self, before: &[f32], after: &[f32]) {
        for (before, after) in before.iter().zip(after) {
            let before = f64::from(*before);
            self.differences += (f64::from(*after) - before).powi(2);
            self.weights += before.powi(2);
        }
    }

    pub(super) fn join(&mut self, other: Self) {
        self.differences += other.differences;
        self.weights += other.weights;
    }
}

impl QuantisationReport {
    /// Counts a weight that was quantised to `kind`.
    ///
    /// # Errors
    /// If the model has no such weight.
    pub(super) fn quantised(
        &mut self,
        model: &Checkpoint,
        weight: &str,
        kind: &'static str,
        after: u64,
        error: WeightError,
    ) -> Result<(), CheckpointError> {
        let before = model.stored_bytes(weight)?;
        let path = weight.trim_end_matches(".weight");
        let name = path.rsplit_once('.').map_or(path, |(_, name)| name);
        let place = self.modules.iter().position(|module| module.name == name);
        let place = place.unwrap_or_else(|| {
            self.modules.push(QuantisedModule {
                name: name.to_owned(),
                kinds: BTreeSet::new(),
                weights: 0,
                before: 0,
                after: 0,
                error: WeightError::default(),
            });
            self.modules.len() - 1
        });
        let module = &mut self.modules[place];
        module.kinds.insert(kind);
        module.weights += 1;
        module.before += before;
        module.after += after;
        module.error.join(error);
        Ok(())
    }

    /// Counts a weight that has another type than the one that was asked for.
    pub(super) fn other_kind(&mut self, wanted: &'static str, kind: &'static str, columns: usize) {
        let same = |other: &&mut Instead| {
            (other.wanted, other.kind, other.columns) == (wanted, kind, columns)
        };
        match self.instead.iter_mut().find(same) {
            Some(instead) => instead.weights += 1,
            None => self.instead.push(Instead {
                wanted,
                kind,
                columns,
                weights: 1,
            }),
        }
    }
}
