//! The sources of a recipe's values: its file and the `--set` overrides.
//!
//! Positions continue from the end of the file through the overrides, so that one number tells where any key or value
//! was written.

use std::ops::Range;
use std::path::Path;

use toml::de::{DeArray, DeString, DeTable, DeValue};
use toml::{Spanned, Value};

use crate::RecipeError;

/// The text of a recipe and its overrides.
pub(super) struct Sources<'a> {
    path: &'a Path,
    text: &'a str,
    sets: Vec<Set>,
}

/// One `--set KEY=VALUE`.
pub(super) struct Set {
    /// As the user gave it.
    written: String,
    /// `KEY = VALUE` as TOML, after `start` spaces, so that its spans are positions.
    padded: String,
    /// The position of its start.
    start: usize,
    /// The key's parts.
    key: Vec<String>,
}

impl<'a> Sources<'a> {
    pub(super) fn new(
        path: &'a Path,
        text: &'a str,
        sets: &[String],
        example: &str,
    ) -> Result<Self, RecipeError> {
        let mut start = text.len() + 1;
        let mut parsed = Vec::with_capacity(sets.len());
        for written in sets {
            let set = Set::new(written, start, example)?;
            start = set.padded.len() + 1;
            parsed.push(set);
        }
        let sets = parsed;
        Ok(Self { path, text, sets })
    }

    pub(super) fn sets(&self) -> &[Set] {
        &self.sets
    }

    /// A position in words: file, line and column, or the override.
    pub(super) fn place(&self, position: usize) -> String {
        if let Some(set) = self.sets.iter().rev().find(|set| set.start <= position) {
            return set.place();
        }
        let before = &self.text[..self.text.floor_char_boundary(position)];
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or(before).chars().count() + 1;
        format!("{}: line {line}, column {column}", self.path.display())
    }

    /// The recipe's file alone, for keys that are missing from it.
    pub(super) fn file(&self) -> String {
        self.path.display().to_string()
    }

    /// The error of a file that is not valid TOML.
    pub(super) fn syntax(&self, error: &toml::de::Error) -> RecipeError {
        let position = error.span().map_or(0, |span| span.start);
        RecipeError::Wrong {
            place: self.place(position),
            what: format!("not valid TOML: {}", error.message()),
            hint: self.not_toml(position, error.message()),
        }
    }

    /// What a text that is not valid TOML seems to be.
    fn not_toml(&self, position: usize, message: &str) -> Option<String> {
        let start = self.text.trim_start();
        let ending = self.path.extension().unwrap_or_default().to_string_lossy();
        let before = &self.text[..self.text.floor_char_boundary(position)];
        let line = before
            .rsplit('\n')
            .next()
            .map_or(0, |line| before.len() - line.len());
        let line = self.text[line..].lines().next().unwrap_or_default().trim();
        let (key, value) = line.split_once('=').unwrap_or((line, ""));
        let (key, value) = (key.trim(), value.trim());
        let is_yaml = line.split_once(':').is_some_and(|(key, rest)| {
            let is_key = !key.is_empty() && key.chars().all(|c| c.is_alphanumeric() || c == '_');
            is_key && (rest.is_empty() || rest.starts_with(' '))
        });
        let text = if ["json", "jsonl", "csv", "parquet"].contains(&&*ending)
            || start.starts_with('{')
        {
            "a recipe is a TOML file; data files are named in it, as data.train = [{ path = \"rows.json\", ... }]"
        } else if ["yaml", "yml"].contains(&&*ending) || is_yaml {
            "a recipe is a TOML file: `key = value` below a line with its [table], text in quotes \
             (docs/words.md shows a YAML config and the recipe of the same run)"
        } else if ending == "py" {
            "a recipe is a TOML file; docs/words.md lists the keys of other programs"
        } else if ["True", "False"].contains(&value) {
            return Some(format!("write {key} = {}", value.to_lowercase()));
        } else if ["None", "null", "nil"].contains(&value) {
            return Some(format!("leave `{key}` out to have its default"));
        } else if message.contains("must be quoted")
            && value.starts_with(|c: char| c.is_alphabetic())
        {
            return Some(format!("put text in quotes: {key} = \"{value}\""));
        } else {
            return None;
        };
        Some(text.to_owned())
    }
}

impl Set {
    fn new(written: &str, start: usize, example: &str) -> Result<Self, RecipeError> {
        let wrong = |what: &str| RecipeError::Wrong {
            place: format!("--set {written}"),
            what: what.to_owned(),
            hint: Some(format!("write an override as --set {example}")),
        };
        let (name, value) = written
            .split_once('=')
            .ok_or_else(|| wrong("expected KEY=VALUE, found no `=`"))?;
        let key = key_parts(name).ok_or_else(|| wrong("the key is not a valid TOML key"))?;
        let pad = " ".repeat(start);
        let value = value.trim();
        let mut padded = format!("{pad}{name} = {value}");
        if !is_one_value(&padded, key.len()) {
            padded = format!("{pad}{name} = {}", Value::String(value.to_owned()));
        }
        Ok(Self {
            written: written.to_owned(),
            padded,
            start,
            key,
        })
    }

    fn place(&self) -> String {
        format!("--set {}", self.written)
    }

    fn wrong(&self, what: String) -> RecipeError {
        RecipeError::Wrong {
            place: self.place(),
            what,
            hint: None,
        }
    }

    /// Sets the value at its key, creating missing tables.
    pub(super) fn apply<'t>(
        &'t self,
        root: &mut DeTable<'t>,
        choices: &[&str],
    ) -> Result<(), RecipeError> {
        let Some((keys, value)) = self.parsed() else {
            return Err(self.wrong("the key is not a valid TOML key".to_owned()));
        };
        let Some((last, parents)) = keys.split_last() else {
            return Ok(());
        };
        let mut place = Place::Table(root);
        for (depth, key) in parents.iter().enumerate() {
            place = self.enter(place, key, depth, choices)?;
        }
        match place {
            Place::Table(table) => {
                self.choose(table, last, parents.len(), choices);
                // The old key goes too: its position is that of the old value.
                table.remove(last);
                table.insert(last.clone(), value);
            }
            Place::Array(array) => {
                let index = self.index(array.len() + 1, last, keys.len() - 1)?;
                match array.get_mut(index) {
                    Some(place) => *place = value,
                    None => array.push(value),
                }
            }
        }
        Ok(())
    }

    fn enter<'p, 't>(
        &self,
        place: Place<'p, 't>,
        key: &Key<'t>,
        depth: usize,
        choices: &[&str],
    ) -> Result<Place<'p, 't>, RecipeError> {
        let value = match place {
            Place::Table(table) => {
                self.choose(table, key, depth, choices);
                table
                    .entry(key.clone())
                    .or_insert_with(|| Spanned::new(key.span(), DeValue::Table(DeTable::new())))
            }
            Place::Array(array) => {
                let index = self.index(array.len(), key, depth)?;
                &mut array.as_mut()[index]
            }
        };
        if !matches!(value.get_ref(), DeValue::Table(_) | DeValue::Array(_)) {
            *value = Spanned::new(key.span(), DeValue::Table(DeTable::new()));
        }
        Ok(match value.get_mut() {
            DeValue::Table(table) => Place::Table(table),
            DeValue::Array(array) => Place::Array(array),
            _ => unreachable!("anything else has just been replaced by a table"),
        })
    }

    /// If the table holds one of several alternatives, drops the other ones.
    fn choose<'t>(&self, table: &mut DeTable<'t>, key: &Key<'t>, depth: usize, choices: &[&str]) {
        if choices.contains(&self.key[..depth].join(".").as_str()) {
            let same = table.remove_entry(key);
            table.clear();
            table.extend(same);
        }
    }

    /// A part of the key that is an index into a list.
    fn index(&self, length: usize, key: &Key<'_>, depth: usize) -> Result<usize, RecipeError> {
        let list = self.key[..depth].join(".");
        match key.get_ref().parse::<usize>() {
            Ok(index) if index < length => Ok(index),
            Ok(index) => Err(self.wrong(format!(
                "`{list}` has no element {index}: expected 0 to {}",
                length.saturating_sub(1)
            ))),
            Err(_) => Err(self.wrong(format!(
                "`{list}` is a list: expected an index, found `{}`",
                key.get_ref()
            ))),
        }
    }

    /// Key parts and value, with positions.
    fn parsed(&self) -> Option<(Vec<Key<'_>>, Spanned<DeValue<'_>>)> {
        let mut table = DeTable::parse(&self.padded).ok()?.into_inner();
        let mut keys = Vec::new();
        loop {
            let (key, value) = std::mem::take(&mut table).into_iter().next()?;
            keys.push(key);
            if keys.len() == self.key.len() {
                return Some((keys, as_text(value)));
            }
            let DeValue::Table(inner) = value.into_inner() else {
                return None;
            };
            table = inner;
        }
    }
}

type Key<'t> = Spanned<DeString<'t>>;

enum Place<'p, 't> {
    Table(&'p mut DeTable<'t>),
    Array(&'p mut DeArray<'t>),
}

/// Recipes do not use the date type of TOML: `2026-01-31` is text.
fn as_text(value: Spanned<DeValue<'_>>) -> Spanned<DeValue<'_>> {
    let span: Range<usize> = value.span();
    match value.into_inner() {
        DeValue::Datetime(date) => Spanned::new(span, DeValue::String(date.to_string().into())),
        other => Spanned::new(span, other),
    }
}

/// The parts of a dotted key.
fn key_parts(key: &str) -> Option<Vec<String>> {
    let text = format!("{key} = 0");
    let mut table = DeTable::parse(&text).ok()?.into_inner();
    let mut parts = Vec::new();
    loop {
        let mut entries = std::mem::take(&mut table).into_iter();
        let (part, value) = entries.next()?;
        if entries.next().is_some() {
            return None;
        }
        parts.push(part.into_inner().into_owned());
        match value.into_inner() {
            DeValue::Table(inner) => table = inner,
            _ => return Some(parts),
        }
    }
}

/// Whether the text is exactly one assignment to a key of `depth` parts.
fn is_one_value(text: &str, depth: usize) -> bool {
    let Ok(table) = DeTable::parse(text) else {
        return false;
    };
    let mut table = table.into_inner();
    for _ in 1..depth {
        let mut entries = std::mem::take(&mut table).into_iter();
        match (entries.next(), entries.next()) {
            (Some((_, value)), None) => match value.into_inner() {
                DeValue::Table(inner) => table = inner,
                _ => return false,
            },
            _ => return false,
        }
    }
    table.len() == 1
}
