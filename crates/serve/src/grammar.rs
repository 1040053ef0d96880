//! Limits the tokens of an answer to a form: a JSON schema, a regular expression, a choice, or a grammar.
//!
//! The library llguidance says which bytes may come next; a trie of the bytes of all tokens says which tokens begin so.
//!
//! Axes: V vocabulary.

use std::fmt;
use std::sync::Arc;

use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory};
use serde_json::{Map, Value, json};
use simmer_data::Tokenizer;

use crate::form::Kind;

/// White space between the tokens of JSON: without a bound, a small model can write nothing else.
const SPACE: &str = r"[\x20\x0A\x0D\x09]{1,32}";

/// Makes grammars for the tokens of a model.
pub(crate) struct Grammars {
    factory: ParserFactory,
    eos: Arc<[u32]>,
}

/// Limits the tokens of one text.
#[derive(Clone)]
pub struct Grammar {
    matcher: Matcher,
    eos: Arc<[u32]>,
}

impl fmt::Debug for Grammar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grammar").finish_non_exhaustive()
    }
}

impl Grammars {
    /// For the tokens of a tokenizer, of which `eos` end a text.
    pub(crate) fn new(tokenizer: &Tokenizer, eos: &[u32]) -> Result<Self, String> {
        let words = words(tokenizer)?;
        let end = eos
            .first()
            .copied()
            .filter(|end| (*end as usize) < words.len());
        let end = end.ok_or("the model has no EOS token, so an answer in a form could not end")?;
        let trie = TokTrie::from(&TokRxInfo::new(words.len() as u32, end), &words);
        let tokens: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let mut factory = ParserFactory::new_simple(&tokens).map_err(|error| problem(&error))?;
        factory.quiet();
        factory.limits_mut().verbose_errors = false;
        Ok(Self {
            factory,
            eos: eos.into(),
        })
    }

    /// A grammar of this form.
    ///
    /// # Errors
    /// What is wrong with the form.
    pub(crate) fn grammar(&self, kind: &Kind) -> Result<Grammar, String> {
        let parser = self.factory.create_parser(top_level(kind)?);
        let matcher = Matcher::new(parser);
        match matcher.get_error() {
            Some(error) => Err(problem(&error)),
            None => Ok(Grammar {
                matcher,
                eos: Arc::clone(&self.eos),
            }),
        }
    }
}

impl Grammar {
    /// The same for another text, at its beginning: it shares nothing that changes.
    pub(crate) fn another(&self) -> Self {
        Self {
            matcher: self.matcher.deep_clone(),
            eos: Arc::clone(&self.eos),
        }
    }

    /// Sets the logits `[V]` of tokens that may not come next to -∞. EOS tokens may come where the text may end.
    ///
    /// # Errors
    /// Why the text cannot be continued.
    pub fn limit(&mut self, logits: &mut [f32]) -> Result<(), String> {
        let may_end = self
            .matcher
            .is_accepting()
            .map_err(|error| problem(&error))?;
        let mut ends: Vec<(usize, f32)> = Vec::new();
        if may_end {
            let eos = self.eos.iter().map(|token| *token as usize);
            ends = eos
                .filter_map(|token| Some((token, *logits.get(token)?)))
                .collect();
        }
        let allowed = self
            .matcher
            .compute_mask_or_eos()
            .map_err(|error| problem(&error))?;
        let known = allowed.len();
        for (token, logit) in logits.iter_mut().enumerate() {
            if token >= known || !allowed.is_allowed(token as u32) {
                *logit = f32::NEG_INFINITY;
            }
        }
        for token in self.eos.iter() {
            if let Some(logit) = logits.get_mut(*token as usize) {
                *logit = f32::NEG_INFINITY;
            }
        }
        for (token, logit) in ends {
            logits[token] = logit;
        }
        if logits.iter().all(|logit| *logit == f32::NEG_INFINITY) {
            return Err("no token of the vocabulary continues the answer in the form that the request asks for".to_owned());
        }
        Ok(())
    }

    /// Takes the next token, which is no EOS token. `true`: the text is complete, and nothing may follow.
    ///
    /// # Errors
    /// Why the text cannot be continued.
    pub fn take(&mut self, token: u32) -> Result<bool, String> {
        let taken = self.matcher.consume_token(token);
        taken.map_err(|error| problem(&error))?;
        Ok(self.matcher.is_stopped())
    }
}

fn top_level(kind: &Kind) -> Result<TopLevelGrammar, String> {
    match kind {
        Kind::Schema(schema) => {
            let mut schema = match schema {
                Value::Object(schema) => schema.clone(),
                // `true` is the schema of all values
                Value::Bool(true) => Map::new(),
                _ => return Err("expected a JSON schema, which is an object".to_owned()),
            };
            // a key of llguidance, not of JSON schemas
            schema.insert(
                "x-guidance".to_owned(),
                json!({"whitespace_pattern": SPACE}),
            );
            Ok(TopLevelGrammar::from_json_schema(Value::Object(schema)))
        }
        Kind::Regex(regex) => Ok(TopLevelGrammar::from_regex(regex)),
        Kind::Choice(texts) => {
            let texts: Vec<String> = texts.iter().map(|text| json!(text).to_string()).collect();
            Ok(TopLevelGrammar::from_lark(format!(
                "start: {}",
                texts.join(" | ")
            )))
        }
        Kind::Lark(grammar) => Ok(TopLevelGrammar::from_lark(grammar.clone())),
    }
}

/// The bytes of each token. Special tokens, which are no text, have a mark before their names, as llguidance wants it.
fn words(tokenizer: &Tokenizer) -> Result<Vec<Vec<u8>>, String> {
    let tokens = 0..=tokenizer.max_token_id();
    let words = tokens.map(|token| tokenizer.token_bytes(token));
    let words: Result<Vec<Vec<u8>>, _> = words.collect();
    let mut words = words.map_err(|error| error.to_string())?;
    for name in tokenizer.special_tokens() {
        if let Some(token) = tokenizer.token_id(&name) {
            let marked = [&[TokTrie::SPECIAL_TOKEN_MARKER], name.as_bytes()].concat();
            words[token as usize] = marked;
        }
    }
    Ok(words)
}

/// An error of the library as one line, which is not longer than a few.
fn problem(error: &impl fmt::Display) -> String {
    let error = error.to_string();
    let words: Vec<&str> = error.split_whitespace().collect();
    let mut line = words.join(" ");
    line.truncate(line.floor_char_boundary(300));
    line
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn tokenizer() -> Tokenizer {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/tiny-base");
        Tokenizer::from_folder(folder).unwrap()
    }

    /// What a model writes whose logits are random numbers.
    fn written(kind: &Kind, seed: u64) -> String {
        let tokenizer = tokenizer();
        let eos = tokenizer.eos_ids();
        let grammars = Grammars::new(&tokenizer, eos).unwrap();
        let mut grammar = grammars.grammar(kind).unwrap().another();
        let mut state = seed;
        let mut tokens = Vec::new();
        // a few more rows than the tokenizer has tokens, as models have
        let rows = tokenizer.max_token_id() as usize + 9;
        loop {
            let mut logits: Vec<f32> = (0..rows)
                .map(|_| {
                    state = state
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1);
                    (state >> 40) as f32
                })
                .collect();
            grammar.limit(&mut logits).unwrap();
            let best = (0..rows)
                .max_by(|a, b| logits[*a].total_cmp(&logits[*b]))
                .unwrap() as u32;
            if eos.contains(&best) {
                break;
            }
            tokens.push(best);
            if grammar.take(best).unwrap() {
                break;
            }
            assert!(
                tokens.len() < 1000,
                "{:?}",
                tokenizer.decode(&tokens, false)
            );
        }
        tokenizer.decode(&tokens, false).unwrap()
    }

    #[test]
    fn answers_fit_their_schema_whatever_the_model_wants() {
        let schema = json!({
            "type": "object",
            "properties": {
                "name": {"type": "string", "maxLength": 6},
                "kind": {"enum": ["soup", "cake"]},
                "minutes": {"type": "integer", "minimum": 5, "maximum": 60},
                "tags": {"type": "array", "items": {"$ref": "#/$defs/tag"}, "minItems": 1, "maxItems": 3},
            },
            "required": ["name", "kind", "minutes", "tags"],
            "additionalProperties": false,
            "$defs": {"tag": {"type": "boolean"}},
        });
        for seed in 0..24 {
            let text = written(&Kind::Schema(schema.clone()), seed);
            let value: Value =
                serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
            let object = value.as_object().unwrap();
            assert_eq!(object.len(), 4, "{text}");
            assert!(
                object["name"].as_str().unwrap().chars().count() <= 6,
                "{text}"
            );
            assert!(
                ["soup", "cake"].contains(&object["kind"].as_str().unwrap()),
                "{text}"
            );
            assert!(
                (5..=60).contains(&object["minutes"].as_i64().unwrap()),
                "{text}"
            );
            let tags = object["tags"].as_array().unwrap();
            assert!(
                (1..=3).contains(&tags.len()) && tags.iter().all(Value::is_boolean),
                "{text}"
            );
        }
    }

    #[test]
    fn choices_expressions_and_grammars_are_kept_to() {
        let choice = Kind::Choice(vec!["yes".to_owned(), "say \"no\"\n".to_owned()]);
        let regex = Kind::Regex(r"[0-9]{4}-[a-c]+é".to_owned());
        let lark = Kind::Lark("start: \"(\" start \")\" | \"x\"".to_owned());
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..12 {
            seen.insert(written(&choice, seed));
            let text = written(&regex, seed);
            let (year, rest) = text.split_once('-').unwrap();
            assert!(
                year.len() == 4 && year.chars().all(|c| c.is_ascii_digit()),
                "{text}"
            );
            let letters = rest.strip_suffix('é').unwrap();
            assert!(
                !letters.is_empty() && letters.chars().all(|c| ('a'..='c').contains(&c)),
                "{text}"
            );
            let text = written(&lark, seed);
            let depth = text.find('x').unwrap();
            assert_eq!(text, format!("{}x{}", "(".repeat(depth), ")".repeat(depth)));
        }
        assert_eq!(seen, ["say \"no\"\n", "yes"].map(str::to_owned).into());
    }

    #[test]
    fn forms_that_cannot_be_kept_to_are_refused() {
        let tokenizer = tokenizer();
        let grammars = Grammars::new(&tokenizer, tokenizer.eos_ids()).unwrap();
        let refused = [
            Kind::Schema(json!(7)),
            Kind::Schema(json!({"type": "text"})),
            Kind::Schema(json!({"type": "string", "minLength": 9, "maxLength": 2})),
            Kind::Schema(json!({"$ref": "#/$defs/missing"})),
            Kind::Schema(json!({"not": {"type": "string"}})),
            Kind::Regex("(a".to_owned()),
            Kind::Lark("begin: \"a\"".to_owned()),
        ];
        let refused = refused.map(|kind| grammars.grammar(&kind).unwrap_err());
        insta::assert_snapshot!(refused.join("\n"), @r##"
        expected a JSON schema, which is an object
        Invalid type: text
        Unsatisfiable schema: minLength (9) is greater than maxLength (2)
        Reference segment '$defs' not found in '#/$defs/missing'.
        Unimplemented keys: ["not"]
        at 1(8): invalid regex "(a" (in regex): regex parse error: (a ^ error: unclosed group 1 | start: /(a/ ^
        no start rule found
        "##);
        let problem = Grammars::new(&tokenizer, &[]).err().unwrap();
        assert!(
            problem.starts_with("the model has no EOS token"),
            "{problem}"
        );
    }
}
