//! Byte-level BPE: text is split by a pattern, the bytes of each piece are written as printable characters, and these
//! are merged.

use serde_json::{Value, json};
use tokenizers::models::bpe::{BPE, Merges, Vocab};
use tokenizers::{DecoderWrapper, PreTokenizerWrapper};

use super::TokenizerError;
use super::error::library;
use super::pieces::from_json;

/// GPT-2's pattern, as llama.cpp spells it; the tokenizers library has it built in.
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

/// Llama 3's pattern. Source: Meta's `tokenizer.py`.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

const SEED_CODER: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+";

#[expect(
    clippy::unicode_not_nfc,
    reason = "the ranges end with single code points, the Kelvin sign among them, and not with what they are equivalent to"
)]
/// The letters of scripts with capital letters, as DeepSeek LLM's pattern lists them.
const DEEPSEEK_LETTERS: &str = r"\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+";

/// How text is split before its bytes are merged. The names are those of GGUF's `tokenizer.ggml.pre`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PreTokenizer {
    /// The name to write, then its aliases.
    pub(super) names: &'static [&'static str],
    steps: &'static [Step],
    /// Whether a piece that is a token stays whole, whatever the merges.
    pub(super) ignore_merges: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// Every match becomes a piece of its own.
    Cut(&'static str),
    /// Every digit becomes a piece of its own.
    Digits,
    /// [`GPT2`].
    Gpt2,
}

/// How Llama 3 splits text.
pub(super) const LLAMA_BPE: &PreTokenizer = &KNOWN[0];

/// Source: `src/llama-vocab.cpp` of llama.cpp, which has several names for most patterns.
const KNOWN: &[PreTokenizer] = &[
    PreTokenizer {
        names: &[
            "llama-bpe",
            "llama3",
            "llama-v3",
            "falcon3",
            "falcon-h1",
            "pixtral",
            "midm-2.0",
            "lfm2",
            "jina-v5-nano",
        ],
        steps: &[Step::Cut(LLAMA3)],
        ignore_merges: true,
    },
    PreTokenizer {
        names: &["smaug-bpe", "dbrx", "glm4", "chatglm-bpe"],
        steps: &[Step::Cut(LLAMA3)],
        ignore_merges: false,
    },
    PreTokenizer {
        names: &[
            "gpt-2",
            "olmo",
            "mpt",
            "phi-2",
            "jais",
            "exaone4",
            "trillion",
            "granite-docling",
            "gigachat",
            "a.x-4.0",
            "mellum",
            "modern-bert",
            "roberta-bpe",
            "jina-es",
            "jina-de",
            "jina-v1-en",
            "jina-v2-es",
            "jina-v2-de",
            "jina-v2-code",
        ],
        steps: &[Step::Gpt2],
        ignore_merges: false,
    },
    PreTokenizer {
        names: &[
            "smollm",
            "starcoder",
            "refact",
            "minerva-7b",
            "command-r",
            "codeshell",
            "exaone",
            "mellum2",
        ],
        steps: &[Step::Digits, Step::Gpt2],
        ignore_merges: false,
    },
    PreTokenizer {
        names: &[
            "qwen2",
            "deepseek-r1-qwen",
            "megrez",
            "kormo",
            "f2llmv2",
            "stablelm2",
            "hunyuan",
            "solar-open",
            "grok-2",
        ],
        steps: &[Step::Cut(QWEN2)],
        ignore_merges: false,
    },
    PreTokenizer {
        names: &["tekken"],
        steps: &[Step::Cut(TEKKEN)],
        ignore_merges: true,
    },
    PreTokenizer {
        names: &["deepseek-coder"],
        steps: &[
            Step::Cut(r"[\r\n]"),
            Step::Cut(r"\s?\p{L}+"),
            Step::Cut(r"\s?\p{P}+"),
            Step::Cut("[一-龥\u{800}-一가-\u{d7ff}]+"),
            Step::Digits,
        ],
        ignore_merges: false,
    },
    PreTokenizer {
        names: &["deepseek-llm"],
        steps: &[
            Step::Cut(r"[\r\n]"),
            Step::Cut(DEEPSEEK_LETTERS),
            Step::Cut("\\s?[!-/:-~！-／：-～‘-‟\u{3000}-。]+"),
            Step::Cut(r"\s+$"),
            Step::Cut("[一-龥\u{800}-一가-\u{d7ff}]+"),
            Step::Digits,
        ],
        ignore_merges: false,
    },
    PreTokenizer {
        names: &["falcon"],
        steps: &[
            Step::Cut(r"[\p{P}\$\+<=>\^~\|`]+"),
            Step::Cut(GPT2),
            Step::Cut("[0-9][0-9][0-9]"),
        ],
        ignore_merges: false,
    },
    PreTokenizer {
        names: &["seed-coder"],
        steps: &[Step::Cut(SEED_CODER)],
        ignore_merges: false,
    },
    // llama.cpp's default, if the file names none.
    PreTokenizer {
        names: &["default"],
        steps: &[
            Step::Cut(r"[\p{P}\$\+<=>\^~\|]+"),
            Step::Cut(GPT2),
            Step::Cut(r"\p{N}+"),
            Step::Cut("[0-9][0-9][0-9]"),
        ],
        ignore_merges: false,
    },
];

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

    /// The known pre-tokenizer that equals the library's JSON of one.
    pub(super) fn recognise(json: &Value, ignore_merges: bool) -> Option<&'static PreTokenizer> {
        let same = |known: &&PreTokenizer| {
            known.ignore_merges == ignore_merges && flat(&known.json()) == flat(json)
        };
        KNOWN.iter().find(same)
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
    inner.with_pre_tokenizer(Some(from_json::<PreTokenizerWrapper>(pre.json())?));
    let decoder = json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true});
    inner.with_decoder(Some(from_json::<DecoderWrapper>(decoder)?));
    Ok(inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokenizers::pre_tokenizers::byte_level::ByteLevel;

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
                PreTokenizer::recognise(&json, known.ignore_merges),
                Some(known)
            );
            for name in known.names {
                assert_eq!(PreTokenizer::named(name), Some(known));
            }
        }
        assert_eq!(PreTokenizer::named("gpt-5"), None);
    }
}
