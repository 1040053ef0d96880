//! A tokenizer on its way to GGUF.

use std::collections::{HashMap, HashSet};

use serde_json::{Value, json};

use super::super::byte_level::PreTokenizer;
use super::super::merges::derive;
use super::super::pieces::{Kind, SPACE, byte_piece};
use super::super::{Tokenizer, TokenizerError};
use super::{Vocabulary, unused};

/// A tokenizer taken apart.
pub(super) struct Export<'a> {
    tokenizer: &'a Tokenizer,
    /// As `tokenizer.json` has it.
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
            return Err(format!("its model is {}, GGUF has BPE", model["type"]));
        }
        for key in ["continuing_subword_prefix", "end_of_word_suffix", "dropout"] {
            if !matches!(&model[key], Value::Null) && model[key] != "" {
                return Err(format!("its model has a {key}"));
            }
        }
        let (bos, eos) = (self.tokenizer.bos, self.tokenizer.eos.first().copied());
        let adds = |what, around: &[u32], token: Option<u32>| match around {
            [] => Ok(Some(false)),
            [id] if token == Some(*id) => Ok(Some(true)),
            _ => Err(format!("it puts more {what} a text than one token")),
        };
        let id = |role: &str| self.tokenizer.token_id(self.tokenizer.specials.get(role)?);
        let vocabulary = Vocabulary {
            bos,
            eos,
            eot: self.tokenizer.eos.get(1).copied(),
            eom: self.tokenizer.eos.get(2).copied(),
            unk: id("unk_token"),
            pad: id("pad_token"),
            add_bos: adds("before", &self.tokenizer.prefix, bos)?,
            add_eos: adds("after", &self.tokenizer.suffix, eos)?,
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
                "characters that are no token become neither bytes nor byte-level characters"
                    .into(),
            )
        }
    }

    /// Added tokens that take the spaces beside them along, or are words only.
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
                "lstrip, rstrip and single_word of added tokens (`{token}`) are lost"
            )],
            None => Vec::new(),
        }
    }

    fn byte_level(self, vocabulary: Vocabulary) -> Result<Vocabulary, String> {
        if !self.json["normalizer"].is_null() {
            return Err(format!(
                "it normalises text ({})",
                self.json["normalizer"]["type"]
            ));
        }
        let ignore_merges = self.json["model"]["ignore_merges"] == true;
        let pre = PreTokenizer::recognise(&self.json["pre_tokenizer"], ignore_merges);
        let pre = pre.ok_or_else(|| {
            format!(
                "it cuts text in a way (ignore_merges {ignore_merges}, {}) that is none of {}",
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

    fn sentencepiece(self, mut vocabulary: Vocabulary) -> Result<Vocabulary, String> {
        let bytes = self
            .kinds
            .iter()
            .filter(|&&kind| kind == Kind::Byte)
            .count();
        if bytes != 256 {
            return Err(format!("it has tokens for {bytes} of 256 bytes"));
        }
        let (prefix, note) = self.space_prefix()?;
        vocabulary.notes.extend(note.map(Into::into));
        Ok(Vocabulary {
            model: "llama".into(),
            scores: self.scores()?,
            tokens: self.tokens,
            kinds: self.kinds,
            add_space_prefix: Some(prefix),
            ..vocabulary
        })
    }

    /// Whether a space is put in front of every text, and where llama.cpp does otherwise.
    fn space_prefix(&self) -> Result<(bool, Option<&'static str>), String> {
        let normalizer = match &self.json["normalizer"] {
            Value::Null => Vec::new(),
            json => match &json["normalizers"] {
                Value::Array(steps) => steps.clone(),
                _ => vec![json.clone()],
            },
        };
        let prepend = json!({"type": "Prepend", "prepend": SPACE});
        let spaces = json!({"type": "Replace", "pattern": {"String": " "}, "content": SPACE});
        let pre = &self.json["pre_tokenizer"];
        match normalizer.as_slice() {
            [first, second] if *first == prepend && *second == spaces && pre.is_null() => {
                Ok((true, None))
            }
            [only] if *only == spaces && pre.is_null() => Ok((false, None)),
            [] if pre["type"] == "Metaspace"
                && pre["replacement"] == SPACE
                && pre["split"] == false =>
            {
                let differs = "a text that starts with a space gets another in front in llama.cpp";
                let first = "a text after a special token gets a space in front in llama.cpp, and one that starts \
                             with a space another";
                match pre["prepend_scheme"].as_str() {
                    Some("never") => Ok((false, None)),
                    Some("always") => Ok((true, Some(differs))),
                    _ => Ok((true, Some(first))),
                }
            }
            _ => Err(format!(
                "it normalises text in another way than SentencePiece ({}, {pre})",
                self.json["normalizer"]
            )),
        }
    }

    /// Scores from which the merges follow: that of a token is the lower the later it is merged.
    fn scores(&self) -> Result<Vec<f32>, String> {
        let mut places: HashMap<String, usize> = HashMap::new();
        let mut last = String::new();
        for (left, right) in &self.merges {
            let merged = [left.as_str(), right].concat();
            if merged != last {
                let place = places.len();
                if places.insert(merged.clone(), place).is_some() {
                    return Err(format!(
                        "the merges to `{merged}` are not next to each other"
                    ));
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

    /// Checks that llama.cpp, which merges whatever is a token together, merges the same.
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
                "its merges are not those that follow from scores: `{left}` and `{right}` are {} merged",
                if own.contains(&(left.clone(), right.clone())) {
                    ""
                } else {
                    "not"
                }
            )),
        }
    }
}
