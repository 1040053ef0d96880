//! Sliding windows: which layers have one, as transformers derives it from the keys of a configuration.

use serde_json::Value;
use simmer_files::size::counted;

use super::attention::LayerType;
use super::{ConfigError, Keys, ModelConfig};
use crate::family::{Family, Windows};

impl ModelConfig {
    /// The window, and the type of each layer; the list is empty if no key says more than the family.
    pub(super) fn windows(
        &self,
        keys: &Keys<'_>,
    ) -> Result<(Option<usize>, Vec<LayerType>), ConfigError> {
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

    /// Checks that a window and its layers fit each other and the family.
    pub(super) fn check_windows(
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
                let found = counted(self.layer_types.len(), "item");
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

pub(super) fn one_for_each(layers: usize) -> String {
    format!("one item for each of num_hidden_layers ({layers})")
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
                let found = counted(items.len(), "item");
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

    /// A number that may be zero.
    fn count_or(&self, key: &str, default: usize) -> Result<usize, ConfigError> {
        match self.get(key) {
            Some(Value::Number(number)) if number.as_u64() == Some(0) => Ok(0),
            _ => self.size_or(key, default),
        }
    }
}
