//! The files next to `tokenizer.json`: special tokens, tokens around a text, chat templates.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use tokenizers::{AddedToken, PostProcessorWrapper};

use super::error::{called, library};
use super::pieces::from_json;
use super::tiktoken::Release;
use super::{TokenizerError, bounds};
use crate::guarded::guarded;

/// The size limit of a `tokenizer.json`, in bytes. The largest have some tens of millions.
const LARGEST_JSON: u64 = 512 << 20;
/// The size limit of the files next to it, in bytes.
const LARGEST_TEXT: u64 = 64 << 20;

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
#[derive(Default)]
struct Table {
    path: PathBuf,
    fields: Map<String, Value>,
}

/// The files next to `tokenizer.json`; a file that does not exist is empty.
#[derive(Default)]
pub(super) struct Folder {
    tokenizer_config: Table,
    special_tokens_map: Table,
    added_tokens: Table,
    /// Settings from the tokenizer's own file (if it is not `tokenizer.json`), under the keys of
    /// `tokenizer_config.json`.
    own: Table,
    /// Meta's `params.json`.
    params: Table,
    generation_config: Table,
    config: Table,
    /// Chat templates in separate files, by name.
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
            added_tokens: Table::read(folder.join("added_tokens.json"))?,
            own: Table::default(),
            params: Table::read(folder.join("params.json"))?,
            generation_config: Table::read(folder.join("generation_config.json"))?,
            config: Table::read(folder.join("config.json"))?,
            template_files,
        })
    }

    /// Adds the settings of the tokenizer's own file at `path`.
    pub(super) fn with_own(mut self, path: &Path, fields: Map<String, Value>) -> Folder {
        let path = path.into();
        self.own = Table { path, fields };
        self
    }

    /// Every special token by its key, the tokenizer's own configuration first.
    pub(super) fn specials(&self) -> BTreeMap<String, String> {
        let find = |key: &str| {
            let (_, token) = self.special(key)?;
            Some((key.to_owned(), token))
        };
        SPECIAL_KEYS.iter().filter_map(|key| find(key)).collect()
    }

    /// A special token, and the file that names it. An empty string, as some conversions have, names none.
    fn special(&self, key: &str) -> Option<(&Table, String)> {
        [&self.tokenizer_config, &self.special_tokens_map, &self.own]
            .into_iter()
            .find_map(|table| Some((table, table.token(key)?)))
    }

    /// The id of a special token that the tokenizer's own files name.
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

    /// The EOS tokens; the first is the one that training appends.
    ///
    /// The tokenizer's own files take precedence. `config.json` is used last, because early LLaMA conversions have
    /// wrong ids in it. `generation_config.json` may add more tokens that stop generation (Llama 3's `<|eot_id|>`).
    pub(super) fn eos(
        &self,
        inner: &tokenizers::Tokenizer,
        bos: Option<u32>,
    ) -> Result<Vec<u32>, TokenizerError> {
        let mut eos: Vec<u32> = self.special_id(inner, "eos_token")?.into_iter().collect();
        let named = !eos.is_empty();
        let more = self.generation_config.ids("eos_token_id")?;
        for id in more.into_iter().chain(self.own.ids("eos_token_id")?) {
            // An id of the BOS token, or of no token, is an error in the file, and not an EOS token.
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

    /// Notes on files of the model that name other tokens than the tokenizer, which takes precedence.
    pub(super) fn notes(
        &self,
        inner: &tokenizers::Tokenizer,
        bos: Option<u32>,
        eos: &[u32],
    ) -> Result<Vec<String>, TokenizerError> {
        let spelled = |id: u32| match inner.id_to_token(id) {
            Some(token) => format!("{id} (`{token}`)"),
            None => format!("{id} (no token)"),
        };
        let mut notes = Vec::new();
        for (role, key, truth) in [
            ("bos_token", "bos_token_id", bos.as_slice()),
            ("eos_token", "eos_token_id", eos),
        ] {
            let Some((&first, _)) = truth.split_first().filter(|_| self.special(role).is_some())
            else {
                continue;
            };
            for table in [&self.generation_config, &self.config] {
                let ids = table.ids(key)?;
                let wrong = ids.iter().filter(|id| !truth.contains(id));
                let wrong: Vec<String> = wrong.map(|&id| spelled(id)).collect();
                if !wrong.is_empty() && !ids.contains(&first) {
                    notes.push(format!(
                        "{}: {key} is {}; simmer uses the tokenizer's, {}",
                        table.path.display(),
                        wrong.join(", "),
                        spelled(first)
                    ));
                }
            }
        }
        Ok(notes)
    }

    /// The number of tokens of the model in this folder.
    pub(super) fn rows(&self) -> Option<usize> {
        let rows = self.config.fields.get("vocab_size")?.as_u64()?;
        usize::try_from(rows).ok()
    }

    pub(super) fn max_length(&self) -> Option<Value> {
        self.tokenizer_config
            .fields
            .get("model_max_length")
            .cloned()
    }

    /// Whether the files set `key` (`add_bos_token`, `add_eos_token`) to true.
    fn adds(&self, key: &str) -> bool {
        let mut said = [&self.tokenizer_config, &self.own].into_iter();
        said.find_map(|table| table.fields.get(key)?.as_bool()) == Some(true)
    }

    /// Sets the post-processor of `inner` to add the BOS token before every text and the EOS token after it, as the
    /// files say.
    pub(super) fn surround(&self, inner: &mut tokenizers::Tokenizer) -> Result<(), TokenizerError> {
        let mut single = vec![json!({"Sequence": {"id": "A", "type_id": 0}})];
        let mut pair = vec![
            single[0].clone(),
            json!({"Sequence": {"id": "B", "type_id": 1}}),
        ];
        let mut used = Map::new();
        let mut token = |role, adds| -> Result<Option<String>, TokenizerError> {
            let Some(id) = self.special_id(inner, role)?.filter(|_| self.adds(adds)) else {
                return Ok(None);
            };
            let text = inner.id_to_token(id).unwrap_or_default();
            used.insert(
                text.clone(),
                json!({"id": text, "ids": [id], "tokens": [text]}),
            );
            Ok(Some(text))
        };
        let (bos, eos) = (
            token("bos_token", "add_bos_token")?,
            token("eos_token", "add_eos_token")?,
        );
        let special = |text: &str, of: u32| json!({"SpecialToken": {"id": text, "type_id": of}});
        if let Some(bos) = bos {
            single.insert(0, special(&bos, 0));
            pair.insert(1, special(&bos, 1));
            pair.insert(0, special(&bos, 0));
        }
        if let Some(eos) = eos {
            single.push(special(&eos, 0));
            pair.insert(pair.len() - 1, special(&eos, 0));
            pair.push(special(&eos, 1));
        }
        if !used.is_empty() {
            let template = json!({
                "type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": used,
            });
            inner.with_post_processor(Some(from_json::<PostProcessorWrapper>(template)?));
        }
        Ok(())
    }

    /// Adds the tokens that `added_tokens.json` and `tokenizer_config.json` name beyond those of `tokenizer.model`.
    pub(super) fn add_tokens(
        &self,
        inner: &mut tokenizers::Tokenizer,
    ) -> Result<(), TokenizerError> {
        let mut added: BTreeMap<u32, (&Table, AddedToken)> = BTreeMap::new();
        for (token, id) in &self.added_tokens.fields {
            let id = id.as_u64().and_then(|id| u32::try_from(id).ok());
            let id = id.ok_or_else(|| {
                self.added_tokens
                    .invalid(format!("the id of `{token}` is not a number"))
            })?;
            let special = self.specials().values().any(|special| special == token);
            let token = AddedToken::from(token.as_str(), special).normalized(false);
            added.insert(id, (&self.added_tokens, token));
        }
        if let Some(Value::Object(decoder)) =
            self.tokenizer_config.fields.get("added_tokens_decoder")
        {
            for (id, token) in decoder {
                let invalid = || {
                    self.tokenizer_config.invalid(format!(
                        "added_tokens_decoder: `{id}`: expected a token, found {token}"
                    ))
                };
                let token = serde_json::from_value(token.clone()).map_err(|_| invalid())?;
                added.insert(
                    id.parse().map_err(|_| invalid())?,
                    (&self.tokenizer_config, token),
                );
            }
        }
        for (id, (table, token)) in added {
            let text = token.content.clone();
            // The tokenizer's own file may have the token already, but not know that it is special.
            let is_special = inner.get_added_vocabulary().is_special_token(&text);
            if inner.token_to_id(&text) != Some(id) || (token.special && !is_special) {
                library(inner.add_tokens([token]))?;
            }
            if inner.token_to_id(&text) != Some(id) {
                let has = inner
                    .token_to_id(&text)
                    .map_or("none".into(), |id| id.to_string());
                return Err(table.invalid(format!(
                    "the id of `{text}` is {id}, but it can only be {has}"
                )));
            }
        }
        Ok(())
    }

    /// The release, which decides the names of a tiktoken file's special tokens. Scaled rotary positions mean Llama 3.1
    /// or later.
    pub(super) fn release(&self) -> Release {
        let scaled = self.params.fields.get("use_scaled_rope") == Some(&Value::Bool(true));
        let rope = ["rope_scaling", "rope_parameters"];
        let types = rope
            .iter()
            .filter_map(|key| self.config.fields.get(*key)?.get("rope_type")?.as_str());
        if scaled || types.into_iter().any(|of| of == "llama3") {
            Release::Llama31
        } else {
            Release::Llama3
        }
    }

    /// Chat templates by name. Separate files take precedence over `tokenizer_config.json`.
    pub(super) fn chat_templates(&self) -> BTreeMap<String, String> {
        let mut templates = BTreeMap::new();
        let own = self.own.fields.get("chat_template");
        match self.tokenizer_config.fields.get("chat_template").or(own) {
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

    fn invalid(&self, problem: String) -> TokenizerError {
        let path = self.path.clone();
        TokenizerError::Invalid { path, problem }
    }

    /// A token's text: a string, or an object with `content`.
    fn token(&self, key: &str) -> Option<String> {
        let value = self.fields.get(key)?;
        let text = value.as_str().or_else(|| value.get("content")?.as_str())?;
        (!text.is_empty()).then(|| text.to_owned())
    }

    /// One id or a list of them.
    fn ids(&self, key: &str) -> Result<Vec<u32>, TokenizerError> {
        let invalid = |value: &Value| {
            self.invalid(format!(
                "{key}: expected a token id or a list of them, found {value}"
            ))
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

/// The tokens that the tokenizer's post-processor adds before and after a text. As in transformers, only the
/// post-processor decides whether texts start with a BOS token; `add_bos_token` in `tokenizer_config.json` is for older
/// programs.
pub(super) fn around(
    inner: &tokenizers::Tokenizer,
) -> Result<(Vec<u32>, Vec<u32>), TokenizerError> {
    let bare = called(|| inner.encode("a", false))?;
    let full = called(|| inner.encode("a", true))?;
    let (bare, full) = (bare.get_ids(), full.get_ids());
    let added = full.len().saturating_sub(bare.len());
    let before = (0..=added).find(|&n| full[n..].starts_with(bare));
    let before = before.unwrap_or(0);
    let after = full.get(before + bare.len()..).unwrap_or_default();
    Ok((full[..before].to_vec(), after.to_vec()))
}

/// Reads `tokenizer.json` with the tokenizers library.
pub(super) fn read_library(path: &Path) -> Result<tokenizers::Tokenizer, TokenizerError> {
    let bytes = simmer_files::read(path, LARGEST_JSON).map_err(|source| TokenizerError::Read {
        path: path.into(),
        source,
    })?;
    if simmer_files::is_lfs_pointer(&bytes) {
        return Err(TokenizerError::LfsPointer { path: path.into() });
    }
    parse_library(&bytes).map_err(|problem| TokenizerError::Invalid {
        path: path.into(),
        problem,
    })
}

fn parse_library(bytes: &[u8]) -> Result<tokenizers::Tokenizer, String> {
    bounds::check(bytes)?;
    match guarded(|| tokenizers::Tokenizer::from_bytes(bytes)) {
        Some(parsed) => parsed.map_err(|error| format!("not a tokenizer: {error}")),
        None => Err("not a tokenizer: it is inconsistent".to_owned()),
    }
}

fn read_if_there(path: &Path) -> Result<Option<String>, TokenizerError> {
    match simmer_files::read_text(path, LARGEST_TEXT) {
        Ok(text) if simmer_files::is_lfs_pointer(text.as_bytes()) => {
            Err(TokenizerError::LfsPointer { path: path.into() })
        }
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(TokenizerError::Read {
            path: path.into(),
            source,
        }),
    }
}
