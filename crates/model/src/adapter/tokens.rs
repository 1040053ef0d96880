//! `trainable_token_indices`: which rows of the embedding and of the output head an adapter trains.
//!
//! Source: PEFT 0.21, src/peft/utils/other.py, `set_additional_trainable_modules` and `TrainableTokensWrapper`.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt::{self, Display};
use std::ops::Range;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};
use simmer_checkpoint::layout::{ModuleKind, ModuleLayout};

use super::config::AdapterConfig;
use super::kind::MergedRows;
use super::names::Patterns;
use super::peft::KEY_PREFIX;
use super::rules::is_end;
use super::targets::{Selected, Selection, SelectionError};
use crate::numbers::widen;

/// The key in PEFT's configuration and in recipes.
pub(super) const KEY: &str = "trainable_token_indices";
/// What follows the path of a module in the key of its rows.
pub const ROWS: &str = ".token_adapter.trainable_tokens_delta";
/// What follows it in the key of the frozen matrix.
pub(super) const FROZEN: &str = ".token_adapter.base_layer.weight";

/// Tokens whose rows are trained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenIndices {
    /// Of the embedding; and of what is tied to it.
    OfEmbedding(Vec<usize>),
    /// By the name of a module.
    ByModule(Patterns<Vec<usize>>),
}

impl TokenIndices {
    pub(super) const EXPECTED: &str =
        "a list of token ids, or a table of module names and such lists";

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::OfEmbedding(ids) => ids.is_empty(),
            Self::ByModule(modules) => modules.is_empty(),
        }
    }
}

impl Display for TokenIndices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OfEmbedding(ids) => write!(f, "{ids:?}"),
            Self::ByModule(modules) => {
                for (index, (name, ids)) in modules.iter().enumerate() {
                    let comma = if index > 0 { ", " } else { "" };
                    write!(f, "{comma}{name}: {ids:?}")?;
                }
                Ok(())
            }
        }
    }
}

impl Serialize for TokenIndices {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::OfEmbedding(ids) => ids.serialize(serializer),
            Self::ByModule(modules) => modules.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for TokenIndices {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Found;

        impl<'de> Visitor<'de> for Found {
            type Value = TokenIndices;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(TokenIndices::EXPECTED)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, ids: A) -> Result<Self::Value, A::Error> {
                let ids = Deserialize::deserialize(SeqAccessDeserializer::new(ids));
                ids.map(TokenIndices::OfEmbedding)
            }

            fn visit_map<A: MapAccess<'de>>(self, modules: A) -> Result<Self::Value, A::Error> {
                let modules = Deserialize::deserialize(MapAccessDeserializer::new(modules));
                modules.map(TokenIndices::ByModule)
            }
        }

        deserializer.deserialize_any(Found)
    }
}

impl schemars::JsonSchema for TokenIndices {
    fn schema_name() -> Cow<'static, str> {
        "TokenIndices".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let ids = schemars::json_schema!({ "type": "array", "items": { "type": "integer", "minimum": 0 } });
        schemars::json_schema!({
            "anyOf": [ids, { "type": "object", "additionalProperties": ids }]
        })
    }
}

/// A module of which rows are trained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SelectedTokens {
    /// Its module path.
    pub name: String,
    /// Embedding or output head.
    pub kind: ModuleKind,
    /// The token of each trained row.
    pub ids: Vec<usize>,
    /// Rows of its matrix.
    pub rows: usize,
    /// Columns of its matrix.
    pub columns: usize,
}

/// The modules of which a configuration trains rows.
pub(super) fn selected(
    config: &AdapterConfig,
    modules: &[ModuleLayout],
    adapted: &[Selected],
    saved: &[ModuleLayout],
) -> Result<Vec<SelectedTokens>, SelectionError> {
    let Some(indices) = config.trainable_token_indices.as_ref() else {
        return Ok(Vec::new());
    };
    let is_embedding = |module: &&ModuleLayout| module.kind == ModuleKind::Embedding;
    let mut found: Vec<SelectedTokens> = Vec::new();
    match indices {
        TokenIndices::OfEmbedding(ids) => {
            let embedding = modules.iter().find(is_embedding);
            found.extend(embedding.map(|module| of(module, ids)).transpose()?);
        }
        TokenIndices::ByModule(named) => {
            for (name, ids) in named.iter() {
                let module = modules.iter().find(|module| is_end(&module.name, name));
                let Some(module) = module.filter(|module| is_outermost(module)) else {
                    return conflict(format!(
                        "`{name}` is neither the embedding nor the output head of the model: {}",
                        ends(modules)
                    ));
                };
                found.push(of(module, ids)?);
            }
        }
    }
    for module in &found {
        check_alone(module, adapted, saved)?;
    }
    without_tied(found, modules)
}

/// The rows that a recipe trains in a model: those that it lists, and those of added tokens. A list is for the embedding and the
/// output head, whether it is tied or not: a model whose head lacks a token could never produce it. `is_taken` names modules
/// that are trained otherwise; neither end then gets the rows of added tokens, and a list is for the other end alone.
pub(super) fn for_model(
    listed: Option<&TokenIndices>,
    modules: &[ModuleLayout],
    added: &Range<usize>,
    is_taken: impl Fn(&ModuleLayout) -> bool,
) -> Option<TokenIndices> {
    let ends: Vec<&ModuleLayout> = modules
        .iter()
        .filter(|module| is_outermost(module) && !module.tied)
        .collect();
    let free: Vec<&ModuleLayout> = ends.iter().copied().filter(|end| !is_taken(end)).collect();
    let taken = modules
        .iter()
        .any(|module| is_outermost(module) && is_taken(module));
    let added: Vec<usize> = added.clone().filter(|_| !taken).collect();
    let with_added = |ids: &[usize]| {
        let new = added.iter().filter(|id| !ids.contains(id));
        ids.iter().chain(new).copied().collect::<Vec<usize>>()
    };
    match listed {
        Some(TokenIndices::ByModule(named)) if added.is_empty() => {
            Some(TokenIndices::ByModule(named.clone()))
        }
        Some(TokenIndices::ByModule(named)) => {
            let mut named = named.clone();
            for (_, ids) in &mut named.0 {
                *ids = with_added(ids);
            }
            for end in free {
                if named.iter().all(|(name, _)| !is_end(&end.name, name)) {
                    named.0.push((last_part(&end.name), added.clone()));
                }
            }
            Some(TokenIndices::ByModule(named))
        }
        _ => {
            let ids = match listed {
                Some(TokenIndices::OfEmbedding(ids)) => with_added(ids),
                _ => added.clone(),
            };
            if ids.is_empty() && listed.is_none() {
                return None;
            }
            let head = free.iter().any(|end| end.kind == ModuleKind::OutputHead);
            Some(if head {
                by_module(&free, &ids)
            } else {
                TokenIndices::OfEmbedding(ids)
            })
        }
    }
}

fn by_module(ends: &[&ModuleLayout], ids: &[usize]) -> TokenIndices {
    let named = ends.iter().map(|end| (last_part(&end.name), ids.to_vec()));
    TokenIndices::ByModule(Patterns(named.collect()))
}

fn last_part(path: &str) -> String {
    path.rsplit('.').next().unwrap_or(path).to_owned()
}

/// Checks that an adapter has the rows of all tokens that a matrix of the base model lacks.
///
/// # Errors
/// The first token that has none.
pub(crate) fn check_new(
    tokens: &[SelectedTokens],
    kind: ModuleKind,
    mut new: Range<usize>,
) -> Result<(), SelectionError> {
    let rows = tokens.iter().find(|of| of.kind == kind);
    let has = |id: &usize| rows.is_some_and(|of| of.ids.contains(id));
    match new.find(|id| !has(id)) {
        None => Ok(()),
        Some(id) => conflict(format!(
            "the base model lacks token {id}, and the adapter has no row for it in the {}; it is an adapter of another base \
             model, or one whose tokens were not trained there",
            if kind == ModuleKind::Embedding {
                "embedding"
            } else {
                "output head"
            }
        )),
    }
}

/// The key of the embedding's tensor that one of a tied output head is a copy of. PEFT saves both when the vocabulary was resized.
pub(super) fn shared_key(selection: &Selection, key: &str) -> Option<String> {
    let of_kind = |kind| selection.tokens.iter().find(move |of| of.kind == kind);
    let embedding = of_kind(ModuleKind::Embedding)?;
    let mut ends = selection.ends.iter();
    let head = ends.find(|end| end.kind == ModuleKind::OutputHead && end.tied)?;
    let path = key.strip_prefix(KEY_PREFIX)?.strip_prefix(&head.name)?;
    let is_rows = path == ROWS || path == FROZEN;
    is_rows.then(|| format!("{KEY_PREFIX}{}{path}", embedding.name))
}

/// A head that is tied to the embedding follows it.
fn without_tied(
    mut found: Vec<SelectedTokens>,
    modules: &[ModuleLayout],
) -> Result<Vec<SelectedTokens>, SelectionError> {
    let is_tied = |kind| {
        modules
            .iter()
            .any(|module| module.kind == kind && module.tied)
    };
    if !is_tied(ModuleKind::OutputHead) {
        return Ok(found);
    }
    let head = found
        .iter()
        .position(|module| module.kind == ModuleKind::OutputHead);
    let Some(head) = head.map(|head| found.remove(head)) else {
        return Ok(found);
    };
    if found
        .first()
        .is_none_or(|embedding| embedding.ids != head.ids)
    {
        return conflict(format!(
            "the head (`{}`) is tied to the embedding, so that both have the same rows; name the embedding alone",
            head.name
        ));
    }
    Ok(found)
}

fn of(module: &ModuleLayout, ids: &[usize]) -> Result<SelectedTokens, SelectionError> {
    if ids.is_empty() {
        return conflict(format!("no token is listed for `{}`", module.name));
    }
    let mut seen = BTreeSet::new();
    if let Some(id) = ids.iter().find(|id| !seen.insert(**id)) {
        return conflict(format!("duplicate token {id} for `{}`", module.name));
    }
    let size = |axis: usize| module.shape.get(axis).copied().unwrap_or_default();
    Ok(SelectedTokens {
        name: module.name.clone(),
        kind: module.kind,
        ids: ids.to_vec(),
        rows: size(0),
        columns: size(1),
    })
}

/// Refuses rows of a module that has an adapter of another kind, or is trained whole.
fn check_alone(
    module: &SelectedTokens,
    adapted: &[Selected],
    saved: &[ModuleLayout],
) -> Result<(), SelectionError> {
    let name = &module.name;
    if saved.iter().any(|other| other.name == *name) {
        return conflict(format!(
            "`{name}` is also in modules_to_save, which trains all of its rows"
        ));
    }
    if adapted.iter().any(|other| other.name == *name) {
        return conflict(format!("`{name}` is also in target_modules"));
    }
    Ok(())
}

/// Refuses tokens outside the vocabulary.
pub(super) fn check_range(tokens: &[SelectedTokens]) -> Result<(), SelectionError> {
    for module in tokens {
        if let Some(id) = module.ids.iter().find(|id| **id >= module.rows) {
            let last = module.rows.saturating_sub(1);
            return conflict(format!(
                "token {id} is outside the vocabulary of `{}`, whose last token is {last}",
                module.name
            ));
        }
    }
    Ok(())
}

fn is_outermost(module: &ModuleLayout) -> bool {
    matches!(module.kind, ModuleKind::Embedding | ModuleKind::OutputHead)
}

fn ends(modules: &[ModuleLayout]) -> String {
    let ends = modules.iter().filter(|module| is_outermost(module));
    let ends: Vec<String> = ends.map(|module| format!("`{}`", module.name)).collect();
    ends.join(" and ")
}

fn conflict<T>(why: String) -> Result<T, SelectionError> {
    Err(SelectionError::Conflict { key: KEY, why })
}

/// Trained rows of a matrix in the form in which a merge puts them there.
pub(crate) struct ReplacedRows {
    ids: Vec<usize>,
    /// `[K, H]`
    values: Vec<f64>,
    columns: usize,
}

impl ReplacedRows {
    pub(crate) fn new(tokens: &SelectedTokens, values: Vec<f64>) -> Self {
        Self {
            ids: tokens.ids.clone(),
            values,
            columns: tokens.columns,
        }
    }
}

impl MergedRows for ReplacedRows {
    fn row(&self, row: usize, old: &[f32], new: &mut [f64]) {
        match self.ids.iter().position(|id| *id == row) {
            Some(place) => {
                new.copy_from_slice(&self.values[place * self.columns..][..self.columns]);
            }
            None => widen(old, new),
        }
    }
}
