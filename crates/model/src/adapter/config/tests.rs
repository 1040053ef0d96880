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
                for key in ["target_modules", "feedforward_modules"] {
                    let value = side.get_mut(key);
                    if let Some(targets) = value.and_then(Value::as_array_mut) {
                        targets.sort_by_key(ToString::to_string);
                    }
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
    insta::assert_snapshot!(refused(json!({"peft_type": "VERA"})), @r#"adapter_config.json: `peft_type` = "VERA" is not supported: simmer reads adapters of the types LORA, IA3, ADAPTION_PROMPT and LLAMA_ADAPTER"#);
    insta::assert_snapshot!(refused(json!({"peft_type": null})), @"adapter_config.json: `peft_type` = null is not supported: simmer reads adapters of the types LORA, IA3, ADAPTION_PROMPT and LLAMA_ADAPTER");
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
    insta::assert_snapshot!(refused(json!({"lora_bias": true})), @"adapter_config.json: `lora_bias` = true is not supported: lora_B has a bias");
    insta::assert_snapshot!(refused(json!({"init_lora_weights": "lora_ga"})), @r#"adapter_config.json: `init_lora_weights` = "lora_ga" is not supported: this initialisation changes the base weights, and the file does not contain the change; save the adapter with PEFT's `path_initial_model_for_weight_conversion` to convert it to plain LoRA"#);
    insta::assert_snapshot!(refused(json!({"init_lora_weights": "mica"})), @r#"adapter_config.json: `init_lora_weights` = "mica" is not supported: simmer does not know whether it changes the base weights"#);
    insta::assert_snapshot!(refused(json!({"use_tomorrow": true})), @"adapter_config.json: `use_tomorrow` = true is not supported: the key is unknown and may change what the adapter computes");
}

#[test]
fn a_key_of_its_own_chooses_the_kind() {
    let kind = |keys: Value| read(keys).unwrap().0.kind;
    assert_eq!(kind(json!({})), &LORA);
    assert_eq!(kind(json!({"use_dora": null})), &LORA);
    assert_eq!(kind(json!({"use_dora": false})), &LORA);
    assert_eq!(kind(json!({"use_dora": true})), &kind::DORA);
    insta::assert_snapshot!(refused(json!({"use_dora": "yes"})), @r#"adapter_config.json: `use_dora`: expected true or false, found "yes""#);
    for (init, kind) in [
        ("pissa", &kind::PISSA),
        ("pissa_niter_4", &kind::PISSA),
        ("olora", &kind::OLORA),
    ] {
        let keys = json!({"init_lora_weights": init});
        assert_eq!(read(keys).unwrap().0.kind, kind);
    }
    insta::assert_snapshot!(refused(json!({"init_lora_weights": "pissa", "use_dora": true})), @r#"adapter_config.json: `init_lora_weights` = "pissa" is not supported: with this key PEFT takes the magnitudes of what the start leaves of the weights"#);
    for kind in kind::ALL {
        let init = [(&kind::PISSA, "pissa"), (&kind::OLORA, "olora")];
        let init = init.into_iter().find(|(of, _)| *of == kind);
        let config = AdapterConfig {
            kind,
            adapter_len: 1,
            adapter_layers: 1,
            init_lora_weights: init.map_or(true.into(), |(_, name)| name.into()),
            ..AdapterConfig::default()
        };
        let Ok(Value::Object(json)) = serde_json::from_str(&config.to_json()) else {
            panic!("an object")
        };
        let (read, _) = AdapterConfig::from_json(json, Path::new(FILE)).unwrap();
        assert_eq!(read.kind, kind);
    }
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
