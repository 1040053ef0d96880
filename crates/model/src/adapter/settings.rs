//! Checks the `[method.lora]` table of a recipe, before any base model is opened.

use std::sync::OnceLock;

use simmer_checkpoint::layout::{self, ModuleLayout};
use simmer_checkpoint::{family, sizes};
use simmer_hint::Hint;

use super::AdapterError;
use super::attach::LoraConfig;
use super::targets::{SelectionError, Unmatched, select};

/// More layers than any model has.
const LAYERS: usize = 256;

impl LoraConfig {
    /// Checks every setting, and that the names of modules are those of a known family. Which family the base model has, and
    /// which layers, is not known yet.
    ///
    /// # Errors
    /// [`AdapterError::Setting`] for the first key with an invalid value.
    pub fn check(&self) -> Result<(), AdapterError> {
        let config = self.to_peft("");
        config.check().map_err(as_setting)?;
        if let Some(from) = &self.from {
            if from.as_os_str().is_empty() {
                let why = "expected a folder or a name on the hub, found an empty text";
                return Err(AdapterError::Setting {
                    key: "from",
                    why: why.to_owned(),
                    hint: None,
                });
            }
            return self.check_from_alone();
        }
        let mut config = config;
        if self.targets.is_all_linear() && self.layers_to_transform.is_none() {
            // Always possible, and the longest to check: the default targets stand for all.
            config.target_modules = None;
        }
        let mut problem = None;
        for modules in families() {
            match select(&config, modules, Unmatched::Refuse) {
                Ok(_) => return Ok(()),
                Err(error) => problem = problem.or(Some(error)),
            }
        }
        problem.map_or(Ok(()), |error| Err(as_setting(error.into())))
    }

    /// Checks that `from` stands alone or with `dropout`: the adapter has all other settings.
    pub(super) fn check_from_alone(&self) -> Result<(), AdapterError> {
        let alone = Self {
            from: self.from.clone(),
            located: self.located.clone(),
            dropout: self.dropout,
            added: self.added.clone(),
            ..Self::default()
        };
        if *self == alone {
            return Ok(());
        }
        let keys = |lora: &Self| serde_json::to_value(lora).unwrap_or_default();
        let (set, default) = (keys(self), keys(&alone));
        let set = set.as_object().into_iter().flatten();
        let others = set.filter(|(key, value)| default.get(key) != Some(*value));
        let others: Vec<String> = others.map(|(key, _)| format!("`{key}`")).collect();
        Err(AdapterError::Setting {
            key: "from",
            why: format!(
                "can be combined only with `dropout`; remove {}",
                others.join(", ")
            ),
            hint: Some("the adapter in `from` has its own values of the other keys".to_owned()),
        })
    }
}

/// The error of a recipe's key, in the recipe's spelling.
pub(super) fn as_setting(error: AdapterError) -> AdapterError {
    let hint = error.hint();
    match error {
        AdapterError::Conflict { key, why } => AdapterError::Setting { key, why, hint },
        AdapterError::Selection { source } => AdapterError::Setting {
            key: match source.key() {
                "target_modules" => "targets",
                key => key,
            },
            why: why(&source).replace("target_modules", "targets"),
            hint,
        },
        other => other,
    }
}

/// The message without its key.
fn why(error: &SelectionError) -> String {
    let text = error.to_string();
    let key = format!("{}: ", error.key());
    text.strip_prefix(&key).unwrap_or(&text).to_owned()
}

/// The modules of a model of each family.
fn families() -> &'static [Vec<ModuleLayout>] {
    static MODULES: OnceLock<Vec<Vec<ModuleLayout>>> = OnceLock::new();
    MODULES.get_or_init(|| {
        let Some(mut config) = sizes::named("llama-7b") else {
            return Vec::new();
        };
        config.num_hidden_layers = LAYERS;
        let modules = family::ALL.into_iter().map(|family| {
            config.family = family;
            layout::modules(&config)
        });
        modules.collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::targets::{Layers, Patterns, Targets};

    fn said(lora: LoraConfig) -> String {
        let error = lora.check().unwrap_err();
        match error.hint() {
            Some(hint) => format!("{error}\nhint: {hint}"),
            None => error.to_string(),
        }
    }

    fn targets(text: &str) -> LoraConfig {
        LoraConfig {
            targets: Targets::Regex(text.to_owned()),
            ..LoraConfig::default()
        }
    }

    fn names(names: &[&str]) -> LoraConfig {
        LoraConfig {
            targets: Targets::Names(names.iter().map(|name| (*name).to_owned()).collect()),
            ..LoraConfig::default()
        }
    }

    #[test]
    fn what_a_llama_has_is_taken() {
        for valid in [
            targets("all-linear"),
            targets("ALL-LINEAR"),
            targets(r".*\.(q|v)_proj"),
            targets("lm_head"),
            names(&["embed_tokens", "lm_head", "down_proj"]),
            names(&["model.layers.31.self_attn.q_proj"]),
            LoraConfig {
                layers_to_transform: Some(Layers(vec![0, 79])),
                rank_pattern: Patterns(vec![("layers.79.self_attn.v_proj".to_owned(), 3)]),
                ..LoraConfig::default()
            },
        ] {
            valid.check().unwrap();
        }
    }

    #[test]
    fn names_that_no_llama_has_are_refused_with_what_to_write() {
        insta::assert_snapshot!(said(targets("q_proj")));
        insta::assert_snapshot!(said(targets("q_proj, v_proj")));
        insta::assert_snapshot!(said(targets("q_porj|v_proj")));
        insta::assert_snapshot!(said(targets("all")));
        insta::assert_snapshot!(said(targets("all_linear")));
        insta::assert_snapshot!(said(targets(r".*\.query")));
        insta::assert_snapshot!(said(targets(".*(q_proj")));
        insta::assert_snapshot!(said(names(&["q_proj", "v_prj"])));
        insta::assert_snapshot!(said(names(&["query_key_value"])));
        insta::assert_snapshot!(said(names(&[])));
        insta::assert_snapshot!(said(names(&["norm"])));
        let both = LoraConfig {
            modules_to_save: vec!["q_proj".to_owned()],
            ..names(&["q_proj"])
        };
        insta::assert_snapshot!(said(both));
        let deep = LoraConfig {
            layers_to_transform: Some(Layers(vec![1000])),
            ..LoraConfig::default()
        };
        insta::assert_snapshot!(said(deep));
        let from = LoraConfig {
            from: Some("runs/a/adapter".into()),
            rank: 4,
            ..LoraConfig::default()
        };
        insta::assert_snapshot!(said(from));
    }
}
