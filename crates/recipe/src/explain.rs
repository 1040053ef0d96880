//! Errors of serde and TOML, reworded for the person who wrote the recipe.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeInteger, DeTable, DeValue, Deserializer};

use crate::problem::Problem;
use crate::source::Sources;
use crate::{Kind, RecipeError};

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
pub(super) fn deserialization<R: Kind>(
    sources: &Sources<'_>,
    root: &Spanned<DeTable<'_>>,
    error: &toml::de::Error,
) -> RecipeError {
    let span = error.span();
    let table = root.get_ref();
    let path = span.as_ref().and_then(|span| path_of(table, span));
    let negative = path
        .as_deref()
        .zip(span.as_ref())
        .and_then(|(path, span)| below_zero::<R>(root, path, span, error.message()));
    let (what, hint) = negative.unwrap_or_else(|| reworded::<R>(error.message(), path.as_deref()));
    // Only a key that is missing from the whole recipe has no position.
    let place = match span {
        Some(span) if path.is_some() => sources.place(span.start),
        _ => sources.file(),
    };
    wrong(place, what, hint)
}

/// The message for a number below 0 where its type has none: that of the check which refuses 0, if it does.
fn below_zero<R: Kind>(
    root: &Spanned<DeTable<'_>>,
    path: &str,
    span: &Range<usize>,
    message: &str,
) -> Option<(String, Option<String>)> {
    let found = message.strip_prefix("invalid value: integer `-")?;
    let (found, _) = found.split_once('`')?;
    let mut root = root.clone();
    set_zero(root.get_mut(), span);
    let recipe = R::deserialize(Deserializer::from(root)).ok()?;
    let problem = recipe.check().err().filter(|problem| problem.key == path)?;
    let why = problem
        .why
        .replacen("found 0", &format!("found -{found}"), 1);
    Some((format!("`{path}`: {why}"), problem.hint))
}

/// Replaces the value at a position by 0.
fn set_zero(table: &mut DeTable<'_>, span: &Range<usize>) {
    for (_, value) in table.iter_mut() {
        set_zero_in(value, span);
    }
}

fn set_zero_in(value: &mut Spanned<DeValue<'_>>, span: &Range<usize>) {
    let here = value.span() == *span;
    match value.get_mut() {
        DeValue::Table(table) => set_zero(table, span),
        DeValue::Array(array) => {
            for value in array.iter_mut() {
                set_zero_in(value, span);
            }
        }
        value if here => *value = DeValue::Integer(DeInteger::default()),
        _ => {}
    }
}

/// The error of a value that is not allowed.
pub(super) fn problem(sources: &Sources<'_>, root: &DeTable<'_>, problem: Problem) -> RecipeError {
    let Problem { key, why, hint } = problem;
    let span = written_at(root, &key);
    let place = span.map_or_else(|| sources.file(), |span| sources.place(span.start));
    wrong(place, format!("`{key}`: {why}"), hint)
}

/// The error at a place. An override `--set KEY=VALUE` names its key, so the message does not repeat it.
fn wrong(place: String, what: String, hint: Option<String>) -> RecipeError {
    let set = place.strip_prefix("--set ");
    let key = set.and_then(|set| set.split_once('=')).map(|(key, _)| key);
    let key = key.map(|key| format!("`{}`: ", key.trim()));
    let rest = key.and_then(|key| what.strip_prefix(&key).map(str::to_owned));
    RecipeError::Wrong {
        place,
        what: rest.unwrap_or(what),
        hint,
    }
}

/// The message and hint for a message of serde about the key at `path`.
fn reworded<R: Kind>(message: &str, path: Option<&str>) -> (String, Option<String>) {
    let (parent, last) = path.map_or((None, ""), split);
    if let Some((found, valid)) = unknown(message, "unknown field `", R::FORMER) {
        let of = parent.map_or_else(|| "the recipe".to_owned(), |table| format!("[{table}]"));
        let here = R::key_here(found, parent.map(generic::<R>).as_deref());
        let near = match &here {
            Some(here) => meant(here.near.as_deref()),
            None => nearest(found, &valid),
        };
        let hint = here.and_then(|here| here.hint);
        let hint = hint.or_else(|| listed(&format!("keys of {of}"), &valid));
        return (format!("unknown key `{found}` in {of}{near}"), hint);
    }
    if let Some((found, valid)) = unknown(message, "unknown variant `", &[]) {
        let key = enum_key(path, found);
        let near = nearest(found, &valid);
        let hint = R::value_here(&generic::<R>(key), found).map(str::to_owned);
        let near = if hint.is_some() { String::new() } else { near };
        let what = format!("`{key}`: unknown value `{found}`{near}");
        return (what, hint.or_else(|| listed("possible values", &valid)));
    }
    if let Some(rest) = message.strip_prefix("missing field `") {
        let field = rest.trim_end_matches('`');
        return match path {
            Some(table) => {
                let what = format!("[{table}] lacks the key `{field}`");
                (what, R::shape(&format!("{}.{field}", generic::<R>(table))))
            }
            None => (format!("the recipe lacks `{field}`"), R::shape(field)),
        };
    }
    let mut hint = path.and_then(|path| R::shape(&generic::<R>(path)));
    let what = match message
        .strip_prefix("invalid type: ")
        .or(message.strip_prefix("invalid value: "))
    {
        Some(rest) => {
            let (found, expected) = rest.split_once(", expected ").unwrap_or((rest, ""));
            hint = rewritten(last, found, expected).or(hint);
            format!("expected {}, found {}", word(expected), word(found))
        }
        None if message.starts_with("wanted exactly 1 element") => {
            let found = if message.contains("found 0") {
                "none"
            } else {
                hint = None;
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
    (what, hint)
}

/// How a value of the wrong type is written with the right one, if that can be told.
fn rewritten(key: &str, found: &str, expected: &str) -> Option<String> {
    let numbers = ["usize", "u64", "u32", "u8", "i64", "f64", "f32"];
    let is_number = numbers.contains(&expected) || expected.starts_with("a number");
    if let Some(text) = found.strip_prefix("string ") {
        let text = text.trim_matches('"');
        let plain = match expected {
            "a boolean" => ["true", "false"].contains(&text),
            _ => is_number && text.parse::<f64>().is_ok(),
        };
        return plain.then(|| format!("leave out the quotes: {key} = {text}"));
    }
    let value = found.split('`').nth(1)?;
    match expected {
        "a boolean" if found.starts_with("integer") => {
            Some(format!("write {key} = true or {key} = false"))
        }
        "a string" | "path string" if key.parse::<usize>().is_ok() => {
            Some(format!("put it in quotes: \"{value}\""))
        }
        "a string" | "path string" => Some(format!("put it in quotes: {key} = \"{value}\"")),
        _ if is_number && found.starts_with("floating point") => {
            let whole = value.strip_suffix(".0")?;
            Some(format!("write {key} = {whole}"))
        }
        _ => None,
    }
}

/// A path with `N` in place of indices.
fn generic<R: Kind>(path: &str) -> String {
    let parts = path.split('.').map(|part| {
        if part.parse::<usize>().is_ok() {
            "N"
        } else {
            part
        }
    });
    R::same_table(parts.collect::<Vec<_>>().join("."))
}

fn meant(near: Option<&str>) -> String {
    near.map_or_else(String::new, |near| format!("; did you mean {near}?"))
}

/// The unknown name and the known ones, from ``unknown field `a`, expected `b` or `c` ``.
fn unknown<'m>(message: &'m str, start: &str, former: &[&str]) -> Option<(&'m str, Vec<&'m str>)> {
    let (found, rest) = message.strip_prefix(start)?.split_once('`')?;
    // The names stand between backticks: every second piece.
    let valid = rest.split('`').skip(1).step_by(2);
    Some((found, valid.filter(|name| !former.contains(name)).collect()))
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
        .filter(|(similarity, name)| *similarity > 0.7 && **name != found)
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
            let value = value
                .trim_end_matches(" as i128")
                .trim_end_matches(" as u128");
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

/// The position of a key, or of an element of a list; if it is missing, the position of the innermost table that exists.
fn written_at(root: &DeTable<'_>, key: &str) -> Option<Range<usize>> {
    let mut parts = key.split('.');
    let (key, value) = entry(root, parts.next()?)?;
    let (mut found, mut place) = (key, value);
    for part in parts {
        let below = match place {
            DeValue::Table(table) => entry(table, part),
            DeValue::Array(array) => {
                let element = part
                    .parse::<usize>()
                    .ok()
                    .and_then(|index| array.get(index));
                element.map(|value| (value.span(), value.get_ref()))
            }
            _ => None,
        };
        let Some((span, value)) = below else { break };
        (found, place) = (span, value);
    }
    Some(found)
}

/// The position of a key and its value.
fn entry<'t, 'v>(table: &'t DeTable<'v>, name: &str) -> Option<(Range<usize>, &'t DeValue<'v>)> {
    let (key, value) = table.iter().find(|(key, _)| key.get_ref() == name)?;
    Some((key.span(), value.get_ref()))
}
