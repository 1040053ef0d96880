//! Choices that a recipe writes as a name alone, or as a table of one name and its settings: `"cosine"`, or
//! `{ cosine = { warmup_ratio = 0.03 } }`.

use std::fmt;
use std::marker::PhantomData;

use schemars::{Schema, json_schema};
use serde::Deserializer;
use serde::de::value::StrDeserializer;
use serde::de::{DeserializeOwned, Error, MapAccess, Visitor};
use serde_json::json;

/// A choice that may have settings.
pub(crate) trait Named: Sized {
    /// The names.
    type Name: DeserializeOwned;

    /// What is chosen, with its article: `a schedule`.
    const WHAT: &'static str;

    /// A table with settings.
    const EXAMPLE: &'static str;

    /// The choice of this name, with the default settings.
    fn with_defaults(name: Self::Name) -> Self;

    /// The choice of this name, with the settings that are the next value of `table`.
    fn with_settings<'de, A: MapAccess<'de>>(
        name: Self::Name,
        table: &mut A,
    ) -> Result<Self, A::Error>;
}

/// Reads a name alone, or a table of one name and its settings.
pub(crate) fn deserialize<'de, T: Named, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    deserializer.deserialize_any(NameOrTable(PhantomData))
}

/// The schema of names and the schemas of their settings.
pub(crate) fn schema(choices: &[(&str, Schema)]) -> Schema {
    let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
    let tables = choices.iter().map(|(name, settings)| {
        json!({
            "type": "object",
            "properties": { *name: settings },
            "required": [name],
            "additionalProperties": false
        })
    });
    let any: Vec<_> = std::iter::once(json!({ "enum": names }))
        .chain(tables)
        .collect();
    json_schema!({ "anyOf": any })
}

struct NameOrTable<T>(PhantomData<T>);

impl<'de, T: Named> Visitor<'de> for NameOrTable<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, example) = (T::WHAT, T::EXAMPLE);
        write!(f, "the name of {what}, or a table such as {example}")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<T, E> {
        serde::Deserialize::deserialize(StrDeserializer::new(name)).map(T::with_defaults)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut table: A) -> Result<T, A::Error> {
        let Some(name) = table.next_key()? else {
            let what = T::WHAT;
            let wrong = format!("expected the name of {what}, found an empty table");
            return Err(A::Error::custom(wrong));
        };
        let chosen = T::with_settings(name, &mut table)?;
        match table.next_key::<T::Name>()? {
            None => Ok(chosen),
            Some(_) => Err(A::Error::custom("expected one name, found several")),
        }
    }
}
