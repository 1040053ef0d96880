//! Byte-level BPE: text is split by a pattern, the bytes of each piece are written as printable characters, and these
//! are merged.

mod known;

use serde_json::{Value, json};
use tokenizers::models::bpe::{BPE, Merges, Vocab};
use tokenizers::normalizers::NFC;
use tokenizers::{DecoderWrapper, NormalizerWrapper, PreTokenizerWrapper};

use super::TokenizerError;
use super::error::library;
use super::pieces::from_json;

pub(super) use known::LLAMA_BPE;
use known::{COMPLETE, KNOWN};

/// How text is split before its bytes are merged. The names are those of GGUF's `tokenizer.ggml.pre`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PreTokenizer {
    /// The name to write, then its aliases.
    pub(super) names: &'static [&'static str],
    steps: &'static [Step],
    /// Whether a piece that is a token stays whole, whatever the merges.
    pub(super) ignore_merges: bool,
    /// Whether these models' own tokenizers normalise text to NFC first, which llama.cpp does not.
    pub(super) nfc: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// Every match becomes a piece of its own.
    Cut(&'static str),
    /// Every digit becomes a piece of its own.
    Digits,
    /// GPT-2's pattern, which the tokenizers library has built in.
    Gpt2,
}

impl PreTokenizer {
    pub(super) fn named(name: &str) -> Option<&'static PreTokenizer> {
        KNOWN.iter().find(|known| known.names.contains(&name))
    }

    /// The first name of each, for messages.
    pub(super) fn names() -> String {
        let names: Vec<&str> = KNOWN.iter().map(|known| known.names[0]).collect();
        format!(
            "{}, and llama.cpp's other names for the same",
            names.join(", ")
        )
    }

    /// Whether llama.cpp puts a BOS token before texts, unless the file says otherwise.
    pub(super) fn adds_bos(&self) -> bool {
        matches!(self.names[0], "llama-bpe" | "tekken")
    }

    /// The known pre-tokenizer that equals the library's JSON of one, if possible with the same normalisation.
    pub(super) fn recognise(
        json: &Value,
        ignore_merges: bool,
        nfc: bool,
    ) -> Option<&'static PreTokenizer> {
        let json = flat(json);
        let same = |known: &&PreTokenizer| {
            known.ignore_merges == ignore_merges && flat(&known.json()) == json
        };
        let mut all = KNOWN.iter().filter(same);
        let first = all.clone().next();
        all.find(|known| known.nfc == nfc).or(first)
    }

    /// Its JSON in `tokenizer.json`.
    fn json(&self) -> Value {
        let byte_level = |use_regex| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex});
        let mut steps: Vec<Value> = Vec::new();
        for step in self.steps {
            steps.push(match step {
                Step::Cut(pattern) => json!({
                    "type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false,
                }),
                Step::Digits => json!({"type": "Digits", "individual_digits": true}),
                Step::Gpt2 => byte_level(true),
            });
        }
        if self.steps.last() != Some(&Step::Gpt2) {
            steps.push(byte_level(false));
        }
        match steps.len() {
            1 => steps.remove(0),
            _ => json!({"type": "Sequence", "pretokenizers": steps}),
        }
    }
}

/// The steps of a pre-tokenizer, without settings that do not change tokens.
fn flat(json: &Value) -> Vec<Value> {
    if let Some(Value::Array(steps)) = json.get("pretokenizers") {
        return steps.iter().flat_map(flat).collect();
    }
    let mut step = json.clone();
    // Xenova's conversions of tiktoken's patterns keep the matches and remove the text between them.
    let pattern = step["pattern"]["Regex"].as_str();
    let is_complete = pattern.is_some_and(|pattern| COMPLETE.contains(&pattern));
    if is_complete && step["behavior"] == "Removed" && step["invert"] == true {
        step["behavior"] = json!("Isolated");
        step["invert"] = json!(false);
    }
    if let Some(fields) = step.as_object_mut() {
        fields.shift_remove("trim_offsets");
    }
    vec![step]
}

/// The printable character that stands for each byte. Source: GPT-2's `encoder.py`.
pub(super) fn alphabet() -> [char; 256] {
    let mut beyond = 0x100;
    std::array::from_fn(|byte| match byte {
        0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF => char::from(byte as u8),
        _ => {
            let char = char::from_u32(beyond).unwrap_or_default();
            beyond += 1;
            char
        }
    })
}

/// A tokenizer with this vocabulary, without added tokens.
pub(super) fn make(
    vocab: Vocab,
    merges: Merges,
    pre: &PreTokenizer,
) -> Result<tokenizers::Tokenizer, TokenizerError> {
    let model = BPE::builder()
        .vocab_and_merges(vocab, merges)
        .ignore_merges(pre.ignore_merges);
    let mut inner = tokenizers::Tokenizer::new(library(model.build())?);
    if pre.nfc {
        library(inner.with_normalizer(Some(NormalizerWrapper::NFC(NFC))))?;
    }
    inner.with_pre_tokenizer(Some(from_json::<PreTokenizerWrapper>(pre.json())?));
    let decoder = json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true});
    inner.with_decoder(Some(from_json::<DecoderWrapper>(decoder)?));
    Ok(inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokenizers::pre_tokenizers::byte_level::ByteLevel;
    use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer as _};

    #[test]
    fn bytes_are_written_as_the_library_writes_them() {
        let ours: std::collections::HashSet<char> = alphabet().into();
        assert!(
            ByteLevel::alphabet()
                .into_iter()
                .all(|char| ours.contains(&char))
        );
        assert_eq!(alphabet()[usize::from(b' ')], 'Ġ');
        assert_eq!(alphabet()[usize::from(b'\n')], 'Ċ');
        assert_eq!(alphabet()[0xAD], 'Ń');
    }

    #[test]
    fn every_pre_tokenizer_is_built_and_recognised() {
        for known in KNOWN {
            let built: PreTokenizerWrapper = from_json(known.json()).unwrap();
            let json = serde_json::to_value(built).unwrap();
            assert_eq!(
                PreTokenizer::recognise(&json, known.ignore_merges, known.nfc),
                Some(known)
            );
            for name in known.names {
                assert_eq!(PreTokenizer::named(name), Some(known));
            }
        }
        assert_eq!(PreTokenizer::named("gpt-5"), None);
    }

    /// `splits.json`: texts, and the lengths of their pieces in characters by each pre-tokenizer of llama.cpp.
    #[derive(serde::Deserialize)]
    struct Splits {
        texts: Vec<String>,
        splits: std::collections::BTreeMap<String, Vec<Vec<usize>>>,
    }

    #[test]
    fn text_is_split_where_llama_cpp_splits_it() {
        let file = super::super::sentencepiece::tests::file("splits.json");
        let golden: Splits = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
        assert!(golden.splits.len() > 20);
        for (name, splits) in &golden.splits {
            let pre = PreTokenizer::named(name).unwrap();
            let pre: PreTokenizerWrapper = from_json(pre.json()).unwrap();
            for (text, expected) in golden.texts.iter().zip(splits) {
                let mut pieces = PreTokenizedString::from(text.as_str());
                pre.pre_tokenize(&mut pieces).unwrap();
                let pieces = pieces.get_splits(OffsetReferential::Original, OffsetType::Char);
                let lengths: Vec<usize> = pieces
                    .iter()
                    .map(|(_, (start, end), _)| end - start)
                    .collect();
                assert_eq!(&lengths, expected, "{name}: {text:?}");
            }
        }
    }

    #[test]
    fn matches_that_are_kept_are_pieces_as_well() {
        let mut json = PreTokenizer::named("gpt-4o").unwrap().json();
        json["pretokenizers"][0]["behavior"] = json!("Removed");
        json["pretokenizers"][0]["invert"] = json!(true);
        let found = PreTokenizer::recognise(&json, false, false).unwrap();
        assert_eq!(found.names[0], "gpt-4o");
        let qwen = PreTokenizer::named("qwen2").unwrap().json();
        let name = |nfc| PreTokenizer::recognise(&qwen, false, nfc).unwrap().names[0];
        assert_eq!((name(true), name(false)), ("qwen2", "deepseek-r1-qwen"));
    }
}
