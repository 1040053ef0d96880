//! What differs between families: windows, rotary positions and soft caps of each layer, and multipliers.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use simmer_files::size::counted;

use super::which::{foreign, has_key};
use super::windows::one_for_each;
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

    pub(super) fn slides(self) -> bool {
        self == Self::SlidingAttention
    }

    pub(crate) fn sliding(is_sliding: bool) -> Self {
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
            let (table, _) = keys.rope_table();
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
            if family.caps_scores {
                self.attn_logit_softcapping =
                    number("attn_logit_softcapping", defaults.attn_logit_softcapping)?;
            }
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
                return Err(wrong(key, one_for_each(layers), counted(length, "item")));
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

    /// Refuses values that the forward pass of the family does not have.
    #[expect(
        clippy::float_cmp,
        reason = "only the default itself is the same as no key"
    )]
    fn check_foreign(
        &self,
        wrong: &dyn Fn(&str, String, String) -> ConfigError,
    ) -> Result<(), ConfigError> {
        let other_than_one = |number: f64| Some(number).filter(|number| *number != 1.0);
        let family = self.family;
        let without_positions = self.no_rope_layers.contains(&0).then_some(0.0);
        for (key, value) in [
            (
                "partial_rotary_factor",
                other_than_one(self.partial_rotary_factor),
            ),
            ("attn_logit_softcapping", self.attn_logit_softcapping),
            ("final_logit_softcapping", self.final_logit_softcapping),
            ("query_pre_attn_scalar", self.query_pre_attn_scalar),
            (
                "embedding_multiplier",
                other_than_one(self.embedding_multiplier),
            ),
            ("attention_multiplier", self.attention_multiplier),
            (
                "residual_multiplier",
                other_than_one(self.residual_multiplier),
            ),
            ("logits_scaling", other_than_one(self.logits_scaling)),
            ("rope_local_base_freq", self.rope_local_base_freq),
            ("no_rope_layers", without_positions),
        ] {
            if let Some(value) = value.filter(|_| !has_key(family, key)) {
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
            set("query_pre_attn_scalar", whole(self.query_pre_attn_scalar));
            if family.caps_scores {
                set("attn_logit_softcapping", json!(self.attn_logit_softcapping));
            }
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

/// A number as an integer if it is one: transformers refuses `256.0` where it expects an integer.
fn whole(number: Option<f64>) -> Value {
    match number {
        Some(number) if number.fract() == 0.0 => json!(number as u64),
        number => json!(number),
    }
}

/// `no_rope_layers` of a model in which all layers except every n-th have rotary positions.
pub(crate) fn rotating_except_every(n: usize, layers: usize) -> Vec<u8> {
    let rotates = |layer: usize| u8::from(!(layer + 1).is_multiple_of(n));
    (0..layers).map(rotates).collect()
}

/// One number for each layer: 1 if it has rotary positions, 0 if not.
fn no_rope_layers(keys: &Keys<'_>, layers: usize) -> Result<Vec<u8>, ConfigError> {
    let Some(found) = keys.get("no_rope_layers") else {
        let every = keys.size_or("no_rope_layer_interval", 4)?;
        return Ok(rotating_except_every(every, layers));
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

    /// The keys with which the rotary positions of the model are read: where each layer type has a table of its own, that
    /// of full attention.
    pub(super) fn of_full_attention(&self, family: &Family) -> Option<Value> {
        let table = self
            .get("rope_parameters")
            .filter(|_| family.local_rotary)?;
        let full = table.get(LayerType::FullAttention.name())?;
        let mut json = self.json.clone();
        let mut full = full.clone();
        // As in transformers' `Gemma3TextConfig`.
        if let (Some(full), Some(Value::Object(scaling))) =
            (full.as_object_mut(), self.get("rope_scaling"))
        {
            full.extend(scaling.clone());
            json["rope_scaling"] = Value::Null;
        }
        json["rope_parameters"] = full;
        Some(json)
    }
}

#[cfg(test)]
mod tests;
