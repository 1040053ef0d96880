//! A tokenizer that takes over what the files beside an adapter say.

use std::path::Path;

use super::folder::Folder;
use super::{Tokenizer, TokenizerError};

impl Tokenizer {
    /// The tokenizer with the special tokens, the end of sequence and the chat templates of the files in a folder that has
    /// no whole tokenizer: `tokenizer_config.json`, `special_tokens_map.json`, `generation_config.json`,
    /// `chat_template.jinja`. What they do not say stays.
    ///
    /// # Errors
    /// [`TokenizerError`] if a file is malformed, or names a special token that is not in the vocabulary.
    pub fn with_settings_of(mut self, folder: &Path) -> Result<Tokenizer, TokenizerError> {
        let folder = Folder::read(folder)?;
        if let Some(id) = folder.bos(&self.inner)? {
            self.bos = Some(id);
        }
        let eos = folder.eos(&self.inner, self.bos)?;
        if !eos.is_empty() {
            self.eos = eos;
        }
        self.specials.extend(folder.specials());
        self.chat_templates.extend(folder.chat_templates());
        Ok(self)
    }

    /// Takes over what this tokenizer lacks: the end of sequence, and the chat templates if it has none. Returns whether
    /// anything was.
    pub fn complete_from(&mut self, other: &Tokenizer) -> bool {
        let mut changed = false;
        if self.eos.is_empty() {
            self.eos = self.ids_of(other, &other.eos);
            changed |= !self.eos.is_empty();
        }
        if self.chat_templates.is_empty() && !other.chat_templates.is_empty() {
            self.chat_templates.clone_from(&other.chat_templates);
            changed = true;
        }
        changed
    }

    /// Sets a chat template; most models have only one, `default`. Returns whether it changed.
    pub fn set_chat_template(&mut self, name: &str, text: &str) -> bool {
        let before = self.chat_templates.insert(name.to_owned(), text.to_owned());
        before.as_deref() != Some(text)
    }

    /// The ids that tokens of another tokenizer have here; tokens that are not special here are left out.
    pub fn ids_of(&self, other: &Tokenizer, ids: &[u32]) -> Vec<u32> {
        let special = self.special_tokens();
        let texts = ids.iter().filter_map(|&id| other.token(id));
        let texts = texts.filter(|text| special.contains(text));
        texts.filter_map(|text| self.token_id(&text)).collect()
    }

    /// Whether two tokenizers have the same tokens under the same ids, and add the same ones before a text.
    pub fn has_tokens_of(&self, other: &Tokenizer) -> bool {
        self.prefix == other.prefix
            && self.inner.get_vocab(true) == other.inner.get_vocab(true)
            && self.special_tokens() == other.special_tokens()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::super::tests::{bare_tiny, tiny, with_config};

    #[test]
    fn files_beside_an_adapter_change_what_they_name_alone() {
        let folder = tempfile::tempdir().unwrap();
        let base = with_config(&json!({
            "bos_token": "<|im_start|>", "eos_token": "<|endoftext|>", "chat_template": "old",
        }));
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        let same = base.clone().with_settings_of(folder.path()).unwrap();
        assert_eq!(same.eos_ids(), base.eos_ids());

        write("special_tokens_map.json", r#"{"eos_token": "<|im_end|>"}"#);
        write("chat_template.jinja", "new");
        let changed = base.clone().with_settings_of(folder.path()).unwrap();
        assert_eq!(changed.token(changed.eos_ids()[0]).unwrap(), "<|im_end|>");
        assert_eq!(changed.bos_id(), base.bos_id());
        assert_eq!(changed.chat_template("default"), Some("new"));
        assert!(changed.has_tokens_of(&base));

        write("special_tokens_map.json", r#"{"eos_token": "<end>"}"#);
        let error = base.with_settings_of(folder.path()).unwrap_err();
        assert!(
            error.to_string().contains("eos_token is `<end>`"),
            "{error}"
        );
    }

    #[test]
    fn what_an_adapters_tokenizer_lacks_comes_from_the_base() {
        let mut own = bare_tiny();
        assert!(own.eos_ids().is_empty());
        assert!(own.complete_from(&tiny()));
        assert_eq!(own.eos_ids(), tiny().eos_ids());
        assert_eq!(
            own.chat_template("default"),
            tiny().chat_template("default")
        );
        assert!(!own.complete_from(&tiny()));
    }
}
