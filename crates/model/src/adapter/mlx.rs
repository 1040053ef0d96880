//! `adapter_config.json` of mlx-lm, read as PEFT's configuration.
//!
//! mlx-lm computes `x·Wᵀ + scale·(x·a)·b`, so that PEFT's alpha is `scale · rank`. Its other keys are settings of the
//! training run, which do not change what the adapter computes.
//!
//! Source: mlx-lm, mlx_lm/tuner/utils.py, `linear_to_lora_layers`.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::AdapterError;
use super::config::AdapterConfig;
use super::kind::{self, Part};
use super::peft::KEY_PREFIX;
use super::targets::Targets;
use super::weights::{AdapterWeights, MLX_FILE};

/// The keys that decide what an adapter computes.
#[derive(Deserialize)]
struct MlxConfig {
    fine_tune_type: Option<String>,
    model: Option<String>,
    lora_parameters: Parameters,
}

#[derive(Deserialize)]
struct Parameters {
    rank: usize,
    scale: f64,
    #[serde(default)]
    dropout: f64,
    /// A factor of the scale in early versions; later ones ignore it.
    alpha: Option<f64>,
}

/// Whether a configuration is one of mlx-lm.
pub(super) fn is_mlx(map: &Map<String, Value>) -> bool {
    let has = |key: &str| map.contains_key(key);
    !has("peft_type") && (has("lora_parameters") || has("fine_tune_type"))
}

/// The same in PEFT's terms, without the targets: mlx-lm names modules within a layer, and adapts the last layers.
///
/// # Errors
/// Methods other than LoRA, missing keys, and an alpha that versions of mlx-lm understand differently.
pub(super) fn config(map: Map<String, Value>, file: &Path) -> Result<AdapterConfig, AdapterError> {
    let kind = map.get("fine_tune_type").and_then(Value::as_str);
    let why = match kind {
        None | Some("lora") => None,
        Some("dora") => Some("DoRA also scales the rows of the weights"),
        Some("full") => Some("its file holds the weights of whole modules, not an adapter"),
        Some(_) => Some("simmer reads only adapters of LoRA"),
    };
    if let (Some(why), Some(kind)) = (why, kind) {
        return Err(unsupported(file, "fine_tune_type", kind, why));
    }
    let config: MlxConfig =
        serde_json::from_value(Value::Object(map)).map_err(|source| AdapterError::ConfigJson {
            file: file.into(),
            source,
        })?;
    debug_assert!(config.fine_tune_type.is_none_or(|kind| kind == "lora"));
    let Parameters {
        rank,
        scale,
        dropout,
        alpha,
    } = config.lora_parameters;
    let wrong = |key: &str, expected, found: String| AdapterError::ConfigValue {
        file: file.into(),
        key: format!("lora_parameters.{key}"),
        expected,
        found,
    };
    if rank == 0 {
        return Err(wrong("rank", "at least 1", "0".to_owned()));
    }
    if !scale.is_finite() {
        return Err(wrong("scale", "a finite number", scale.to_string()));
    }
    if !(0.0..1.0).contains(&dropout) {
        let expected = "a number from 0 to less than 1";
        return Err(wrong("dropout", expected, dropout.to_string()));
    }
    if let Some(alpha) = alpha.filter(|alpha| (*alpha - rank as f64).abs() > 0.0) {
        let why = "early versions of mlx-lm multiply the scale by alpha / rank, later ones ignore alpha; \
                   write the scale that the training used into `scale`, and remove `alpha`";
        return Err(unsupported(
            file,
            "lora_parameters.alpha",
            &alpha.to_string(),
            why,
        ));
    }
    Ok(AdapterConfig {
        base_model_name_or_path: config.model,
        task_type: Some("CAUSAL_LM".to_owned()),
        r: rank,
        lora_alpha: scale * rank as f64,
        lora_dropout: dropout,
        ..AdapterConfig::default()
    })
}

/// Whether a weight file is one of mlx-lm, by its name.
pub(super) fn is_file(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == MLX_FILE)
}

/// The modules with a low-rank branch in a file, by their paths.
pub(super) fn targets(weights: &AdapterWeights) -> Targets {
    let modules = weights.names().filter_map(|key| {
        let path = key.strip_prefix(KEY_PREFIX)?;
        let (module, tensor) = kind::split(path)?;
        (tensor.part == Part::A).then(|| module.to_owned())
    });
    Targets::Names(modules.collect())
}

fn unsupported(file: &Path, key: &str, found: &str, why: &'static str) -> AdapterError {
    AdapterError::Unsupported {
        file: file.into(),
        key: key.to_owned(),
        found: found.to_owned(),
        why,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(config: &Value) -> Result<AdapterConfig, AdapterError> {
        let map = config.as_object().unwrap().clone();
        assert!(is_mlx(&map));
        super::config(map, Path::new("adapter_config.json"))
    }

    fn with(parameters: &Value) -> Result<AdapterConfig, AdapterError> {
        read(
            &json!({"fine_tune_type": "lora", "num_layers": 4, "iters": 100, "lora_parameters": parameters}),
        )
    }

    #[test]
    fn the_scale_is_alpha_over_rank() {
        let config =
            with(&json!({"rank": 4, "scale": 2.5, "dropout": 0.1, "keys": ["x"]})).unwrap();
        assert_eq!(config.r, 4);
        assert!((config.lora_alpha - 10.0).abs() < 1e-12);
        // the same in all versions
        let config = with(&json!({"rank": 4, "scale": 2.0, "alpha": 4.0})).unwrap();
        assert!((config.lora_alpha - 8.0).abs() < 1e-12);
    }

    #[test]
    fn what_cannot_be_read_exactly_is_refused() {
        let dora = json!({"fine_tune_type": "dora", "lora_parameters": {"rank": 4, "scale": 2.0}});
        insta::assert_snapshot!(read(&dora).unwrap_err(), @"adapter_config.json: `fine_tune_type` = dora is not supported: DoRA also scales the rows of the weights");
        let full = json!({"fine_tune_type": "full"});
        insta::assert_snapshot!(read(&full).unwrap_err(), @"adapter_config.json: `fine_tune_type` = full is not supported: its file holds the weights of whole modules, not an adapter");
        insta::assert_snapshot!(with(&json!({"rank": 8, "scale": 10.0, "alpha": 16.0})).unwrap_err(), @"adapter_config.json: `lora_parameters.alpha` = 16 is not supported: early versions of mlx-lm multiply the scale by alpha / rank, later ones ignore alpha; write the scale that the training used into `scale`, and remove `alpha`");
        insta::assert_snapshot!(with(&json!({"rank": 8})).unwrap_err(), @"adapter_config.json: missing field `scale`");
        insta::assert_snapshot!(with(&json!({"rank": 0, "scale": 1.0})).unwrap_err(), @"adapter_config.json: `lora_parameters.rank`: expected at least 1, found 0");
    }
}
