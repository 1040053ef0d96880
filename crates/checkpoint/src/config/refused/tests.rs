use std::collections::BTreeSet;

use serde_json::json;

use super::*;
use crate::family::{self, Family};

#[test]
fn no_name_is_read_and_refused_or_occurs_twice() {
    let mut names = BTreeSet::new();
    for (name, nearest) in GROUPS.iter().flat_map(|group| group.models) {
        assert!(names.insert(plain(name)), "{name}");
        assert_eq!(Family::of_model_type(name), None);
        let class = format!("{}ForCausalLM", plain(name));
        assert!(of_class(&class).is_some(), "{class}");
        // a model that is proposed belongs to a family that is read
        let families = nearest.split('`').skip(1).step_by(2);
        for family in families.filter(|_| *nearest != GEMMA3_TEXT) {
            assert!(Family::of_model_type(family).is_some(), "{nearest}");
        }
    }
    for family in family::ALL {
        assert_eq!(of_model_type(family.model_type), None);
    }
}

#[test]
fn classes_name_their_models() {
    for (class, model) in [
        ("Qwen3MoeForCausalLM", "qwen3_moe"),
        ("GPT2LMHeadModel", "gpt2"),
        ("GPTNeoXForCausalLM", "gpt_neox"),
        ("RWForCausalLM", "falcon"),
        ("Gemma3ForConditionalGeneration", "gemma3"),
        ("T5ForConditionalGeneration", "t5"),
        ("Mistral3ForConditionalGeneration", "mistral3"),
    ] {
        assert_eq!(of_class(class), of_model_type(model), "{class}");
        assert!(of_class(class).is_some(), "{class}");
    }
    assert_eq!(of_class("LLaMAForCausalLM"), None);
    assert_eq!(of_class("Model"), None);
}

/// The tables of published models.
#[test]
fn quantised_weights_are_named_in_plain_words() {
    let named = |table: Value| quantised(&json!({"quantization_config": table}));
    for (table, words) in [
        (json!({"quant_method": "gptq", "bits": 4}), "GPTQ"),
        (json!({"quant_method": "awq", "bits": 4}), "AWQ"),
        (
            json!({"quant_method": "bitsandbytes", "load_in_4bit": true, "bnb_4bit_quant_type": "nf4"}),
            "bitsandbytes (4-bit, nf4)",
        ),
        (
            json!({"quant_method": "bitsandbytes", "load_in_8bit": true, "load_in_4bit": false}),
            "bitsandbytes (8-bit",
        ),
        (
            json!({"quant_method": "fp8", "activation_scheme": "dynamic"}),
            "fp8",
        ),
        (
            json!({"quant_method": "compressed-tensors"}),
            "compressed-tensors",
        ),
        (json!({"quant_method": "mxfp4"}), "mxfp4"),
        (json!({"group_size": 64, "bits": 4}), "MLX"),
        (json!({"quant_method": "new"}), "an unknown method"),
    ] {
        let (_, found) = named(table.clone()).unwrap();
        assert!(found.starts_with(words), "{table}: {found}");
    }
    let off = json!({"quant_method": "bitsandbytes", "load_in_4bit": false, "load_in_8bit": false});
    assert_eq!(named(off), None);
    assert_eq!(named(Value::Null), None);
    assert_eq!(original("Qwen3-8B-AWQ"), Some("Qwen3-8B"));
    assert_eq!(
        original("Llama-3.2-1B-Instruct-unsloth-bnb-4bit"),
        Some("Llama-3.2-1B-Instruct")
    );
    assert_eq!(
        original("Qwen2.5-7B-Instruct-GPTQ-Int4"),
        Some("Qwen2.5-7B-Instruct")
    );
    assert_eq!(original("awq"), None);
}

#[test]
fn published_presets_are_named() {
    // names that the presets of mlc-llm and the causal models of transformers 5.23 have
    for (name, is) in [
        ("rwkv5", "a state-space model"),
        ("xlstm", "a state-space model"),
        ("ernie", "an encoder, which"),
        ("xlm-roberta-xl", "an encoder, which"),
        ("trocr", "an encoder with a decoder"),
        ("nanochat", "a decoder of another"),
        ("openai-gpt", "a decoder of another"),
    ] {
        let refused = of_model_type(name).unwrap();
        assert!(refused.is.starts_with(is), "{name} is {}", refused.is);
    }
}
