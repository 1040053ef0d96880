//! The adapters of a merge.

use std::path::Path;

use simmer_checkpoint::ModelConfig;

use super::MergeError;
use crate::adapter::combine::WeightedAdapter;
use crate::adapter::peft::AdapterFolder;

/// The adapters of a merge, and the model that they are merged into.
pub(super) struct Adapters {
    pub(super) all: Vec<OpenedAdapter>,
    /// The configuration of the base model, resized to the vocabulary of the adapter that adds tokens.
    pub(super) config: ModelConfig,
    /// Tokens that the base model has: those of its tokenizer, or the rows of its embedding.
    pub(super) base_tokens: usize,
    /// A message if it was resized.
    pub(super) resized: Option<String>,
    /// Which adapter adds tokens, to spare rows of the embedding or as new rows.
    pub(super) adding: Option<usize>,
}

/// An adapter with its weight.
pub(super) struct OpenedAdapter {
    pub(super) folder: AdapterFolder,
    pub(super) weight: f64,
    /// The configuration of the base model, resized if this adapter adds tokens.
    pub(super) config: ModelConfig,
}

impl Adapters {
    /// Opens them.
    ///
    /// # Errors
    /// An adapter that cannot be read, a weight that is not finite, and two adapters that both add tokens.
    pub(super) fn open(
        given: &[WeightedAdapter],
        base: &ModelConfig,
        base_tokens: Option<usize>,
    ) -> Result<Self, MergeError> {
        let mut all: Vec<OpenedAdapter> = Vec::with_capacity(given.len());
        let mut config = base.clone();
        let (mut resized, mut adding) = (None, None);
        for WeightedAdapter { folder, weight } in given {
            if !weight.is_finite() {
                return Err(MergeError::Weight { found: *weight });
            }
            let folder = AdapterFolder::open(folder)?;
            let mut own = base.clone();
            if folder.adds_tokens(base, base_tokens) {
                if let Some(first) = adding.and_then(|at: usize| all.get(at)) {
                    return Err(MergeError::Together {
                        first: first.folder.folder().to_owned(),
                        second: folder.folder().to_owned(),
                        why: "both add tokens to the vocabulary, and a new token has no base weight that a weighted change \
                              could be added to"
                            .to_owned(),
                    });
                }
                adding = Some(all.len());
                resized = folder.resize(&mut own);
                config = own.clone();
            }
            all.push(OpenedAdapter {
                folder,
                weight: *weight,
                config: own,
            });
        }
        Ok(Self {
            all,
            config,
            base_tokens: base_tokens.map_or(base.vocab_size, |tokens| tokens.min(base.vocab_size)),
            resized,
            adding,
        })
    }

    /// The folder with the tokenizer: of the adapter that adds tokens, or of the first that has one.
    pub(super) fn tokenizer_path(&self) -> Option<&Path> {
        let adding = self.adding.and_then(|at| self.all.get(at));
        let mut others = self.all.iter();
        adding
            .and_then(|opened| opened.folder.tokenizer_path())
            .or_else(|| others.find_map(|opened| opened.folder.tokenizer_path()))
    }
}
