//! What differs between families: windows, rotary positions and soft caps of each layer, and multipliers.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::which::foreign;
use super::{ConfigError, Keys, ModelConfig};
use crate::family::{EmbeddingScale, Family, GatedBy, Windows};

/// Which keys the queries of a layer see: an item of `layer_types`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[derive(schemars::JsonSchema)]
pub enum LayerType {
    /// All keys up to their own position.
    FullAttention,
    /// The last `sliding_window` of them.
    SlidingAttention,
}

impl LayerType {
    /// Its name in `layer_types`.
    pub fn name(self) -> &'static str {
        match self {
            Self::FullAttention => "full_attention",
            Self::SlidingAttention => "sliding_attention",
        }
    }

    fn slides(self) -> bool {
        self == Self::SlidingAttention
    }

    fn sliding(is_sliding: bool) -> Self {
        if is_sliding {
            Self::SlidingAttention
        } else {
            Self::FullAttention
        }
    }
}

/// The rotary positions of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Positions {
    /// None: queries and keys are not rotated.
    None,
    /// The frequencies of the model.
    Global,
    /// The frequencies of layers with a window: `rope_local_base_freq`.
    Local,
}

impl ModelConfig {
    /// The number of keys that a query of a layer sees, its own included; `None`: all up to its own.
    pub fn window(&self, layer: usize) -> Option<usize> {
        let slides = match self.family.windows {
            Windows::Never => false,
            Windows::EveryLayer => true,
            _ => self.layer_types.get(layer) == Some(&LayerType::SlidingAttention),
        };
        self.sliding_window.filter(|_| slides)
    }

    /// The rotary positions of a layer.
    pub fn positions(&self, layer: usize) -> Positions {
        let slides = self.layer_types.get(layer) == Some(&LayerType::SlidingAttention);
        if self.no_rope_layers.get(layer) == Some(&0) {
            Positions::None
        } else if slides && self.rope_local_base_freq.is_some() {
            Positions::Local
        } else {
            Positions::Global
        }
    }

    /// Features of a head that have rotary positions; the first ones.
    pub fn rotary_dim(&self) -> usize {
        // as Python's int(), towards zero
        (self.head_dim as f64 * self.partial_rotary_factor) as usize
    }

    /// The factor of the scores: `1 / √head_dim`, or what the family has instead.
    pub fn attention_scale(&self) -> f64 {
        let features = self.query_pre_attn_scalar.unwrap_or(self.head_dim as f64);
        self.attention_multiplier
            .unwrap_or_else(|| features.sqrt().recip())
    }

    /// The factor of the embedding.
    pub fn embedding_scale(&self) -> f64 {
        match self.family.embedding_scale {
            EmbeddingScale::One => 1.0,
            EmbeddingScale::RootOfHidden => (self.hidden_size as f64).sqrt(),
            EmbeddingScale::Multiplier => self.embedding_multiplier,
        }
    }

    /// Reads the keys that only some families have, after all others.
    pub(super) fn read_family_keys(&mut self, keys: &Keys<'_>) -> Result<(), ConfigError> {
        let family = self.family;
        let defaults = &family.defaults;
        if family.layers_without_positions {
            self.no_rope_layers = no_rope_layers(keys, self.num_hidden_layers)?;
        }
        (self.sliding_window, self.layer_types) = self.windows(keys)?;
        if family.local_rotary {
            self.rope_local_base_freq = Some(keys.local_rope(defaults.rope_local_base_freq)?);
        }
        if family.partial_rotary {
            let top = keys.number_or("partial_rotary_factor", 1.0)?;
            let table = keys.get("rope_parameters");
            self.partial_rotary_factor = table.map_or(Ok(top), |json| {
                let inner = Keys {
                    json,
                    path: keys.path,
                };
                inner.number_or("partial_rotary_factor", top)
            })?;
        }
        if family.soft_caps {
            let number = |key, default| keys.number_or_null(key, default);
            self.query_pre_attn_scalar =
                number("query_pre_attn_scalar", defaults.query_pre_attn_scalar)?;
            self.attn_logit_softcapping =
                number("attn_logit_softcapping", defaults.attn_logit_softcapping)?;
            self.final_logit_softcapping =
                number("final_logit_softcapping", defaults.final_logit_softcapping)?;
        }
        if family.multipliers {
            self.embedding_multiplier = keys.number_or("embedding_multiplier", 1.0)?;
            self.attention_multiplier = Some(keys.number_or("attention_multiplier", 1.0)?);
            self.residual_multiplier = keys.number_or("residual_multiplier", 1.0)?;
            self.logits_scaling = keys.number_or("logits_scaling", 1.0)?;
        }
        Ok(())
    }

    /// The window, and the type of each layer; the list is empty if no key says more than the family.
    fn windows(&self, keys: &Keys<'_>) -> Result<(Option<usize>, Vec<LayerType>), ConfigError> {
        let layers = self.num_hidden_layers;
        let rule = self.family.windows;
        let listed = keys.layer_types(layers)?;
        let slides = |types: &[LayerType]| types.contains(&LayerType::SlidingAttention);
        let used = match rule {
            Windows::Never => false,
            Windows::LastLayers | Windows::LayersWithoutPositions => {
                keys.flag("use_sliding_window")?
            }
            Windows::EveryLayer | Windows::ExceptEvery(_) => true,
        };
        let window = match keys.json.get("sliding_window") {
            // a window that is not used may have any value
            _ if !used => None,
            None => self.family.defaults.sliding_window,
            Some(Value::Null) => None,
            Some(_) => Some(keys.size("sliding_window")?),
        };
        if rule == Windows::EveryLayer {
            return match listed {
                // transformers ignores the list in these families
                Some(listed) if window.is_some() && listed.iter().any(|kind| !kind.slides()) => {
                    let expected = every_layer(self.family);
                    Err(keys.error("layer_types", &expected, keys.get("layer_types")))
                }
                _ => Ok((window, Vec::new())),
            };
        }
        let types = match listed {
            Some(listed) => listed,
            None if window.is_none() && !matches!(rule, Windows::ExceptEvery(_)) => Vec::new(),
            None => self.types_of_rule(keys)?,
        };
        match window {
            _ if !slides(&types) => Ok((None, Vec::new())),
            Some(window) => Ok((Some(window), types)),
            None if rule == Windows::Never => {
                let expected = no_windows(self.family);
                Err(keys.error("layer_types", &expected, keys.get("layer_types")))
            }
            None if !used => {
                let expected = "true, since `layer_types` has layers with sliding attention (or a list without them)";
                let found = keys.get("use_sliding_window");
                Err(keys.error("use_sliding_window", expected, found))
            }
            None => Err(keys.error("sliding_window", WINDOW_OF_LAYERS, None)),
        }
    }

    /// The type of each layer, if no key lists them.
    fn types_of_rule(&self, keys: &Keys<'_>) -> Result<Vec<LayerType>, ConfigError> {
        let layers = 0..self.num_hidden_layers;
        Ok(match self.family.windows {
            Windows::Never | Windows::EveryLayer => Vec::new(),
            Windows::ExceptEvery(default) => {
                let n = keys.size_or("sliding_window_pattern", default)?;
                // only the class of Gemma 3 reads the key
                if n != default && !self.family.local_rotary {
                    let expected = format!("{default}, as always in `{}`", self.family.model_type);
                    let found = keys.get("sliding_window_pattern");
                    return Err(keys.error("sliding_window_pattern", &expected, found));
                }
                layers
                    .map(|layer| LayerType::sliding(!(layer + 1).is_multiple_of(n)))
                    .collect()
            }
            Windows::LastLayers => {
                let first = keys.count_or("max_window_layers", 28)?;
                layers
                    .map(|layer| LayerType::sliding(layer >= first))
                    .collect()
            }
            Windows::LayersWithoutPositions => self
                .no_rope_layers
                .iter()
                .map(|rope| LayerType::sliding(*rope == 0))
                .collect(),
        })
    }

    /// Checks what families differ in.
    ///
    /// # Errors
    /// If lists do not fit the layers, a window has no layers, a key belongs to another family, or a number is out of range.
    pub(super) fn check_family_keys(
        &self,
        wrong: &dyn Fn(&str, String, String) -> ConfigError,
    ) -> Result<(), ConfigError> {
        let layers = self.num_hidden_layers;
        for (key, length) in [
            ("layer_types", self.layer_types.len()),
            ("no_rope_layers", self.no_rope_layers.len()),
        ] {
            if length != 0 && length != layers {
                return Err(wrong(key, one_for_each(layers), format!("{length} items")));
            }
        }
        if let Some(flag) = self.no_rope_layers.iter().find(|flag| **flag > 1) {
            return Err(wrong("no_rope_layers", "0 or 1".into(), flag.to_string()));
        }
        self.check_windows(wrong)?;
        self.check_foreign(wrong)?;
        let rotary = self.rotary_dim();
        if !(0.0..=1.0).contains(&self.partial_rotary_factor)
            || rotary == 0
            || !rotary.is_multiple_of(2)
        {
            let expected = format!(
                "a number up to 1 whose product with head_dim ({}) is even",
                self.head_dim
            );
            let found = self.partial_rotary_factor.to_string();
            return Err(wrong("partial_rotary_factor", expected, found));
        }
        let in_range = |number: f64| (1e-6..=1e9).contains(&number);
        for (key, number) in [
            ("query_pre_attn_scalar", self.query_pre_attn_scalar),
            ("attn_logit_softcapping", self.attn_logit_softcapping),
            ("final_logit_softcapping", self.final_logit_softcapping),
            ("attention_multiplier", self.attention_multiplier),
            ("embedding_multiplier", Some(self.embedding_multiplier)),
            ("residual_multiplier", Some(self.residual_multiplier)),
            ("logits_scaling", Some(self.logits_scaling)),
        ] {
            if let Some(number) = number.filter(|number| !in_range(*number)) {
                let expected = "a number from 1e-6 to 1e9".to_owned();
                return Err(wrong(key, expected, format!("{number:?}")));
            }
        }
        match self.rope_local_base_freq {
            Some(base) if !(1.0..=1e15).contains(&base) => {
                let expected = "a number from 1 to 1e15".to_owned();
                Err(wrong("rope_local_base_freq", expected, format!("{base:?}")))
            }
            _ => Ok(()),
        }
    }

    /// Checks that a window and its layers fit each other and the family.
    fn check_windows(
        &self,
        wrong: &dyn Fn(&str, String, String) -> ConfigError,
    ) -> Result<(), ConfigError> {
        let slides = self.layer_types.contains(&LayerType::SlidingAttention);
        match (self.family.windows, self.sliding_window) {
            (_, Some(0)) => Err(wrong("sliding_window", "at least 1".into(), "0".into())),
            (Windows::Never, Some(window)) => {
                let expected = no_windows(self.family);
                Err(wrong("sliding_window", expected, window.to_string()))
            }
            (Windows::Never, None) if slides => {
                let expected = no_windows(self.family);
                Err(wrong("layer_types", expected, "sliding_attention".into()))
            }
            (Windows::EveryLayer, _) if !self.layer_types.is_empty() => {
                let found = format!("{} items", self.layer_types.len());
                Err(wrong("layer_types", every_layer(self.family), found))
            }
            (Windows::Never | Windows::EveryLayer, _) => Ok(()),
            (_, Some(_)) if !slides => {
                let expected =
                    "the layers that have the window of `sliding_window` (\"sliding_attention\")";
                Err(wrong("layer_types", expected.into(), "none".into()))
            }
            (_, None) if slides => {
                let found = "nothing".into();
                Err(wrong("sliding_window", WINDOW_OF_LAYERS.into(), found))
            }
            _ => Ok(()),
        }
    }

    /// Refuses values that the forward pass of the family does not have.
    fn check_foreign(
        &self,
        wrong: &dyn Fn(&str, String, String) -> ConfigError,
    ) -> Result<(), ConfigError> {
        let other_than_one = |number: f64| Some(number).filter(|number| *number != 1.0);
        let family = self.family;
        let without_positions = self.no_rope_layers.contains(&0).then_some(0.0);
        for (key, is_ours, value) in [
            (
                "partial_rotary_factor",
                family.partial_rotary,
                other_than_one(self.partial_rotary_factor),
            ),
            (
                "attn_logit_softcapping",
                family.soft_caps,
                self.attn_logit_softcapping,
            ),
            (
                "final_logit_softcapping",
                family.soft_caps,
                self.final_logit_softcapping,
            ),
            (
                "query_pre_attn_scalar",
                family.soft_caps,
                self.query_pre_attn_scalar,
            ),
            (
                "embedding_multiplier",
                family.multipliers,
                other_than_one(self.embedding_multiplier),
            ),
            (
                "attention_multiplier",
                family.multipliers,
                self.attention_multiplier,
            ),
            (
                "residual_multiplier",
                family.multipliers,
                other_than_one(self.residual_multiplier),
            ),
            (
                "logits_scaling",
                family.multipliers,
                other_than_one(self.logits_scaling),
            ),
            (
                "rope_local_base_freq",
                family.local_rotary,
                self.rope_local_base_freq,
            ),
            (
                "no_rope_layers",
                family.layers_without_positions,
                without_positions,
            ),
        ] {
            if let Some(value) = value.filter(|_| !is_ours) {
                return Err(wrong(key, foreign(key, family), value.to_string()));
            }
        }
        Ok(())
    }

    /// Adds the keys that only some families have to a generated `config.json`.
    pub(super) fn write_family_keys(&self, json: &mut Map<String, Value>) {
        let family = self.family;
        let mut set = |key: &str, value: Value| {
            json.insert(key.to_owned(), value);
        };
        if family.windows != Windows::Never {
            set("sliding_window", json!(self.sliding_window));
        }
        if matches!(
            family.windows,
            Windows::LastLayers | Windows::LayersWithoutPositions
        ) {
            set("use_sliding_window", json!(self.sliding_window.is_some()));
        }
        if !matches!(family.windows, Windows::Never | Windows::EveryLayer) {
            let layers = 0..self.num_hidden_layers;
            let types = layers.map(|layer| self.layer_types.get(layer).copied());
            let types = types.map(|kind| kind.unwrap_or(LayerType::FullAttention).name());
            set("layer_types", json!(types.collect::<Vec<_>>()));
        }
        if family.layers_without_positions {
            let layers = 0..self.num_hidden_layers;
            let each = layers.map(|layer| self.no_rope_layers.get(layer).copied().unwrap_or(1));
            set("no_rope_layers", json!(each.collect::<Vec<_>>()));
        }
        if family.partial_rotary {
            set("partial_rotary_factor", json!(self.partial_rotary_factor));
        }
        if family.soft_caps {
            set("query_pre_attn_scalar", json!(self.query_pre_attn_scalar));
            set("attn_logit_softcapping", json!(self.attn_logit_softcapping));
            set(
                "final_logit_softcapping",
                json!(self.final_logit_softcapping),
            );
        }
        if family.gated_by == GatedBy::GeluTanh {
            set("hidden_activation", json!(family.gated_by.name()));
        }
        if family.multipliers {
            set("embedding_multiplier", json!(self.embedding_multiplier));
            set("attention_multiplier", json!(self.attention_multiplier));
            set("residual_multiplier", json!(self.residual_multiplier));
            set("logits_scaling", json!(self.logits_scaling));
        }
        if let Some(base) = self.rope_local_base_freq {
            set("rope_local_base_freq", json!(base));
        }
    }
}

/// What `sliding_window` must be if layers have one.
const WINDOW_OF_LAYERS: &str =
    "a number of tokens, since `layer_types` has layers with sliding attention";

fn no_windows(family: &Family) -> String {
    format!("none (`{}` has no windows)", family.model_type)
}

fn every_layer(family: &Family) -> String {
    let model_type = family.model_type;
    format!("none: every layer of `{model_type}` has the window of `sliding_window`")
}

fn one_for_each(layers: usize) -> String {
    format!("one item for each of num_hidden_layers ({layers})")
}

/// One number for each layer: 1 if it has rotary positions, 0 if not.
fn no_rope_layers(keys: &Keys<'_>, layers: usize) -> Result<Vec<u8>, ConfigError> {
    let Some(found) = keys.get("no_rope_layers") else {
        let every = keys.size_or("no_rope_layer_interval", 4)?;
        let rotates = |layer: usize| u8::from(!(layer + 1).is_multiple_of(every));
        return Ok((0..layers).map(rotates).collect());
    };
    let items = found.as_array().map(Vec::as_slice).unwrap_or_default();
    let items: Option<Vec<u8>> = items
        .iter()
        .map(|item| match item {
            Value::Bool(rotates) => Some(u8::from(*rotates)),
            item => item
                .as_u64()
                .filter(|flag| *flag < 2)
                .map(|flag| flag as u8),
        })
        .collect();
    // "at least the same length as the number of layers"
    let items = items.filter(|items| items.len() >= layers);
    let Some(mut items) = items else {
        let expected = format!(
            "a list of 0 and 1 for each of num_hidden_layers ({layers}); 1: with rotary positions"
        );
        return Err(keys.error("no_rope_layers", &expected, Some(found)));
    };
    items.truncate(layers);
    Ok(items)
}

impl Keys<'_> {
    /// `layer_types`, of so many layers.
    fn layer_types(&self, layers: usize) -> Result<Option<Vec<LayerType>>, ConfigError> {
        let Some(found) = self.get("layer_types") else {
            return Ok(None);
        };
        let types = [LayerType::FullAttention, LayerType::SlidingAttention];
        let items = found.as_array().map(Vec::as_slice).unwrap_or_default();
        let items: Option<Vec<LayerType>> = items
            .iter()
            .map(|item| types.into_iter().find(|kind| item == kind.name()))
            .collect();
        match items {
            Some(items) if items.len() == layers => Ok(Some(items)),
            Some(items) if !items.is_empty() => {
                let found = format!("{} items", items.len());
                Err(ConfigError::Key {
                    path: self.path.to_owned(),
                    key: "layer_types".to_owned(),
                    expected: one_for_each(layers),
                    found,
                })
            }
            _ => {
                let expected = "a list of \"full_attention\" and \"sliding_attention\"";
                Err(self.error("layer_types", expected, Some(found)))
            }
        }
    }

    /// The rotary base of the layers with a window.
    fn local_rope(&self, default: f64) -> Result<f64, ConfigError> {
        let top = self.number_or("rope_local_base_freq", default)?;
        let table = self.get("rope_parameters");
        let names = [LayerType::FullAttention, LayerType::SlidingAttention].map(LayerType::name);
        if table.is_some_and(|table| names.iter().all(|name| table.get(name).is_none())) {
            let expected = "the tables `full_attention` and `sliding_attention`";
            return Err(self.error("rope_parameters", expected, table));
        }
        let Some(json) = table.and_then(|table| table.get(LayerType::SlidingAttention.name()))
        else {
            return Ok(top);
        };
        let inner = Keys {
            json,
            path: self.path,
        };
        let kind = inner.get("rope_type").or_else(|| inner.get("type"));
        if kind.is_some_and(|kind| kind != "default") {
            let key = "rope_parameters.sliding_attention.rope_type";
            return Err(self.error(key, "\"default\"", kind));
        }
        inner.number_or("rope_theta", top)
    }

    /// A number, or none: `null`, or what is missing where the default is none.
    fn number_or_null(&self, key: &str, default: Option<f64>) -> Result<Option<f64>, ConfigError> {
        match self.json.get(key) {
            None => Ok(default),
            Some(Value::Null) => Ok(None),
            Some(_) => self.number_or(key, 1.0).map(Some),
        }
    }

    /// A number that may be zero.
    fn count_or(&self, key: &str, default: usize) -> Result<usize, ConfigError> {
        match self.get(key) {
            Some(Value::Number(number)) if number.as_u64() == Some(0) => Ok(0),
            _ => self.size_or(key, default),
        }
    }

    /// The keys with which the rotary positions of the model are read: where each layer type has a table of its own, that
    /// of full attention.
    pub(super) fn of_full_attention(&self, family: &Family) -> Option<Value> {
        let table = self
            .get("rope_parameters")
            .filter(|_| family.local_rotary)?;
        let full = table.get(LayerType::FullAttention.name())?;
        let mut json = self.json.clone();
        json["rope_parameters"] = full.clone();
        Some(json)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn json(model_type: &str, keys: &Value) -> Value {
        let mut json = json!({
            "model_type": model_type, "vocab_size": 32, "hidden_size": 64, "intermediate_size": 24,
            "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2,
        });
        for (key, value) in keys.as_object().unwrap() {
            json[key] = value.clone();
        }
        json
    }

    fn read(model_type: &str, keys: &Value) -> ModelConfig {
        let json = json(model_type, keys);
        let config = ModelConfig::from_json(&json, Path::new("config.json")).unwrap();
        // what is written describes the same model
        let written = config.to_json();
        let again = ModelConfig::from_json(&written, Path::new("written.json")).unwrap();
        assert_eq!(again, config, "{written}");
        config
    }

    fn windows(model_type: &str, keys: &Value) -> Vec<Option<usize>> {
        let config = read(model_type, keys);
        (0..4).map(|layer| config.window(layer)).collect()
    }

    fn said(model_type: &str, keys: &Value) -> String {
        let json = json(model_type, keys);
        let error = ModelConfig::from_json(&json, Path::new("config.json")).unwrap_err();
        error.to_string()
    }

    /// As `configuration_*.py` of transformers 5.23 resolves them.
    #[test]
    fn windows_are_those_of_transformers() {
        let all = vec![Some(7); 4];
        let none = vec![None; 4];
        let (full, slides) = ("full_attention", "sliding_attention");
        let qwen = json!({"use_sliding_window": true, "sliding_window": 7, "max_window_layers": 2});
        let last = vec![None, None, Some(7), Some(7)];
        for (family, keys, expected) in [
            ("mistral", json!({"sliding_window": 7}), all.clone()),
            ("mistral", json!({"sliding_window": null}), none.clone()),
            ("mistral", json!({}), vec![Some(4096); 4]),
            ("phi3", json!({}), none.clone()),
            ("phi3", json!({"sliding_window": 7}), all),
            ("qwen2", qwen.clone(), last.clone()),
            ("qwen3", qwen, last),
            // the window of Qwen2.5's files, which they do not use
            (
                "qwen2",
                json!({"sliding_window": 131_072, "max_window_layers": 1}),
                none.clone(),
            ),
            (
                "qwen3",
                json!({"sliding_window": null, "layer_types": [full, full, full, full]}),
                none.clone(),
            ),
            (
                "qwen2",
                json!({"use_sliding_window": true, "sliding_window": 7, "layer_types": [slides, full, full, slides]}),
                vec![Some(7), None, None, Some(7)],
            ),
            ("smollm3", json!({}), none.clone()),
            (
                "smollm3",
                json!({"use_sliding_window": true, "sliding_window": 7, "no_rope_layer_interval": 2}),
                vec![None, Some(7), None, Some(7)],
            ),
            (
                "gemma2",
                json!({"sliding_window": 7}),
                vec![Some(7), None, Some(7), None],
            ),
            (
                "gemma3_text",
                json!({"sliding_window": 7, "sliding_window_pattern": 3}),
                vec![Some(7), Some(7), None, Some(7)],
            ),
            // as transformers 4 wrote it, which no class reads
            (
                "gemma3_text",
                json!({"sliding_window": 7, "_sliding_window_pattern": 3}),
                vec![Some(7); 4],
            ),
            ("llama", json!({"sliding_window": 7}), none),
        ] {
            assert_eq!(windows(family, &keys), expected, "{family} {keys}");
        }
    }

    #[test]
    fn positions_are_those_of_transformers() {
        let positions = |config: &ModelConfig| {
            (0..4)
                .map(|layer| config.positions(layer))
                .collect::<Vec<_>>()
        };
        use Positions::{Global, Local, None};
        let smol = read("smollm3", &json!({}));
        assert_eq!(positions(&smol), [Global, Global, Global, None]);
        // "at least the same length as the number of layers"
        let smol = read("smollm3", &json!({"no_rope_layers": [0, 1, true, 1, 0, 0]}));
        assert_eq!(positions(&smol), [None, Global, Global, Global]);
        let old = json!({"sliding_window_pattern": 2, "rope_theta": 5e5, "rope_local_base_freq": 2e4,
            "rope_scaling": {"rope_type": "linear", "factor": 8.0}});
        let gemma = read("gemma3_text", &old);
        assert_eq!(positions(&gemma), [Local, Global, Local, Global]);
        assert_eq!(
            (gemma.rope_theta, gemma.rope_local_base_freq),
            (5e5, Some(2e4))
        );
        let new = json!({"sliding_window_pattern": 2, "rope_parameters": {
            "full_attention": {"rope_theta": 5e5, "rope_type": "linear", "factor": 8.0},
            "sliding_attention": {"rope_theta": 2e4, "rope_type": "default"}}});
        assert_eq!(read("gemma3_text", &new), gemma);
        let bare = read("gemma3_text", &json!({}));
        assert_eq!(
            (bare.rope_theta, bare.rope_local_base_freq),
            (1e6, Some(1e4))
        );
    }

    #[test]
    fn defaults_and_nulls_are_those_of_transformers() {
        let gemma = read("gemma2", &json!({}));
        assert_eq!(gemma.head_dim, 256);
        assert!(gemma.tie_word_embeddings);
        assert_eq!(gemma.attention_scale(), 1.0 / 16.0);
        assert_eq!(gemma.attn_logit_softcapping, Some(50.0));
        assert_eq!(gemma.final_logit_softcapping, Some(30.0));
        let gemma = read(
            "gemma2",
            &json!({"attn_logit_softcapping": null, "query_pre_attn_scalar": 144}),
        );
        assert_eq!(gemma.attn_logit_softcapping, None);
        assert_eq!(gemma.attention_scale(), 1.0 / 12.0);
        assert_eq!(read("qwen3", &json!({})).head_dim, 128);
        assert_eq!(read("mistral", &json!({"head_dim": null})).head_dim, 16);
        assert_eq!(
            read("qwen2", &json!({"num_key_value_heads": null})).num_key_value_heads,
            4
        );
        let granite = read("granite", &json!({"residual_multiplier": 0.22}));
        assert_eq!(
            (granite.attention_scale(), granite.residual_multiplier),
            (1.0, 0.22)
        );
        for keys in [
            json!({"partial_rotary_factor": 0.75}),
            json!({"rope_parameters": {"rope_theta": 1e4, "rope_type": "default", "partial_rotary_factor": 0.75}}),
        ] {
            assert_eq!(read("phi3", &keys).rotary_dim(), 12);
        }
        // Gemma's first files
        read("gemma", &json!({"hidden_act": "gelu"}));
    }

    #[test]
    fn contradictions_name_the_key() {
        let (full, slides) = ("full_attention", "sliding_attention");
        insta::assert_snapshot!(said("gemma2", &json!({"sliding_window": null})),
            @"config.json: `sliding_window`: expected a number of tokens, since `layer_types` has layers with sliding attention, found nothing");
        insta::assert_snapshot!(said("qwen3", &json!({"layer_types": [full, full, full, slides]})),
            @"config.json: `use_sliding_window`: expected true, since `layer_types` has layers with sliding attention (or a list without them), found nothing");
        insta::assert_snapshot!(said("gemma2", &json!({"layer_types": [full, slides]})),
            @"config.json: `layer_types`: expected one item for each of num_hidden_layers (4), found 2 items");
        insta::assert_snapshot!(said("gemma2", &json!({"layer_types": [full, full, full, "chunked_attention"]})),
            @r#"config.json: `layer_types`: expected a list of "full_attention" and "sliding_attention", found ["full_attention","full_attention","full_attention","chunked_attention"]"#);
        insta::assert_snapshot!(said("llama", &json!({"layer_types": [full, full, full, slides]})),
            @r#"config.json: `layer_types`: expected none (`llama` has no windows), found ["full_attention","full_attention","full_attention","sliding_attention"]"#);
        insta::assert_snapshot!(said("mistral", &json!({"layer_types": [slides, full, full, full]})),
            @r#"config.json: `layer_types`: expected none: every layer of `mistral` has the window of `sliding_window`, found ["sliding_attention","full_attention","full_attention","full_attention"]"#);
        insta::assert_snapshot!(said("gemma2", &json!({"sliding_window_pattern": 6})),
            @"config.json: `sliding_window_pattern`: expected 2, as always in `gemma2`, found 6");
        insta::assert_snapshot!(said("smollm3", &json!({"no_rope_layers": [1, 0]})),
            @"config.json: `no_rope_layers`: expected a list of 0 and 1 for each of num_hidden_layers (4); 1: with rotary positions, found [1,0]");
        insta::assert_snapshot!(said("phi3", &json!({"partial_rotary_factor": 0.7})),
            @"config.json: `partial_rotary_factor`: expected a number up to 1 whose product with head_dim (16) is even, found 0.7");
        insta::assert_snapshot!(said("gemma3_text", &json!({"rope_parameters": {"rope_theta": 1e4}})),
            @r#"config.json: `rope_parameters`: expected the tables `full_attention` and `sliding_attention`, found {"rope_theta":10000.0}"#);
    }

    /// A recipe's `base.init` has the same checks.
    #[test]
    fn values_that_a_family_does_not_have_are_refused() {
        let check = |change: fn(&mut ModelConfig)| {
            let mut config = read("llama", &json!({}));
            change(&mut config);
            config.check(Path::new("x.toml")).unwrap_err().to_string()
        };
        insta::assert_snapshot!(check(|config| config.embedding_multiplier = 12.0),
            @r#"x.toml: `embedding_multiplier`: expected none (a key of `granite`, but `model_type` is "llama"), found 12"#);
        insta::assert_snapshot!(check(|config| config.sliding_window = Some(8)),
            @"x.toml: `sliding_window`: expected none (`llama` has no windows), found 8");
        insta::assert_snapshot!(check(|config| config.layer_types = vec![LayerType::SlidingAttention; 4]),
            @"x.toml: `layer_types`: expected none (`llama` has no windows), found sliding_attention");
        insta::assert_snapshot!(check(|config| config.no_rope_layers = vec![0; 4]),
            @r#"x.toml: `no_rope_layers`: expected none (a key of `smollm3`, but `model_type` is "llama"), found 0"#);
    }
}
