//! AdamW over the segments of the trained tensors: its settings and its moments. `simmer_kernels::adamw` has the formula.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use burn::tensor::{Device, Tensor};
use serde::de::MapAccess;
use serde::{Deserialize, Deserializer, Serialize};
use simmer_kernels::{AdamWStep, AdamWTensors, Part, adamw};
use simmer_model::{Group, Parameters, SegmentGradients, Segments};

use crate::named::{self, Named};
use simmer_recipe::Problem;

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
    segments: Arc<Segments>,
    /// The learning rate of each segment, as a multiple of that of an update; empty if all are 1.
    multiples: Vec<f64>,
    /// Updates so far, t.
    updates: u64,
    held: Held,
}

/// Where the moments m and v of the segments are.
#[derive(Debug, Clone)]
#[expect(
    clippy::large_enum_variant,
    reason = "there is one at a time, which is not moved"
)]
enum Held {
    /// In two buffers, beside one with the values.
    Flat {
        /// `None` before the first update.
        moments: Option<[Tensor<1>; 2]>,
        /// The segments that have been updated.
        updated: Vec<bool>,
    },
    /// Tensor by tensor; `None` before its first update.
    Tensors(Vec<Option<[Tensor<1>; 2]>>),
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
    /// An optimizer before its first update, of a flat buffer or of single tensors.
    pub fn new(config: &AdamWConfig, segments: Arc<Segments>, is_flat: bool) -> Self {
        let count = segments.all().len();
        let held = if is_flat {
            Held::Flat {
                moments: None,
                updated: vec![false; count],
            }
        } else {
            Held::Tensors(vec![None; count])
        };
        Self {
            config: config.clone(),
            segments,
            multiples: Vec::new(),
            updates: 0,
            held,
        }
    }

    /// The same with learning rates of its own for each segment, as multiples of that of an update.
    ///
    /// # Panics
    /// If there is not one multiple a segment.
    #[must_use]
    pub fn with_multiples(self, multiples: Vec<f64>) -> Self {
        assert_eq!(multiples.len(), self.segments.all().len());
        Self { multiples, ..self }
    }

    /// Updates so far, t.
    pub fn updates(&self) -> u64 {
        self.updates
    }

    /// The moments of each tensor that has been updated.
    pub fn state(&self) -> Moments {
        let [mut mean, mut square] = [Parameters::new(), Parameters::new()];
        for (index, segment) in self.segments.all().iter().enumerate() {
            if let Some([m, v]) = self.moments_of(index) {
                mean.insert(segment.name.clone(), m);
                square.insert(segment.name.clone(), v);
            }
        }
        Moments {
            updates: self.updates,
            mean,
            square,
        }
    }

    fn moments_of(&self, index: usize) -> Option<[Tensor<1>; 2]> {
        match &self.held {
            Held::Flat { moments, updated } => {
                let range = &self.segments.all()[index].range;
                let moments = moments.as_ref().filter(|_| updated[index])?;
                Some(moments.each_ref().map(|of| of.clone().slice(range.clone())))
            }
            Held::Tensors(moments) => moments[index].clone(),
        }
    }

    /// Continues from the moments of a training checkpoint.
    pub fn restore(&mut self, state: &Moments, device: &Device) {
        self.updates = state.updates;
        let Moments { mean, square, .. } = state;
        let both = |name: &String| Some([mean.get(name)?.clone(), square.get(name)?.clone()]);
        let all = self.segments.all().iter();
        match &mut self.held {
            Held::Flat { moments, updated } => {
                *updated = all.map(|of| both(&of.name).is_some()).collect();
                *moments = Some([mean, square].map(|of| self.segments.flat(of, device)));
            }
            Held::Tensors(moments) => *moments = all.map(|of| both(&of.name)).collect(),
        }
    }

    /// The buffer after one update. A segment that is not `found`, without a gradient, does not change.
    ///
    /// # Panics
    /// If the optimizer is one of single tensors.
    pub fn update_flat(
        &mut self,
        value: Tensor<1>,
        gradient: Tensor<1>,
        found: &[bool],
        rate: Rate,
    ) -> Tensor<1> {
        let Held::Flat { moments, updated } = &mut self.held else {
            panic!("an optimizer of single tensors has no buffer");
        };
        self.updates += 1;
        let mut parts: Vec<Part> = Vec::new();
        for (index, segment) in self.segments.all().iter().enumerate() {
            if !found[index] {
                continue;
            }
            updated[index] = true;
            let range = segment.range.clone();
            let mut part = self
                .config
                .part(range, segment.group, rate, self.multiples.get(index));
            match parts.last_mut().filter(|_| index > 0 && found[index - 1]) {
                Some(last) if last.is_treated_as(&part) => last.range.end = part.range.end,
                // the zeros between two segments belong to one of them, so that parts follow each other
                Some(last) => {
                    part.range.start = last.range.end;
                    parts.push(part);
                }
                None => parts.push(part),
            }
        }
        let step = self.config.step(self.updates, rate);
        updated_value(moments, value, gradient, step, parts)
    }

    /// The tensors after one update. One without a gradient does not change.
    ///
    /// # Panics
    /// If the optimizer is one of a flat buffer.
    pub fn update_tensors(
        &mut self,
        mut parameters: Parameters,
        gradients: SegmentGradients,
        rate: Rate,
    ) -> Parameters {
        let Held::Tensors(moments) = &mut self.held else {
            panic!("an optimizer of a flat buffer has no single tensors");
        };
        self.updates += 1;
        let step = self.config.step(self.updates, rate);
        let all = self.segments.all().iter().zip(moments).zip(gradients);
        for (index, ((segment, moments), gradient)) in all.enumerate() {
            let (Some(gradient), Some(value)) = (gradient, parameters.remove(&segment.name)) else {
                continue;
            };
            let range = 0..segment.range.len();
            let part = self
                .config
                .part(range, segment.group, rate, self.multiples.get(index));
            let value = updated_value(moments, value, gradient, step, vec![part]);
            parameters.insert(segment.name.clone(), value);
        }
        parameters
    }
}

/// A tensor after one update; the moments are updated too, and begin at zero.
fn updated_value(
    moments: &mut Option<[Tensor<1>; 2]>,
    value: Tensor<1>,
    gradient: Tensor<1>,
    step: AdamWStep,
    parts: Vec<Part>,
) -> Tensor<1> {
    let [mean, square] = moments
        .take()
        .unwrap_or_else(|| [gradient.zeros_like(), gradient.zeros_like()]);
    let tensors = AdamWTensors {
        value,
        mean,
        square,
    };
    let after = adamw(tensors, gradient, step, parts);
    *moments = Some([after.mean, after.square]);
    after.value
}

/// How far an update goes.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    /// η, of segments without a multiple of their own.
    pub learning_rate: f64,
    /// Factor of the gradient.
    pub clip: f64,
    /// Whether values may be updated in place.
    pub in_place: bool,
}

impl AdamWConfig {
    fn step(&self, updates: u64, rate: Rate) -> AdamWStep {
        AdamWStep {
            beta1: self.beta1,
            beta2: self.beta2,
            eps: self.eps,
            updates,
            clip: rate.clip,
            in_place: rate.in_place,
        }
    }

    /// Elements of one segment, with its learning rate η, and `1-ηλ` if its weights decay.
    fn part(&self, range: Range<usize>, group: Group, rate: Rate, multiple: Option<&f64>) -> Part {
        let learning_rate = rate.learning_rate * multiple.unwrap_or(&1.0);
        let decays = self.weight_decay > 0.0
            && match self.decay {
                Decay::All => true,
                Decay::Matrices => group == Group::Matrix,
            };
        Part {
            range,
            learning_rate,
            decay: decays.then_some(1.0 - learning_rate * self.weight_decay),
        }
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

    fn tensor(values: &[f32]) -> Tensor<1> {
        Tensor::from_data(values, &Device::flex())
    }

    fn named(values: &[f32]) -> Parameters {
        [("w".to_owned(), tensor(values))].into()
    }

    fn values(of: &Tensor<1>) -> Vec<f32> {
        of.to_data().try_to_vec::<f32>().unwrap()
    }

    fn segments(shapes: &[(&str, Vec<usize>)]) -> Arc<Segments> {
        let shapes: Vec<_> = shapes
            .iter()
            .map(|(name, shape)| ((*name).to_owned(), shape.clone()))
            .collect();
        Arc::new(Segments::of_shapes(&shapes))
    }

    fn rate(learning_rate: f64) -> Rate {
        Rate {
            learning_rate,
            clip: 1.0,
            in_place: false,
        }
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
            let segments = segments(&[("w", vec![6])]);
            let mut flat = AdamW::new(&config, segments.clone(), true);
            let mut single = AdamW::new(&config, segments, false);
            let mut buffer = tensor(&initial);
            let mut parameters = named(&initial);
            for step in steps {
                let gradient = tensor(&step.gradient);
                let rate = rate(settings.lr);
                buffer = flat.update_flat(buffer, gradient.clone(), &[true], rate);
                parameters = single.update_tensors(parameters, vec![Some(gradient)], rate);
                assert_eq!(values(&buffer), values(&parameters["w"]));
                // a few rounding errors of values of order one
                buffer.to_data().assert_approx_eq::<f32>(
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
        let segments = segments(&[("bias", vec![16]), ("matrix", vec![1, 16])]);
        let update = |config: &AdamWConfig| {
            let mut optimizer = AdamW::new(config, segments.clone(), true);
            let [ones, zeros] = [[1.0; 32], [0.0; 32]].map(|of| tensor(&of));
            let after = optimizer.update_flat(ones, zeros, &[true, true], rate(0.1));
            let after = values(&after);
            [after[0], after[31]]
        };
        assert_eq!(
            update(&config).map(f32::to_bits),
            [1.0, 0.95].map(f32::to_bits)
        );
        let all = AdamWConfig {
            decay: Decay::All,
            ..config
        };
        assert_eq!(
            update(&all).map(f32::to_bits),
            [0.95, 0.95].map(f32::to_bits)
        );
    }

    #[test]
    fn each_segment_has_its_learning_rate() {
        let config = AdamWConfig {
            weight_decay: 0.5,
            ..AdamWConfig::default()
        };
        // segments begin at multiples of 16 elements
        let segments = segments(&[("a", vec![1, 8]), ("b", vec![1, 16]), ("c", vec![1, 16])]);
        let multiples = vec![1.0, 16.0, 0.0];
        let mut flat =
            AdamW::new(&config, segments.clone(), true).with_multiples(multiples.clone());
        let mut single = AdamW::new(&config, segments, false).with_multiples(multiples);
        let ones = tensor(&[1.0; 48]);
        let gradient = tensor(&[&[1.0; 8], &[0.0; 8], &[1.0; 32][..]].concat());
        let after = flat.update_flat(ones, gradient.clone(), &[true; 3], rate(0.01));
        let after = values(&after);
        // the first step of Adam is as long as the learning rate: 1 - ηλ - η
        for (range, expected) in [(0..8, 0.985), (16..32, 0.76), (32..48, 1.0)] {
            for value in &after[range] {
                assert!((value - expected).abs() < 1e-6, "{value} for {expected}");
            }
        }
        let cut = |range: Range<usize>| gradient.clone().slice(range);
        let gradients = [0..8, 16..32, 32..48].map(|range| Some(cut(range))).into();
        let parameters = ["a", "b", "c"].map(|name| {
            let size = if name == "a" { 8 } else { 16 };
            (name.to_owned(), tensor(&vec![1.0; size]))
        });
        let alone = single.update_tensors(parameters.into(), gradients, rate(0.01));
        assert_eq!(values(&alone["a"]), after[..8]);
        assert_eq!(values(&alone["b"]), after[16..32]);
        assert_eq!(values(&alone["c"]), after[32..48]);
    }

    #[test]
    fn what_has_no_gradient_keeps_its_value_and_has_no_moments() {
        let config = AdamWConfig {
            weight_decay: 0.5,
            decay: Decay::All,
            ..AdamWConfig::default()
        };
        let segments = segments(&[("a", vec![16]), ("b", vec![16]), ("c", vec![16])]);
        let mut optimizer = AdamW::new(&config, segments.clone(), true);
        let ones = tensor(&[1.0; 48]);
        let after = optimizer.update_flat(ones.clone(), ones, &[true, false, true], rate(0.1));
        let after = values(&after);
        assert!(
            after[..16]
                .iter()
                .chain(&after[32..])
                .all(|value| *value < 0.95)
        );
        assert_eq!(after[16..32], [1.0; 16]);
        let state = optimizer.state();
        assert_eq!(state.mean.keys().collect::<Vec<_>>(), ["a", "c"]);
        let mut resumed = AdamW::new(&config, segments, true);
        resumed.restore(&state, &Device::flex());
        let again = resumed.state();
        assert_eq!(again.updates, 1);
        assert_eq!(again.square.keys().collect::<Vec<_>>(), ["a", "c"]);
        assert_eq!(values(&again.square["c"]), values(&state.square["c"]));
    }
}
