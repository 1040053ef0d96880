//! The keys of a recipe's table, from its JSON schema.

use std::fmt::Write as _;

use serde_json::{Map, Value};
use simmer_train::Recipe;

use super::{cell, without_default};
use crate::failure::{Context, Failure, bail};

/// A row for each key of a table: name, type, default, meaning.
pub(super) fn table(table: &str) -> Result<String, Failure> {
    let schema = Recipe::schema();
    let schema = Schema(&schema);
    let mut place = schema.0;
    if table != "recipe" {
        for key in table.split('.') {
            let found = schema.below(place, key);
            place = found.with_context(|| format!("a recipe has no table `{table}`: `{key}`"))?;
        }
    }
    let object = schema.object(place);
    let object = object.with_context(|| format!("`{table}` is not a table"))?;
    let Some(Value::Object(properties)) = object.get("properties") else {
        bail!("`{table}` has no keys");
    };
    let required = object.get("required").and_then(Value::as_array);
    let mut rows = String::from("| key | type | default | meaning |\n|---|---|---|---|");
    for (name, property) in properties {
        let needed = required.is_some_and(|names| names.iter().any(|key| key == name.as_str()));
        let meaning = schema.meaning(property);
        let (meaning, said) = without_default(&meaning);
        let default = match (said, property.get("default")) {
            _ if needed => "*required*".to_owned(),
            (Some(said), _) => said,
            (None, Some(value)) => shown(value),
            (None, None) => String::new(),
        };
        let kind = schema.kind(property);
        let _ = write!(
            rows,
            "\n| `{name}` | {} | {} | {} |",
            cell(&kind),
            cell(&default),
            cell(&meaning)
        );
    }
    Ok(rows)
}

/// A default as a recipe says it.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::Array(list) if list.is_empty() => "none".to_owned(),
        Value::Object(table) if table.is_empty() => "none".to_owned(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        _ => format!("`{}`", inline(value)),
    }
}

/// A value as TOML in one line.
fn inline(value: &Value) -> String {
    match value {
        Value::Array(list) => {
            let items: Vec<String> = list.iter().map(inline).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(table) => {
            let entries = table
                .iter()
                .map(|(key, value)| format!("{key} = {}", inline(value)));
            format!("{{ {} }}", entries.collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

/// A JSON schema whose references are followed.
struct Schema<'a>(&'a Value);

impl<'a> Schema<'a> {
    /// What a value refers to, or itself.
    fn resolved(&self, value: &'a Value) -> &'a Value {
        let name = value.get("$ref").and_then(Value::as_str);
        let definition = name.and_then(|name| self.0.pointer(name.trim_start_matches('#')));
        definition.unwrap_or(value)
    }

    /// The alternatives of a value; the value itself if there is one only.
    fn alternatives(&self, value: &'a Value) -> Vec<&'a Value> {
        let value = self.resolved(value);
        let lists = ["oneOf", "anyOf"].map(|key| value.get(key).and_then(Value::as_array));
        match lists.into_iter().flatten().next() {
            Some(list) => list.iter().flat_map(|one| self.alternatives(one)).collect(),
            None => vec![value],
        }
    }

    /// The alternative that is a table with properties, or a list of such tables.
    fn object(&self, value: &'a Value) -> Option<&'a Map<String, Value>> {
        self.alternatives(value).into_iter().find_map(|one| {
            let items = one.get("items").map(|items| self.resolved(items));
            let mut holders = [Some(one), items].into_iter().flatten();
            holders.find_map(|holder| {
                holder
                    .as_object()
                    .filter(|map| map.contains_key("properties"))
            })
        })
    }

    /// The value of a key; of a list's items, if the key is in those.
    fn below(&self, value: &'a Value, key: &str) -> Option<&'a Value> {
        self.alternatives(value).into_iter().find_map(|one| {
            let items = one.get("items").map(|items| self.resolved(items));
            let mut holders = [Some(one), items].into_iter().flatten();
            holders.find_map(|holder| holder.get("properties")?.get(key))
        })
    }

    /// The type in words.
    fn kind(&self, property: &'a Value) -> String {
        let mut kinds: Vec<String> = Vec::new();
        for one in self.alternatives(property) {
            for kind in self.kinds(one) {
                if !kinds.contains(&kind) {
                    kinds.push(kind);
                }
            }
        }
        kinds.join(", ")
    }

    fn kinds(&self, value: &'a Value) -> Vec<String> {
        if let Some(list) = value.get("enum").and_then(Value::as_array) {
            let names = list.iter().filter(|name| !name.is_null());
            return names.map(|name| format!("`{name}`")).collect();
        }
        if let Some(name) = value.get("const") {
            return vec![format!("`{name}`")];
        }
        let types: Vec<&str> = match value.get("type") {
            Some(Value::String(one)) => vec![one],
            Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        let types = types.into_iter().filter(|name| *name != "null");
        types.map(|name| self.named(name, value)).collect()
    }

    fn named(&self, name: &str, value: &'a Value) -> String {
        match name {
            "integer" => "whole number".to_owned(),
            "boolean" => "true or false".to_owned(),
            "string" => "text".to_owned(),
            "array" => {
                let items = value.get("items").map(|items| self.kind(items));
                format!("list of {}", items.unwrap_or_default())
            }
            "object" => match value.get("properties").and_then(Value::as_object) {
                // a choice with settings: its name is the only key
                Some(keys) if keys.len() == 1 && value.get("required").is_some() => {
                    let keys = keys.keys().map(String::as_str);
                    format!("`{{ {} = ... }}`", keys.collect::<String>())
                }
                _ => "table".to_owned(),
            },
            other => other.to_owned(),
        }
    }

    /// The description of a property, or of its type.
    fn meaning(&self, property: &'a Value) -> String {
        let own = property.get("description");
        let text = own.or_else(|| self.resolved(property).get("description"));
        text.and_then(Value::as_str).unwrap_or_default().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_of_a_recipe_can_be_printed() {
        for name in [
            "recipe",
            "base",
            "base.init",
            "method.lora",
            "data",
            "data.train",
            "train.guard.spike",
        ] {
            assert!(table(name).unwrap().lines().count() > 3, "{name}");
        }
        assert!(table("train.nothing").is_err());
    }
}
