//! The tokens of a run: those of the base or of the adapter that it begins with, and those that the
//! recipe adds.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use simmer_data::Tokenizer;
use simmer_model::LlamaForCausalLM;
use simmer_model::adapter::peft::AdapterFolder;
use simmer_model::base::{Base, BaseConfig};
use simmer_model::export::tokenizer_files;

use crate::error::TrainError;
use crate::folder::RunFolder;
use crate::observer::Observer;
use crate::recipe::{Method, Recipe};
use crate::tokenizer;

/// The tokenizer, and what became of it.
pub(crate) struct Vocabulary {
    pub(crate) tokenizer: Arc<Tokenizer>,
    /// Whether it is no longer the one in the files.
    changed: bool,
    /// Whether it came with the adapter.
    from_adapter: bool,
    /// New ids, but for one that only pads.
    added: Range<usize>,
}

/// The tokenizer of a recipe's runs, with the tokens that it adds. The weights of the base are not looked at.
///
/// # Errors
/// A tokenizer that cannot be used.
pub fn recipe_tokenizer(
    recipe: &Recipe,
    observer: &mut dyn Observer,
) -> Result<Arc<Tokenizer>, TrainError> {
    let mut tokenizer = open(recipe, adapter(recipe)?.as_ref())?;
    add(&mut tokenizer, &recipe.base, observer)?;
    Ok(Arc::new(tokenizer))
}

/// The adapter that training begins with.
fn adapter(recipe: &Recipe) -> Result<Option<AdapterFolder>, TrainError> {
    Ok(match &recipe.method {
        Method::Lora(lora) => lora.from.as_ref().map(AdapterFolder::open).transpose()?,
        Method::Full(_) => None,
    })
}

/// The tokenizer of the adapter, or of the base.
fn open(recipe: &Recipe, from: Option<&AdapterFolder>) -> Result<Tokenizer, TrainError> {
    match from.and_then(AdapterFolder::tokenizer_path) {
        Some(path) => tokenizer::open(path),
        None => tokenizer::open(recipe.base.tokenizer_path()?),
    }
}

/// What a recipe added to its tokenizer.
struct Added {
    /// Whether it is no longer the one in the files.
    changed: bool,
    /// New ids.
    rows: Range<usize>,
    /// Those that rows may have: all but one that only pads.
    trained: Range<usize>,
}

/// Adds what the tokenizer lacks of the recipe's tokens.
fn add(
    tokenizer: &mut Tokenizer,
    base: &BaseConfig,
    observer: &mut dyn Observer,
) -> Result<Added, TrainError> {
    let first = tokenizer.max_token_id() as usize + 1;
    let mut next = first;
    let (mut changed, mut added) = (false, first..first);
    for (tokens, special) in [
        (base.add_tokens.as_slice(), false),
        (&base.add_special_tokens, true),
        (base.pad_token.as_slice(), true),
    ] {
        // The last list pads alone.
        added = first..next;
        for token in tokens {
            if let Some(id) = whole(tokenizer, token)? {
                observer.on_notice(&format!("`{token}` is a token already (id {id})"));
                continue;
            }
            changed = true;
            for added in tokenizer.add_tokens(&[token], special)? {
                next += usize::from(added.new);
            }
        }
    }
    if let Some(token) = &base.pad_token {
        changed |= tokenizer.set_pad_token(token);
    }
    Ok(Added {
        changed,
        rows: first..next,
        trained: added,
    })
}

/// The id of a token, where texts keep it whole.
fn whole(tokenizer: &Tokenizer, token: &str) -> Result<Option<u32>, TrainError> {
    let id = tokenizer.token_id(token);
    let ids = tokenizer.encode(token)?.ids;
    Ok(id.filter(|id| ids == [*id]))
}

impl Vocabulary {
    /// Reads the tokenizer, and adds the recipe's tokens to it and to the base.
    ///
    /// # Errors
    /// A tokenizer that does not go with the base, and tokens that it cannot hold.
    pub(crate) fn open(
        recipe: &Recipe,
        base: &mut Base,
        observer: &mut dyn Observer,
    ) -> Result<Self, TrainError> {
        let from = adapter(recipe)?;
        let mut config = base.config.clone();
        let resized = from.as_ref().and_then(|from| from.resize(&mut config));
        let mut tokenizer = open(recipe, from.as_ref())?;
        tokenizer.check_vocabulary(config.vocab_size)?;
        for note in tokenizer.notes() {
            observer.on_notice(note);
        }
        let Added {
            changed,
            rows,
            trained,
        } = add(&mut tokenizer, &recipe.base, observer)?;
        let vocabulary = Self {
            tokenizer: Arc::new(tokenizer),
            changed,
            from_adapter: from
                .as_ref()
                .and_then(AdapterFolder::tokenizer_path)
                .is_some(),
            added: trained,
        };
        if rows.is_empty() {
            return Ok(vocabulary);
        }
        if let Some(folder) = from.filter(|_| resized.is_some() || vocabulary.from_adapter) {
            return Err(TrainError::TwoVocabularies {
                adapter: folder.folder().to_owned(),
                token: vocabulary.token(rows.start),
            });
        }
        let spare = rows.end <= base.config.vocab_size;
        let random = base.checkpoint().is_none();
        base.add_rows(rows.clone());
        let tokens = rows
            .clone()
            .map(|id| format!("{} ({id})", vocabulary.token(id)));
        observer.on_notice(&format!(
            "added to the tokenizer: {}; {}",
            tokens.collect::<Vec<_>>().join(", "),
            match (spare, random) {
                (false, false) => format!(
                    "embedding and head get {} rows, the new ones the mean of the others",
                    base.config.vocab_size
                ),
                (true, false) =>
                    "they take rows that embedding and head have to spare, set to the mean of the \
                     tokens' rows"
                        .to_owned(),
                (_, true) => format!("embedding and head have {} rows", base.config.vocab_size),
            }
        ));
        Ok(vocabulary)
    }

    fn token(&self, id: usize) -> String {
        self.tokenizer.token(id as u32).unwrap_or_default()
    }

    /// What is to be said where tokens were added, and nothing trains their rows.
    pub(crate) fn untrained(&self, model: &LlamaForCausalLM) -> Option<String> {
        let trained = model.trainable_shapes();
        let ends = [
            ("embed_tokens", "model.embed_tokens."),
            ("lm_head", "lm_head."),
        ];
        let frozen = ends.iter().filter(|(_, path)| {
            let mut names = trained.keys();
            !names.any(|name| name.starts_with(path))
        });
        let frozen: Vec<&str> = frozen.map(|(name, _)| *name).collect();
        (!self.added.is_empty() && !frozen.is_empty()).then(|| {
            format!(
                "nothing trains the rows of the added tokens in {}: they stay alike, the mean of \
                 the others; method.lora.modules_to_save with {} trains them",
                frozen.join(" and "),
                frozen.join(" and "),
            )
        })
    }

    /// The files that belong beside the weights of the run; a tokenizer that is in no files yet is
    /// written into the run's folder.
    ///
    /// An adapter for the vocabulary of its base has none.
    pub(crate) fn files(
        &self,
        recipe: &Recipe,
        model: &LlamaForCausalLM,
        run: &RunFolder,
    ) -> Result<Vec<PathBuf>, TrainError> {
        let whole = matches!(recipe.method, Method::Full(_));
        let own = self.changed || self.from_adapter || model.has_own_vocabulary();
        if !whole && !own {
            return Ok(Vec::new());
        }
        let path = self.tokenizer.path();
        let mut files = if self.changed || !path.join("tokenizer.json").is_file() {
            let written = run.replace("tokenizer", |out| Ok(self.tokenizer.save(out)?))?;
            tokenizer_files(&written)
        } else {
            tokenizer_files(path)
        };
        let generation = recipe.base.tokenizer_path()?.join("generation_config.json");
        files.extend(Some(generation).filter(|file| whole && file.is_file()));
        Ok(files)
    }
}
