//! The vocabulary of a run: the tokenizer of the base model, or of the adapter in `method.lora.from`, and the tokens that
//! the recipe adds.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use simmer_checkpoint::family::Module;
use simmer_data::Tokenizer;
use simmer_model::LlamaForCausalLM;
use simmer_model::adapter::ROWS;
use simmer_model::adapter::peft::AdapterFolder;
use simmer_model::adapter::{AdapterTable, PeftType};
use simmer_model::base::{Base, BaseConfig};
use simmer_model::export::tokenizer_files;

use crate::error::TrainError;
use crate::folder::RunFolder;
use crate::observer::Observer;
use crate::recipe::{Method, Recipe};
use crate::tokenizer::{self, Tokenizers};

/// The tokenizer of a run, and how it differs from its files.
pub(crate) struct Vocabulary {
    pub(crate) tokenizer: Arc<Tokenizer>,
    /// Whether it differs from its files.
    changed: bool,
    /// Whether it comes from the adapter's folder.
    from_adapter: bool,
    /// The ids of added tokens, without a padding token, which never occurs in rows.
    added: Range<usize>,
}

/// The tokenizer of a recipe's run, with the tokens that the recipe adds. Does not read the base model's weights.
///
/// # Errors
/// A tokenizer that cannot be used.
pub fn recipe_tokenizer(
    recipe: &Recipe,
    observer: &mut dyn Observer,
) -> Result<Arc<Tokenizer>, TrainError> {
    let mut tokenizer = open(recipe, adapter(recipe)?.as_ref(), usize::MAX)?.tokenizer;
    add(&mut tokenizer, &recipe.base, observer)?;
    Ok(Arc::new(tokenizer))
}

/// The same, with the rows of the added tokens: the base model and the recipe's adapter then have those that a run trains. A base
/// model of another size than the tokenizer's gets as many.
///
/// # Errors
/// As [`recipe_tokenizer`].
pub fn recipe_vocabulary(
    recipe: &mut Recipe,
    base: &mut Base,
    observer: &mut dyn Observer,
) -> Result<Arc<Tokenizer>, TrainError> {
    let mut tokenizer = open(recipe, adapter(recipe)?.as_ref(), usize::MAX)?.tokenizer;
    let added = add(&mut tokenizer, &recipe.base, observer)?;
    if !added.rows.is_empty() {
        let first = added.rows.start.min(base.config.vocab_size);
        add_rows(recipe, base, first..first + added.rows.len());
    }
    Ok(Arc::new(tokenizer))
}

/// Adds rows of new tokens to the base model, and to those that the recipe's adapter trains.
fn add_rows(recipe: &mut Recipe, base: &mut Base, rows: Range<usize>) {
    base.add_rows(rows.clone());
    if let Method::Lora(lora) = &mut recipe.method {
        lora.train_added(rows);
    }
}

/// The adapter that training starts from, if the recipe names one.
fn adapter(recipe: &Recipe) -> Result<Option<AdapterFolder>, TrainError> {
    let table = recipe.method.adapter();
    let from = table.and_then(AdapterTable::continued);
    Ok(from
        .map(|from| AdapterFolder::open(from.found()))
        .transpose()?)
}

/// The tokenizer of the base model, with what the adapter has of its own; `rows` is the size of the embedding.
fn open(
    recipe: &Recipe,
    from: Option<&AdapterFolder>,
    rows: usize,
) -> Result<Tokenizers, TrainError> {
    let base = tokenizer::open(recipe.base.tokenizer_path()?);
    match from {
        Some(adapter) => Tokenizers::of_adapter(base, adapter, rows),
        None => Ok(Tokenizers::of_base(base?)),
    }
}

/// The tokens that a recipe added to its tokenizer.
struct Added {
    /// Whether the tokenizer differs from its files.
    changed: bool,
    /// The ids of all added tokens.
    rows: Range<usize>,
    /// The ids that rows may contain: all but a padding token.
    trained: Range<usize>,
}

/// Adds the recipe's tokens that the tokenizer lacks.
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
        // The last list holds the padding token alone.
        added = first..next;
        for token in tokens {
            if let Some(id) = whole(tokenizer, token)? {
                observer.on_notice(&format!(
                    "`{token}` already exists in the tokenizer (id {id})"
                ));
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

/// The id of a token, if the tokenizer encodes its text as that one token.
fn whole(tokenizer: &Tokenizer, token: &str) -> Result<Option<u32>, TrainError> {
    let id = tokenizer.token_id(token);
    let ids = tokenizer.encode(token)?.ids;
    Ok(id.filter(|id| ids == [*id]))
}

impl Vocabulary {
    /// Reads the tokenizer, and adds the recipe's tokens to it and their rows to the base model.
    ///
    /// # Errors
    /// A tokenizer that does not match the base model, or that cannot hold the tokens.
    pub(crate) fn open(
        recipe: &mut Recipe,
        base: &mut Base,
        observer: &mut dyn Observer,
    ) -> Result<Self, TrainError> {
        let from = adapter(recipe)?;
        let mut config = base.config.clone();
        let resized = from.as_ref().and_then(|from| from.resize(&mut config));
        let Tokenizers {
            mut tokenizer,
            has_own_tokens,
            is_changed,
            told,
            warnings,
            ..
        } = open(recipe, from.as_ref(), config.vocab_size)?;
        for notice in warnings.iter().chain(&told) {
            observer.on_notice(notice);
        }
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
            changed: changed || is_changed,
            from_adapter: from
                .as_ref()
                .and_then(AdapterFolder::tokenizer_path)
                .is_some(),
            added: trained,
        };
        if rows.is_empty() {
            return Ok(vocabulary);
        }
        if let Some(folder) = from.filter(|_| resized.is_some() || has_own_tokens) {
            return Err(TrainError::TwoVocabularies {
                adapter: folder.folder().to_owned(),
                token: vocabulary.token(rows.start),
            });
        }
        let spare = rows.end <= base.config.vocab_size;
        let random = base.checkpoint().is_none();
        add_rows(recipe, base, rows.clone());
        let tokens = rows
            .clone()
            .map(|id| format!("{} ({id})", vocabulary.token(id)));
        observer.on_notice(&format!(
            "added to the tokenizer: {}; {}",
            tokens.collect::<Vec<_>>().join(", "),
            match (spare, random) {
                (false, false) => format!(
                    "embedding and head get {} rows; the new ones start as the mean of the others",
                    base.config.vocab_size
                ),
                (true, false) =>
                    "they use spare rows of embedding and head, which start as the mean of the other \
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

    /// Whether the tokenizer is that of the adapter in `from`, and not of the base model.
    pub(crate) fn is_from_adapter(&self) -> bool {
        self.from_adapter
    }

    /// A warning if tokens were added and their rows are not trained by the adapter of a table in `[method]`.
    pub(crate) fn untrained(&self, model: &LlamaForCausalLM, table: &PeftType) -> Option<String> {
        let trained = model.trainable_shapes();
        let family = model.config().family;
        let tied = model.config().tie_word_embeddings;
        let rows = |end: &Module| trained.contains_key(&format!("{}{ROWS}", end.name));
        let frozen = [&family.embedding, &family.head].into_iter().filter(|end| {
            if tied && rows(&family.embedding) {
                return false;
            }
            let mut names = trained
                .keys()
                .filter_map(|name| name.strip_prefix(end.name));
            !names.any(|rest| rest.starts_with('.'))
        });
        let frozen: Vec<&str> = frozen.map(Module::last_part).collect();
        (!self.added.is_empty() && !frozen.is_empty()).then(|| {
            let frozen = frozen.join(" and ");
            let instead = if table.saves_modules {
                format!("to train them, add {frozen} to method.{}.modules_to_save", table.table)
            } else {
                format!("[method.{}] cannot train them, [method.lora] can", table.table)
            };
            format!(
                "the rows of the added tokens in {frozen} are not trained and all stay the mean of the others; {instead}"
            )
        })
    }

    /// The tokenizer files to write along with the weights of the run. A tokenizer that differs from its files is first
    /// written to the run's folder.
    ///
    /// An adapter with the tokenizer of its base model's folder needs none.
    pub(crate) fn files(
        &self,
        recipe: &Recipe,
        model: &LlamaForCausalLM,
        run: &RunFolder,
    ) -> Result<Vec<PathBuf>, TrainError> {
        let whole = matches!(recipe.method, Method::Full(_));
        // the base model's folder has another tokenizer
        let other = recipe.base.path.is_some() && recipe.base.tokenizer.is_some();
        let own = self.changed || self.from_adapter || other || model.has_own_vocabulary();
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
