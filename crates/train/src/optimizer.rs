//! AdamW over named tensors.
//!
//! `m ← m + (1-β₁)(g-m)`, `v ← β₂v + (1-β₂)g²`,
//! `p ← p(1-ηλ) - η/(1-β₁ᵗ) · m / (√v/√(1-β₂ᵗ) + ε)`
//!
//! Source: Loshchilov and Hutter 2019; torch `optim/adamw.py`, `_single_tensor_adamw`.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use burn::tensor::Tensor;
use serde::de::MapAccess;
use serde::{Deserialize, Deserializer, Serialize};
use simmer_model::Parameters;

use crate::named::{self, Named};
use crate::problem::Problem;

/// `train.optimizer`: the optimizer, by its name, or with its settings.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub enum OptimizerConfig {
    /// AdamW: Adam with decoupled weight decay.
    #[serde(rename = "adamw")]
    AdamW(AdamWConfig),
}

impl Default for OptimizerConfig {
    fn default() -> Self {
        Self::AdamW(AdamWConfig::default())
    }
}

/// The `train.optimizer.adamw` table: settings of AdamW.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[derive(schemars::JsonSchema)]
pub struct AdamWConfig {
    /// β₁, the decay rate of the running mean of gradients, from 0 to below 1. Default: 0.9.
    pub beta1: f64,
    /// β₂, the decay rate of the running mean of squared gradients, from 0 to below 1. Default: 0.999.
    pub beta2: f64,
    /// ε, added to the square root of the mean squared gradient, above 0. Default: 1e-8.
    pub eps: f64,
    /// λ, the weight decay, at least 0: an update first multiplies a weight by `1 - learning_rate · weight_decay`.
    /// Default: 0.
    pub weight_decay: f64,
    /// Which weights the decay applies to: `"matrices"` (default), neither biases nor norms, or `"all"`.
    pub decay: Decay,
}

/// `train.optimizer.adamw.decay`: which weights the weight decay applies to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[derive(schemars::JsonSchema)]
pub enum Decay {
    /// Only matrices, neither biases nor norms, as in Hugging Face's Trainer.
    #[default]
    Matrices,
    /// All weights, as in torch's AdamW by default.
    All,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        Self {
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 0.0,
            decay: Decay::default(),
        }
    }
}

impl schemars::JsonSchema for OptimizerConfig {
    fn schema_name() -> Cow<'static, str> {
        "OptimizerConfig".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        named::schema(&[("adamw", generator.subschema_for::<AdamWConfig>())])
    }
}

/// The names of the optimizers.
#[derive(Deserialize)]
pub(crate) enum Name {
    #[serde(rename = "adamw")]
    AdamW,
}

impl<'de> Deserialize<'de> for OptimizerConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        named::deserialize(deserializer)
    }
}

impl Named for OptimizerConfig {
    type Name = Name;

    const WHAT: &'static str = "an optimizer";

    const EXAMPLE: &'static str = "{ adamw = { weight_decay = 0.01 } }";

    fn with_defaults(Name::AdamW: Name) -> Self {
        Self::default()
    }

    fn with_settings<'de, A: MapAccess<'de>>(
        Name::AdamW: Name,
        table: &mut A,
    ) -> Result<Self, A::Error> {
        table.next_value().map(Self::AdamW)
    }
}

impl OptimizerConfig {
    pub(crate) fn check(&self) -> Result<(), Problem> {
        let Self::AdamW(adamw) = self;
        let wrong =
            |key: &str, why: String| Err(Problem::new(format!("train.optimizer.adamw.{key}"), why));
        for (key, beta, usual) in [
            ("beta1", adamw.beta1, "0.9"),
            ("beta2", adamw.beta2, "0.999"),
        ] {
            if !(0.0..1.0).contains(&beta) {
                let why =
                    format!("expected a number from 0 to below 1, such as {usual}, found {beta}");
                return wrong(key, why);
            }
        }
        if !(adamw.eps > 0.0 && adamw.eps.is_finite()) {
            let found = adamw.eps;
            return wrong(
                "eps",
                format!("expected a number above 0, such as 1e-8, found {found}"),
            );
        }
        if !(adamw.weight_decay >= 0.0 && adamw.weight_decay.is_finite()) {
            let found = adamw.weight_decay;
            let why = format!(
                "expected a number of at least 0, found {found}; the nearest valid value is 0"
            );
            return wrong("weight_decay", why);
        }
        Ok(())
    }
}

/// AdamW with its moments.
#[derive(Debug, Clone)]
pub struct AdamW {
    config: AdamWConfig,
    /// Names of the tensors that decay.
    decayed: BTreeSet<String>,
    state: Moments,
}

/// AdamW's moments: the running averages of each tensor.
#[derive(Debug, Clone, Default)]
pub struct Moments {
    /// Updates so far, t.
    pub updates: u64,
    /// First moments m: running means of the gradients.
    pub mean: Parameters,
    /// Second moments v: running means of the squared gradients.
    pub square: Parameters,
}

impl AdamW {
    /// An optimizer before its first update, without moments.
    ///
    /// # Shapes
    /// `shapes`: the shapes of the trained tensors; with `Decay::Matrices` they decide which tensors decay.
    pub fn new(config: &AdamWConfig, shapes: &BTreeMap<String, Vec<usize>>) -> Self {
        let decays = |shape: &[usize]| match config.decay {
            Decay::All => true,
            Decay::Matrices => shape.len() > 1,
        };
        let decayed = shapes.iter().filter(|(_, shape)| decays(shape));
        Self {
            config: config.clone(),
            decayed: decayed.map(|(name, _)| name.clone()).collect(),
            state: Moments::default(),
        }
    }

    /// The moments.
    pub fn state(&self) -> &Moments {
        &self.state
    }

    /// Continues from the moments of a training checkpoint.
    pub fn restore(&mut self, state: Moments) {
        self.state = state;
    }

    /// The parameters after one update. A parameter without a gradient does not change.
    pub fn update(
        &mut self,
        mut parameters: Parameters,
        gradients: Parameters,
        learning_rate: f64,
    ) -> Parameters {
        self.state.updates += 1;
        for (name, gradient) in gradients {
            if let Some(value) = parameters.remove(&name) {
                let value = self.update_one(&name, value, gradient, learning_rate);
                parameters.insert(name, value);
            }
        }
        parameters
    }

    fn update_one(
        &mut self,
        name: &str,
        value: Tensor<1>,
        gradient: Tensor<1>,
        learning_rate: f64,
    ) -> Tensor<1> {
        let AdamWConfig {
            beta1,
            beta2,
            eps,
            weight_decay,
            ..
        } = self.config;
        let take = |moments: &mut Parameters| {
            let old = moments.remove(name);
            old.unwrap_or_else(|| gradient.zeros_like())
        };
        let mean = take(&mut self.state.mean);
        let square = take(&mut self.state.square);
        let mean = mean.clone() + (gradient.clone() - mean) * (1.0 - beta1);
        let square = square * beta2 + gradient.square() * (1.0 - beta2);

        let updates = self.state.updates as f64;
        let correction1 = 1.0 - beta1.powf(updates);
        let correction2 = 1.0 - beta2.powf(updates);
        let root = square.clone().sqrt() / correction2.sqrt() + eps;
        let value = if weight_decay > 0.0 && self.decayed.contains(name) {
            value * (1.0 - learning_rate * weight_decay)
        } else {
            value
        };
        let value = value - mean.clone() / root * (learning_rate / correction1);
        self.state.mean.insert(name.to_owned(), mean);
        self.state.square.insert(name.to_owned(), square);
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, Tolerance};

    #[derive(Deserialize)]
    struct Golden {
        settings: Settings,
        initial: Vec<f32>,
        steps: Vec<Step>,
    }

    #[derive(Deserialize)]
    struct Settings {
        lr: f64,
        betas: [f64; 2],
        eps: f64,
        weight_decay: f64,
    }

    #[derive(Deserialize)]
    struct Step {
        gradient: Vec<f32>,
        value: Vec<f32>,
    }

    fn named(values: &[f32]) -> Parameters {
        let value = Tensor::from_data(values, &Device::flex());
        [("w".to_owned(), value)].into()
    }

    #[test]
    fn five_steps_are_those_of_torch() {
        let text = include_str!("../../../tests/goldens/adamw.json");
        let goldens: Vec<Golden> = serde_json::from_str(text).unwrap();
        assert_eq!(goldens.len(), 3);
        for Golden {
            settings,
            initial,
            steps,
        } in goldens
        {
            let config = AdamWConfig {
                beta1: settings.betas[0],
                beta2: settings.betas[1],
                eps: settings.eps,
                weight_decay: settings.weight_decay,
                decay: Decay::All,
            };
            let mut optimizer = AdamW::new(&config, &[("w".to_owned(), vec![6])].into());
            let mut parameters = named(&initial);
            for step in steps {
                parameters = optimizer.update(parameters, named(&step.gradient), settings.lr);
                // a few rounding errors of values of order one
                parameters["w"].to_data().assert_approx_eq::<f32>(
                    &burn::tensor::TensorData::from(step.value.as_slice()),
                    Tolerance::absolute(3e-7),
                );
            }
        }
    }

    #[test]
    fn biases_and_norms_do_not_decay_unless_told() {
        let config = AdamWConfig {
            weight_decay: 0.5,
            ..AdamWConfig::default()
        };
        let update = |config: &AdamWConfig, shape: Vec<usize>| {
            let mut optimizer = AdamW::new(config, &[("w".to_owned(), shape)].into());
            let parameters = optimizer.update(named(&[1.0, 1.0]), named(&[0.0, 0.0]), 0.1);
            parameters["w"].to_data().try_to_vec::<f32>().unwrap()
        };
        assert_eq!(update(&config, vec![2]), [1.0, 1.0]);
        assert_eq!(update(&config, vec![1, 2]), [0.95, 0.95]);
        let all = AdamWConfig {
            decay: Decay::All,
            ..config
        };
        assert_eq!(update(&all, vec![2]), [0.95, 0.95]);
    }
}
