//! A recipe as MLflow's parameters.

use toml::{Table, Value};

/// The longest name of a parameter.
///
/// Source: MLflow 3, `mlflow/utils/validation.py`: `MAX_ENTITY_KEY_LENGTH`.
const LONGEST_NAME: usize = 250;
/// The longest value of a parameter, in characters.
///
/// Source: as above, `MAX_PARAM_VAL_LENGTH`.
const LONGEST_VALUE: usize = 6000;

/// Every key of a recipe with its value as text: `train.learning_rate`, `data.train.0.path`. A table whose keys are no names
/// for MLflow, such as `rank_pattern`, is one value. Longer values are cut; the whole recipe is among the run's files.
pub(super) fn params(recipe: &Table) -> Vec<(String, String)> {
    let mut params = Vec::new();
    flatten("", recipe, &mut params);
    for (_, value) in &mut params {
        if value.chars().count() > LONGEST_VALUE {
            *value = value
                .chars()
                .take(LONGEST_VALUE - 3)
                .chain("...".chars())
                .collect();
        }
    }
    params
}

fn flatten(below: &str, table: &Table, params: &mut Vec<(String, String)>) {
    for (key, value) in table {
        put(format!("{below}{key}"), value, params);
    }
}

fn put(name: String, value: &Value, params: &mut Vec<(String, String)>) {
    match value {
        Value::Table(table) if !table.is_empty() && has_names(&name, table) => {
            flatten(&format!("{name}."), table, params);
        }
        Value::Array(values) if values.iter().any(Value::is_table) => {
            for (place, value) in values.iter().enumerate() {
                put(format!("{name}.{place}"), value, params);
            }
        }
        Value::String(text) => params.push((name, text.clone())),
        value => params.push((name, value.to_string())),
    }
}

/// Whether MLflow accepts the names of a table's keys.
fn has_names(name: &str, table: &Table) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
    table.keys().all(|key| {
        !key.is_empty() && key.chars().all(plain) && name.len() + 1 + key.len() <= LONGEST_NAME
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_a_parameter() {
        let recipe = "device = 'cpu'\n[base]\npath = 'a'\n[method.lora]\nrank = 8\ntargets = ['q_proj', 'v_proj']\n\
            [method.lora.rank_pattern]\n'^model\\.layers\\.0' = 4\nplain = 2\n\
            [[data.train]]\npath = 'x.jsonl'\n[[data.train]]\npath = 'y.jsonl'\n[train]\nlearning_rate = 1e-3\nclip = { norm = 1.0 }";
        let found = params(&recipe.parse().unwrap());
        let found: Vec<String> = found
            .iter()
            .map(|(key, value)| format!("{key} = {value}"))
            .collect();
        insta::assert_snapshot!(found.join("\n"), @r#"
        device = cpu
        base.path = a
        method.lora.rank = 8
        method.lora.targets = ["q_proj", "v_proj"]
        method.lora.rank_pattern = { '^model\.layers\.0' = 4, plain = 2 }
        data.train.0.path = x.jsonl
        data.train.1.path = y.jsonl
        train.learning_rate = 0.001
        train.clip.norm = 1.0
        "#);
    }

    #[test]
    fn long_values_are_cut_by_characters() {
        let mut recipe = Table::new();
        recipe.insert("prompt".to_owned(), Value::String("é".repeat(7000)));
        let [(_, value)] = &params(&recipe)[..] else {
            panic!("one parameter");
        };
        assert_eq!(value.chars().count(), 6000);
        assert!(value.ends_with("é..."));
    }
}
