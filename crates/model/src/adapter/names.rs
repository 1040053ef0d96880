//! The ways in which recipes and PEFT's files name modules: a string or a list.
//!
//! Deserialised by hand, so that an error names the wrong type instead of "no variant matched".

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::marker::PhantomData;

use serde::de::value::SeqAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};

/// Modules by name, or by one regular expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Targets {
    /// Module paths, or ends of module paths after a dot.
    Names(Vec<String>),
    /// A regular expression (Python's dialect) for the whole module path, or "all-linear": every linear module
    /// except the output head.
    Regex(String),
}

impl Targets {
    pub(super) const EXPECTED: &str =
        "a list of module names, one regular expression, or \"all-linear\"";

    /// Every linear module except the output head.
    pub fn all_linear() -> Self {
        Self::Regex("all-linear".to_owned())
    }

    /// Whether the targets are "all-linear".
    pub fn is_all_linear(&self) -> bool {
        matches!(self, Self::Regex(name) if name.eq_ignore_ascii_case("all-linear"))
    }

    /// Whether there is no name, or an empty pattern.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Names(names) => names.is_empty(),
            Self::Regex(pattern) => pattern.is_empty(),
        }
    }
}

impl Display for Targets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Names(names) => write!(f, "{names:?}"),
            Self::Regex(pattern) => write!(f, "\"{pattern}\""),
        }
    }
}

impl Serialize for Targets {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Names(names) => names.serialize(serializer),
            Self::Regex(pattern) => serializer.serialize_str(pattern),
        }
    }
}

impl schemars::JsonSchema for Targets {
    fn schema_name() -> Cow<'static, str> {
        "Targets".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }]
        })
    }
}

impl<'de> Deserialize<'de> for Targets {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TargetsVisitor;

        impl<'de> Visitor<'de> for TargetsVisitor {
            type Value = Targets;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(Targets::EXPECTED)
            }

            fn visit_str<E: Error>(self, pattern: &str) -> Result<Targets, E> {
                Ok(Targets::Regex(pattern.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, names: A) -> Result<Targets, A::Error> {
                Deserialize::deserialize(SeqAccessDeserializer::new(names)).map(Targets::Names)
            }
        }

        deserializer.deserialize_any(TargetsVisitor)
    }
}

/// One name, or several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names(pub Vec<String>);

impl Names {
    pub(super) const EXPECTED: &str = "a name or a list of names";

    /// Whether there is no name; an empty string counts as none.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(String::is_empty)
    }

    /// The names.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

impl Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl Serialize for Names {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [one] => serializer.serialize_str(one),
            several => several.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NamesVisitor;

        impl<'de> Visitor<'de> for NamesVisitor {
            type Value = Names;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(Names::EXPECTED)
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<Names, E> {
                Ok(Names(vec![name.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, names: A) -> Result<Names, A::Error> {
                Deserialize::deserialize(SeqAccessDeserializer::new(names)).map(Names)
            }
        }

        deserializer.deserialize_any(NamesVisitor)
    }
}

/// One layer, or several, counted from 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layers(pub Vec<usize>);

impl Layers {
    pub(super) const EXPECTED: &str = "a layer or a list of layers, counted from 0";
}

impl Serialize for Layers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl schemars::JsonSchema for Layers {
    fn schema_name() -> Cow<'static, str> {
        "Layers".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "anyOf": [{ "type": "integer", "minimum": 0 }, { "type": "array", "items": { "type": "integer", "minimum": 0 } }]
        })
    }
}

impl<'de> Deserialize<'de> for Layers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct LayersVisitor;

        impl<'de> Visitor<'de> for LayersVisitor {
            type Value = Layers;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(Layers::EXPECTED)
            }

            fn visit_u64<E: Error>(self, layer: u64) -> Result<Layers, E> {
                Ok(Layers(vec![layer as usize]))
            }

            fn visit_i64<E: Error>(self, layer: i64) -> Result<Layers, E> {
                let layer = usize::try_from(layer).map_err(|_| {
                    E::custom(format!("expected {}, found {layer}", Layers::EXPECTED))
                })?;
                Ok(Layers(vec![layer]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, layers: A) -> Result<Layers, A::Error> {
                Deserialize::deserialize(SeqAccessDeserializer::new(layers)).map(Layers)
            }
        }

        deserializer.deserialize_any(LayersVisitor)
    }
}

/// Values for individual modules, by name or regular expression, in order: the first match applies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patterns<T>(pub Vec<(String, T)>);

impl<T> Patterns<T> {
    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The entries in order.
    pub fn iter(&self) -> impl Iterator<Item = &(String, T)> {
        self.0.iter()
    }
}

impl<T> Default for Patterns<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: schemars::JsonSchema> schemars::JsonSchema for Patterns<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("Patterns_of_{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        BTreeMap::<String, T>::json_schema(generator)
    }
}

impl<T: Serialize> Serialize for Patterns<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (pattern, value) in &self.0 {
            map.serialize_entry(pattern, value)?;
        }
        map.end()
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Patterns<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PatternsVisitor<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for PatternsVisitor<T> {
            type Value = Patterns<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table of module names and numbers")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Patterns<T>, A::Error> {
                let mut patterns = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    patterns.push(entry);
                }
                Ok(Patterns(patterns))
            }
        }

        deserializer.deserialize_map(PatternsVisitor(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn same<T: Serialize + for<'de> Deserialize<'de>>(value: &Value) -> Result<(), String> {
        let read: T = serde_json::from_value(value.clone()).map_err(|error| error.to_string())?;
        assert_eq!(serde_json::to_value(read).unwrap(), *value);
        Ok(())
    }

    #[test]
    fn strings_and_lists_keep_their_form() {
        same::<Targets>(&json!(["q_proj", "v_proj"])).unwrap();
        same::<Targets>(&json!("all-linear")).unwrap();
        same::<Names>(&json!("layers")).unwrap();
        same::<Names>(&json!(["h", "layers"])).unwrap();
        same::<Layers>(&json!([0, 3])).unwrap();
        same::<Patterns<usize>>(&json!({"z": 1, "a": 2})).unwrap();
        assert_eq!(
            serde_json::from_value::<Layers>(json!(3)).unwrap(),
            Layers(vec![3])
        );
    }

    #[test]
    fn other_types_are_refused_with_what_is_expected() {
        insta::assert_snapshot!(same::<Targets>(&json!(3)).unwrap_err(), @r#"invalid type: integer `3`, expected a list of module names, one regular expression, or "all-linear""#);
        insta::assert_snapshot!(same::<Targets>(&json!(["a", 3])).unwrap_err(), @"invalid type: integer `3`, expected a string");
        insta::assert_snapshot!(same::<Names>(&json!(true)).unwrap_err(), @"invalid type: boolean `true`, expected a name or a list of names");
        insta::assert_snapshot!(same::<Layers>(&json!("all")).unwrap_err(), @r#"invalid type: string "all", expected a layer or a list of layers, counted from 0"#);
        insta::assert_snapshot!(same::<Patterns<usize>>(&json!([1])).unwrap_err(), @"invalid type: sequence, expected a table of module names and numbers");
    }
}
