//! Compares configurations with what transformers makes of them.

use std::path::Path;

use super::*;
use crate::config::RopeScaling;

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
    use Positions::{Global, Local, None};

    let positions = |config: &ModelConfig| {
        (0..4)
            .map(|layer| config.positions(layer))
            .collect::<Vec<_>>()
    };
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
    assert_eq!(Some(gemma.attention_scale()), Some(1.0 / 16.0));
    assert_eq!(gemma.attn_logit_softcapping, Some(50.0));
    assert_eq!(gemma.final_logit_softcapping, Some(30.0));
    let gemma = read(
        "gemma2",
        &json!({"attn_logit_softcapping": null, "query_pre_attn_scalar": 144}),
    );
    assert_eq!(gemma.attn_logit_softcapping, None);
    assert_eq!(Some(gemma.attention_scale()), Some(1.0 / 12.0));
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

/// `tests/reference/configs.py`: the files of published models, and the defaults of each class.
#[test]
fn published_configurations_are_read_as_transformers_reads_them() {
    let goldens = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/goldens/configs.json"
    );
    let cases: Vec<Value> =
        serde_json::from_str(&std::fs::read_to_string(goldens).unwrap()).unwrap();
    assert!(cases.len() >= 30);
    for case in &cases {
        let name = case["name"].as_str().unwrap();
        let config = ModelConfig::from_json(&case["config"], Path::new(name)).unwrap();
        let layers = 0..config.num_hidden_layers;
        let theta = |layer| match config.positions(layer) {
            Positions::None => None,
            Positions::Global => Some(config.rope_theta),
            Positions::Local => config.rope_local_base_freq,
        };
        let resolved = json!({
            "parameters": crate::layout::parameter_count(&config),
            "head_dim": config.head_dim,
            "num_key_value_heads": config.num_key_value_heads,
            "windows": layers.clone().map(|layer| config.window(layer)).collect::<Vec<_>>(),
            "thetas": layers.map(theta).collect::<Vec<_>>(),
            "scales": [config.attention_scale()],
            "rotary_dim": config.rotary_dim(),
            "caps": [config.attn_logit_softcapping, config.final_logit_softcapping],
            "rms_norm_eps": config.rms_norm_eps,
            "max_position_embeddings": config.max_position_embeddings,
            "tie_word_embeddings": config.tie_word_embeddings,
            "multipliers": [config.embedding_multiplier, config.residual_multiplier, config.logits_scaling],
        });
        for (key, found) in resolved.as_object().unwrap() {
            let expected = &case["resolved"][key];
            assert!(
                same(found, expected),
                "{name}: {key}: {found}, transformers has {expected}"
            );
        }
        let again = ModelConfig::from_json(&config.to_json(), Path::new(name)).unwrap();
        assert_eq!(again, config, "{name}");
    }
}

/// Whether two values are equal, 1e6 and 1000000 too; roots may differ in the last bit.
fn same(found: &Value, expected: &Value) -> bool {
    match (found, expected) {
        (Value::Array(found), Value::Array(expected)) => {
            found.len() == expected.len()
                && found
                    .iter()
                    .zip(expected)
                    .all(|(found, expected)| same(found, expected))
        }
        (Value::Number(found), Value::Number(expected)) => {
            let (found, expected) = (found.as_f64().unwrap(), expected.as_f64().unwrap());
            (found - expected).abs() <= 1e-15 * expected.abs()
        }
        _ => found == expected,
    }
}

/// As `Gemma3TextConfig` of transformers 5.23 resolves them.
#[test]
fn rope_scaling_beside_two_tables_is_that_of_full_attention() {
    let tables = json!({
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 3e5},
        "sliding_attention": {"rope_type": "default", "rope_theta": 2e4},
    });
    let config = read(
        "gemma3_text",
        &json!({
            "head_dim": 16, "rope_parameters": tables, "rope_theta": 5.0, "rope_local_base_freq": 6.0,
            "rope_scaling": {"rope_type": "linear", "factor": 2.0},
        }),
    );
    assert_eq!(config.rope_scaling, RopeScaling::Linear { factor: 2.0 });
    assert_eq!(
        (config.rope_theta, config.rope_local_base_freq),
        (3e5, Some(2e4))
    );
}
