//! The pre-tokenizers that llama.cpp has names for.

use super::{PreTokenizer, Step};

/// GPT-2's pattern, as llama.cpp spells it; the tokenizers library has it built in.
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

/// Llama 3's pattern. Source: Meta's `tokenizer.py`.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// The pattern of OpenAI's `o200k_base`, which Phi-4-mini has, too.
const GPT4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

const QWEN35: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

const DEEPSEEK_V3: &str = "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+";

const BAILING_MOE: &str = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+";

const EXAONE_MOE: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+";

const JAIS2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s{512}(?!\S)|\s{256}(?!\S)|\s{128}(?!\S)|\s{64}(?!\S)|\s{32}(?!\S)|\s{16}(?!\S)|\s{8}(?!\S)|\s{4}(?!\S)|\s{1,2}(?!\S)|\s{1}";

const MINICPM5: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}+| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// BLOOM's words: whatever is neither a space nor one of some marks.
const WORDS: &str = r" ?[^(\s|.,!?…。，、।۔،)]+";

/// Patterns that match every character, so that it does not matter what becomes of the text between matches.
pub(super) const COMPLETE: &[&str] = &[LLAMA3, QWEN2, QWEN35, TEKKEN, GPT4O];

const SEED_CODER: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+";

#[expect(
    clippy::unicode_not_nfc,
    reason = "the ranges end with single code points, the Kelvin sign among them, and not with what they are equivalent to"
)]
/// The letters of scripts with capital letters, as DeepSeek LLM's pattern lists them.
const DEEPSEEK_LETTERS: &str = r"\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+";

/// How Llama 3 splits text.
pub(in super::super) const LLAMA_BPE: &PreTokenizer = &KNOWN[0];

/// Source: `src/llama-vocab.cpp` of llama.cpp, which has several names for most patterns.
pub(super) const KNOWN: &[PreTokenizer] = &[
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
        nfc: false,
    },
    PreTokenizer {
        names: &["smaug-bpe", "dbrx", "glm4", "chatglm-bpe"],
        steps: &[Step::Cut(LLAMA3)],
        ignore_merges: false,
        nfc: false,
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
        nfc: false,
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
        nfc: false,
    },
    PreTokenizer {
        names: &["qwen2"],
        steps: &[Step::Cut(QWEN2)],
        ignore_merges: false,
        nfc: true,
    },
    PreTokenizer {
        names: &[
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
        nfc: false,
    },
    PreTokenizer {
        names: &["qwen35"],
        steps: &[Step::Cut(QWEN35)],
        ignore_merges: false,
        nfc: true,
    },
    PreTokenizer {
        names: &["gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"],
        steps: &[Step::Cut(GPT4O)],
        ignore_merges: false,
        nfc: false,
    },
    PreTokenizer {
        names: &["tekken"],
        steps: &[Step::Cut(TEKKEN)],
        ignore_merges: true,
        nfc: false,
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
        nfc: false,
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
        nfc: false,
    },
    PreTokenizer {
        names: &["falcon"],
        steps: &[
            Step::Cut(r"[\p{P}\$\+<=>\^~\|`]+"),
            Step::Cut(GPT2),
            Step::Cut("[0-9][0-9][0-9]"),
        ],
        ignore_merges: false,
        nfc: false,
    },
    PreTokenizer {
        names: &["seed-coder"],
        steps: &[Step::Cut(SEED_CODER)],
        ignore_merges: false,
        nfc: false,
    },
    PreTokenizer {
        names: &["deepseek-v3", "hunyuan-dense", "joyai-llm"],
        steps: &[
            Step::Cut(r"\p{N}{1,3}"),
            Step::Cut("[一-龥\u{3040}-ゟ゠-ヿ]+"),
            Step::Cut(DEEPSEEK_V3),
        ],
        ignore_merges: false,
        nfc: false,
    },
    PreTokenizer {
        names: &["bailingmoe", "bailingmoe2", "llada-moe"],
        steps: &[Step::Cut(BAILING_MOE)],
        ignore_merges: false,
        nfc: false,
    },
    PreTokenizer {
        names: &["exaone-moe"],
        steps: &[Step::Cut(EXAONE_MOE)],
        ignore_merges: false,
        nfc: false,
    },
    PreTokenizer {
        names: &["jais-2"],
        steps: &[Step::Cut(JAIS2)],
        ignore_merges: false,
        nfc: false,
    },
    PreTokenizer {
        names: &["minicpm5"],
        steps: &[Step::Cut(r"\p{N}{1,3}"), Step::Cut(MINICPM5)],
        ignore_merges: true,
        nfc: false,
    },
    PreTokenizer {
        names: &["laguna"],
        steps: &[Step::Cut(r"[^\n]+|[\n]+"), Step::Cut(QWEN2)],
        ignore_merges: false,
        nfc: false,
    },
    PreTokenizer {
        names: &["tiny_aya", "cohere2moe"],
        steps: &[Step::Cut(r"\d{1,3}(?=(?:\d{3})*\b)"), Step::Cut(GPT4O)],
        ignore_merges: false,
        nfc: false,
    },
    PreTokenizer {
        names: &["superbpe"],
        steps: &[Step::Cut(r"\p{N}+"), Step::Cut(r"(?=(\d{3})+(?!\d))")],
        ignore_merges: false,
        nfc: false,
    },
    PreTokenizer {
        names: &["poro-chat", "bloom", "gpt3-finnish"],
        steps: &[Step::Cut(WORDS)],
        ignore_merges: false,
        nfc: false,
    },
    PreTokenizer {
        names: &["viking"],
        steps: &[Step::Cut(WORDS), Step::Digits],
        ignore_merges: false,
        nfc: false,
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
        nfc: false,
    },
];
