use std::collections::BTreeSet;

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

#[test]
fn the_original_of_a_quantised_copy() {
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
