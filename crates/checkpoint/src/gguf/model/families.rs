//! Each family in GGUF: what comes back, names and keys of llama.cpp, and what its architectures cannot hold.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value as Json, json};

use super::tests::{file, read};
use super::*;
use crate::family;
use crate::gguf::{Metadata, Value};

/// A configuration with these keys besides sizes.
fn config(model_type: &str, keys: &Json) -> ModelConfig {
    let mut json = json!({
        "model_type": model_type, "vocab_size": 24, "hidden_size": 32, "intermediate_size": 48,
        "num_hidden_layers": 8, "num_attention_heads": 4, "num_key_value_heads": 2,
        "rms_norm_eps": 1e-5, "max_position_embeddings": 64, "bos_token_id": null
    });
    let all = json.as_object_mut().unwrap();
    all.extend(keys.as_object().unwrap().clone());
    ModelConfig::from_json(&json, Path::new("config.json")).unwrap()
}

/// Configurations that llama.cpp computes, of all families.
fn expressible() -> Vec<ModelConfig> {
    let yarn = json!({"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0,
        "original_max_position_embeddings": 16});
    let mut attention = yarn.clone();
    attention["attention_factor"] = json!(1.25);
    let long = json!({"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0, 1.1, 1.2],
        "long_factor": [1.0, 2.5, 40.0], "original_max_position_embeddings": 16,
        "partial_rotary_factor": 0.75});
    let llama3 = json!({"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 8192});
    let sliding = |layers: &[usize]| {
        let kind = |layer| {
            if layers.contains(&layer) {
                "sliding_attention"
            } else {
                "full_attention"
            }
        };
        (0..8).map(kind).collect::<Vec<_>>()
    };
    [
        ("llama", json!({"attention_bias": true, "mlp_bias": true, "head_dim": 16})),
        ("llama", json!({"rope_parameters": yarn})),
        ("mistral", json!({"head_dim": 16, "sliding_window": 32})),
        ("mistral", json!({"head_dim": 64, "sliding_window": 32, "rope_parameters": llama3})),
        ("qwen2", json!({"tie_word_embeddings": true, "rope_parameters": attention})),
        ("qwen2", json!({"use_sliding_window": true, "sliding_window": 16, "max_window_layers": 3})),
        ("qwen3", json!({"head_dim": 16, "rope_parameters": yarn})),
        ("qwen3", json!({"head_dim": 16, "use_sliding_window": true, "sliding_window": 16,
            "layer_types": sliding(&[1, 2, 5])})),
        ("smollm3", json!({"tie_word_embeddings": true})),
        ("smollm3", json!({"use_sliding_window": true, "sliding_window": 16})),
        ("phi3", json!({"sliding_window": 32, "partial_rotary_factor": 0.75})),
        ("phi3", json!({"sliding_window": null, "rope_parameters": long})),
        ("gemma", json!({"head_dim": 16})),
        ("gemma2", json!({"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 8,
            "final_logit_softcapping": 20.0})),
        ("gemma2", json!({"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 8,
            "layer_types": sliding(&[0, 1, 3, 4, 6, 7])})),
        ("gemma2", json!({"head_dim": 16, "query_pre_attn_scalar": 16, "layer_types": sliding(&[])})),
        // as in the model of 27B parameters, whose scalar is that of hidden_size
        ("gemma2", json!({"head_dim": 16, "num_hidden_layers": 46, "query_pre_attn_scalar": 8})),
        ("gemma3_text", json!({"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 8,
            "rope_parameters": {"full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 5000.0}}})),
        ("gemma3_text", json!({"head_dim": 16, "query_pre_attn_scalar": 16, "final_logit_softcapping": 30.0,
            "tie_word_embeddings": false, "layer_types": sliding(&[])})),
        ("gemma3_text", json!({"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 8,
            "layer_types": sliding(&[0, 1, 2, 3, 4, 5, 6, 7])})),
        // the weights of these files are zeros: the head is a copy of the embedding
        ("olmo2", json!({"tie_word_embeddings": true})),
        ("granite", json!({"embedding_multiplier": 12.0, "attention_multiplier": 0.015_625,
            "residual_multiplier": 0.22, "logits_scaling": 8.0, "attention_bias": true})),
    ]
    .iter()
    .map(|(model_type, keys)| config(model_type, keys))
    .collect()
}

#[test]
fn every_family_comes_back() {
    let configs = expressible();
    for family in family::ALL {
        assert!(
            configs.iter().any(|config| config.family == family),
            "{family:?}"
        );
    }
    for config in configs {
        let metadata = metadata(&config, "x", GgmlType::F32).unwrap();
        let file = file(&metadata, plan(&config, GgmlType::F32));
        assert_eq!(read(&file).unwrap(), config);
        let gguf = Gguf::parse(file).unwrap();
        let found = tensors(&gguf, &config).unwrap();
        assert_eq!(
            found.len(),
            layout::tensors(&config).len(),
            "{:?}",
            config.family
        );
    }
}

/// From llama.cpp's `gguf-py/gguf/tensor_mapping.py`: `get_tensor_name_map` of each architecture.
#[test]
fn names_are_those_of_llama_cpp() {
    let usual = "embed_tokens token_embd, norm output_norm, lm_head output, input_layernorm attn_norm, q_proj attn_q, \
                 k_proj attn_k, v_proj attn_v, o_proj attn_output, post_attention_layernorm ffn_norm, gate_proj ffn_gate, \
                 up_proj ffn_up, down_proj ffn_down";
    let gemma2 = ", post_attention_layernorm post_attention_norm, pre_feedforward_layernorm ffn_norm, \
                  post_feedforward_layernorm post_ffw_norm";
    let norms = ", q_norm attn_q_norm, k_norm attn_k_norm";
    let phi3 = ", qkv_proj attn_qkv, gate_up_proj ffn_up";
    for (model_type, more) in [
        ("llama", String::new()),
        ("mistral", String::new()),
        ("qwen2", String::new()),
        ("qwen3", norms.to_owned()),
        ("smollm3", String::new()),
        ("phi3", phi3.to_owned()),
        ("gemma", String::new()),
        ("gemma2", gemma2.to_owned()),
        ("gemma3_text", format!("{gemma2}{norms}")),
        ("olmo2", format!("{gemma2}{norms}")),
        ("granite", String::new()),
    ] {
        let names = format!("{usual}{more}");
        let pairs = names.split(", ").filter_map(|pair| pair.split_once(' '));
        let expected: BTreeMap<&str, &str> = pairs.collect();
        let family = family::Family::of_model_type(model_type).unwrap();
        for module in family.modules() {
            let name = module.last_part();
            assert_eq!(
                Some(&module.gguf.name),
                expected.get(name),
                "{model_type}: {name}"
            );
        }
    }
}

/// From llama.cpp's `llama_model_rope_type`, and `permute` of its converter.
#[test]
fn pairs_are_those_of_llama_cpp() {
    for family in family::ALL {
        let paired = family.modules().filter(|module| module.gguf.pairs).count();
        let expected = matches!(
            family.model_type,
            "llama" | "mistral" | "granite" | "smollm3"
        );
        assert_eq!(paired, if expected { 2 } else { 0 }, "{family:?}");
    }
}

/// The keys of an architecture besides sizes, as llama.cpp's converter writes them.
#[test]
fn keys_are_those_of_llama_cpp() {
    let shown = |config: &ModelConfig| {
        let metadata = metadata(config, "x", GgmlType::F32).unwrap();
        let usual = [
            "block_count",
            "context_length",
            "embedding_length",
            "feed_forward_length",
            "attention.head_count",
            "attention.head_count_kv",
            "attention.key_length",
            "attention.value_length",
            "attention.layer_norm_rms_epsilon",
            "rope.freq_base",
            "vocab_size",
        ];
        let keys = metadata.iter().filter(|(key, _)| {
            let (first, rest) = key.split_once('.').unwrap();
            first != "general" && !usual.contains(&rest)
        });
        let lines: Vec<String> = keys
            .map(|(key, value)| format!("{key} = {value}"))
            .collect();
        lines.join("\n")
    };
    let text: Vec<String> = expressible().iter().map(shown).collect();
    insta::assert_snapshot!(text.join("\n--\n"));
}

#[test]
fn a_model_that_llama_cpp_would_change_is_refused() {
    let message = |model_type, keys: Json| {
        let error = metadata(&config(model_type, &keys), "x", GgmlType::F32).unwrap_err();
        assert!(matches!(error, GgufError::Inexpressible { .. }), "{error}");
        error.to_string()
    };
    let yarn = json!({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "beta_fast": 16});
    let sixth = |n: usize| {
        let kind = |layer: usize| {
            if layer % 6 == n {
                "full_attention"
            } else {
                "sliding_attention"
            }
        };
        (0..8).map(kind).collect::<Vec<_>>()
    };
    let messages = [
        message("qwen2", json!({"head_dim": 16})),
        message("qwen3", json!({"attention_bias": true})),
        message("olmo2", json!({"attention_bias": true})),
        message("smollm3", json!({"mlp_bias": true})),
        message(
            "gemma2",
            json!({"head_dim": 16, "query_pre_attn_scalar": 16, "tie_word_embeddings": false}),
        ),
        message(
            "gemma2",
            json!({"head_dim": 16, "query_pre_attn_scalar": 8}),
        ),
        message(
            "gemma2",
            json!({"head_dim": 16, "query_pre_attn_scalar": 16, "attn_logit_softcapping": null}),
        ),
        message(
            "gemma3_text",
            json!({"head_dim": 16, "query_pre_attn_scalar": 16, "layer_types": sixth(2)}),
        ),
        message("smollm3", json!({"no_rope_layer_interval": 3})),
        message("llama", json!({"rope_parameters": yarn})),
        message(
            "llama",
            json!({"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}}),
        ),
        message(
            "qwen3",
            json!({"rope_parameters": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}}),
        ),
    ];
    insta::assert_snapshot!(messages.join("\n"), @"
    `head_dim` is 16, not hidden_size / num_attention_heads (8): the qwen2 architecture of llama.cpp does not support this
    `attention_bias` is true, with `model.layers.0.self_attn.o_proj.bias`: the qwen3 architecture of llama.cpp does not support this
    `attention_bias` is true, with `model.layers.0.self_attn.q_proj.bias`: the olmo2 architecture of llama.cpp does not support this
    `mlp_bias` is true, with `model.layers.0.mlp.gate_proj.bias`: the smollm3 architecture of llama.cpp does not support this
    `tie_word_embeddings` is false: the gemma2 architecture of llama.cpp does not support this
    `query_pre_attn_scalar` is 8, not 16, as llama.cpp assumes: the gemma2 architecture of llama.cpp does not support this
    `attn_logit_softcapping` is null: the gemma2 architecture of llama.cpp does not support this
    `layer_types` does not have full attention in every n-th layer alone: the gemma3 architecture of llama.cpp does not support this
    `no_rope_layers` does not have 0 for every 4th layer, and 1 for the others: the smollm3 architecture of llama.cpp does not support this
    `rope_scaling` is yarn with other values than `beta_fast` 32, `beta_slow` 1 and `truncate` true: the llama architecture of llama.cpp does not support this
    `rope_scaling` is dynamic: the llama architecture of llama.cpp does not support this
    `rope_scaling` is llama3: the qwen3 architecture of llama.cpp does not support this
    ");
}

#[test]
fn ignored_windows_are_reported() {
    let notes = |model_type, keys| super::notes(&config(model_type, &keys)).join("\n");
    insta::assert_snapshot!(notes("mistral", json!({"sliding_window": 32})), @"
    llama.cpp ignores the window of mistral models: beyond `sliding_window` (32 tokens) of a context of up to `max_position_embeddings` (64), its answers differ from those of this model
    hint: use llama.cpp with a context of at most 32 tokens (-c 32)
    ");
    let every_third: Vec<&str> = (1..=8)
        .map(|layer| {
            if layer % 3 == 0 {
                "full_attention"
            } else {
                "sliding_attention"
            }
        })
        .collect();
    let gemma2 = json!({"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 8,
        "layer_types": every_third});
    insta::assert_snapshot!(notes("gemma2", gemma2), @"all layers have a window except every n-th, and n is 3: versions of llama.cpp that do not read `gemma2.attention.sliding_window_pattern` assume 2, and answer something else");
    // within the window nothing differs
    assert_eq!(notes("mistral", json!({"sliding_window": 64})), "");
    assert_eq!(
        notes(
            "qwen2",
            json!({"use_sliding_window": false, "sliding_window": 8})
        ),
        ""
    );
    assert_eq!(notes("gemma2", json!({"sliding_window": 8})), "");
}

/// Files of llama.cpp's converter lack some keys.
#[test]
fn files_of_the_converter_are_read() {
    let without = |config: &ModelConfig, keys: &[&str]| {
        let all = metadata(config, "x", GgmlType::F32).unwrap();
        let mut metadata = Metadata::new();
        for (key, value) in all
            .iter()
            .filter(|(key, _)| !keys.iter().any(|end| key.ends_with(end)))
        {
            metadata.set(key, value.clone());
        }
        read(&file(&metadata, plan(config, GgmlType::F32))).unwrap()
    };
    // Mistral's files do not differ from LLaMA's
    let mistral = without(
        &config("mistral", &json!({"sliding_window": 32})),
        &["sliding_window"],
    );
    assert_eq!(mistral.family.model_type, "llama");
    let gemma = config("gemma", &json!({"head_dim": 16}));
    let keys = ["freq_base", "vocab_size", "dimension_count"];
    assert_eq!(without(&gemma, &keys), gemma);
    let gemma3 = json!({"head_dim": 16, "query_pre_attn_scalar": 16, "layer_types": vec!["full_attention"; 8]});
    let gemma3 = config("gemma3_text", &gemma3);
    assert_eq!(without(&gemma3, &["freq_base_swa"]), gemma3);
}

#[test]
fn olmo3_is_not_read_as_olmo2() {
    let config = config("olmo2", &json!({}));
    let mut metadata = metadata(&config, "x", GgmlType::F32).unwrap();
    metadata.set("olmo2.attention.sliding_window", Value::U32(4096));
    let error = read(&file(&metadata, plan(&config, GgmlType::F32))).unwrap_err();
    insta::assert_snapshot!(error, @"`olmo2.attention.sliding_window`: expected none in this family, found 4096");
}

#[test]
fn a_tied_head_of_olmo2_is_a_copy() {
    let tied = config("olmo2", &json!({"tie_word_embeddings": true}));
    let plan = plan(&tied, GgmlType::F32);
    let sources = |name: &str| {
        let tensor = plan.iter().find(|tensor| tensor.spec.name == name).unwrap();
        (tensor.spec.shape.clone(), tensor.source.clone())
    };
    assert_eq!(sources("output.weight"), sources("token_embd.weight"));
    let metadata = metadata(&tied, "x", GgmlType::F32).unwrap();
    assert_eq!(read(&file(&metadata, plan.clone())).unwrap(), tied);
}
