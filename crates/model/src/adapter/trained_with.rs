//! `simmer.json`: what an adapter was trained with that PEFT's configuration has no place for.
//!
//! ```json
//! {
//!   "version": 1,
//!   "templates": [{"name": "alpaca", "text": "..."}]
//! }
//! ```
//!
//! `version` is that of this schema. `templates` has the prompt templates of the training rows, in the order of the recipe,
//! each once: its name as in the recipe, and its text (of `chat`, the model's chat template). PEFT does not read the file.

use std::io::ErrorKind;
use std::path::Path;

use serde::{Deserialize, Serialize};
use simmer_checkpoint::MAX_TEXT_BYTES;

use super::AdapterError;

/// The file's name.
pub const SETTINGS_FILE: &str = "simmer.json";
/// The version of its schema.
const VERSION: u32 = 1;

/// What an adapter was trained with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrainedWith {
    /// The version of the file's schema.
    version: u32,
    /// The prompt templates of the training rows.
    #[serde(default)]
    pub templates: Vec<PromptTemplate>,
}

/// A prompt template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromptTemplate {
    /// Its name, as in a recipe.
    pub name: String,
    /// Its text: TOML, or Jinja of a chat template.
    pub text: String,
}

impl PromptTemplate {
    /// The name of the chat template that this is, if it is one of the tokenizer's: `default`, or the part after `chat:`.
    pub fn chat_name(&self) -> Option<&str> {
        if self.name == "chat" {
            return Some("default");
        }
        self.name.strip_prefix("chat:")
    }
}

impl TrainedWith {
    /// Reads the file of an adapter's folder, if it has one.
    ///
    /// # Errors
    /// A file that is no such JSON, or that a later version of simmer wrote.
    pub fn read(folder: &Path) -> Result<Option<Self>, AdapterError> {
        let path = folder.join(SETTINGS_FILE);
        let text = match simmer_files::read(&path, MAX_TEXT_BYTES) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(AdapterError::io(&path, "read")(error)),
        };
        let found: Self =
            serde_json::from_slice(&text).map_err(|source| AdapterError::ConfigJson {
                file: path.clone(),
                source,
            })?;
        if found.version != VERSION {
            return Err(AdapterError::SettingsVersion {
                file: path,
                found: found.version,
            });
        }
        Ok(Some(found))
    }

    /// The text of the file; `None` if there is nothing to keep.
    pub(super) fn text(templates: &[PromptTemplate]) -> Option<String> {
        if templates.is_empty() {
            return None;
        }
        let trained_with = Self {
            version: VERSION,
            templates: templates.to_vec(),
        };
        // strings and a number always have a text
        let text = serde_json::to_string_pretty(&trained_with).unwrap_or_default();
        Some(text + "\n")
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(TrainedWith::read(dir.path()).unwrap(), None);
        assert_eq!(TrainedWith::text(&[]), None);
        let templates = [("alpaca", "text = \"é\""), ("chat:tool", "{{ x }}")];
        let templates = templates.map(|(name, text)| PromptTemplate {
            name: name.to_owned(),
            text: text.to_owned(),
        });
        let text = TrainedWith::text(&templates).unwrap();
        fs::write(dir.path().join(SETTINGS_FILE), text).unwrap();
        let found = TrainedWith::read(dir.path()).unwrap().unwrap();
        assert_eq!(found.templates, templates);
        assert_eq!(found.templates[0].chat_name(), None);
        assert_eq!(found.templates[1].chat_name(), Some("tool"));
    }

    #[test]
    fn what_another_version_wrote_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(SETTINGS_FILE);
        let said = || {
            let error = TrainedWith::read(dir.path()).unwrap_err();
            error
                .to_string()
                .replace(&dir.path().display().to_string(), "DIR")
        };
        fs::write(&file, r#"{"version": 2, "templates": []}"#).unwrap();
        insta::assert_snapshot!(said(), @"DIR/simmer.json: `version`: expected 1, found 2");
        fs::write(&file, "{}").unwrap();
        insta::assert_snapshot!(said(), @"DIR/simmer.json: missing field `version` at line 1 column 2");
    }
}
