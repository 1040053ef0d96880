//! Soft caps and multipliers.

use super::read::Keys;
use crate::config::ModelConfig;
use crate::family::{Absent, ConfigNumber};
use crate::gguf::metadata::required;
use crate::gguf::{GgufError, Metadata};

impl ConfigNumber {
    fn get(self, config: &ModelConfig) -> Option<f64> {
        match self {
            Self::AttnLogitSoftcapping => config.attn_logit_softcapping,
            Self::FinalLogitSoftcapping => config.final_logit_softcapping,
            Self::EmbeddingMultiplier => Some(config.embedding_multiplier),
            Self::AttentionMultiplier => config.attention_multiplier,
            Self::ResidualMultiplier => Some(config.residual_multiplier),
            Self::LogitsScaling => Some(config.logits_scaling),
        }
    }

    fn set(self, config: &mut ModelConfig, found: Option<f64>) {
        match self {
            Self::AttnLogitSoftcapping => config.attn_logit_softcapping = found,
            Self::FinalLogitSoftcapping => config.final_logit_softcapping = found,
            Self::EmbeddingMultiplier => config.embedding_multiplier = found.unwrap_or(1.0),
            Self::AttentionMultiplier => config.attention_multiplier = found,
            Self::ResidualMultiplier => config.residual_multiplier = found.unwrap_or(1.0),
            Self::LogitsScaling => config.logits_scaling = found.unwrap_or(1.0),
        }
    }

    /// Whether a model with this number computes the same as without.
    fn is_unused(self, number: f64) -> bool {
        match self {
            Self::AttnLogitSoftcapping
            | Self::FinalLogitSoftcapping
            | Self::AttentionMultiplier => false,
            Self::EmbeddingMultiplier | Self::ResidualMultiplier | Self::LogitsScaling => {
                number.to_bits() == 1.0_f64.to_bits()
            }
        }
    }
}

/// Sets the numbers of the family that are in a file.
pub(super) fn read(keys: &Keys<'_>, config: &mut ModelConfig) -> Result<(), GgufError> {
    for row in config.family.gguf.numbers {
        // llama.cpp reads zero as none
        let found = keys.number(row.key)?.filter(|&number| number != 0.0);
        let found = match (found, row.absent) {
            (None, Absent::Default(number)) => Some(number),
            (None, Absent::Refused) => Some(required(&keys.name(row.key), None)?),
            (found, _) => found,
        };
        row.number.set(config, found);
    }
    Ok(())
}

/// Writes the numbers of the family.
///
/// # Errors
/// If the architecture cannot do without one that the configuration lacks, or has none that the configuration has.
pub(super) fn write(config: &ModelConfig, metadata: &mut Metadata) -> Result<(), GgufError> {
    let gguf = &config.family.gguf;
    let architecture = gguf.architecture;
    let refuse = |number: ConfigNumber, found: String| GgufError::Inexpressible {
        architecture,
        key: number.key(),
        found,
    };
    for row in gguf.numbers {
        match row.number.get(config) {
            Some(number) => metadata.set(format!("{architecture}.{}", row.key), number as f32),
            None if row.absent == Absent::Unused => {}
            None => return Err(refuse(row.number, "is null".to_owned())),
        }
    }
    let others = ConfigNumber::ALL.into_iter();
    let mut others = others.filter(|number| gguf.numbers.iter().all(|row| row.number != *number));
    let used = others.find_map(|number| {
        let found = number.get(config)?;
        (!number.is_unused(found)).then_some((number, found))
    });
    used.map_or(Ok(()), |(number, found)| {
        Err(refuse(number, format!("is {found}")))
    })
}
