//! The tokenizer of a model in any of the supported layouts.

use std::path::Path;

use simmer_checkpoint::gguf::{self, TokenKind};
use simmer_checkpoint::{gguf_in, gguf_vocabulary};
use simmer_data::Tokenizer;
use simmer_data::tokenizer::{Kind, Vocabulary};
use simmer_model::adapter::peft::AdapterFolder;
use simmer_model::base::BaseError;

use crate::error::TrainError;

/// Reads the tokenizer of a model from its folder, from a tokenizer file, or from a `.gguf` file.
///
/// # Errors
/// A tokenizer that is missing or cannot be used.
pub fn open(path: &Path) -> Result<Tokenizer, TrainError> {
    let only = gguf_in(path).map_err(BaseError::from)?;
    let path = only.as_deref().unwrap_or(path);
    let is_gguf = path.extension().is_some_and(|ext| ext == "gguf");
    if !(is_gguf && path.is_file()) {
        return Ok(Tokenizer::from_path(path)?);
    }
    let found = gguf_vocabulary(path).map_err(BaseError::from)?;
    Ok(Tokenizer::from_vocabulary(&from_gguf(found), path)?)
}

/// The tokenizer of a base model and its adapter.
#[derive(Debug)]
pub struct Tokenizers {
    /// The one to use.
    pub tokenizer: Tokenizer,
    /// Whether the adapter has other tokens than the base model.
    pub has_own_tokens: bool,
    /// Whether the tokenizer differs from the files that it was read from.
    pub is_changed: bool,
    /// What comes from the adapter, in one sentence; `None` if nothing differs from the base model.
    pub told: Option<String>,
    /// Warnings, one sentence each.
    pub warnings: Vec<String>,
    /// The base model's EOS tokens, under the ids that they have here.
    base_eos: Vec<u32>,
    /// Whether the adapter has another EOS token than the base model.
    has_own_eos: bool,
}

impl Tokenizers {
    /// The base model's tokenizer alone.
    pub fn of_base(tokenizer: Tokenizer) -> Self {
        Self {
            tokenizer,
            has_own_tokens: false,
            is_changed: false,
            told: None,
            warnings: Vec::new(),
            base_eos: Vec::new(),
            has_own_eos: false,
        }
    }

    /// The base model's tokenizer, if it has one, with everything that the adapter's folder has of its own: the whole
    /// tokenizer, special tokens, the end of sequence, chat templates. `rows` is the number of rows of the embedding that
    /// the adapter is used with.
    ///
    /// # Errors
    /// Files of a tokenizer that are malformed; neither a tokenizer of the base model nor of the adapter.
    pub fn of_adapter(
        base: Result<Tokenizer, TrainError>,
        adapter: &AdapterFolder,
        rows: usize,
    ) -> Result<Self, TrainError> {
        let mut warnings = Vec::new();
        let mut is_changed = false;
        let whole = match adapter.tokenizer_path() {
            None => None,
            Some(path) => {
                let tokenizer = open(path)?.fitted_to(rows)?;
                match (tokenizer.check_vocabulary(rows), &base) {
                    (Ok(()), _) => Some(tokenizer),
                    // such a token was never trained: often it is the padding token
                    (Err(error), Ok(base)) if base.check_vocabulary(rows).is_ok() => {
                        warnings.push(format!("{error}: the base model's tokenizer is used"));
                        None
                    }
                    (Err(error), _) => return Err(error.into()),
                }
            }
        };
        let mut tokenizer = match (whole, &base) {
            (Some(mut whole), Ok(base)) => {
                is_changed = whole.complete_from(base);
                whole
            }
            (Some(whole), Err(_)) => whole,
            (None, Ok(base)) if adapter.has_tokenizer_settings() && warnings.is_empty() => {
                is_changed = true;
                base.clone().with_settings_of(adapter.folder())?
            }
            (None, Ok(base)) => base.clone(),
            (None, Err(_)) => return base.map(Self::of_base),
        };
        let kept = adapter
            .trained_with()
            .map_or(&[][..], |with| &with.templates);
        for template in kept {
            if let Some(name) = template.chat_name() {
                is_changed |= tokenizer.set_chat_template(name, &template.text);
            }
        }
        let compared = Self::compared(tokenizer, base.ok().as_ref(), adapter);
        Ok(Self {
            is_changed: is_changed && compared.told.is_some(),
            warnings,
            ..compared
        })
    }

    /// Compares a tokenizer with that of the base model.
    fn compared(tokenizer: Tokenizer, base: Option<&Tokenizer>, adapter: &AdapterFolder) -> Self {
        let end = |tokenizer: &Tokenizer| {
            let first = tokenizer.eos_ids().first();
            first.and_then(|id| tokenizer.token(*id))
        };
        let has_own_tokens = base.is_none_or(|base| !tokenizer.has_tokens_of(base));
        let own_end = end(&tokenizer).filter(|own| {
            let base = base.and_then(end);
            base.as_ref() != Some(own)
        });
        let mut own = Vec::new();
        if has_own_tokens {
            own.push(match base {
                Some(base) if base.vocab_size() != tokenizer.vocab_size() => format!(
                    "tokenizer ({} tokens, the base model's has {})",
                    tokenizer.vocab_size(),
                    base.vocab_size()
                ),
                _ => "tokenizer".to_owned(),
            });
        }
        if let Some(own_end) = &own_end {
            let instead = base.and_then(end);
            let instead = instead.map(|token| format!(" (the base model's is `{token}`)"));
            own.push(format!(
                "end of sequence `{own_end}`{}",
                instead.unwrap_or_default()
            ));
        }
        let chat = tokenizer.chat_template("default");
        if chat.is_some() && base.is_none_or(|base| base.chat_template("default") != chat) {
            own.push("chat template".to_owned());
        }
        let told = (!own.is_empty()).then(|| {
            let folder = adapter.folder().display();
            format!("{folder}: using the adapter's {}", and(&own))
        });
        Self {
            base_eos: base.map_or_else(Vec::new, |base| tokenizer.ids_of(base, base.eos_ids())),
            has_own_eos: own_end.is_some(),
            has_own_tokens,
            told,
            ..Self::of_base(tokenizer)
        }
    }

    /// Tokens that end an answer: those of the tokenizer, then those of the base model's tokenizer and of its configuration
    /// that are special tokens. The configurations of early conversions name ordinary tokens there.
    pub fn ends(&self, config: &[u32]) -> Vec<u32> {
        let mut ends = self.tokenizer.eos_ids().to_vec();
        let special = self.tokenizer.special_tokens();
        for &id in self.base_eos.iter().chain(config) {
            let token = self.tokenizer.token(id);
            let known = token.is_some_and(|text| special.contains(&text));
            if known && self.tokenizer.bos_id() != Some(id) && !ends.contains(&id) {
                ends.push(id);
            }
        }
        ends
    }

    /// Whether the adapter has another EOS token than the base model.
    pub fn has_own_eos(&self) -> bool {
        self.has_own_eos
    }
}

/// `a`, `a and b`, `a, b and c`.
fn and(parts: &[String]) -> String {
    match parts {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

/// The vocabulary of a `.gguf` file, as the tokenizer takes it.
fn from_gguf(found: gguf::Vocabulary) -> Vocabulary {
    let kinds = found.kinds.unwrap_or_default();
    Vocabulary {
        model: found.model,
        pre: found.pre,
        tokens: found.tokens,
        scores: found.scores.unwrap_or_default(),
        kinds: kinds.into_iter().map(kind).collect(),
        merges: found.merges.unwrap_or_default(),
        bos: found.bos,
        eos: found.eos,
        eot: found.eot,
        eom: found.eom,
        unk: found.unknown,
        pad: found.padding,
        add_bos: found.add_bos,
        add_eos: found.add_eos,
        add_space_prefix: found.add_space_prefix,
        rstrip: found.rstrip,
        chat_template: found.chat_template,
        notes: Vec::new(),
    }
}

fn kind(kind: TokenKind) -> Kind {
    match kind {
        TokenKind::Undefined | TokenKind::Normal => Kind::Normal,
        TokenKind::Unknown => Kind::Unknown,
        TokenKind::Control => Kind::Control,
        TokenKind::UserDefined => Kind::UserDefined,
        TokenKind::Unused => Kind::Unused,
        TokenKind::Byte => Kind::Byte,
    }
}

/// The vocabulary of a tokenizer for the `.gguf` file of a model with `rows` tokens, and notes for the user, one sentence
/// each.
///
/// # Errors
/// A tokenizer that llama.cpp does not support.
pub fn to_gguf(
    tokenizer: &Tokenizer,
    rows: usize,
) -> Result<(gguf::Vocabulary, Vec<String>), TrainError> {
    let mut made = tokenizer.vocabulary()?;
    made.pad_to(rows);
    let kinds = made.kinds.iter().map(|kind| match kind {
        Kind::Normal => TokenKind::Normal,
        Kind::Unknown => TokenKind::Unknown,
        Kind::Control => TokenKind::Control,
        Kind::UserDefined => TokenKind::UserDefined,
        Kind::Unused => TokenKind::Unused,
        Kind::Byte => TokenKind::Byte,
    });
    let vocabulary = gguf::Vocabulary {
        model: made.model,
        pre: made.pre,
        tokens: made.tokens,
        scores: Some(made.scores).filter(|list| !list.is_empty()),
        kinds: Some(kinds.collect()).filter(|list: &Vec<_>| !list.is_empty()),
        merges: Some(made.merges).filter(|list| !list.is_empty()),
        bos: made.bos,
        eos: made.eos,
        eot: made.eot,
        eom: made.eom,
        unknown: made.unk,
        padding: made.pad,
        add_bos: made.add_bos,
        add_eos: made.add_eos,
        add_space_prefix: made.add_space_prefix,
        remove_extra_whitespaces: None,
        rstrip: false,
        chat_template: made.chat_template,
        chat_templates: Vec::new(),
    };
    Ok((vocabulary, made.notes))
}
