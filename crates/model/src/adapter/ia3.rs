//! The recipe's `[method.ia3]` table, and which modules an adapter of (IA)³ changes in their input.

use serde::{Deserialize, Serialize};

use super::AdapterError;
use super::config::AdapterConfig;
use super::continued::Continued;
use super::kind::{IA3, IA3_OF_INPUT, Kind};
use super::rules::{Matcher, is_end};
use super::settings::{as_setting, check_targets};
use super::table::AdapterTable;
use super::targets::{Selected, Selection, SelectionError, Targets};

/// The recipe's `[method.ia3]` table: (IA)³, a trained factor for each feature that a module reads or computes. It has no
/// rank, no scale and no dropout.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[derive(schemars::JsonSchema)]
pub struct Ia3Config {
    /// The modules with factors: a list of names, one regular expression, or `"all-linear"` (PEFT: `target_modules`).
    pub targets: Targets,
    /// The targets whose input is multiplied, in place of their output: a list of names or one regular expression.
    pub feedforward_modules: Targets,
    /// Modules excluded from `targets`: a list of names or one regular expression. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exclude_modules: Option<Targets>,
    /// Modules that are trained whole and saved with the adapter. Default: none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub modules_to_save: Vec<String>,
    /// The adapter to continue training: a folder, or a name on the hub. It sets every key above; no other key may be set
    /// with it. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Continued>,
}

impl Default for Ia3Config {
    fn default() -> Self {
        let names =
            |names: &[&str]| Targets::Names(names.iter().map(|name| (*name).to_owned()).collect());
        Self {
            targets: names(&["k_proj", "v_proj", "down_proj"]),
            feedforward_modules: names(&["down_proj"]),
            exclude_modules: None,
            modules_to_save: Vec::new(),
            from: None,
        }
    }
}

impl AdapterTable for Ia3Config {
    fn kind(&self) -> &'static Kind {
        &IA3
    }

    fn to_peft(&self, base_name: &str) -> AdapterConfig {
        AdapterConfig {
            kind: self.kind(),
            base_model_name_or_path: Some(base_name.to_owned()),
            task_type: Some("CAUSAL_LM".to_owned()),
            target_modules: Some(self.targets.clone()),
            feedforward_modules: Some(self.feedforward_modules.clone()),
            exclude_modules: self.exclude_modules.clone(),
            modules_to_save: Some(self.modules_to_save.clone()).filter(|list| !list.is_empty()),
            ..AdapterConfig::default()
        }
    }

    fn check(&self) -> Result<(), AdapterError> {
        let table = self.kind().peft.table;
        if let Some(from) = &self.from {
            let alone = Self {
                from: Some(from.clone()),
                ..Self::default()
            };
            return from.check_alone(table, self, &alone, &[]);
        }
        if let (Targets::Names(targets), Targets::Names(inputs)) =
            (&self.targets, &self.feedforward_modules)
            && let Some(name) = inputs.iter().find(|name| !targets.contains(name))
        {
            let key = "feedforward_modules";
            let why = format!("`{name}` is not in `targets`; add it there, or remove it here");
            return Err(as_setting(table, AdapterError::Conflict { key, why }));
        }
        check_targets(table, self.to_peft(""))
    }

    fn continued(&self) -> Option<&Continued> {
        self.from.as_ref()
    }

    fn continued_mut(&mut self) -> Option<&mut Continued> {
        self.from.as_mut()
    }

    /// PEFT loads only a configuration whose `feedforward_modules` are among its `target_modules`, if both are lists.
    fn complete(
        &self,
        mut config: AdapterConfig,
        selection: &Selection,
    ) -> Result<AdapterConfig, SelectionError> {
        let (Some(Targets::Names(targets)), Some(Targets::Names(inputs))) =
            (&config.target_modules, &config.feedforward_modules)
        else {
            return Ok(config);
        };
        if inputs.iter().all(|name| targets.contains(name)) {
            return Ok(config);
        }
        let of_input = |module: &&Selected| std::ptr::eq(module.adapter, &raw const IA3_OF_INPUT);
        let of_input: Vec<&Selected> = selection.adapted.iter().filter(of_input).collect();
        let names = targets.iter().filter(|target| {
            let mut modules = of_input.iter();
            modules.any(|module| is_end(&module.name, target))
        });
        config.feedforward_modules = Some(Targets::Names(names.cloned().collect()));
        Ok(config)
    }
}

impl AdapterConfig {
    /// The kind of a target module.
    ///
    /// Source: PEFT 0.21 `ia3/model.py`, `_check_target_module_feedforward`, which compares ends of paths without regard to
    /// dots.
    pub(super) fn kind_of(&self, module: &str) -> Result<&'static Kind, SelectionError> {
        let (Some(of_input), Some(inputs)) = (self.kind.of_input, &self.feedforward_modules) else {
            return Ok(self.kind);
        };
        let is_input = match inputs {
            Targets::Names(names) => names.iter().any(|name| module.ends_with(name.as_str())),
            Targets::Regex(_) => {
                let key = "feedforward_modules";
                Matcher::new(key, inputs)?.matches(key, module)?
            }
        };
        Ok(if is_input { of_input } else { self.kind })
    }
}

#[cfg(test)]
mod tests {
    use simmer_checkpoint::{layout, sizes};

    use super::*;
    use crate::adapter::selection;

    fn names(names: &[&str]) -> Targets {
        Targets::Names(names.iter().map(|name| (*name).to_owned()).collect())
    }

    #[test]
    fn peft_counts_the_same_parameters_on_7b() {
        let model = sizes::named("llama-7b").unwrap();
        let selection = selection(&Ia3Config::default(), &model).unwrap();
        let shapes = crate::adapter::peft::tensor_shapes(&selection);
        let parameters: usize = shapes.values().map(|of| of.iter().product::<usize>()).sum();
        // 32 layers with 4096 factors for keys, 4096 for values, 11008 for the gated features
        assert_eq!(parameters, 614_400);
        assert_eq!(
            shapes["base_model.model.model.layers.31.mlp.down_proj.ia3_l"],
            [1, 11008]
        );
        assert_eq!(
            shapes["base_model.model.model.layers.0.self_attn.k_proj.ia3_l"],
            [4096, 1]
        );
    }

    #[test]
    fn settings_that_cannot_be_used_are_refused_with_what_to_write() {
        let said = |config: Ia3Config| config.check().unwrap_err().to_string();
        let default = Ia3Config::default;
        default().check().unwrap();
        let all = Targets::Regex("all-linear".to_owned());
        Ia3Config {
            targets: all,
            ..default()
        }
        .check()
        .unwrap();
        let of = |targets: &[&str], inputs: &[&str]| {
            said(Ia3Config {
                targets: names(targets),
                feedforward_modules: names(inputs),
                ..default()
            })
        };
        insta::assert_snapshot!(of(&["k_proj", "v_proj"], &["down_proj"]), @"[method.ia3] `feedforward_modules`: `down_proj` is not in `targets`; add it there, or remove it here");
        insta::assert_snapshot!(of(&["embed_tokens"], &[]), @"[method.ia3] `targets`: (IA)³ of an embedding (`model.embed_tokens`) is not supported; leave it out of the targets");
        insta::assert_snapshot!(of(&["k_porj"], &[]), @r#"[method.ia3] `targets`: ["k_porj"] matches no module; the model's modules end in embed_tokens, q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj, lm_head; did you mean `k_proj`?"#);
        let from = Ia3Config {
            from: Some("a".into()),
            targets: names(&["k_proj"]),
            ..default()
        };
        insta::assert_snapshot!(said(from), @"[method.ia3] `from`: cannot be combined with other keys; remove `targets`");
    }

    #[test]
    fn peft_finds_the_inputs_among_the_targets() {
        let mut model = sizes::named("llama-7b").unwrap();
        model.num_hidden_layers = 1;
        let all = Targets::Regex("all-linear".to_owned());
        let table = Ia3Config {
            targets: all,
            ..Ia3Config::default()
        };
        let selection = selection(&table, &model).unwrap();
        let config = AdapterConfig {
            target_modules: Some(selection.target_modules.clone()),
            ..table.to_peft("base")
        };
        let config = table.complete(config, &selection).unwrap();
        let inputs = Some(names(&["model.layers.0.mlp.down_proj"]));
        assert_eq!(config.feedforward_modules, inputs);
        for module in layout::modules(&model) {
            let kind = config.kind_of(&module.name).unwrap();
            let is_input = module.name.ends_with("down_proj");
            assert_eq!(std::ptr::eq(kind, &raw const IA3_OF_INPUT), is_input);
        }
    }
}
