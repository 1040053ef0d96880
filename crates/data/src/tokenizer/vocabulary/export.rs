//! Converts a tokenizer to the vocabulary of a GGUF file.

use std::collections::{HashMap, HashSet};

use serde_json::{Value, json};
use simmer_files::size::counted;

use super::super::byte_level::PreTokenizer;
use super::super::merges::derive;
use super::super::pieces::{Kind, SPACE, byte_piece};
use super::super::{Tokenizer, TokenizerError};
use super::{Vocabulary, is_spaces, unused};

/// The parts of a tokenizer.
pub(super) struct Export<'a> {
    tokenizer: &'a Tokenizer,
    /// Its JSON in `tokenizer.json`.
    json: Value,
    tokens: Vec<String>,
    kinds: Vec<Kind>,
    merges: Vec<(String, String)>,
}

impl<'a> Export<'a> {
    pub(super) fn new(tokenizer: &'a Tokenizer) -> Result<Export<'a>, TokenizerError> {
        let json = serde_json::to_value(&tokenizer.inner);
        let mut json = json.map_err(|error| TokenizerError::Library(error.to_string()))?;
        let merges = json["model"]["merges"].take();
        let merges = serde_json::from_value(merges).unwrap_or_default();
        let bytes: HashSet<String> = match json["model"]["byte_fallback"].as_bool() {
            Some(true) => (0..=255).map(byte_piece).collect(),
            _ => HashSet::new(),
        };
        let unknown = json["model"]["unk_token"].as_str();
        let added = tokenizer.inner.get_added_tokens_decoder();
        let kind = |id: u32, token: &str| match added.get(&id) {
            _ if unknown == Some(token) => Kind::Unknown,
            Some(added) if added.special => Kind::Control,
            Some(_) => Kind::UserDefined,
            None if bytes.contains(token) => Kind::Byte,
            None => Kind::Normal,
        };
        let (tokens, kinds) = (0..=tokenizer.max_token_id())
            .map(|id| match tokenizer.token(id) {
                Some(token) => {
                    let kind = kind(id, &token);
                    (token, kind)
                }
                None => (unused(id as usize), Kind::Unused),
            })
            .unzip();
        Ok(Export {
            tokenizer,
            json,
            tokens,
            kinds,
            merges,
        })
    }

    pub(super) fn vocabulary(self) -> Result<Vocabulary, String> {
        let model = &self.json["model"];
        if model["type"] != "BPE" {
            return Err(format!("expected a BPE model, found {}", model["type"]));
        }
        for key in ["continuing_subword_prefix", "end_of_word_suffix", "dropout"] {
            if !matches!(&model[key], Value::Null) && model[key] != "" {
                return Err(format!("its model has `{key}`"));
            }
        }
        let (bos, eos) = (self.tokenizer.bos, self.tokenizer.eos.first().copied());
        let adds = |around: &[u32], token: Option<u32>| match around {
            [] => Ok(Some(false)),
            [id] if token == Some(*id) => Ok(Some(true)),
            _ => Err("it adds other tokens than BOS before a text and EOS after it"),
        };
        let id = |role: &str| self.tokenizer.token_id(self.tokenizer.specials.get(role)?);
        let vocabulary = Vocabulary {
            bos,
            eos,
            eot: self.tokenizer.eos.get(1).copied(),
            eom: self.tokenizer.eos.get(2).copied(),
            unk: id("unk_token"),
            pad: id("pad_token"),
            add_bos: adds(&self.tokenizer.prefix, bos)?,
            add_eos: adds(&self.tokenizer.suffix, eos)?,
            chat_template: self.tokenizer.chat_template("default").map(Into::into),
            notes: self.stripping(),
            ..Vocabulary::default()
        };
        if model["byte_fallback"] == true {
            self.sentencepiece(vocabulary)
        } else if self.json["decoder"]["type"] == "ByteLevel" {
            self.byte_level(vocabulary)
        } else {
            Err(
                "it has neither byte_fallback nor byte-level tokens, for characters without a token"
                    .into(),
            )
        }
    }

    /// A note on added tokens that absorb adjacent spaces or match only whole words.
    fn stripping(&self) -> Vec<String> {
        let added = self.tokenizer.inner.get_added_tokens_decoder();
        let mut tokens: Vec<&str> = added
            .values()
            .filter(|token| token.lstrip || token.rstrip || token.single_word)
            .map(|token| token.content.as_str())
            .collect();
        tokens.sort_unstable();
        match tokens.first() {
            Some(token) => vec![format!(
                "lstrip, rstrip and single_word of added tokens (`{token}`) are lost; llama.cpp knows Phi-3's rstrip by the model's name"
            )],
            None => Vec::new(),
        }
    }

    fn byte_level(self, mut vocabulary: Vocabulary) -> Result<Vocabulary, String> {
        let nfc = match self.normalizers().as_slice() {
            [] => false,
            [only] if only["type"] == "NFC" => true,
            others => {
                let found: Vec<&str> = others.iter().filter_map(|of| of["type"].as_str()).collect();
                let found = found.join(", ");
                return Err(format!("expected no normalizer or NFC, found {found}"));
            }
        };
        if nfc {
            vocabulary.notes.push(
                "llama.cpp does not normalise text to NFC: a letter that is written with a separate accent has other tokens there"
                    .into(),
            );
        }
        let ignore_merges = self.json["model"]["ignore_merges"] == true;
        let pre = PreTokenizer::recognise(&self.json["pre_tokenizer"], ignore_merges, nfc);
        let pre = pre.ok_or_else(|| {
            format!(
                "unknown pre-tokenizer (ignore_merges {ignore_merges}, {}); known are {}",
                self.json["pre_tokenizer"],
                PreTokenizer::names()
            )
        })?;
        Ok(Vocabulary {
            model: "gpt2".into(),
            pre: Some(pre.names[0].into()),
            tokens: self.tokens,
            kinds: self.kinds,
            merges: self
                .merges
                .into_iter()
                .map(|(left, right)| format!("{left} {right}"))
                .collect(),
            add_space_prefix: Some(false),
            ..vocabulary
        })
    }

    fn sentencepiece(mut self, mut vocabulary: Vocabulary) -> Result<Vocabulary, String> {
        self.restore_bytes();
        self.merges = self.live_merges();
        let bytes = self
            .kinds
            .iter()
            .filter(|&&kind| kind == Kind::Byte)
            .count();
        if bytes != 256 {
            return Err(format!(
                "expected a token for each of the 256 bytes, found {}",
                counted(bytes, "token")
            ));
        }
        let (prefix, note) = self.space_prefix()?;
        vocabulary.notes.extend(note.map(Into::into));
        let scores = self.scores()?;
        self.spell_spaces();
        Ok(Vocabulary {
            model: "llama".into(),
            scores,
            tokens: self.tokens,
            kinds: self.kinds,
            add_space_prefix: Some(prefix),
            ..vocabulary
        })
    }

    /// Spells tokens for single bytes as SentencePiece does. transformers' conversion of Gemma's tokenizer writes a tab
    /// for the byte of one.
    fn restore_bytes(&mut self) {
        let bytes: HashSet<&str> = self.tokens.iter().map(String::as_str).collect();
        let missing: HashMap<String, String> = (0..0x80)
            .map(|byte| (char::from(byte).to_string(), byte_piece(byte)))
            .filter(|(_, piece)| !bytes.contains(piece.as_str()))
            .collect();
        for (token, kind) in self.tokens.iter_mut().zip(&mut self.kinds) {
            if let Some(piece) = missing.get(token.as_str()) {
                token.clone_from(piece);
                *kind = Kind::Byte;
            }
        }
    }

    /// The merges between tokens of text. Added tokens are found before anything is merged, so transformers' merges to
    /// Gemma's line breaks and from special tokens do nothing.
    fn live_merges(&self) -> Vec<(String, String)> {
        let tokens = self.tokens.iter().zip(&self.kinds);
        let normal: HashSet<&str> = tokens
            .filter(|(_, kind)| **kind == Kind::Normal)
            .map(|(token, _)| token.as_str())
            .collect();
        let live = |(left, right): &&(String, String)| {
            let merged = [left.as_str(), right].concat();
            [left.as_str(), right, &merged]
                .iter()
                .all(|token| normal.contains(token))
        };
        self.merges.iter().filter(live).cloned().collect()
    }

    /// Writes added tokens for several spaces (Gemma's) with spaces: llama.cpp looks for them in the text as it is.
    fn spell_spaces(&mut self) {
        for (token, kind) in self.tokens.iter_mut().zip(&self.kinds) {
            if *kind == Kind::UserDefined && is_spaces(token) {
                *token = token.replace(SPACE, " ");
            }
        }
    }

    /// The steps of the normalizer.
    fn normalizers(&self) -> Vec<Value> {
        match &self.json["normalizer"] {
            Value::Null => Vec::new(),
            json => match &json["normalizers"] {
                Value::Array(steps) => steps.clone(),
                _ => vec![json.clone()],
            },
        }
    }

    /// Whether a space is put in front of every text, and a note if llama.cpp differs.
    fn space_prefix(&self) -> Result<(bool, Option<&'static str>), String> {
        let normalizer = self.normalizers();
        let prepend = json!({"type": "Prepend", "prepend": SPACE});
        let spaces = json!({"type": "Replace", "pattern": {"String": " "}, "content": SPACE});
        let pre = &self.json["pre_tokenizer"];
        match normalizer.as_slice() {
            [first, second] if *first == prepend && *second == spaces && pre.is_null() => {
                Ok((true, None))
            }
            // Gemma's, whose pre-tokenizer looks for spaces that the normalizer has replaced
            [only] if *only == spaces && (pre.is_null() || splits_at(pre, " ")) => {
                Ok((false, None))
            }
            [] if pre["type"] == "Metaspace"
                && pre["replacement"] == SPACE
                && pre["split"] == false =>
            {
                let differs = "llama.cpp adds a space in front of a text that starts with one";
                let first = "llama.cpp adds a space in front of a text that follows a special token or starts with \
                             a space";
                match pre["prepend_scheme"].as_str() {
                    Some("never") => Ok((false, None)),
                    Some("always") => Ok((true, Some(differs))),
                    _ => Ok((true, Some(first))),
                }
            }
            _ => Err(format!(
                "it does not normalise text as SentencePiece does ({}, {pre})",
                self.json["normalizer"]
            )),
        }
    }

    /// Scores that imply the merges: the later a token is merged, the lower its score.
    fn scores(&self) -> Result<Vec<f32>, String> {
        let mut places: HashMap<String, usize> = HashMap::new();
        let mut last = String::new();
        for (left, right) in &self.merges {
            let merged = [left.as_str(), right].concat();
            if merged != last {
                let place = places.len();
                if places.insert(merged.clone(), place).is_some() {
                    return Err(format!("the merges to `{merged}` are not consecutive"));
                }
                last = merged;
            }
        }
        let score = |place: usize| -(place as f32);
        let mut rest = places.len()..;
        let normal = self.tokens.iter().zip(&self.kinds);
        let scores: Vec<f32> = normal
            .map(|(token, kind)| match (places.get(token), kind) {
                (Some(&place), _) => score(place),
                (None, Kind::Normal) => score(rest.next().unwrap_or_default()),
                (None, _) => 0.0,
            })
            .collect();
        self.check_merges(&scores)?;
        Ok(scores)
    }

    /// Checks that llama.cpp, which merges any two tokens whose joined text is a token, performs the same merges.
    fn check_merges(&self, scores: &[f32]) -> Result<(), String> {
        let tokens = self.tokens.iter().zip(&self.kinds).zip(scores);
        let ranked: Vec<(&str, f64)> = tokens
            .filter(|((_, kind), _)| **kind == Kind::Normal)
            .map(|((token, _), &score)| (token.as_str(), f64::from(score)))
            .collect();
        let derived = derive(ranked).pairs;
        let derived: HashSet<&(String, String)> = derived.iter().collect();
        let own: HashSet<&(String, String)> = self.merges.iter().collect();
        match derived.symmetric_difference(&own).min() {
            None => Ok(()),
            Some((left, right)) => Err(format!(
                "its merges are not those that scores imply: `{left}` and `{right}` are {}",
                if own.contains(&(left.clone(), right.clone())) {
                    "merged"
                } else {
                    "not merged"
                }
            )),
        }
    }
}

/// Whether a pre-tokenizer does nothing but split at this text.
fn splits_at(pre: &Value, text: &str) -> bool {
    pre["type"] == "Split" && pre["pattern"]["String"] == text && pre["invert"] == false
}
