//! Checks the tables of a recipe that describe an adapter, before any base model is opened.

use std::sync::OnceLock;

use simmer_checkpoint::layout::{self, ModuleLayout};
use simmer_checkpoint::{family, sizes};
use simmer_hint::Hint;

use super::AdapterError;
use super::attach::LoraConfig;
use super::config::AdapterConfig;
use super::continued::Continued;
use super::targets::{SelectionError, Targets, Unmatched, select};
use super::unmatched::linear_names;

/// More layers than any model has.
const LAYERS: usize = 256;

impl LoraConfig {
    /// Checks every setting, and that the names of modules are those of a known family. Which family the base model has, and
    /// which layers, is not known yet.
    ///
    /// # Errors
    /// [`AdapterError::Setting`] for the first key with an invalid value.
    pub fn check(&self) -> Result<(), AdapterError> {
        let table = self.kind().peft.table;
        let config = self.to_peft("");
        config.check().map_err(|error| as_setting(table, error))?;
        self.check_start()?;
        if let Some(from) = &self.from {
            return self.check_alone(from);
        }
        check_targets(table, config)
    }

    /// Checks that the start of A and B goes with the other keys.
    fn check_start(&self) -> Result<(), AdapterError> {
        let init = self.init_lora_weights;
        let wrong = |key, why: String, hint: &str| {
            Err(AdapterError::Setting {
                table: self.kind().peft.table,
                key,
                why,
                hint: Some(hint.to_owned()),
            })
        };
        if (init.is_of_weight() || init.is_of_error()) && self.use_dora {
            let why = format!("\"{init}\" cannot be combined with `use_dora`");
            return wrong("init_lora_weights", why, "remove one of the two keys");
        }
        if !self.convert_to_lora && !init.is_of_weight() {
            let why =
                "false applies only to adapters that start at factors of the weights".to_owned();
            let hint = "remove the key, or set init_lora_weights = \"pissa\"";
            return wrong("convert_to_lora", why, hint);
        }
        if !self.convert_to_lora && init.is_random() {
            let why = format!(
                "false is not possible with \"{init}\": PEFT would subtract another random start when it loads the adapter"
            );
            let hint = "use init_lora_weights = \"pissa\", or remove convert_to_lora";
            return wrong("convert_to_lora", why, hint);
        }
        Ok(())
    }

    /// Checks that `from` stands alone or with `dropout`: the adapter has all other settings.
    fn check_alone(&self, from: &Continued) -> Result<(), AdapterError> {
        let alone = Self {
            from: Some(from.clone()),
            dropout: self.dropout,
            added: self.added.clone(),
            ..Self::default()
        };
        from.check_alone(self.kind().peft.table, self, &alone, &["dropout"])
    }
}

/// Checks that a known family has the modules of a configuration.
pub(super) fn check_targets(
    table: &'static str,
    config: AdapterConfig,
) -> Result<(), AdapterError> {
    let mut problem = None;
    let mut config = config;
    let targets = config.target_modules.as_ref();
    let all_linear = targets.is_some_and(Targets::is_all_linear)
        && config.layers_to_transform.is_none()
        && config.layers_pattern.is_none();
    for modules in families() {
        if all_linear {
            // the same modules by few names: the paths of all of them are the longest to check
            config.target_modules = Some(Targets::Names(linear_names(modules)));
        }
        match select(&config, modules, Unmatched::Refuse) {
            Ok(_) => return Ok(()),
            Err(error) => problem = problem.or(Some(error)),
        }
    }
    problem.map_or(Ok(()), |error| Err(as_setting(table, error.into())))
}

/// The error of a recipe's key, in the recipe's spelling.
pub(super) fn as_setting(table: &'static str, error: AdapterError) -> AdapterError {
    let hint = error.hint();
    match error {
        AdapterError::Conflict { key, why } => AdapterError::Setting {
            table,
            key,
            why,
            hint,
        },
        AdapterError::Selection { source } => AdapterError::Setting {
            table,
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
                ..names(&["q_proj", "v_proj"])
            },
        ] {
            valid.check().unwrap();
        }
    }

    #[test]
    fn patterns_choose_among_all_linear_modules() {
        let with = |pattern: &str| LoraConfig {
            rank_pattern: Patterns(vec![(pattern.to_owned(), 3)]),
            alpha_pattern: Patterns(vec![(pattern.to_owned(), 6.0)]),
            ..LoraConfig::default()
        };
        for pattern in ["down_proj", ".*mlp.*", r"layers\.7\..*k_proj", "qkv_proj"] {
            with(pattern).check().unwrap();
        }
        let lora = with("lm_head");
        insta::assert_snapshot!(said(lora), @"
        [method.lora] `rank_pattern`: `lm_head` matches no target module
        hint: add the module to the targets, or remove the pattern
        ");
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
            ..names(&["q_proj", "v_proj"])
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
