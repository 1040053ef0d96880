//! Writes a `config.json`. A file that was read keeps every key, its order and the text of its value; only what has changed
//! is written anew.

use std::fmt;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::ModelConfig;
use crate::Dtype;
use crate::numbers::torch_name;
use crate::quantised::{self, Method};

/// The spellings of the key of the dtype: that of transformers 4, and that of transformers 5.
const DTYPE: &[&str] = &["torch_dtype", "dtype"];

impl ModelConfig {
    /// The text of `config.json`: as it was read, with what has changed since, or generated if the model had none. `dtype` is
    /// that of the weights; `None` leaves the key as it is. The weights are plain ones: a configuration of quantised weights is
    /// left out.
    pub fn to_text(&self, dtype: Option<Dtype>) -> String {
        let dtype = dtype.map(|dtype| Value::from(torch_name(dtype)));
        let mut ours = self.to_json();
        let Some(file) = &self.file.0 else {
            if let Some(dtype) = dtype {
                ours["dtype"] = dtype;
            }
            return format!("{ours:#}\n");
        };
        let ours = ours.as_object().into_iter().flatten();
        let changed = ours.filter(|(key, value)| file.read.get(*key) != Some(*value));
        let mut changes: Vec<(Vec<&str>, Value)> = changed
            .map(|(key, value)| (vec![key.as_str()], value.clone()))
            .collect();
        changes.extend(dtype.map(|dtype| (DTYPE.to_vec(), dtype)));
        let removed = match file.method {
            Some(_) => &quantised::KEYS[..],
            None => &[],
        };
        file.object.with_and_without(&changes, removed)
    }

    /// The `config.json` of a model with this configuration, as transformers 5 writes it: only the keys that simmer knows.
    pub fn to_json(&self) -> Value {
        let family = self.family;
        let mut rope = Map::new();
        rope.insert("rope_theta".into(), json!(self.rope_theta));
        rope.extend(self.rope_scaling.to_json());
        if family.partial_rotary {
            let part = json!(self.partial_rotary_factor);
            rope.insert("partial_rotary_factor".into(), part);
        }
        let rope = match self.rope_local_base_freq {
            None => Value::Object(rope),
            Some(local) => json!({
                "full_attention": rope,
                "sliding_attention": {"rope_theta": local, "rope_type": "default"},
            }),
        };
        let eos = match self.eos_token_id.as_slice() {
            [] => Value::Null,
            [one] => json!(one),
            many => json!(many),
        };
        let mut json = json!({
            "architectures": [family.class],
            "attention_bias": self.attention_bias,
            "attention_dropout": 0.0,
            "bos_token_id": self.bos_token_id,
            "eos_token_id": eos,
            "head_dim": self.head_dim,
            "hidden_act": family.gated_by.name(),
            "hidden_size": self.hidden_size,
            "initializer_range": self.initializer_range,
            "intermediate_size": self.intermediate_size,
            "max_position_embeddings": self.max_position_embeddings,
            "mlp_bias": self.mlp_bias,
            "model_type": family.model_type,
            "num_attention_heads": self.num_attention_heads,
            "num_hidden_layers": self.num_hidden_layers,
            "num_key_value_heads": self.num_key_value_heads,
            "pretraining_tp": 1,
            "rms_norm_eps": self.rms_norm_eps,
            "rope_parameters": rope,
            // for transformers 4; version 5 prefers rope_parameters
            "rope_theta": self.rope_theta,
            "tie_word_embeddings": self.tie_word_embeddings,
            "use_cache": true,
            "vocab_size": self.vocab_size,
        });
        if let Some(original) = self.rope_scaling.top_level_original() {
            json["original_max_position_embeddings"] = json!(original);
        }
        if let Value::Object(json) = &mut json {
            self.write_family_keys(json);
        }
        json
    }
}

/// The `config.json` that a configuration was read from, if there was one.
///
/// Two files are always equal, so that two configurations are equal if they describe the same model.
#[derive(Clone, Default)]
pub struct ConfigFile(Option<Arc<FileContents>>);

struct FileContents {
    object: RawObject,
    /// The keys that simmer knows, with the values that it read.
    read: Value,
    /// How the weights are quantised.
    method: Option<Method>,
}

impl ConfigFile {
    /// The text of the file, the keys that were read from it, and how the weights are quantised.
    ///
    /// # Errors
    /// If the text is not a JSON object.
    pub(super) fn new(
        text: String,
        read: Value,
        method: Option<Method>,
    ) -> Result<Self, serde_json::Error> {
        let object = RawObject::parse(text)?;
        let contents = FileContents {
            object,
            read,
            method,
        };
        Ok(Self(Some(Arc::new(contents))))
    }

    /// How the weights beside the file are quantised.
    pub(crate) fn method(&self) -> Option<&Method> {
        self.0.as_ref()?.method.as_ref()
    }
}

impl PartialEq for ConfigFile {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl fmt::Debug for ConfigFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.0 {
            Some(_) => "config.json",
            None => "none",
        })
    }
}

/// A JSON object whose keys keep their order, and whose values keep their text.
#[derive(Debug)]
pub struct RawObject {
    text: String,
    entries: Vec<(String, Box<RawValue>)>,
}

impl RawObject {
    /// Reads the text of an object.
    ///
    /// # Errors
    /// If the text is not a JSON object.
    pub fn parse(text: String) -> Result<Self, serde_json::Error> {
        let Entries(entries) = serde_json::from_str(&text)?;
        Ok(Self { text, entries })
    }

    /// The text with other values of some keys. A change has all spellings of its key: those in the object are changed; if
    /// there are none, the first is added at the end. Without a change the text is the same, byte for byte.
    pub fn with_changes(&self, changes: &[(Vec<&str>, Value)]) -> String {
        self.with_and_without(changes, &[])
    }

    /// As [`Self::with_changes`], without the keys `removed`.
    fn with_and_without(&self, changes: &[(Vec<&str>, Value)], removed: &[&str]) -> String {
        let mut entries: Vec<(&str, String)> = self
            .entries
            .iter()
            .filter(|(key, _)| !removed.contains(&key.as_str()))
            .map(|(key, value)| (key.as_str(), value.get().to_owned()))
            .collect();
        let mut changed = entries.len() != self.entries.len();
        for (keys, value) in changes {
            let mut found = false;
            for (key, entry) in &mut entries {
                if keys.contains(key) {
                    found = true;
                    let is_same =
                        serde_json::from_str::<Value>(entry).is_ok_and(|old| old == *value);
                    if !is_same {
                        *entry = value.to_string();
                        changed = true;
                    }
                }
            }
            if let (false, Some(key)) = (found, keys.first()) {
                entries.push((key, value.to_string()));
                changed = true;
            }
        }
        if !changed {
            return self.text.clone();
        }
        let lines: Vec<String> = entries
            .iter()
            .map(|(key, value)| format!("  {}: {value}", Value::from(*key)))
            .collect();
        format!("{{\n{}\n}}\n", lines.join(",\n"))
    }
}

/// The keys of an object in their order, with the text of their values.
struct Entries(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EntriesVisitor;

        impl<'de> Visitor<'de> for EntriesVisitor {
            type Value = Entries;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }

        deserializer.deserialize_map(EntriesVisitor)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::family::{Family, GatedBy, LLAMA};

    /// As transformers 4 wrote it, with keys that simmer does not know, and a number in another spelling.
    const TEXT: &str = r#"{
    "_name_or_path": "somebody/model",
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 32, "hidden_size": 8, "intermediate_size": 12,
    "num_hidden_layers": 1, "num_attention_heads": 2,
    "rms_norm_eps": 1e-05,
    "eos_token_id": [2],
    "auto_map": {
        "x" : [1,2],  "y": 1.50
    },
    "torch_dtype": "float16",
    "transformers_version": "4.31.0"
}"#;

    fn read() -> ModelConfig {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("config.json"), TEXT).unwrap();
        ModelConfig::from_folder(folder.path()).unwrap()
    }

    #[test]
    fn a_file_without_a_change_keeps_every_byte() {
        assert_eq!(read().to_text(None), TEXT);
        assert_eq!(read().to_text(Some(Dtype::F16)), TEXT);
    }

    #[test]
    fn a_changed_file_keeps_every_other_key() {
        let config = ModelConfig {
            vocab_size: 34,
            tie_word_embeddings: true,
            ..read()
        };
        insta::assert_snapshot!(config.to_text(Some(Dtype::BF16)), @r#"
        {
          "_name_or_path": "somebody/model",
          "architectures": ["LlamaForCausalLM"],
          "model_type": "llama",
          "vocab_size": 34,
          "hidden_size": 8,
          "intermediate_size": 12,
          "num_hidden_layers": 1,
          "num_attention_heads": 2,
          "rms_norm_eps": 1e-05,
          "eos_token_id": [2],
          "auto_map": {
                "x" : [1,2],  "y": 1.50
            },
          "torch_dtype": "bfloat16",
          "transformers_version": "4.31.0",
          "tie_word_embeddings": true
        }
        "#);
    }

    #[test]
    fn a_generated_file_names_the_family() {
        static OTHER: Family = Family {
            model_type: "other",
            class: "OtherForCausalLM",
            gated_by: GatedBy::GeluTanh,
            ..LLAMA
        };
        let generated = ModelConfig {
            file: ConfigFile::default(),
            ..read()
        };
        let json: Value = serde_json::from_str(&generated.to_text(Some(Dtype::F32))).unwrap();
        assert_eq!(json["model_type"], "llama");
        assert_eq!(json["architectures"], json!(["LlamaForCausalLM"]));
        assert_eq!(json["dtype"], "float32");
        assert_eq!(json["eos_token_id"], 2);
        let json = ModelConfig {
            family: &OTHER,
            ..generated
        }
        .to_json();
        assert_eq!(json["model_type"], "other");
        assert_eq!(json["architectures"], json!(["OtherForCausalLM"]));
        assert_eq!(json["hidden_act"], "gelu_pytorch_tanh");
    }
}
