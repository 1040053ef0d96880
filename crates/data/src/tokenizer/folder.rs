//! What the files beside `tokenizer.json` say: special tokens, what precedes a text, chat templates.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::{TokenizerError, library};

/// The special tokens that `tokenizer_config.json` may name.
const SPECIAL_KEYS: [&str; 6] = [
    "bos_token",
    "eos_token",
    "unk_token",
    "pad_token",
    "sep_token",
    "cls_token",
];

/// A JSON object and the file it came from.
struct Table {
    path: PathBuf,
    fields: Map<String, Value>,
}

/// The files beside `tokenizer.json`, each empty where it does not exist.
pub(super) struct Folder {
    tokenizer_config: Table,
    special_tokens_map: Table,
    generation_config: Table,
    config: Table,
    /// Templates in files of their own, by name.
    template_files: BTreeMap<String, String>,
}

impl Folder {
    pub(super) fn read(folder: &Path) -> Result<Folder, TokenizerError> {
        let mut template_files = BTreeMap::new();
        if let Some(text) = read_if_there(&folder.join("chat_template.jinja"))? {
            template_files.insert("default".into(), text);
        }
        let more = folder.join("additional_chat_templates");
        for entry in std::fs::read_dir(&more).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|ext| ext == "jinja")
                && let Some(name) = path.file_stem().and_then(|name| name.to_str())
                && let Some(text) = read_if_there(&path)?
            {
                template_files.insert(name.into(), text);
            }
        }
        Ok(Folder {
            tokenizer_config: Table::read(folder.join("tokenizer_config.json"))?,
            special_tokens_map: Table::read(folder.join("special_tokens_map.json"))?,
            generation_config: Table::read(folder.join("generation_config.json"))?,
            config: Table::read(folder.join("config.json"))?,
            template_files,
        })
    }

    /// Every special token by its key, the tokenizer's own configuration first.
    pub(super) fn specials(&self) -> BTreeMap<String, String> {
        let find = |key: &str| {
            let (_, token) = self.special(key)?;
            Some((key.to_owned(), token))
        };
        SPECIAL_KEYS.iter().filter_map(|key| find(key)).collect()
    }

    /// A special token, and the file that names it. Some conversions leave it empty: that names none.
    fn special(&self, key: &str) -> Option<(&Table, String)> {
        [&self.tokenizer_config, &self.special_tokens_map]
            .into_iter()
            .find_map(|table| Some((table, table.token(key)?)))
    }

    /// A special token's id by the tokenizer's own files.
    fn special_id(
        &self,
        inner: &tokenizers::Tokenizer,
        key: &'static str,
    ) -> Result<Option<u32>, TokenizerError> {
        let Some((table, token)) = self.special(key) else {
            return Ok(None);
        };
        match inner.token_to_id(&token) {
            Some(id) => Ok(Some(id)),
            None => Err(TokenizerError::UnknownSpecial {
                path: table.path.clone(),
                role: key,
                token,
            }),
        }
    }

    pub(super) fn bos(&self, inner: &tokenizers::Tokenizer) -> Result<Option<u32>, TokenizerError> {
        if let Some(id) = self.special_id(inner, "bos_token")? {
            return Ok(Some(id));
        }
        for table in [&self.generation_config, &self.config] {
            if let Some(&id) = table.ids("bos_token_id")?.first() {
                return Ok(Some(id));
            }
        }
        Ok(None)
    }

    /// The end-of-sequence tokens, the one that training appends first.
    ///
    /// The tokenizer's own is the truth: early LLaMA conversions have wrong numbers in their `config.json`, so that is asked
    /// last. `generation_config.json` may add more that stop generation (Llama 3's `<|eot_id|>`).
    pub(super) fn eos(
        &self,
        inner: &tokenizers::Tokenizer,
        bos: Option<u32>,
    ) -> Result<Vec<u32>, TokenizerError> {
        let mut eos: Vec<u32> = self.special_id(inner, "eos_token")?.into_iter().collect();
        let named = !eos.is_empty();
        for id in self.generation_config.ids("eos_token_id")? {
            // A number that means another token, or none, is a fault of the file and no end.
            let known = inner.id_to_token(id).is_some() && !(named && bos == Some(id));
            if known && !eos.contains(&id) {
                eos.push(id);
            }
        }
        if eos.is_empty() {
            eos = self.config.ids("eos_token_id")?;
        }
        Ok(eos)
    }

    /// Chat templates by name; files of their own win over `tokenizer_config.json`.
    pub(super) fn chat_templates(&self) -> BTreeMap<String, String> {
        let mut templates = BTreeMap::new();
        match self.tokenizer_config.fields.get("chat_template") {
            Some(Value::String(text)) => {
                templates.insert("default".to_owned(), text.clone());
            }
            Some(Value::Array(list)) => {
                let text = |entry: &Value, key| Some(entry.get(key)?.as_str()?.to_owned());
                templates
                    .extend(list.iter().filter_map(|entry| {
                        Some((text(entry, "name")?, text(entry, "template")?))
                    }));
            }
            _ => {}
        }
        templates.extend(self.template_files.clone());
        templates
    }
}

impl Table {
    fn read(path: PathBuf) -> Result<Table, TokenizerError> {
        let Some(text) = read_if_there(&path)? else {
            let fields = Map::new();
            return Ok(Table { path, fields });
        };
        match serde_json::from_str(&text) {
            Ok(fields) => Ok(Table { path, fields }),
            Err(error) => Err(TokenizerError::Invalid {
                path,
                problem: error.to_string(),
            }),
        }
    }

    /// A token's text: a string, or an object with `content`.
    fn token(&self, key: &str) -> Option<String> {
        let value = self.fields.get(key)?;
        let text = value.as_str().or_else(|| value.get("content")?.as_str())?;
        (!text.is_empty()).then(|| text.to_owned())
    }

    /// One id or a list of them.
    fn ids(&self, key: &str) -> Result<Vec<u32>, TokenizerError> {
        let invalid = |value: &Value| TokenizerError::Invalid {
            path: self.path.clone(),
            problem: format!("{key} is {value}, expected a token id or a list of them"),
        };
        let id = |value: &Value| {
            let id = value.as_u64().and_then(|id| u32::try_from(id).ok());
            id.ok_or_else(|| invalid(value))
        };
        match self.fields.get(key) {
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(Value::Array(list)) => list.iter().map(id).collect(),
            Some(value) => Ok(vec![id(value)?]),
        }
    }
}

/// The tokens that the tokenizer's post-processor puts before a text. As in transformers, that alone says whether texts
/// start with a beginning of sequence; `add_bos_token` of `tokenizer_config.json` speaks to older readers.
pub(super) fn prefix(inner: &tokenizers::Tokenizer) -> Result<Vec<u32>, TokenizerError> {
    let bare = library(inner.encode("a", false))?;
    let full = library(inner.encode("a", true))?;
    let (bare, full) = (bare.get_ids(), full.get_ids());
    let added = full.len().saturating_sub(bare.len());
    let before = (0..=added).find(|&n| full[n..].starts_with(bare));
    Ok(full[..before.unwrap_or(0)].to_vec())
}

/// `tokenizer.json` as the tokenizers library reads it.
pub(super) fn read_library(path: &Path) -> Result<tokenizers::Tokenizer, TokenizerError> {
    let bytes = std::fs::read(path).map_err(|source| TokenizerError::Read {
        path: path.into(),
        source,
    })?;
    tokenizers::Tokenizer::from_bytes(&bytes).map_err(|error| TokenizerError::Invalid {
        path: path.into(),
        problem: format!("not a tokenizer: {error}"),
    })
}

fn read_if_there(path: &Path) -> Result<Option<String>, TokenizerError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(TokenizerError::Read {
            path: path.into(),
            source,
        }),
    }
}
