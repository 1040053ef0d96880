//! Scaling of the rotary frequencies: keys, and tensors with a divisor for each frequency.
//!
//! | scaling | keys `rope.scaling.*` | tensors |
//! |---|---|---|
//! | linear | `type`, `factor` | |
//! | YaRN | `type`, `factor`, `original_context_length`, `attn_factor`, `yarn_attn_factor` | |
//! | LongRoPE | `type` (not in Phi-3), `original_context_length`, `attn_factor` | `rope_factors_long`, `rope_factors_short` |
//! | Llama 3 | | `rope_freqs` |
//!
//! With YaRN, llama.cpp multiplies cos and sin by `(0.1 ln factor + 1) · attn_factor`, with LongRoPE by `attn_factor`.

mod llama3;

use super::read::Keys;
use crate::config::{ModelConfig, RopeScaling};
use crate::family::GgufLongRope;
use crate::gguf::metadata::required;
use crate::gguf::{Gguf, GgufError, Metadata, blocks};

/// The tensor with Llama 3's divisors.
const LLAMA3: &str = "rope_freqs.weight";
/// The tensors with LongRoPE's divisors.
const LONG: &str = "rope_factors_long.weight";
const SHORT: &str = "rope_factors_short.weight";
/// The tensors that the configuration determines.
pub(super) const TENSORS: [&str; 3] = [LLAMA3, LONG, SHORT];

const ORIGINAL: &str = "rope.scaling.original_context_length";
const ATTENTION: &str = "rope.scaling.attn_factor";
const YARN_ATTENTION: &str = "rope.scaling.yarn_attn_factor";

/// The tensors that hold the scaling of a model: names and values.
pub(super) fn tensors(config: &ModelConfig) -> impl Iterator<Item = (&'static str, Vec<f32>)> {
    let narrow = |numbers: &[f64]| numbers.iter().map(|&number| number as f32).collect();
    let tensors = match &config.rope_scaling {
        RopeScaling::LongRope {
            short_factor,
            long_factor,
            ..
        } => vec![(LONG, narrow(long_factor)), (SHORT, narrow(short_factor))],
        scaling => llama3::factors(scaling, config.rope_theta, config.rotary_dim())
            .map(|divisors| (LLAMA3, divisors))
            .into_iter()
            .collect(),
    };
    tensors.into_iter()
}

/// Checks that llama.cpp scales the frequencies as the model.
///
/// # Errors
/// If it does not.
pub(super) fn check(config: &ModelConfig) -> Result<(), GgufError> {
    let gguf = &config.family.gguf;
    let kind = config.rope_scaling.kind();
    let found = match &config.rope_scaling {
        RopeScaling::Default | RopeScaling::Linear { .. } => return Ok(()),
        RopeScaling::Llama3 { .. } if gguf.rotary_divisors => return Ok(()),
        RopeScaling::LongRope { .. } if gguf.long_rope != GgufLongRope::Never => return Ok(()),
        // llama.cpp would scale the layers with a base of their own, too
        RopeScaling::Yarn {
            beta_fast,
            beta_slow,
            truncate,
            ..
        } if !config.family.local_rotary => {
            let fixed = [(beta_fast, 32.0_f64), (beta_slow, 1.0)];
            let same = fixed.iter().all(|(a, b)| a.to_bits() == b.to_bits());
            if same && *truncate {
                return Ok(());
            }
            "is yarn with other values than `beta_fast` 32, `beta_slow` 1 and `truncate` true"
                .to_owned()
        }
        _ => format!("is {kind}"),
    };
    Err(GgufError::Inexpressible {
        architecture: gguf.architecture,
        key: "rope_scaling",
        found,
    })
}

/// Writes base and scaling of the frequencies.
pub(super) fn write(config: &ModelConfig, metadata: &mut Metadata) {
    let gguf = &config.family.gguf;
    let name = |key: &str| format!("{}.{key}", gguf.architecture);
    metadata.set(name("rope.freq_base"), config.rope_theta as f32);
    if let Some(base) = config.rope_local_base_freq {
        metadata.set(name("rope.freq_base_swa"), base as f32);
    }
    let typed = gguf.long_rope != GgufLongRope::WithoutType;
    let scaling = &config.rope_scaling;
    let attention = scaling.attention_factor(config.max_position_embeddings);
    match scaling {
        RopeScaling::LongRope { .. } if !typed => {}
        RopeScaling::Linear { .. } | RopeScaling::Yarn { .. } | RopeScaling::LongRope { .. } => {
            metadata.set(name("rope.scaling.type"), scaling.kind());
        }
        RopeScaling::Default | RopeScaling::Llama3 { .. } | RopeScaling::Dynamic { .. } => {}
    }
    if let RopeScaling::Linear { factor } | RopeScaling::Yarn { factor, .. } = scaling {
        metadata.set(name("rope.scaling.factor"), *factor as f32);
    }
    if let RopeScaling::Yarn {
        original_max_position_embeddings: original,
        ..
    }
    | RopeScaling::LongRope {
        original_max_position_embeddings: original,
        ..
    } = scaling
    {
        metadata.set(name(ORIGINAL), u32::try_from(*original).unwrap_or(u32::MAX));
    }
    match scaling {
        RopeScaling::LongRope { .. } => metadata.set(name(ATTENTION), attention as f32),
        RopeScaling::Yarn {
            factor,
            attention_factor,
            ..
        } => {
            // the converter writes it, and llama.cpp does not read it in these families
            if let Some(given) = attention_factor {
                metadata.set(name(YARN_ATTENTION), *given as f32);
            }
            let quotient = attention / yarn_attention(*factor);
            if (quotient - 1.0).abs() > 1e-7 {
                metadata.set(name(ATTENTION), quotient as f32);
            }
        }
        _ => {}
    }
}

/// The factor of cos and sin that llama.cpp takes for YaRN.
fn yarn_attention(factor: f64) -> f64 {
    0.1 * factor.ln() + 1.0
}

/// The scaling of the model in a file; `files` are its bytes.
///
/// # Errors
/// If simmer does not know the kind of scaling, or the divisors do not follow Llama 3's rule.
pub(super) fn read(
    gguf: &Gguf,
    files: &[&[u8]],
    keys: &Keys<'_>,
    theta: f64,
    rotary_dim: usize,
) -> Result<RopeScaling, GgufError> {
    // llama.cpp's switch for Granite; other families do not read it
    let switch = keys.name("rope.scaling.finetuned");
    if keys.family.multipliers && keys.metadata.flag(&switch)? == Some(false) {
        let expected = "true (rotary positions)";
        return Err(keys.wrong("rope.scaling.finetuned", expected, "false"));
    }
    let old = keys.number("rope.scale_linear")?;
    let factor = keys.number("rope.scaling.factor")?.or(old);
    // llama.cpp writes zero if there is none
    let factor = factor.filter(|&factor| factor != 0.0);
    let half = rotary_dim / 2;
    let divisors = |name: &str| numbers(gguf, files, name, half);
    let kind = keys.string("rope.scaling.type")?;
    if let (None | Some("longrope"), Some(long)) = (kind, divisors(LONG)?) {
        let short = divisors(SHORT)?.ok_or_else(|| missing(SHORT))?;
        return long_rope(keys, &long, &short);
    }
    let scaling = match (kind, factor) {
        (Some("none"), _) | (Some("linear") | None, None) => RopeScaling::Default,
        (Some("linear") | None, Some(factor)) => RopeScaling::Linear { factor },
        (Some("yarn"), factor) => yarn(keys, required(&keys.name("rope.scaling.factor"), factor)?)?,
        (Some("longrope"), _) => return Err(missing(LONG)),
        (Some(other), _) => {
            let expected = r#""none", "linear", "yarn" or "longrope""#;
            return Err(keys.wrong("rope.scaling.type", expected, other));
        }
    };
    let Some(divisors) = divisors(LLAMA3)? else {
        return Ok(scaling);
    };
    if scaling != RopeScaling::Default {
        return Err(GgufError::RopeFactors {
            found: format!("{half} divisors beside {} scaling", scaling.kind()),
        });
    }
    llama3::scaling(&divisors, theta, rotary_dim)
}

/// YaRN's scaling. The keys that llama.cpp does not read are those of the converted model.
fn yarn(keys: &Keys<'_>, factor: f64) -> Result<RopeScaling, GgufError> {
    let number = |key, default: f64| keys.number(key).map(|found| found.unwrap_or(default));
    let attention = keys.number(ATTENTION)?.filter(|&quotient| quotient != 0.0);
    let attention = attention.map(|quotient| quotient * yarn_attention(factor));
    Ok(RopeScaling::Yarn {
        factor,
        original_max_position_embeddings: original(keys)?,
        beta_fast: number("rope.scaling.yarn_beta_fast", 32.0)?,
        beta_slow: number("rope.scaling.yarn_beta_slow", 1.0)?,
        attention_factor: keys.number(YARN_ATTENTION)?.or(attention),
        mscale: None,
        mscale_all_dim: None,
        truncate: true,
    })
}

fn long_rope(keys: &Keys<'_>, long: &[f32], short: &[f32]) -> Result<RopeScaling, GgufError> {
    // the shortest decimals, as for metadata
    let wide = |numbers: &[f32]| {
        let decimal = |&number: &f32| number.to_string().parse().unwrap_or(f64::from(number));
        numbers.iter().map(decimal).collect()
    };
    let scaling = |attention_factor| {
        Ok::<_, GgufError>(RopeScaling::LongRope {
            short_factor: wide(short),
            long_factor: wide(long),
            original_max_position_embeddings: original(keys)?,
            factor: None,
            attention_factor,
        })
    };
    let usual = scaling(None)?;
    let attention = keys.number(ATTENTION)?.unwrap_or(1.0);
    let assumed = usual.attention_factor(keys.size("context_length")?);
    if (attention / assumed - 1.0).abs() < 1e-6 {
        return Ok(usual);
    }
    scaling(Some(attention))
}

fn missing(tensor: &str) -> GgufError {
    GgufError::Key {
        key: tensor.to_owned(),
        expected: "a tensor".to_owned(),
        found: "none".to_owned(),
    }
}

/// The context before scaling.
fn original(keys: &Keys<'_>) -> Result<usize, GgufError> {
    match keys.optional_size(ORIGINAL)?.filter(|&tokens| tokens > 0) {
        Some(tokens) => Ok(tokens),
        None => keys.size("context_length"),
    }
}

/// The values of one of the tensors, if the file has it.
fn numbers(
    gguf: &Gguf,
    files: &[&[u8]],
    name: &str,
    half: usize,
) -> Result<Option<Vec<f32>>, GgufError> {
    let Some(tensor) = gguf.tensor(name) else {
        return Ok(None);
    };
    if tensor.shape != [half] {
        let found = format!("{:?}", tensor.shape);
        return Err(GgufError::Key {
            key: name.to_owned(),
            expected: format!("a tensor with {half} elements, one for each frequency"),
            found,
        });
    }
    let mut numbers = vec![0.0; half];
    let file = files.get(tensor.file).copied().unwrap_or_default();
    let bytes = file.get(tensor.range.clone()).unwrap_or_default();
    blocks::dequantize(tensor.kind, bytes, &mut numbers)?;
    Ok(Some(numbers))
}
