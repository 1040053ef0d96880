//! Adds tokens to a tokenizer, and saves a tokenizer as a folder.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};
use simmer_files::{WriteError, write_file};
use tokenizers::AddedToken;

use super::error::library;
use super::{Tokenizer, TokenizerError, plain};

/// The result of adding a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Added {
    /// The token.
    pub token: String,
    /// Its id.
    pub id: u32,
    /// Whether it is new.
    pub new: bool,
}

impl Tokenizer {
    /// Adds tokens. Each is one token wherever it occurs in a text; new tokens get the next ids. `special` tokens are
    /// omitted when tokens are decoded with `skip_special`. A token that already exists keeps its id and does not
    /// change, except that it becomes special if `special` is set.
    ///
    /// # Errors
    /// [`TokenizerError::Add`] for a token without text, or if the ids of the vocabulary have gaps.
    pub fn add_tokens(
        &mut self,
        tokens: &[impl AsRef<str>],
        special: bool,
    ) -> Result<Vec<Added>, TokenizerError> {
        let mut added = Vec::with_capacity(tokens.len());
        let mut next = self.max_token_id() + 1;
        for token in tokens {
            let token = token.as_ref();
            let refuse = |problem| TokenizerError::Add {
                path: self.path.clone(),
                token: token.into(),
                problem,
            };
            if token.is_empty() {
                return Err(refuse("it has no text"));
            }
            let before = self.inner.token_to_id(token);
            let is_special = self.inner.get_added_vocabulary().is_special_token(token);
            if before.is_none() || (special && !is_special) {
                // The token must be found in the text before normalisation: normalised, it would be found only at the
                // start of a text.
                let addition = AddedToken::from(token, special).normalized(false);
                library(self.inner.add_tokens([addition]))?;
            }
            let id = self.inner.token_to_id(token).unwrap_or(next);
            if before.is_none() {
                if id != next {
                    return Err(refuse("the ids of the vocabulary have gaps"));
                }
                next += 1;
            }
            added.push(Added {
                token: token.into(),
                id,
                new: before.is_none(),
            });
        }
        self.plain = plain(&self.inner);
        Ok(added)
    }

    /// Sets the padding token, for other programs. Returns whether it changed.
    pub fn set_pad_token(&mut self, token: &str) -> bool {
        let before = self
            .specials
            .insert("pad_token".to_owned(), token.to_owned());
        before.as_deref() != Some(token)
    }

    /// Writes `tokenizer.json` and `tokenizer_config.json` to `folder`, as transformers' `AutoTokenizer` reads them.
    ///
    /// # Errors
    /// [`TokenizerError::Write`] if a file cannot be written.
    pub fn save(&self, folder: impl AsRef<Path>) -> Result<(), TokenizerError> {
        let folder = folder.as_ref();
        let mut inner = self.inner.clone();
        inner.with_post_processor(self.post_processor.clone());
        write(folder, "tokenizer.json", &library(inner.to_string(true))?)?;
        let config = Value::Object(self.config());
        write(folder, "tokenizer_config.json", &format!("{config:#}\n"))
    }

    fn config(&self) -> Map<String, Value> {
        let mut config = Map::new();
        // transformers rebuilds other classes from vocabulary and merges, and they split text in their own way.
        config.insert("tokenizer_class".into(), json!("PreTrainedTokenizerFast"));
        for (key, token) in &self.specials {
            config.insert(key.clone(), json!(token));
        }
        // These may be named in `config.json` alone.
        for (key, id) in [
            ("bos_token", self.bos),
            ("eos_token", self.eos.first().copied()),
        ] {
            if let Some(token) = id.and_then(|id| self.token(id)) {
                config.entry(key).or_insert(json!(token));
            }
        }
        let adds =
            |token: Option<&u32>, around: &[u32]| token.is_some_and(|id| around.contains(id));
        config.insert(
            "add_bos_token".into(),
            json!(adds(self.bos.as_ref(), &self.prefix)),
        );
        config.insert(
            "add_eos_token".into(),
            json!(adds(self.eos.first(), &self.suffix)),
        );
        config.insert("clean_up_tokenization_spaces".into(), json!(false));
        if let Some(length) = &self.max_length {
            config.insert("model_max_length".into(), length.clone());
        }
        let mut templates = self.chat_templates.iter();
        let chat_template = match (templates.next(), self.chat_templates.len()) {
            (None, _) => return config,
            (Some((name, template)), 1) if name == "default" => json!(template),
            _ => self
                .chat_templates
                .iter()
                .map(|(name, template)| json!({"name": name, "template": template}))
                .collect(),
        };
        config.insert("chat_template".into(), chat_template);
        config
    }
}

/// Writes a file of `folder` atomically; creates the folder if it does not exist.
pub(super) fn write(folder: &Path, name: &str, text: &str) -> Result<(), TokenizerError> {
    fs::create_dir_all(folder).map_err(WriteError::io(folder, "create"))?;
    let path = folder.join(name);
    Ok(write_file(path, |file| file.write_all(text.as_bytes()))?)
}
