//! The tensors of kinds without low-rank branches.

use serde::Serialize;

use super::parts::place;
use super::{OpenAdapter, check_dtype, order};
use crate::adapter::AdapterError;
use crate::adapter::kind::{Neutral, Part};
use crate::numbers::to_f64;

/// A tensor of a kind without low-rank branches, such as the factors of (IA)³.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AloneTensor {
    /// Its module path.
    pub module: String,
    /// Its layer, counted from 0; `None` outside the layers.
    pub layer: Option<usize>,
    /// The last part of the module path.
    pub target: String,
    /// Its name in PEFT.
    pub tensor: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its dtype.
    pub dtype: String,
    /// The smallest value.
    pub least: f64,
    /// The mean.
    pub mean: f64,
    /// The largest value.
    pub most: f64,
    /// The root mean square of what the values differ by from those that change nothing: 1 of factors, 0 of gates. `None`
    /// if no value of it changes nothing by itself.
    pub change: Option<f64>,
}

impl OpenAdapter {
    pub(super) fn alone(&self) -> Result<Vec<AloneTensor>, AdapterError> {
        let mut all = Vec::new();
        for (key, (module, tensor)) in &self.parts.alone {
            let Some(stored) = self.whole.get(key) else {
                continue;
            };
            check_dtype(&self.path, key, stored)?;
            let values = to_f64(&stored.bytes, stored.dtype);
            let count = values.len().max(1) as f64;
            let neutral = match tensor.part {
                Part::Alone(neutral) => neutral,
                Part::A | Part::B | Part::Beside => Neutral::Without,
            };
            let change = neutral.value().map(|neutral| {
                let squares = values.iter().map(|value| (value - neutral).powi(2));
                (squares.sum::<f64>() / count).sqrt()
            });
            let (layer, target) = place(module);
            all.push(AloneTensor {
                module: module.clone(),
                layer,
                target: target.to_owned(),
                tensor: tensor.field.to_owned(),
                shape: stored.shape.clone(),
                dtype: stored.dtype.to_string(),
                least: values.iter().copied().fold(f64::INFINITY, f64::min),
                mean: values.iter().sum::<f64>() / count,
                most: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
                change,
            });
        }
        all.sort_by_key(|tensor| (order(&tensor.module), tensor.tensor.clone()));
        Ok(all)
    }
}

/// A warning if no value differs from those that change nothing.
pub(super) fn warning(tensors: &[AloneTensor]) -> Option<String> {
    let changes: Vec<f64> = tensors.iter().filter_map(|tensor| tensor.change).collect();
    let nothing = !changes.is_empty() && changes.iter().all(|change| *change == 0.0);
    nothing.then(|| "the adapter changes nothing: it was not trained".to_owned())
}
