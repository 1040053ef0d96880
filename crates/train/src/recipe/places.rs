//! The tables in which a recipe has a key, from its JSON schema.

use super::Recipe;

/// The tables of a recipe, by the names of their types.
const TABLES: &[(&str, &str)] = &[
    ("BaseConfig", "base"),
    ("ModelConfig", "base.init"),
    ("LoraConfig", "method.lora"),
    ("Ia3Config", "method.ia3"),
    ("AdaptionPromptConfig", "method.adaption_prompt"),
    ("FullConfig", "method.full"),
    ("DataConfig", "data"),
    ("LintConfig", "data.lint"),
    ("SourceConfig", "data.train.N"),
    ("TrainConfig", "train"),
    ("AdamWConfig", "train.optimizer.adamw"),
    ("Cosine", "train.schedule.cosine"),
    ("Guard", "train.guard"),
    ("Spike", "train.guard.spike"),
    ("EarlyStop", "train.early_stop"),
    ("SampleConfig", "samples"),
];

/// Where a recipe has this key: its dotted path, of which `N` stands for any index.
pub(super) fn place_of(key: &str) -> Option<String> {
    let schema = Recipe::schema();
    if schema["properties"].get(key).is_some() {
        return Some(key.to_owned());
    }
    let has = |kind: &str| schema["$defs"][kind]["properties"].get(key).is_some();
    let (_, table) = TABLES.iter().find(|(kind, _)| has(kind))?;
    Some(format!("{table}.{key}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_their_tables() {
        let at = |key| place_of(key).unwrap_or_default();
        assert_eq!(at("device"), "device");
        assert_eq!(at("seed"), "train.seed");
        assert_eq!(at("rank"), "method.lora.rank");
        assert_eq!(at("template"), "data.train.N.template");
        assert_eq!(at("weight_decay"), "train.optimizer.adamw.weight_decay");
        assert_eq!(at("prompts"), "samples.prompts");
        assert_eq!(place_of("nowhere"), None);
        let schema = Recipe::schema();
        for (kind, table) in TABLES {
            let found = &schema["$defs"][kind]["properties"];
            assert!(found.is_object(), "{table}: no type {kind}");
        }
    }
}
