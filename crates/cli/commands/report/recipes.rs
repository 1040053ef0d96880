//! Differences between recipes.

use toml::{Table, Value};

/// A key, and its value in each recipe.
pub(super) type Row = (String, Vec<Option<String>>);

/// The keys whose values differ between the recipes, sorted.
///
/// # Errors
/// The index of a recipe that is not TOML, and the reason.
pub(super) fn differences(recipes: &[&str]) -> Result<Vec<Row>, (usize, toml::de::Error)> {
    let mut rows: Vec<Row> = Vec::new();
    for (place, text) in recipes.iter().enumerate() {
        let table: Table = text.parse().map_err(|error| (place, error))?;
        let mut found = Vec::new();
        flatten("", &Value::Table(table), &mut found);
        for (key, value) in found {
            let row = rows.iter().position(|(known, _)| *known == key);
            let row = row.unwrap_or_else(|| {
                rows.push((key, vec![None; recipes.len()]));
                rows.len() - 1
            });
            rows[row].1[place] = Some(value);
        }
    }
    rows.retain(|(_, values)| values.iter().any(|value| *value != values[0]));
    rows.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(rows)
}

/// Flattens tables and lists of tables to dotted keys; other lists are one value.
fn flatten(key: &str, value: &Value, into: &mut Vec<(String, String)>) {
    let below = |name: &str| {
        if key.is_empty() {
            name.to_owned()
        } else {
            format!("{key}.{name}")
        }
    };
    match value {
        Value::Table(table) if !table.is_empty() => {
            for (name, value) in table {
                flatten(&below(name), value, into);
            }
        }
        Value::Array(array) if array.iter().any(Value::is_table) => {
            for (place, value) in array.iter().enumerate() {
                flatten(&below(&place.to_string()), value, into);
            }
        }
        value => into.push((key.to_owned(), value.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_differ_have_rows() {
        let recipes = [
            "seed = 1\n[method.lora]\nrank = 8\ntargets = ['q']\n[[data.train]]\npath = 'a'\n",
            "seed = 1\n[method.lora]\nrank = 16\ntargets = ['q', 'v']\n[[data.train]]\npath = 'a'\n[[data.train]]\npath = 'b'\n",
            "seed = 1\n[method.full]\n[[data.train]]\npath = 'a'\n",
        ];
        let rows = differences(&recipes).unwrap();
        let line = |(key, values): &Row| {
            let values = values.iter().map(|value| value.as_deref().unwrap_or("-"));
            format!("{key}: {}", values.collect::<Vec<_>>().join(" | "))
        };
        let lines: Vec<String> = rows.iter().map(line).collect();
        insta::assert_snapshot!(lines.join("\n"), @r#"
        data.train.1.path: - | "b" | -
        method.full: - | - | {}
        method.lora.rank: 8 | 16 | -
        method.lora.targets: ["q"] | ["q", "v"] | -
        "#);
        assert_eq!(differences(&recipes[..1]).unwrap(), []);
        assert_eq!(differences(&["a = 1", "a ="]).unwrap_err().0, 1);
    }
}
