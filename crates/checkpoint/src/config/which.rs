//! Which family a configuration belongs to, and why it belongs to none.

use std::path::Path;

use serde_json::Value;

use super::refused::{self, Refused};
use super::{ConfigError, Keys};
use crate::family::{self, Family, LLAMA};
use crate::nearest;
use crate::quantised::{Method, NotRead};

/// The subject of an error whose key says nothing that can be quoted.
const MODEL: &str = "the model";

impl Keys<'_> {
    /// The family of the model. Without `model_type`, that of its class; LLaMA without both, as in early conversions.
    ///
    /// # Errors
    /// If simmer does not read the model: what it is, and what comes nearest.
    pub(super) fn family(&self) -> Result<&'static Family, ConfigError> {
        let family = self.named_family()?;
        self.check_class(family)?;
        if let Err(NotRead { key, name }) = Method::of(self.json) {
            let is = format!(
                "quantised with {name}; of quantised weights simmer reads those of bitsandbytes, fp8 and GGUF"
            );
            return Err(self.refused(key, MODEL.to_owned(), is, unquantised(self.path)));
        }
        if let Some(key) = refused::experts(self.json) {
            let found = self.get(key).map_or_else(String::new, Value::to_string);
            let expected = format!("none (`{}` has no experts)", family.model_type);
            return Err(self.key_error(key, expected, found));
        }
        if self.flag("use_bidirectional_attention")? {
            let is = "an embedding model, which also sees the tokens after a position";
            let instead = "simmer trains models that generate text".to_owned();
            let key = "use_bidirectional_attention";
            return Err(self.refused(key, MODEL.to_owned(), is.to_owned(), instead));
        }
        self.check_activation(family)?;
        Ok(family)
    }

    fn named_family(&self) -> Result<&'static Family, ConfigError> {
        let Some(found) = self.get("model_type") else {
            let of_class = |family: &&Family| Some(family.class) == self.class();
            return Ok(family::ALL.into_iter().find(of_class).unwrap_or(&LLAMA));
        };
        let Some(name) = found.as_str() else {
            return Err(self.error("model_type", "the name of a family", Some(found)));
        };
        if let Some(family) = Family::of_model_type(name) {
            return Ok(family);
        }
        let refused = refused::of_model_type(name).or_else(|| refused::by_keys(self.json));
        if let Some(Refused { is, instead }) = refused {
            let found = format!("`{name}`");
            return Err(self.refused("model_type", found, is.to_owned(), instead));
        }
        let names = || family::ALL.into_iter().map(|family| family.model_type);
        let near = nearest(name, names());
        let near = near.map_or_else(String::new, |near| format!("; the nearest is {near:?}"));
        let expected = format!("{}{near}", family::quoted(names()));
        Err(self.error("model_type", &expected, Some(found)))
    }

    /// Checks that `architectures` does not name the class of another model, or one that does not generate text.
    fn check_class(&self, family: &'static Family) -> Result<(), ConfigError> {
        let Some(class) = self.class().filter(|class| *class != family.class) else {
            return Ok(());
        };
        if family::ALL.into_iter().any(|other| other.class == class) {
            let model_type = family.model_type;
            let expected = format!("{:?}, since `model_type` is {model_type:?}", family.class);
            return Err(self.error("architectures", &expected, self.get("architectures")));
        }
        let found = format!("`{class}`");
        let without_head = family.class.replace("ForCausalLM", "Model") == class;
        let headless = without_head.then_some("a model without an output head");
        if let Some(is) = headless.or_else(|| refused::task_of_class(class)) {
            let instead = format!(
                "simmer trains models that generate text: use the model that this one was made of, a `{}`",
                family.class
            );
            return Err(self.refused("architectures", found, is.to_owned(), instead));
        }
        match refused::of_class(class) {
            Some(Refused { is, instead }) => {
                Err(self.refused("architectures", found, is.to_owned(), instead))
            }
            None => Ok(()),
        }
    }

    /// The first class in `architectures`.
    fn class(&self) -> Option<&str> {
        self.get("architectures")?.as_array()?.first()?.as_str()
    }

    /// Checks what gates the features of the MLP.
    fn check_activation(&self, family: &'static Family) -> Result<(), ConfigError> {
        let key = family.activation_key;
        let Some(found) = self.get(key) else {
            return Ok(());
        };
        let names = family.gated_by.names(key);
        if names.iter().any(|name| found == name) {
            return Ok(());
        }
        Err(self.error(key, &family::quoted(names.iter().copied()), Some(found)))
    }

    fn key_error(&self, key: &str, expected: String, found: String) -> ConfigError {
        ConfigError::Key {
            path: self.path.to_owned(),
            key: key.to_owned(),
            expected,
            found,
        }
    }

    fn refused(&self, key: &str, found: String, is: String, instead: String) -> ConfigError {
        ConfigError::Refused {
            path: self.path.to_owned(),
            key: key.into(),
            found: found.into(),
            is: is.into(),
            instead: instead.into(),
        }
    }

    /// Refuses keys that change what another family computes, and would be ignored in this one.
    pub(super) fn check_foreign_keys(&self, family: &'static Family) -> Result<(), ConfigError> {
        for (key, neutral) in [
            ("partial_rotary_factor", Some(1.0)),
            ("attn_logit_softcapping", None),
            ("final_logit_softcapping", None),
            ("query_pre_attn_scalar", None),
            ("embedding_multiplier", Some(1.0)),
            ("attention_multiplier", None),
            ("residual_multiplier", Some(1.0)),
            ("logits_scaling", Some(1.0)),
            ("rope_local_base_freq", None),
            ("no_rope_layers", None),
        ] {
            // Gemma 3's files may have a cap of the scores, which transformers ignores
            let is_ignored = key == "attn_logit_softcapping" && family.soft_caps;
            let is_ours = has_key(family, key) || is_ignored;
            let found = self.get(key).filter(|_| !is_ours);
            if let Some(found) = found.filter(|found| found.as_f64() != neutral) {
                let expected = foreign(key, family);
                return Err(self.error(key, &expected, Some(found)));
            }
        }
        Ok(())
    }
}

/// Whether a key that only some families have changes what a model of this family computes.
pub(super) fn has_key(family: &Family, key: &str) -> bool {
    match key {
        "partial_rotary_factor" => family.partial_rotary,
        "rope_local_base_freq" => family.local_rotary,
        "no_rope_layers" => family.layers_without_positions,
        "attn_logit_softcapping" => family.caps_scores,
        "final_logit_softcapping" | "query_pre_attn_scalar" => family.soft_caps,
        _ => family.multipliers,
    }
}

/// What is expected of a key that other families have.
pub(super) fn foreign(key: &str, family: &Family) -> String {
    let has = |family: &&'static Family| has_key(family, key);
    let names = family::ALL.into_iter().filter(has);
    let names: Vec<_> = names
        .map(|family| format!("`{}`", family.model_type))
        .collect();
    format!(
        "none (a key of {}, but `model_type` is {:?})",
        names.join(" and "),
        family.model_type
    )
}

/// What to use instead of quantised weights: the original's name, as far as that of the copy tells.
fn unquantised(config: &Path) -> String {
    // the folder of a model, or models--ORG--NAME/snapshots/REVISION in the cache of the hub
    let names = config
        .ancestors()
        .skip(1)
        .filter_map(|folder| folder.file_name()?.to_str());
    let names = names.map(|name| name.strip_prefix("models--").unwrap_or(name));
    let mut originals = names.take(3).filter_map(refused::original);
    let original = originals.next().map(|name| name.replace("--", "/"));
    let end = original.map_or_else(String::new, |name| format!(": {name}"));
    format!(
        "use the repository that it was made from, usually named on its model card and as this one without the suffix{end}; \
         a GGUF file of it; or the original with base.precision = \"nf4\", which quantises it while it is loaded"
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use simmer_hint::Hint;

    use super::*;
    use crate::ModelConfig;

    fn said_at(path: &str, keys: &Value) -> String {
        let mut json = json!({
            "vocab_size": 32, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3,
            "num_attention_heads": 2,
        });
        for (key, value) in keys.as_object().unwrap() {
            json[key] = value.clone();
        }
        let error = ModelConfig::from_json(&json, Path::new(path)).unwrap_err();
        let hint = error.hint().map(|hint| format!("\nhint: {hint}"));
        format!("{error}{}", hint.unwrap_or_default())
    }

    fn said(keys: &Value) -> String {
        said_at("config.json", keys)
    }

    #[test]
    fn what_is_refused_says_what_it_is_and_what_comes_nearest() {
        insta::assert_snapshot!(said(&json!({"model_type": "qwen3_moe"})), @r"
        config.json: `model_type`: `qwen3_moe` is a mixture of experts; simmer reads dense models only
        hint: the nearest that simmer reads: Qwen/Qwen3-8B, Qwen/Qwen3-14B and Qwen/Qwen3-32B (`qwen3`)
        ");
        insta::assert_snapshot!(said(&json!({"model_type": "new", "vision_config": {}})), @r"
        config.json: `model_type`: `new` is a model of images and text
        hint: the nearest that simmer reads: the language model that it is built on, usually named on its model card
        ");
        insta::assert_snapshot!(said(&json!({"model_type": "mistral", "architectures": ["MixtralForCausalLM"]})), @r"
        config.json: `architectures`: `MixtralForCausalLM` is a mixture of experts; simmer reads dense models only
        hint: the nearest that simmer reads: mistralai/Mistral-7B-Instruct-v0.3 and mistralai/Mistral-Small-24B-Instruct-2501 (`mistral`)
        ");
        insta::assert_snapshot!(said(&json!({"architectures": ["GPT2LMHeadModel"]})), @r"
        config.json: `architectures`: `GPT2LMHeadModel` is a decoder of another architecture
        hint: the nearest that simmer reads: HuggingFaceTB/SmolLM2-135M (`llama`), Qwen/Qwen2.5-0.5B (`qwen2`) and Qwen/Qwen3-0.6B (`qwen3`)
        ");
        insta::assert_snapshot!(said(&json!({"model_type": "qwen2", "architectures": ["Qwen2ForSequenceClassification"]})), @r"
        config.json: `architectures`: `Qwen2ForSequenceClassification` is a classifier of texts
        hint: simmer trains models that generate text: use the model that this one was made of, a `Qwen2ForCausalLM`
        ");
        insta::assert_snapshot!(said(&json!({"model_type": "qwen2", "architectures": ["LlamaForCausalLM"]})),
            @r#"config.json: `architectures`: expected "Qwen2ForCausalLM", since `model_type` is "qwen2", found ["LlamaForCausalLM"]"#);
        insta::assert_snapshot!(said(&json!({"model_type": "gemma3_text", "use_bidirectional_attention": true})), @r"
        config.json: `use_bidirectional_attention`: the model is an embedding model, which also sees the tokens after a position
        hint: simmer trains models that generate text
        ");
        assert!(
            said(&json!({"model_type": "gemma3"}))
                .contains("text.model = whole.model.language_model")
        );
    }

    #[test]
    fn quantised_weights_name_their_original() {
        let table = json!({"quantization_config": {"quant_method": "awq", "bits": 4}});
        let cached = "hub/models--Qwen--Qwen3-8B-AWQ/snapshots/0a1b/config.json";
        insta::assert_snapshot!(said_at(cached, &table), @r#"
        hub/models--Qwen--Qwen3-8B-AWQ/snapshots/0a1b/config.json: `quantization_config`: the model is quantised with AWQ (4-bit integers); of quantised weights simmer reads those of bitsandbytes, fp8 and GGUF
        hint: use the repository that it was made from, usually named on its model card and as this one without the suffix: Qwen/Qwen3-8B; a GGUF file of it; or the original with base.precision = "nf4", which quantises it while it is loaded
        "#);
        assert!(said_at("Llama-3.2-1B-4bit/config.json", &table).contains("suffix: Llama-3.2-1B;"));
        assert!(said(&table).contains("without the suffix;"));
    }

    #[test]
    fn keys_of_another_family_are_refused() {
        insta::assert_snapshot!(said(&json!({"model_type": "qwen2", "final_logit_softcapping": 30.0})),
            @r#"config.json: `final_logit_softcapping`: expected none (a key of `gemma2` and `gemma3_text`, but `model_type` is "qwen2"), found 30.0"#);
        insta::assert_snapshot!(said(&json!({"model_type": "llama", "logits_scaling": 8.0})),
            @r#"config.json: `logits_scaling`: expected none (a key of `granite`, but `model_type` is "llama"), found 8.0"#);
        insta::assert_snapshot!(said(&json!({"num_local_experts": 8})),
            @"config.json: `num_local_experts`: expected none (`llama` has no experts), found 8");
        insta::assert_snapshot!(said(&json!({"model_type": "gemma2", "hidden_activation": "gelu"})),
            @r#"config.json: `hidden_activation`: expected "gelu_pytorch_tanh", found "gelu""#);
    }

    #[test]
    fn a_class_names_the_family_where_the_type_is_missing() {
        let json = json!({
            "architectures": ["MistralForCausalLM"], "vocab_size": 32, "hidden_size": 16,
            "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 8,
            "embedding_multiplier": 1.0, "partial_rotary_factor": 1, "final_logit_softcapping": null,
        });
        let config = ModelConfig::from_json(&json, Path::new("config.json")).unwrap();
        assert_eq!(config.family.model_type, "mistral");
        assert_eq!(config.sliding_window, Some(4096));
    }
}
