//! The configurations of the published models of the family, by name, so that they can be used before a download.

use crate::ModelConfig;
use crate::config::RopeScaling;
use crate::family::LLAMA;

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

/// The values that all sizes of a release share.
struct Release {
    vocab: usize,
    eps: f64,
    theta: f64,
    scaling: &'static RopeScaling,
    context: usize,
    tied: bool,
    bos: u32,
    eos: u32,
}

const LLAMA_1: &Release = &Release {
    vocab: 32_000,
    eps: 1e-6,
    theta: 10_000.0,
    scaling: &RopeScaling::Default,
    context: 2048,
    tied: false,
    bos: 1,
    eos: 2,
};
const LLAMA_1_65B: &Release = &Release {
    eps: 1e-5,
    ..*LLAMA_1
};
const LLAMA_2: &Release = &Release {
    eps: 1e-5,
    context: 4096,
    ..*LLAMA_1
};
const TINY_LLAMA: &Release = &Release {
    eps: 1e-5,
    ..*LLAMA_1
};
const LLAMA_3: &Release = &Release {
    vocab: 128_256,
    theta: 500_000.0,
    context: 8192,
    bos: 128_000,
    eos: 128_001,
    ..*LLAMA_2
};
const LLAMA_3_1: &Release = &Release {
    scaling: &llama3(8.0),
    context: 131_072,
    ..*LLAMA_3
};
const LLAMA_3_2: &Release = &Release {
    scaling: &llama3(32.0),
    tied: true,
    ..*LLAMA_3_1
};
const SMOL: &Release = &Release {
    vocab: 49_152,
    theta: 100_000.0,
    context: 8192,
    tied: true,
    bos: 0,
    eos: 0,
    ..*LLAMA_2
};
const SMOL_LARGE: &Release = &Release {
    theta: 130_000.0,
    ..*SMOL
};

const fn llama3(factor: f64) -> RopeScaling {
    RopeScaling::Llama3 {
        factor,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position_embeddings: 8192,
    }
}

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
];

/// The names that [`named`] knows.
pub fn names() -> impl Iterator<Item = &'static str> {
    SIZES.iter().map(|size| size.name)
}

/// The configuration of a published model: `llama-7b`, `llama-3.2-1b`, `smollm2-135m`. Upper case is accepted, as are
/// `tinyllama` and `smollm2` without a size, which mean the only and the smallest size.
pub fn named(name: &str) -> Option<ModelConfig> {
    let name = name.to_ascii_lowercase();
    let same = |size: &&Size| size.name == name;
    let begins = |size: &&Size| {
        let rest = size.name.strip_prefix(name.as_str());
        matches!(name.as_str(), "tinyllama" | "smollm2") && rest.is_some()
    };
    let mut sizes = SIZES.iter();
    let size = sizes.find(same).or_else(|| SIZES.iter().find(begins))?;
    let release = size.release;
    Some(ModelConfig {
        vocab_size: release.vocab,
        hidden_size: size.hidden,
        intermediate_size: size.inner,
        num_hidden_layers: size.layers,
        num_attention_heads: size.heads,
        num_key_value_heads: size.key_heads,
        head_dim: size.hidden / size.heads,
        rms_norm_eps: release.eps,
        rope_theta: release.theta,
        rope_scaling: release.scaling.clone(),
        max_position_embeddings: release.context,
        attention_bias: false,
        mlp_bias: false,
        tie_word_embeddings: release.tied,
        bos_token_id: Some(release.bos),
        eos_token_id: vec![release.eos],
        ..ModelConfig::of_family(&LLAMA)
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::layout::parameter_count;

    /// The counts in the papers and model cards; for the other models, those of the published files.
    #[test]
    fn counts_are_the_published_ones() {
        for (name, count) in [
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
        ] {
            let config = named(name).unwrap();
            config.check(Path::new(name)).unwrap();
            assert_eq!(parameter_count(&config), count, "{name}");
        }
        assert_eq!(names().count(), 19);
    }

    #[test]
    fn names_may_be_written_as_people_do() {
        assert_eq!(named("Llama-3.2-1B"), named("llama-3.2-1b"));
        assert_eq!(named("tinyllama"), named("tinyllama-1.1b"));
        assert_eq!(named("smollm2"), named("smollm2-135m"));
        assert_eq!(named("llama"), None);
    }
}
