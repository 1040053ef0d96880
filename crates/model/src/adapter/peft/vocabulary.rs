//! The tokens of an adapter that the base model does not have.

use std::fs::File;
use std::io::BufReader;

use serde::Deserialize;
use simmer_checkpoint::config::ModelConfig;
use simmer_files::size::counted;

use super::{AdapterFolder, BASE_WEIGHT, KEY_PREFIX, MOST_TOKENS};
use crate::adapter::tokens::{self, TokenIndices};

impl AdapterFolder {
    /// Sets the vocabulary size of a base model's configuration to that of the adapter, if the adapter holds the
    /// full embedding and head, as PEFT saves them when tokens were added. A head that is tied to the embedding
    /// may be missing. Returns a message if the size changed.
    pub fn resize(&self, base: &mut ModelConfig) -> Option<String> {
        let rows = self
            .vocab_size(base)
            .max(self.last_token().map_or(0, |last| last + 1));
        let before = std::mem::replace(&mut base.vocab_size, rows);
        let folder = self.folder.display();
        (rows != before).then(|| {
            format!(
                "{folder}: the adapter has an embedding of {}, the base model has {before}: \
                 the base model is resized",
                counted(rows, "row")
            )
        })
    }

    /// The last token whose rows the adapter has.
    fn last_token(&self) -> Option<usize> {
        let ids = match self.config.trainable_token_indices.as_ref()? {
            TokenIndices::OfEmbedding(ids) => ids.iter().copied().max(),
            TokenIndices::ByModule(modules) => {
                modules.iter().flat_map(|(_, ids)| ids).copied().max()
            }
        };
        // an index that no model has is an error of the selection
        ids.filter(|last| *last < MOST_TOKENS)
    }

    fn vocab_size(&self, base: &ModelConfig) -> usize {
        let rows = |module: &str, suffix: &str| {
            let key = format!("{KEY_PREFIX}{module}{suffix}");
            match self.weights.tensor(&key)?.shape[..] {
                [rows, hidden] if rows > 0 && hidden == base.hidden_size => Some(rows),
                _ => None,
            }
        };
        let [embedding, head] = [base.family.embedding.name, base.family.head.name];
        // the frozen matrix beside an adapter, or beside trained rows
        let frozen = |module| rows(module, BASE_WEIGHT).or_else(|| rows(module, tokens::FROZEN));
        let whole = |module| rows(module, ".weight").or_else(|| frozen(module));
        let shared = frozen(embedding).or_else(|| frozen(head));
        match (whole(embedding), whole(head), shared) {
            (Some(embedding), Some(head), _) if embedding == head => embedding,
            (Some(_), Some(_), _) => base.vocab_size,
            (_, _, Some(rows)) if base.tie_word_embeddings => rows,
            _ => base.vocab_size,
        }
    }

    /// Whether the adapter has tokens that the base model lacks: rows for them, or a tokenizer that has them. The base model's
    /// tokenizer has `base_tokens`, if it is known; the rest of its rows are spare.
    pub fn adds_tokens(&self, base: &ModelConfig, base_tokens: Option<usize>) -> bool {
        if self.resize(&mut base.clone()).is_some() {
            return true;
        }
        let last = self.last_token().max(self.last_of_tokenizer());
        matches!((last, base_tokens), (Some(last), Some(tokens)) if last >= tokens)
    }

    /// The last of the tokens that its tokenizer has beside its vocabulary.
    fn last_of_tokenizer(&self) -> Option<usize> {
        #[derive(Deserialize)]
        struct Tokenizer {
            added_tokens: Vec<Added>,
        }
        #[derive(Deserialize)]
        struct Added {
            id: usize,
        }
        let file = File::open(self.folder.join("tokenizer.json")).ok()?;
        // a damaged one is an error where it is used
        let read: Tokenizer = serde_json::from_reader(BufReader::new(file)).ok()?;
        read.added_tokens.iter().map(|token| token.id).max()
    }
}
