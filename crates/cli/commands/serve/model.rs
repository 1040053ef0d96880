//! The models of a server: their names, and the memory of their caches.

use std::path::{Path, PathBuf};

use simmer_model::Running;

use crate::loaded::Loaded;

/// An adapter, and the name by which requests choose it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) name: String,
    pub(super) path: PathBuf,
}

impl Named {
    /// `NAME=ADAPTER`, or the adapter alone. A path that is there is one, whatever it is called.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let alone = || Self {
            name: text.trim_end_matches('/').to_owned(),
            path: PathBuf::from(text),
        };
        if Path::new(text).exists() {
            return Ok(alone());
        }
        match text.split_once('=') {
            None => Ok(alone()),
            Some((name, path)) if !name.is_empty() && !path.is_empty() => Ok(Self {
                name: name.to_owned(),
                path: PathBuf::from(path),
            }),
            Some(_) => Err("expected NAME=ADAPTER, or an adapter".to_owned()),
        }
    }
}

/// The most bytes of the keys and values of so many tokens.
pub(super) fn cache_bytes(loaded: &Loaded, tokens: usize, context: Option<u32>) -> u64 {
    let config = loaded.model.config();
    let limit = config.max_position_embeddings;
    let context = context.map_or(limit, |context| context as usize);
    let tokens = Running::most_places(context, tokens);
    let keys = config.num_key_value_heads * config.head_dim * config.num_hidden_layers;
    (2 * keys * tokens * loaded.model.computes_in().size()) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adapters_have_names() {
        let named = |text| Named::parse(text).map(|named| (named.name, named.path));
        let of = |name: &str, path: &str| Ok((name.to_owned(), PathBuf::from(path)));
        assert_eq!(named("kitchen=runs/a"), of("kitchen", "runs/a"));
        assert_eq!(named("me/adapter"), of("me/adapter", "me/adapter"));
        assert_eq!(named("runs/a/"), of("runs/a", "runs/a/"));
        assert!(named("=a").is_err() && named("a=").is_err());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lr=1e-4");
        std::fs::create_dir(&path).unwrap();
        let text = path.to_str().unwrap();
        assert_eq!(named(text), of(text, text));
    }
}
