//! `simmer.json`: what an adapter was trained with that PEFT's configuration has no place for.
//!
//! ```json
//! {
//!   "version": 1,
//!   "templates": [{"name": "alpaca", "text": "..."}],
//!   "base": {"kind": "nf4", "on_load": true, "double_quant": true}
//! }
//! ```
//!
//! `version` is that of this schema. `templates` has the prompt templates of the training rows, in the order of the recipe,
//! each once: its name as in the recipe, and its text (of `chat`, the model's chat template). `base` is there if the base model was
//! quantised: the adapter is exact for its widened weights alone. PEFT does not read the file.

use std::io::ErrorKind;
use std::path::Path;

use serde::{Deserialize, Serialize};
use simmer_checkpoint::{Checkpoint, MAX_TEXT_BYTES};

use super::AdapterError;
use crate::base::{BaseConfig, BasePrecision, QuantisedOnLoad};

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
    /// The quantised base model; `None` if the weights were not quantised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<QuantisedBase>,
}

/// How the base model was quantised that an adapter was trained on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuantisedBase {
    /// The type, such as `nf4` or `Q4_K`; of several, that of most weights.
    pub kind: String,
    /// Whether an ordinary model was quantised while it was loaded (`base.precision`). Otherwise it is stored so.
    pub on_load: bool,
    /// Whether the scales of nf4 and fp4 were quantised once more while it was loaded.
    #[serde(default)]
    pub double_quant: bool,
}

impl QuantisedBase {
    /// How the base model of a recipe is quantised, if it is.
    pub fn of(recipe: &BaseConfig, base: Option<&Checkpoint>) -> Option<Self> {
        if let Some(QuantisedOnLoad {
            precision,
            double_quant,
        }) = recipe.quantised_on_load()
        {
            return Some(Self {
                kind: precision.name().to_owned(),
                on_load: true,
                double_quant: double_quant && precision != BasePrecision::Int8,
            });
        }
        // another dtype widens the weights when they are loaded, to the values that they have
        let (_, kind) = base?.most_quantised()?;
        Some(Self {
            kind: kind.to_owned(),
            on_load: false,
            double_quant: false,
        })
    }

    /// How an ordinary model is to be quantised while it is loaded, to get the same weights. `None`: it is stored so, or the
    /// type is not known.
    pub fn on_load(&self) -> Option<QuantisedOnLoad> {
        let precision = [BasePrecision::Nf4, BasePrecision::Fp4, BasePrecision::Int8];
        let precision = precision
            .into_iter()
            .find(|known| known.name() == self.kind);
        Some(QuantisedOnLoad {
            precision: precision.filter(|_| self.on_load)?,
            double_quant: self.double_quant,
        })
    }
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
    pub(super) fn text(
        templates: &[PromptTemplate],
        base: Option<&QuantisedBase>,
    ) -> Option<String> {
        if templates.is_empty() && base.is_none() {
            return None;
        }
        let trained_with = Self {
            version: VERSION,
            templates: templates.to_vec(),
            base: base.cloned(),
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
        assert_eq!(TrainedWith::text(&[], None), None);
        let templates = [("alpaca", "text = \"é\""), ("chat:tool", "{{ x }}")];
        let templates = templates.map(|(name, text)| PromptTemplate {
            name: name.to_owned(),
            text: text.to_owned(),
        });
        let text = TrainedWith::text(&templates, None).unwrap();
        assert!(!text.contains("base"));
        fs::write(dir.path().join(SETTINGS_FILE), text).unwrap();
        let found = TrainedWith::read(dir.path()).unwrap().unwrap();
        assert_eq!(found.base, None);
        assert_eq!(found.templates, templates);
        assert_eq!(found.templates[0].chat_name(), None);
        assert_eq!(found.templates[1].chat_name(), Some("tool"));
    }

    #[test]
    fn a_quantised_base_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let mut recipe = BaseConfig::from_path("base");
        assert_eq!(QuantisedBase::of(&recipe, None), None);
        recipe.precision = Some(BasePrecision::Bf16);
        assert_eq!(QuantisedBase::of(&recipe, None), None);
        recipe.precision = Some(BasePrecision::Nf4);
        for double_quant in [true, false] {
            recipe.double_quant = double_quant;
            let base = QuantisedBase::of(&recipe, None).unwrap();
            let text = TrainedWith::text(&[], Some(&base)).unwrap();
            fs::write(dir.path().join(SETTINGS_FILE), text).unwrap();
            let found = TrainedWith::read(dir.path())
                .unwrap()
                .unwrap()
                .base
                .unwrap();
            assert_eq!(found.on_load(), recipe.quantised_on_load());
            assert_eq!(found, base);
        }
        let stored = QuantisedBase {
            kind: "nf4".to_owned(),
            on_load: false,
            double_quant: false,
        };
        assert_eq!(stored.on_load(), None);
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
