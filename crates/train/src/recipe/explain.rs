//! Errors of serde and TOML, reworded for the person who wrote the recipe.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::RecipeError;
use super::source::Sources;
use crate::problem::Problem;

/// serde's names of types, and the words that users know.
const TYPES: &[(&str, &str)] = &[
    ("usize", "a whole number, at least 0"),
    ("u64", "a whole number, at least 0"),
    ("u32", "a whole number, at least 0"),
    ("u8", "a whole number from 0 to 255"),
    ("i64", "a whole number"),
    ("f64", "a number"),
    ("f32", "a number"),
    ("a boolean", "true or false"),
    ("a string", "text"),
    ("path string", "a path"),
    ("string", "text"),
    ("a sequence", "a list"),
    ("sequence", "a list"),
    ("a map", "a table"),
    ("map", "a table"),
    ("newtype variant", "a table with settings"),
    ("unit variant", "the name alone"),
];

/// The error of a file that is valid TOML but not a valid recipe.
pub(super) fn deserialization(
    sources: &Sources<'_>,
    root: &DeTable<'_>,
    error: &toml::de::Error,
) -> RecipeError {
    let span = error.span();
    let path = span.as_ref().and_then(|span| path_of(root, span));
    let (what, hint) = reworded(error.message(), path.as_deref());
    // Only a key that is missing from the whole recipe has no position.
    let place = match span {
        Some(span) if path.is_some() => sources.place(span.start),
        _ => sources.file(),
    };
    RecipeError::Wrong { place, what, hint }
}

/// The error of a value that is not allowed.
pub(super) fn problem(sources: &Sources<'_>, root: &DeTable<'_>, problem: Problem) -> RecipeError {
    let Problem { key, why } = problem;
    let span = written_at(root, &key);
    RecipeError::Wrong {
        place: span.map_or_else(|| sources.file(), |span| sources.place(span.start)),
        what: format!("`{key}`: {why}"),
        hint: None,
    }
}

/// The message and hint for a message of serde about the key at `path`.
fn reworded(message: &str, path: Option<&str>) -> (String, Option<String>) {
    let (parent, _) = path.map_or((None, ""), split);
    if let Some((found, valid)) = unknown(message, "unknown field `") {
        let of = parent.map_or_else(|| "the recipe".to_owned(), |table| format!("[{table}]"));
        let near = nearest(found, &valid);
        let what = format!("unknown key `{found}` in {of}{near}");
        return (what, listed(&format!("keys of {of}"), &valid));
    }
    if let Some((found, valid)) = unknown(message, "unknown variant `") {
        let key = enum_key(path, found);
        let near = nearest(found, &valid);
        let what = format!("`{key}`: unknown value `{found}`{near}");
        return (what, listed("possible values", &valid));
    }
    if let Some(rest) = message.strip_prefix("missing field `") {
        let field = rest.trim_end_matches('`');
        let what = match path {
            Some(table) => format!("[{table}] lacks the key `{field}`"),
            None => format!("the recipe lacks `{field}`"),
        };
        return (what, None);
    }
    let what = match message
        .strip_prefix("invalid type: ")
        .or(message.strip_prefix("invalid value: "))
    {
        Some(rest) => {
            let (found, expected) = rest.split_once(", expected ").unwrap_or((rest, ""));
            format!("expected {}, found {}", word(expected), word(found))
        }
        None if message.starts_with("wanted exactly 1 element") => {
            let found = if message.contains("found 0") {
                "none"
            } else {
                "several"
            };
            format!("expected one choice, found {found}")
        }
        None if message == "wanted string or table" => "expected a name or a table".to_owned(),
        None => message.to_owned(),
    };
    let what = match path {
        Some(path) => format!("`{path}`: {what}"),
        None => what,
    };
    (what, None)
}

/// Former names of keys: still read, and not suggested.
const FORMER: [&str; 1] = ["share_beginnings"];

/// The unknown name and the known ones, from ``unknown field `a`, expected `b` or `c` ``.
fn unknown<'m>(message: &'m str, start: &str) -> Option<(&'m str, Vec<&'m str>)> {
    let (found, rest) = message.strip_prefix(start)?.split_once('`')?;
    // The names stand between backticks: every second piece.
    let valid = rest.split('`').skip(1).step_by(2);
    Some((found, valid.filter(|name| !FORMER.contains(name)).collect()))
}

/// The key of an enum whose variant is unknown: the variant is either its value or, as a table, the key below it.
fn enum_key<'p>(path: Option<&'p str>, found: &str) -> &'p str {
    let path = path.unwrap_or("the recipe");
    match split(path) {
        (Some(parent), last) if last == found => parent,
        _ => path,
    }
}

fn split(path: &str) -> (Option<&str>, &str) {
    path.rsplit_once('.')
        .map_or((None, path), |(parent, last)| (Some(parent), last))
}

fn nearest(found: &str, valid: &[&str]) -> String {
    let similarity = |name: &str| {
        let (found, name) = (found.to_lowercase(), name.to_lowercase());
        let part = found.len() > 2 && (name.contains(&found) || found.contains(&name));
        strsim::jaro_winkler(&found, &name).max(if part { 0.9 } else { 0.0 })
    };
    valid
        .iter()
        .map(|name| (similarity(name), name))
        .filter(|(similarity, _)| *similarity > 0.7)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map_or_else(String::new, |(_, name)| format!("; did you mean `{name}`?"))
}

fn listed(what: &str, names: &[&str]) -> Option<String> {
    (!names.is_empty()).then(|| format!("{what}: {}", names.join(", ")))
}

/// Rewords a type, or a value with its type, as serde names it.
fn word(serde: &str) -> String {
    if let Some((_, word)) = TYPES.iter().find(|(name, _)| *name == serde) {
        return (*word).to_owned();
    }
    let table = serde.starts_with("struct ") || serde.starts_with("struct variant ");
    if table {
        return "a table".to_owned();
    }
    for (name, word) in [
        ("string ", "the text "),
        ("integer ", ""),
        ("floating point ", ""),
    ] {
        if let Some(value) = serde.strip_prefix(name) {
            return format!("{word}{value}");
        }
    }
    if let Some(value) = serde.strip_prefix("boolean ") {
        return value.trim_matches('`').to_owned();
    }
    serde.to_owned()
}

/// The dotted path of the key or value at `span`; the innermost if there are several.
fn path_of(table: &DeTable<'_>, span: &Range<usize>) -> Option<String> {
    table.iter().find_map(|(key, value)| {
        let name = key.get_ref();
        if let Some(below) = path_in(value.get_ref(), span) {
            return Some(format!("{name}.{below}"));
        }
        (key.span() == *span || value.span() == *span).then(|| name.to_string())
    })
}

fn path_in(value: &DeValue<'_>, span: &Range<usize>) -> Option<String> {
    match value {
        DeValue::Table(table) => path_of(table, span),
        DeValue::Array(array) => array.iter().enumerate().find_map(|(index, value)| {
            if let Some(below) = path_in(value.get_ref(), span) {
                return Some(format!("{index}.{below}"));
            }
            (value.span() == *span).then(|| index.to_string())
        }),
        _ => None,
    }
}

/// The position of a key; if the key is missing, the position of its innermost table that exists.
fn written_at(root: &DeTable<'_>, key: &str) -> Option<Range<usize>> {
    let mut table = root;
    let mut found = None;
    for part in key.split('.') {
        let Some((key, value)) = table.iter().find(|(key, _)| key.get_ref() == part) else {
            break;
        };
        found = Some(key.span());
        match value.get_ref() {
            DeValue::Table(inner) => table = inner,
            _ => break,
        }
    }
    found
}
