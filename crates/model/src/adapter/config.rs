//! `adapter_config.json`: PEFT's configuration of a LoRA adapter.
//!
//! Source: `LoraConfig` and `PeftConfigMixin` of PEFT 0.21 (src/peft/tuners/lora/config.py and
//! src/peft/config.py).

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use simmer_checkpoint::MAX_TEXT_BYTES;

use super::AdapterError;
use super::keys::ConfigKeys;
use super::mlx;
use super::targets::{Layers, Names, Patterns, Targets};

/// The file's name.
pub const CONFIG_FILE: &str = "adapter_config.json";
/// The PEFT version whose file format is written.
const PEFT_VERSION: &str = "0.21.2";

/// Which biases of the base model are trained in addition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[derive(schemars::JsonSchema)]
pub enum Bias {
    /// No bias.
    #[default]
    None,
    /// Every bias of the model.
    All,
    /// The biases of target modules.
    LoraOnly,
}

/// PEFT's configuration of an adapter.
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterConfig {
    /// Name or path of the base model.
    pub base_model_name_or_path: Option<String>,
    /// Revision of the base model on the hub.
    pub revision: Option<String>,
    /// "CAUSAL_LM" for language models.
    pub task_type: Option<String>,
    /// The version of PEFT that wrote the file, if given.
    pub peft_version: Option<String>,
    /// Rank of modules that `rank_pattern` does not match.
    pub r: usize,
    /// Alpha, the numerator of the scale, of modules that `alpha_pattern` does not match.
    pub lora_alpha: f64,
    /// Dropout probability of a low-rank branch's input during training.
    pub lora_dropout: f64,
    /// Scale by alpha/√r instead of alpha/r.
    pub use_rslora: bool,
    /// Biases that are trained in addition.
    pub bias: Bias,
    /// The target modules; `None`: PEFT's default for LLaMA, q_proj and v_proj.
    pub target_modules: Option<Targets>,
    /// Modules that are excluded from the targets.
    pub exclude_modules: Option<Targets>,
    /// Restricts targets given by name to these layers.
    pub layers_to_transform: Option<Layers>,
    /// Name of the list of layers in a module path.
    pub layers_pattern: Option<Names>,
    /// Ranks of individual modules.
    pub rank_pattern: Patterns<usize>,
    /// Alphas of individual modules.
    pub alpha_pattern: Patterns<f64>,
    /// Modules that are trained fully.
    pub modules_to_save: Option<Vec<String>>,
    /// How A and B were initialised: a boolean or a name.
    pub init_lora_weights: Value,
    /// Keep adapters of tied weights tied.
    pub ensure_weight_tying: bool,
}

impl Default for AdapterConfig {
    /// PEFT's defaults.
    fn default() -> Self {
        Self {
            base_model_name_or_path: None,
            revision: None,
            task_type: None,
            peft_version: None,
            r: 8,
            lora_alpha: 8.0,
            lora_dropout: 0.0,
            use_rslora: false,
            bias: Bias::None,
            target_modules: None,
            exclude_modules: None,
            layers_to_transform: None,
            layers_pattern: None,
            rank_pattern: Patterns::default(),
            alpha_pattern: Patterns::default(),
            modules_to_save: None,
            init_lora_weights: Value::Bool(true),
            ensure_weight_tying: false,
        }
    }
}

impl AdapterConfig {
    /// Reads `adapter_config.json` of any PEFT version, or of mlx-lm. The targets of the latter are in the weight file.
    ///
    /// Returns the configuration and a warning for each ignored key.
    ///
    /// # Errors
    ///
    /// Values of a wrong type, and keys that make the adapter compute something other than LoRA.
    pub fn read(file: &Path) -> Result<(Self, Vec<String>), AdapterError> {
        Self::from_json(object(file)?, file)
    }

    /// The same for inspection: keys that make the adapter compute something other than LoRA are warnings
    /// instead of errors.
    ///
    /// # Errors
    ///
    /// Values of a wrong type, and methods other than LoRA.
    pub fn describe(file: &Path) -> Result<(Self, Vec<String>), AdapterError> {
        Self::from_keys(ConfigKeys {
            map: object(file)?,
            file,
            tolerated: Some(Vec::new()),
        })
    }

    /// [`Self::read`] for a parsed file; `file` appears only in errors.
    ///
    /// # Errors
    ///
    /// As [`Self::read`].
    pub fn from_json(
        map: Map<String, Value>,
        file: &Path,
    ) -> Result<(Self, Vec<String>), AdapterError> {
        Self::from_keys(ConfigKeys {
            map,
            file,
            tolerated: None,
        })
    }

    fn from_keys(mut keys: ConfigKeys<'_>) -> Result<(Self, Vec<String>), AdapterError> {
        if mlx::is_mlx(&keys.map) {
            return Ok((mlx::config(keys.map, keys.file)?, Vec::new()));
        }
        let method: Option<String> = keys.take("peft_type", "the name of a method")?;
        if method.as_deref() != Some("LORA") {
            let found = method.map_or(Value::Null, Value::String);
            return Err(keys.unsupported("peft_type", &found, "simmer reads only LORA adapters"));
        }
        keys.refuse_variants()?;
        let config = keys.config()?;
        let warnings = keys.rest()?;
        Ok((config, warnings))
    }

    /// Checks the settings that a recipe may get wrong, with the recipe's names for them.
    ///
    /// # Errors
    ///
    /// The first setting that is out of range, with the nearest valid value.
    pub fn check(&self) -> Result<(), AdapterError> {
        let wrong = |key, why| Err(AdapterError::Conflict { key, why });
        if let Some(why) = wrong_rank(self.r) {
            return wrong("rank", why);
        }
        if let Some(why) = wrong_alpha(self.lora_alpha) {
            return wrong("alpha", why);
        }
        if let Some(why) = wrong_dropout(self.lora_dropout) {
            return wrong("dropout", why);
        }
        for (module, rank) in self.rank_pattern.iter() {
            if let Some(why) = wrong_rank(*rank) {
                return wrong("rank_pattern", format!("`{module}`: {why}"));
            }
        }
        for (module, alpha) in self.alpha_pattern.iter() {
            if let Some(why) = wrong_alpha(*alpha) {
                return wrong("alpha_pattern", format!("`{module}`: {why}"));
            }
        }
        Ok(())
    }

    /// The text of the file as PEFT writes it: all keys, sorted, indented by two spaces, without a final newline.
    ///
    /// `rank_pattern` and `alpha_pattern` keep their order, which PEFT's writer loses: if two patterns match, the
    /// first one in the file applies.
    pub fn to_json(&self) -> String {
        let sorted = |targets: &Option<Targets>| match targets.clone() {
            Some(Targets::Names(mut names)) => {
                names.sort();
                names.dedup();
                json!(names)
            }
            other => json!(other),
        };
        let mut entries = vec![
            ("alpha_pattern", number_patterns(&self.alpha_pattern)),
            (
                "base_model_name_or_path",
                json!(self.base_model_name_or_path),
            ),
            ("bias", json!(self.bias)),
            ("ensure_weight_tying", json!(self.ensure_weight_tying)),
            ("exclude_modules", sorted(&self.exclude_modules)),
            ("fan_in_fan_out", json!(false)),
            ("inference_mode", json!(true)),
            ("init_lora_weights", self.init_lora_weights.clone()),
            ("layers_pattern", json!(self.layers_pattern)),
            ("layers_to_transform", json!(self.layers_to_transform)),
            ("loftq_config", json!({})),
            ("lora_alpha", number(self.lora_alpha)),
            ("lora_bias", json!(false)),
            ("lora_dropout", json!(self.lora_dropout)),
            ("megatron_core", json!("megatron.core")),
            ("modules_to_save", json!(self.modules_to_save)),
            ("peft_type", json!("LORA")),
            ("peft_version", json!(PEFT_VERSION)),
            ("qalora_group_size", json!(16)),
            ("r", json!(self.r)),
            ("rank_pattern", json!(self.rank_pattern)),
            ("revision", json!(self.revision)),
            ("target_modules", sorted(&self.target_modules)),
            ("task_type", json!(self.task_type)),
            ("use_dora", json!(false)),
            ("use_qalora", json!(false)),
            ("use_rslora", json!(self.use_rslora)),
        ];
        let unset = UNSET.iter().map(|key| (*key, Value::Null));
        entries.extend(unset);
        entries.sort_by_key(|(key, _)| *key);
        let map: Map<String, Value> = entries
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value))
            .collect();
        escaped(&format!("{:#}", Value::Object(map)))
    }
}

/// The largest rank of a recipe. No weight of a published LLaMA has a higher one: their largest hidden size is 16,384.
const MOST_RANK: usize = 16_384;
/// The largest alpha of a recipe.
const MOST_ALPHA: f64 = 1e6;

/// Why a rank is out of range, if it is.
fn wrong_rank(rank: usize) -> Option<String> {
    let nearest = rank.clamp(1, MOST_RANK);
    (rank != nearest).then(|| {
        format!(
            "expected a whole number from 1 to {MOST_RANK}, found {rank}; the nearest valid value is {nearest}"
        )
    })
}

/// Why an alpha is out of range, if it is.
fn wrong_alpha(alpha: f64) -> Option<String> {
    let valid = alpha > 0.0 && alpha <= MOST_ALPHA;
    let instead = if alpha > MOST_ALPHA {
        format!("the nearest valid value is {MOST_ALPHA}")
    } else {
        "usual values are the rank and twice the rank".to_owned()
    };
    (!valid).then(|| {
        format!("expected a number above 0 and at most {MOST_ALPHA}, found {alpha}; {instead}")
    })
}

/// Why a dropout is out of range, if it is.
fn wrong_dropout(dropout: f64) -> Option<String> {
    let instead = if dropout < 0.0 {
        "the nearest valid value is 0".to_owned()
    } else if dropout > 1.0 && dropout < 100.0 {
        format!("{dropout}% is {}", dropout / 100.0)
    } else {
        "usual values are 0 to 0.1".to_owned()
    };
    (!(0.0..1.0).contains(&dropout))
        .then(|| format!("expected a number from 0 to below 1, found {dropout}; {instead}"))
}

fn object(file: &Path) -> Result<Map<String, Value>, AdapterError> {
    let text = simmer_files::read(file, MAX_TEXT_BYTES).map_err(AdapterError::io(file, "read"))?;
    serde_json::from_slice(&text).map_err(|source| AdapterError::ConfigJson {
        file: file.into(),
        source,
    })
}

/// Keys that are written as null.
const UNSET: &[&str] = &[
    "alora_invocation_tokens",
    "arrow_config",
    "auto_mapping",
    "corda_config",
    "eva_config",
    "kasa_config",
    "layer_replication",
    "lora_ga_config",
    "megatron_config",
    "monteclora_config",
    "target_parameters",
    "trainable_token_indices",
    "use_bdlora",
    "velora_config",
];

/// Writes 16.0 as `16`: alphas in PEFT are integers unless the user wrote a fraction.
fn number(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 1e15 {
        json!(value as i64)
    } else {
        json!(value)
    }
}

fn number_patterns(patterns: &Patterns<f64>) -> Value {
    let entries = patterns
        .iter()
        .map(|(key, value)| (key.clone(), number(*value)));
    Value::Object(entries.collect())
}

/// Escapes all characters outside ASCII, as Python does.
fn escaped(text: &str) -> String {
    let mut ascii = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter.is_ascii() {
            ascii.push(letter);
        } else {
            let mut units = [0; 2];
            let escapes = letter.encode_utf16(&mut units).iter();
            ascii.extend(escapes.map(|unit| format!("\\u{unit:04x}")));
        }
    }
    ascii
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::adapter::keys::VARIANTS;

    const FILE: &str = "adapter_config.json";

    fn read(keys: Value) -> Result<(AdapterConfig, Vec<String>), AdapterError> {
        let Value::Object(mut keys) = keys else {
            panic!("an object")
        };
        keys.entry("peft_type").or_insert_with(|| "LORA".into());
        AdapterConfig::from_json(keys, Path::new(FILE))
    }

    fn refused(keys: Value) -> String {
        read(keys).unwrap_err().to_string()
    }

    #[test]
    fn the_text_is_pefts() {
        let config = AdapterConfig {
            base_model_name_or_path: Some("caf\u{e9}/tied-gqa".to_owned()),
            task_type: Some("CAUSAL_LM".to_owned()),
            r: 4,
            lora_alpha: 6.0,
            use_rslora: true,
            target_modules: Some(Targets::Names(vec!["v_proj".into(), "k_proj".into()])),
            rank_pattern: Patterns(vec![("down_proj".to_owned(), 3)]),
            alpha_pattern: Patterns(vec![("k_proj".to_owned(), 16.0), ("b".to_owned(), 0.5)]),
            ..AdapterConfig::default()
        };
        insta::assert_snapshot!(config.to_json(), @r#"
        {
          "alora_invocation_tokens": null,
          "alpha_pattern": {
            "k_proj": 16,
            "b": 0.5
          },
          "arrow_config": null,
          "auto_mapping": null,
          "base_model_name_or_path": "caf\u00e9/tied-gqa",
          "bias": "none",
          "corda_config": null,
          "ensure_weight_tying": false,
          "eva_config": null,
          "exclude_modules": null,
          "fan_in_fan_out": false,
          "inference_mode": true,
          "init_lora_weights": true,
          "kasa_config": null,
          "layer_replication": null,
          "layers_pattern": null,
          "layers_to_transform": null,
          "loftq_config": {},
          "lora_alpha": 6,
          "lora_bias": false,
          "lora_dropout": 0.0,
          "lora_ga_config": null,
          "megatron_config": null,
          "megatron_core": "megatron.core",
          "modules_to_save": null,
          "monteclora_config": null,
          "peft_type": "LORA",
          "peft_version": "0.21.2",
          "qalora_group_size": 16,
          "r": 4,
          "rank_pattern": {
            "down_proj": 3
          },
          "revision": null,
          "target_modules": [
            "k_proj",
            "v_proj"
          ],
          "target_parameters": null,
          "task_type": "CAUSAL_LM",
          "trainable_token_indices": null,
          "use_bdlora": null,
          "use_dora": false,
          "use_qalora": false,
          "use_rslora": true,
          "velora_config": null
        }
        "#);
        assert!(!config.to_json().ends_with('\n'));
    }

    #[test]
    fn what_is_written_reads_back() {
        let config = AdapterConfig {
            base_model_name_or_path: Some("\u{1f999}".to_owned()),
            r: 3,
            lora_alpha: 0.75,
            lora_dropout: 0.05,
            bias: Bias::LoraOnly,
            target_modules: Some(Targets::Regex(r".*\.q_proj".to_owned())),
            exclude_modules: Some(Targets::Names(vec!["a".to_owned(), "b".to_owned()])),
            layers_to_transform: Some(Layers(vec![0, 2])),
            layers_pattern: Some(Names(vec!["layers".to_owned()])),
            rank_pattern: Patterns(vec![("z".to_owned(), 1), ("a".to_owned(), 2)]),
            modules_to_save: Some(vec!["lm_head".to_owned()]),
            init_lora_weights: "gaussian".into(),
            ..AdapterConfig::default()
        };
        let written = serde_json::from_str(&config.to_json()).unwrap();
        let (mut again, warnings) = AdapterConfig::from_json(written, Path::new(FILE)).unwrap();
        assert!(warnings.is_empty());
        assert_eq!(again.peft_version.take().as_deref(), Some(PEFT_VERSION));
        assert_eq!(again, config);
    }

    #[test]
    fn every_golden_of_peft_reads_and_writes_the_same() {
        let goldens = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/goldens"));
        let mut read = 0;
        for model in fs::read_dir(goldens).unwrap() {
            let adapters = model.unwrap().path().join("adapters");
            for adapter in fs::read_dir(adapters).into_iter().flatten() {
                let file = adapter.unwrap().path().join(CONFIG_FILE);
                let (config, warnings) = AdapterConfig::read(&file).unwrap();
                assert!(warnings.is_empty(), "{warnings:?}");
                let mut theirs: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
                let mut ours: Value = serde_json::from_str(&config.to_json()).unwrap();
                for side in [&mut theirs, &mut ours] {
                    // PEFT stores a set, whose order is arbitrary.
                    if let Some(targets) = side["target_modules"].as_array_mut() {
                        targets.sort_by_key(ToString::to_string);
                    }
                }
                // including the order of keys
                assert_eq!(ours.to_string(), theirs.to_string());
                read += 1;
            }
        }
        assert!(read >= 7);
    }

    #[test]
    fn only_the_type_is_needed() {
        let (config, warnings) = read(json!({})).unwrap();
        assert_eq!(config, AdapterConfig::default());
        assert!(warnings.is_empty());
        insta::assert_snapshot!(refused(json!({"peft_type": "IA3"})), @r#"adapter_config.json: `peft_type` = "IA3" is not supported: simmer reads only LORA adapters"#);
        insta::assert_snapshot!(refused(json!({"peft_type": null})), @"adapter_config.json: `peft_type` = null is not supported: simmer reads only LORA adapters");
    }

    #[test]
    fn wrong_types_name_the_key() {
        insta::assert_snapshot!(refused(json!({"r": "eight"})), @r#"adapter_config.json: `r`: expected a whole number, found "eight""#);
        insta::assert_snapshot!(refused(json!({"r": 0})), @"adapter_config.json: `r`: expected at least 1, found 0");
        insta::assert_snapshot!(refused(json!({"target_modules": {"q": 1}})), @r#"adapter_config.json: `target_modules`: expected a list of module names, one regular expression, or "all-linear", found {"q":1}"#);
        insta::assert_snapshot!(refused(json!({"bias": "some"})), @r#"adapter_config.json: `bias`: expected "none", "all" or "lora_only", found "some""#);
        insta::assert_snapshot!(refused(json!({"lora_dropout": 1})), @"adapter_config.json: `lora_dropout`: expected a number from 0 to less than 1, found 1");
        insta::assert_snapshot!(refused(json!({"rank_pattern": {"q": 1.5}})), @r#"adapter_config.json: `rank_pattern`: expected a table of module names and ranks, found {"q":1.5}"#);
        insta::assert_snapshot!(refused(json!({"layers_to_transform": -1})), @"adapter_config.json: `layers_to_transform`: expected a layer or a list of layers, counted from 0, found -1");
        insta::assert_snapshot!(refused(json!({"init_lora_weights": 3})), @"adapter_config.json: `init_lora_weights`: expected true, false or a name, found 3");
    }

    #[test]
    fn what_changes_the_mathematics_is_refused() {
        for (key, _) in VARIANTS {
            let mut keys = Map::new();
            keys.insert((*key).to_owned(), json!({"on": 1}));
            let error = refused(Value::Object(keys.clone()));
            assert!(error.contains(&format!("`{key}` = ")), "{error}");
            keys.insert((*key).to_owned(), Value::Null);
            assert!(read(Value::Object(keys)).is_ok());
        }
        insta::assert_snapshot!(refused(json!({"use_dora": true})), @"adapter_config.json: `use_dora` = true is not supported: DoRA also scales the rows of the weights");
        insta::assert_snapshot!(refused(json!({"init_lora_weights": "pissa_niter_4"})), @r#"adapter_config.json: `init_lora_weights` = "pissa_niter_4" is not supported: this initialisation changes the base weights, and the file does not contain the change; save the adapter with PEFT's `path_initial_model_for_weight_conversion` to convert it to plain LoRA"#);
        insta::assert_snapshot!(refused(json!({"init_lora_weights": "mica"})), @r#"adapter_config.json: `init_lora_weights` = "mica" is not supported: simmer does not know whether it changes the base weights"#);
        insta::assert_snapshot!(refused(json!({"use_tomorrow": true})), @"adapter_config.json: `use_tomorrow` = true is not supported: the key is unknown and may change what the adapter computes");
    }

    #[test]
    fn settings_out_of_range() {
        let refused = |config: AdapterConfig| config.check().unwrap_err().to_string();
        let config = AdapterConfig::default;
        assert!(config().check().is_ok());
        insta::assert_snapshot!(refused(AdapterConfig { r: 0, ..config() }), @"rank: expected a whole number from 1 to 16384, found 0; the nearest valid value is 1");
        insta::assert_snapshot!(refused(AdapterConfig { lora_alpha: f64::NAN, ..config() }), @"alpha: expected a number above 0 and at most 1000000, found NaN; usual values are the rank and twice the rank");
        insta::assert_snapshot!(refused(AdapterConfig { lora_dropout: 1.0, ..config() }), @"dropout: expected a number from 0 to below 1, found 1; usual values are 0 to 0.1");
        insta::assert_snapshot!(refused(AdapterConfig { lora_dropout: 5.0, ..config() }), @"dropout: expected a number from 0 to below 1, found 5; 5% is 0.05");
        insta::assert_snapshot!(refused(AdapterConfig { r: 100_000, ..config() }), @"rank: expected a whole number from 1 to 16384, found 100000; the nearest valid value is 16384");
        let alphas = Patterns(vec![("q_proj".to_owned(), -1.0)]);
        insta::assert_snapshot!(refused(AdapterConfig { alpha_pattern: alphas, ..config() }), @"alpha_pattern: `q_proj`: expected a number above 0 and at most 1000000, found -1; usual values are the rank and twice the rank");
    }

    #[test]
    fn harmless_unknown_keys_are_named() {
        let (_, warnings) = read(json!({"tomorrow_size": 16, "use_tomorrow": null})).unwrap();
        assert_eq!(
            warnings,
            [
                "adapter_config.json: unknown key `tomorrow_size` = 16 is ignored",
                "adapter_config.json: unknown key `use_tomorrow` = null is ignored",
            ]
        );
    }
}
