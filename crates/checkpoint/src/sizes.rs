//! The configurations of published models, by name, so that they can be used before a download.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::ModelConfig;

/// A row of the table; fields as in `config.json`.
struct Size {
    name: &'static str,
    hidden: usize,
    layers: usize,
    heads: usize,
    key_heads: usize,
    inner: usize,
    release: &'static Release,
}

/// The keys of `config.json` that all sizes of a release share, as JSON. What a release leaves out has the default of its
/// family.
struct Release(&'static str);

const LLAMA_1: &Release =
    &Release(r#""model_type": "llama", "vocab_size": 32000, "bos_token_id": 1, "eos_token_id": 2"#);
const LLAMA_1_65B: &Release = &Release(
    r#""model_type": "llama", "vocab_size": 32000, "bos_token_id": 1, "eos_token_id": 2,
    "rms_norm_eps": 1e-5"#,
);
const LLAMA_2: &Release = &Release(
    r#""model_type": "llama", "vocab_size": 32000, "bos_token_id": 1, "eos_token_id": 2,
    "rms_norm_eps": 1e-5, "max_position_embeddings": 4096"#,
);
const LLAMA_3: &Release = &Release(
    r#""model_type": "llama", "vocab_size": 128256, "bos_token_id": 128000, "eos_token_id": 128001,
    "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "max_position_embeddings": 8192"#,
);
const LLAMA_3_1: &Release = &Release(
    r#""model_type": "llama", "vocab_size": 128256, "bos_token_id": 128000, "eos_token_id": 128001,
    "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "max_position_embeddings": 131072,
    "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192}"#,
);
const LLAMA_3_2: &Release = &Release(
    r#""model_type": "llama", "vocab_size": 128256, "bos_token_id": 128000, "eos_token_id": 128001,
    "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "max_position_embeddings": 131072, "tie_word_embeddings": true,
    "rope_scaling": {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192}"#,
);
const TINY_LLAMA: &Release = LLAMA_1_65B;
const SMOL: &Release = &Release(
    r#""model_type": "llama", "vocab_size": 49152, "bos_token_id": 0, "eos_token_id": 0, "rms_norm_eps": 1e-5,
    "rope_theta": 100000.0, "max_position_embeddings": 8192, "tie_word_embeddings": true"#,
);
const SMOL_LARGE: &Release = &Release(
    r#""model_type": "llama", "vocab_size": 49152, "bos_token_id": 0, "eos_token_id": 0, "rms_norm_eps": 1e-5,
    "rope_theta": 130000.0, "max_position_embeddings": 8192, "tie_word_embeddings": true"#,
);
const SMOL_3: &Release = &Release(
    r#""model_type": "smollm3", "vocab_size": 128256, "bos_token_id": 128000, "eos_token_id": 128012,
    "rope_theta": 5000000.0, "max_position_embeddings": 65536"#,
);

const MISTRAL_1: &Release = &Release(
    r#""model_type": "mistral", "vocab_size": 32000, "bos_token_id": 1, "eos_token_id": 2, "rms_norm_eps": 1e-5,
    "max_position_embeddings": 32768, "sliding_window": 4096"#,
);
const MISTRAL_3: &Release = &Release(
    r#""model_type": "mistral", "vocab_size": 32768, "bos_token_id": 1, "eos_token_id": 2, "rms_norm_eps": 1e-5,
    "rope_theta": 1000000.0, "max_position_embeddings": 32768, "sliding_window": null"#,
);
const MISTRAL_NEMO: &Release = &Release(
    r#""model_type": "mistral", "vocab_size": 131072, "bos_token_id": 1, "eos_token_id": 2, "rms_norm_eps": 1e-5,
    "rope_theta": 1000000.0, "max_position_embeddings": 131072, "sliding_window": null, "head_dim": 128"#,
);
const MISTRAL_SMALL: &Release = &Release(
    r#""model_type": "mistral", "vocab_size": 131072, "bos_token_id": 1, "eos_token_id": 2, "rms_norm_eps": 1e-5,
    "rope_theta": 100000000.0, "max_position_embeddings": 32768, "sliding_window": null, "head_dim": 128"#,
);

const QWEN_2_5_SMALL: &Release = &Release(
    r#""model_type": "qwen2", "vocab_size": 151936, "bos_token_id": 151643, "eos_token_id": 151645,
    "rope_theta": 1000000.0, "max_position_embeddings": 32768, "tie_word_embeddings": true"#,
);
const QWEN_2_5: &Release = &Release(
    r#""model_type": "qwen2", "vocab_size": 152064, "bos_token_id": 151643, "eos_token_id": 151645,
    "rope_theta": 1000000.0, "max_position_embeddings": 32768"#,
);
const QWEN_3_SMALL: &Release = &Release(
    r#""model_type": "qwen3", "vocab_size": 151936, "bos_token_id": 151643, "eos_token_id": 151645,
    "rope_theta": 1000000.0, "max_position_embeddings": 40960, "tie_word_embeddings": true"#,
);
const QWEN_3: &Release = &Release(
    r#""model_type": "qwen3", "vocab_size": 151936, "bos_token_id": 151643, "eos_token_id": 151645,
    "rope_theta": 1000000.0, "max_position_embeddings": 40960"#,
);

// the windows of Phi-3.5 and Phi-4-mini are larger than their contexts, and the factors of their rotary frequencies (longrope)
// change no size: both are left out
const PHI_3: &Release = &Release(
    r#""model_type": "phi3", "vocab_size": 32064, "bos_token_id": 1, "eos_token_id": 32000, "sliding_window": 2047"#,
);
const PHI_3_5: &Release = &Release(
    r#""model_type": "phi3", "vocab_size": 32064, "bos_token_id": 1, "eos_token_id": 32000,
    "max_position_embeddings": 131072"#,
);
const PHI_4: &Release = &Release(
    r#""model_type": "phi3", "vocab_size": 100352, "bos_token_id": 100257, "eos_token_id": 100265,
    "rope_theta": 250000.0, "max_position_embeddings": 16384"#,
);
const PHI_4_MINI: &Release = &Release(
    r#""model_type": "phi3", "vocab_size": 200064, "bos_token_id": 199999, "eos_token_id": 199999,
    "max_position_embeddings": 131072, "partial_rotary_factor": 0.75, "tie_word_embeddings": true"#,
);

const GEMMA_1: &Release = &Release(
    r#""model_type": "gemma", "vocab_size": 256000, "bos_token_id": 2, "eos_token_id": 1"#,
);
const GEMMA_2: &Release = &Release(
    r#""model_type": "gemma2", "vocab_size": 256000, "bos_token_id": 2, "eos_token_id": 1"#,
);
const GEMMA_2_27B: &Release = &Release(
    r#""model_type": "gemma2", "vocab_size": 256000, "bos_token_id": 2, "eos_token_id": 1, "head_dim": 128,
    "query_pre_attn_scalar": 144"#,
);
const GEMMA_3: &Release = &Release(
    r#""model_type": "gemma3_text", "vocab_size": 262144, "bos_token_id": 2, "eos_token_id": 1,
    "max_position_embeddings": 32768, "sliding_window": 512"#,
);

const OLMO_2: &Release = &Release(
    r#""model_type": "olmo2", "vocab_size": 100352, "eos_token_id": 100257, "rms_norm_eps": 1e-6,
    "rope_theta": 500000.0, "max_position_embeddings": 4096"#,
);
const GRANITE_2B: &Release = &Release(
    r#""model_type": "granite", "vocab_size": 49159, "bos_token_id": 0, "eos_token_id": 0, "rms_norm_eps": 1e-5,
    "rope_theta": 10000000.0, "max_position_embeddings": 131072, "tie_word_embeddings": true,
    "embedding_multiplier": 12.0, "attention_multiplier": 0.015625, "residual_multiplier": 0.22, "logits_scaling": 8.0"#,
);
const GRANITE_8B: &Release = &Release(
    r#""model_type": "granite", "vocab_size": 49159, "bos_token_id": 0, "eos_token_id": 0, "rms_norm_eps": 1e-5,
    "rope_theta": 10000000.0, "max_position_embeddings": 131072, "tie_word_embeddings": true,
    "embedding_multiplier": 12.0, "attention_multiplier": 0.0078125, "residual_multiplier": 0.22, "logits_scaling": 16.0"#,
);

const fn size(
    name: &'static str,
    [hidden, layers, heads, key_heads, inner]: [usize; 5],
    release: &'static Release,
) -> Size {
    Size {
        name,
        hidden,
        layers,
        heads,
        key_heads,
        inner,
        release,
    }
}

/// Sources: Touvron et al. 2023, table 2, and the published `params.json` and `config.json` files.
const SIZES: &[Size] = &[
    size("llama-7b", [4096, 32, 32, 32, 11_008], LLAMA_1),
    size("llama-13b", [5120, 40, 40, 40, 13_824], LLAMA_1),
    size("llama-33b", [6656, 60, 52, 52, 17_920], LLAMA_1),
    size("llama-65b", [8192, 80, 64, 64, 22_016], LLAMA_1_65B),
    size("llama-2-7b", [4096, 32, 32, 32, 11_008], LLAMA_2),
    size("llama-2-13b", [5120, 40, 40, 40, 13_824], LLAMA_2),
    size("llama-2-70b", [8192, 80, 64, 8, 28_672], LLAMA_2),
    size("llama-3-8b", [4096, 32, 32, 8, 14_336], LLAMA_3),
    size("llama-3-70b", [8192, 80, 64, 8, 28_672], LLAMA_3),
    size("llama-3.1-8b", [4096, 32, 32, 8, 14_336], LLAMA_3_1),
    size("llama-3.1-70b", [8192, 80, 64, 8, 28_672], LLAMA_3_1),
    size("llama-3.1-405b", [16_384, 126, 128, 8, 53_248], LLAMA_3_1),
    size("llama-3.2-1b", [2048, 16, 32, 8, 8192], LLAMA_3_2),
    size("llama-3.2-3b", [3072, 28, 24, 8, 8192], LLAMA_3_2),
    size("llama-3.3-70b", [8192, 80, 64, 8, 28_672], LLAMA_3_1),
    size("tinyllama-1.1b", [2048, 22, 32, 4, 5632], TINY_LLAMA),
    size("smollm2-135m", [576, 30, 9, 3, 1536], SMOL),
    size("smollm2-360m", [960, 32, 15, 5, 2560], SMOL),
    size("smollm2-1.7b", [2048, 24, 32, 32, 8192], SMOL_LARGE),
    size("smollm3-3b", [2048, 36, 16, 4, 11_008], SMOL_3),
    size("mistral-7b-v0.1", [4096, 32, 32, 8, 14_336], MISTRAL_1),
    size("mistral-7b-v0.3", [4096, 32, 32, 8, 14_336], MISTRAL_3),
    size("mistral-nemo-12b", [5120, 40, 32, 8, 14_336], MISTRAL_NEMO),
    size(
        "mistral-small-24b",
        [5120, 40, 32, 8, 32_768],
        MISTRAL_SMALL,
    ),
    size("qwen2.5-0.5b", [896, 24, 14, 2, 4864], QWEN_2_5_SMALL),
    size("qwen2.5-1.5b", [1536, 28, 12, 2, 8960], QWEN_2_5_SMALL),
    size("qwen2.5-3b", [2048, 36, 16, 2, 11_008], QWEN_2_5_SMALL),
    size("qwen2.5-7b", [3584, 28, 28, 4, 18_944], QWEN_2_5),
    size("qwen2.5-14b", [5120, 48, 40, 8, 13_824], QWEN_2_5),
    size("qwen2.5-32b", [5120, 64, 40, 8, 27_648], QWEN_2_5),
    size("qwen2.5-72b", [8192, 80, 64, 8, 29_568], QWEN_2_5),
    size("qwen3-0.6b", [1024, 28, 16, 8, 3072], QWEN_3_SMALL),
    size("qwen3-1.7b", [2048, 28, 16, 8, 6144], QWEN_3_SMALL),
    size("qwen3-4b", [2560, 36, 32, 8, 9728], QWEN_3_SMALL),
    size("qwen3-8b", [4096, 36, 32, 8, 12_288], QWEN_3),
    size("qwen3-14b", [5120, 40, 40, 8, 17_408], QWEN_3),
    size("qwen3-32b", [5120, 64, 64, 8, 25_600], QWEN_3),
    size("phi-3-mini", [3072, 32, 32, 32, 8192], PHI_3),
    size("phi-3.5-mini", [3072, 32, 32, 32, 8192], PHI_3_5),
    size("phi-4-mini", [3072, 32, 24, 8, 8192], PHI_4_MINI),
    size("phi-4", [5120, 40, 40, 10, 17_920], PHI_4),
    size("gemma-2b", [2048, 18, 8, 1, 16_384], GEMMA_1),
    size("gemma-7b", [3072, 28, 16, 16, 24_576], GEMMA_1),
    size("gemma-2-2b", [2304, 26, 8, 4, 9216], GEMMA_2),
    size("gemma-2-9b", [3584, 42, 16, 8, 14_336], GEMMA_2),
    size("gemma-2-27b", [4608, 46, 32, 16, 36_864], GEMMA_2_27B),
    size("gemma-3-270m", [640, 18, 4, 1, 2048], GEMMA_3),
    size("gemma-3-1b", [1152, 26, 4, 1, 6912], GEMMA_3),
    size("olmo-2-1b", [2048, 16, 16, 16, 8192], OLMO_2),
    size("olmo-2-7b", [4096, 32, 32, 32, 11_008], OLMO_2),
    size("olmo-2-13b", [5120, 40, 40, 40, 13_824], OLMO_2),
    size("granite-3.3-2b", [2048, 40, 32, 8, 8192], GRANITE_2B),
    size("granite-3.3-8b", [4096, 40, 32, 8, 12_800], GRANITE_8B),
];

/// Names without a size or version, and the size that they mean.
const SHORT: &[(&str, &str)] = &[
    ("tinyllama", "tinyllama-1.1b"),
    ("smollm2", "smollm2-135m"),
    ("smollm3", "smollm3-3b"),
    ("mistral-7b", "mistral-7b-v0.3"),
    ("mistral-nemo", "mistral-nemo-12b"),
    ("mistral-small", "mistral-small-24b"),
];

/// The names that [`named`] knows.
pub fn names() -> impl Iterator<Item = &'static str> {
    SIZES.iter().map(|size| size.name)
}

/// The configuration of a published model: `llama-7b`, `qwen3-0.6b`, `gemma-2-2b`. Upper case is accepted, as are some names
/// without a size: `tinyllama`, `smollm2`, `smollm3`, `mistral-7b`, `mistral-nemo`, `mistral-small`.
pub fn named(name: &str) -> Option<ModelConfig> {
    let name = name.to_ascii_lowercase();
    let short = SHORT.iter().find(|(short, _)| *short == name);
    let name = short.map_or(name.as_str(), |(_, whole)| whole);
    let size = SIZES.iter().find(|size| size.name == name)?;
    let keys = format!("{{{}}}", size.release.0);
    let mut keys: Map<String, Value> = serde_json::from_str(&keys).ok()?;
    for (key, value) in [
        ("hidden_size", size.hidden),
        ("num_hidden_layers", size.layers),
        ("num_attention_heads", size.heads),
        ("num_key_value_heads", size.key_heads),
        ("intermediate_size", size.inner),
    ] {
        keys.insert(key.to_owned(), json!(value));
    }
    ModelConfig::from_json(&Value::Object(keys), Path::new(size.name)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::parameter_count;

    /// The counts in the papers and model cards; for the other models, those of the published files. A tied head counts once,
    /// also where the file holds it twice (Qwen3-0.6B).
    #[test]
    fn counts_are_the_published_ones() {
        let counts = [
            ("llama-7b", 6_738_415_616),
            ("llama-13b", 13_015_864_320),
            ("llama-33b", 32_528_943_616),
            ("llama-65b", 65_285_660_672),
            ("llama-2-7b", 6_738_415_616),
            ("llama-2-13b", 13_015_864_320),
            ("llama-2-70b", 68_976_648_192),
            ("llama-3-8b", 8_030_261_248),
            ("llama-3-70b", 70_553_706_496),
            ("llama-3.1-8b", 8_030_261_248),
            ("llama-3.1-70b", 70_553_706_496),
            ("llama-3.1-405b", 405_853_388_800),
            ("llama-3.2-1b", 1_235_814_400),
            ("llama-3.2-3b", 3_212_749_824),
            ("llama-3.3-70b", 70_553_706_496),
            ("tinyllama-1.1b", 1_100_048_384),
            ("smollm2-135m", 134_515_008),
            ("smollm2-360m", 361_821_120),
            ("smollm2-1.7b", 1_711_376_384),
            ("smollm3-3b", 3_075_098_624),
            ("mistral-7b-v0.1", 7_241_732_096),
            ("mistral-7b-v0.3", 7_248_023_552),
            ("mistral-nemo-12b", 12_247_782_400),
            ("mistral-small-24b", 23_572_403_200),
            ("qwen2.5-0.5b", 494_032_768),
            ("qwen2.5-1.5b", 1_543_714_304),
            ("qwen2.5-3b", 3_085_938_688),
            ("qwen2.5-7b", 7_615_616_512),
            ("qwen2.5-14b", 14_770_033_664),
            ("qwen2.5-32b", 32_763_876_352),
            ("qwen2.5-72b", 72_706_203_648),
            ("qwen3-0.6b", 596_049_920),
            ("qwen3-1.7b", 1_720_574_976),
            ("qwen3-4b", 4_022_468_096),
            ("qwen3-8b", 8_190_735_360),
            ("qwen3-14b", 14_768_307_200),
            ("qwen3-32b", 32_762_123_264),
            ("phi-3-mini", 3_821_079_552),
            ("phi-3.5-mini", 3_821_079_552),
            ("phi-4-mini", 3_836_021_760),
            ("phi-4", 14_659_507_200),
            ("gemma-2b", 2_506_172_416),
            ("gemma-7b", 8_537_680_896),
            ("gemma-2-2b", 2_614_341_888),
            ("gemma-2-9b", 9_241_705_984),
            ("gemma-2-27b", 27_227_128_320),
            ("gemma-3-270m", 268_098_176),
            ("gemma-3-1b", 999_885_952),
            ("olmo-2-1b", 1_484_916_736),
            ("olmo-2-7b", 7_298_617_344),
            ("olmo-2-13b", 13_716_198_400),
            ("granite-3.3-2b", 2_533_539_840),
            ("granite-3.3-8b", 8_170_864_640),
        ];
        for (name, count) in counts {
            let config = named(name).unwrap();
            assert_eq!(parameter_count(&config), count, "{name}");
        }
        assert!(names().eq(counts.map(|(name, _)| name)));
    }

    #[test]
    fn a_release_has_the_layers_of_its_family() {
        let config = named("smollm3-3b").unwrap();
        assert_eq!(config.no_rope_layers[..4], [1, 1, 1, 0]);
        let config = named("gemma-3-1b").unwrap();
        let windows = [4, 5, 6].map(|layer| config.window(layer));
        assert_eq!(windows, [Some(512), None, Some(512)]);
        let config = named("gemma-2-27b").unwrap();
        assert_eq!(config.attention_scale(), 1.0 / 12.0);
        assert_eq!((config.window(0), config.window(1)), (Some(4096), None));
        assert_eq!(named("phi-4-mini").unwrap().rotary_dim(), 96);
        assert_eq!(named("mistral-7b-v0.1").unwrap().window(31), Some(4096));
        assert_eq!(named("mistral-7b-v0.3").unwrap().window(31), None);
    }

    #[test]
    fn names_may_be_written_as_people_do() {
        assert_eq!(named("Llama-3.2-1B"), named("llama-3.2-1b"));
        for (short, whole) in SHORT {
            assert!(named(whole).is_some());
            assert_eq!(named(short), named(whole));
        }
        assert_eq!(named("llama"), None);
    }
}
