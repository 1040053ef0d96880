//! Scaling of the rotary frequencies: its kinds, their keys in `config.json`, and the limits of their values.
//!
//! Source: transformers `modeling_rope_utils.py`.

mod read;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use simmer_files::size::counted;

use super::{ConfigError, MAX_CONTEXT, ModelConfig};

pub(super) use read::RopeTable;

/// The context before scaling, in a table or at the top level of the file.
const ORIGINAL: &str = "original_max_position_embeddings";

/// Scaling of the rotary frequencies.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[derive(schemars::JsonSchema)]
pub enum RopeScaling {
    /// Unscaled frequencies.
    #[default]
    Default,
    /// Every frequency divided by `factor`.
    Linear {
        /// Scaling of the context length.
        factor: f64,
    },
    /// Dynamic NTK scaling: in rows longer than `max_position_embeddings`, the base of the frequencies grows with the length.
    Dynamic {
        /// Scaling of the context length.
        factor: f64,
    },
    /// YaRN: the frequencies of long wavelengths are divided by `factor`, those of short ones are kept, with a linear ramp over
    /// the pairs of features between; cos and sin are multiplied by the attention factor.
    Yarn {
        /// Scaling of the context length.
        factor: f64,
        /// Context before scaling, in tokens.
        original_max_position_embeddings: usize,
        /// Wavelengths with more rotations than this over the original context are kept.
        #[serde(default = "default_beta_fast")]
        beta_fast: f64,
        /// Wavelengths with fewer rotations than this over the original context are divided by `factor`.
        #[serde(default = "default_beta_slow")]
        beta_slow: f64,
        /// Factor of cos and sin. Default: computed from `factor`, `mscale` and `mscale_all_dim`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        attention_factor: Option<f64>,
        /// Weight of `factor` in the numerator of the attention factor.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mscale: Option<f64>,
        /// Weight of `factor` in the denominator of the attention factor.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mscale_all_dim: Option<f64>,
        /// Whether the ends of the ramp are rounded to whole pairs.
        #[serde(default = "default_truncate")]
        truncate: bool,
    },
    /// LongRoPE: a divisor for each frequency, of one list in rows up to the original context, and of another in longer rows;
    /// cos and sin are multiplied by the attention factor.
    #[serde(rename = "longrope")]
    LongRope {
        /// Divisors in rows up to the original context.
        short_factor: Vec<f64>,
        /// Divisors in longer rows.
        long_factor: Vec<f64>,
        /// Context before scaling, in tokens.
        original_max_position_embeddings: usize,
        /// Scaling of the context length. Default: `max_position_embeddings` divided by the original context.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        factor: Option<f64>,
        /// Factor of cos and sin. Default: computed from `factor`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        attention_factor: Option<f64>,
    },
    /// Llama 3's rule: the frequencies of long wavelengths are divided by `factor`, those of short ones are kept, with linear
    /// interpolation between.
    Llama3 {
        /// Scaling of the context length.
        factor: f64,
        /// Wavelengths above `original / low_freq_factor` are scaled.
        low_freq_factor: f64,
        /// Wavelengths below `original / high_freq_factor` are kept.
        high_freq_factor: f64,
        /// Context before scaling, in tokens.
        original_max_position_embeddings: usize,
    },
}

fn default_beta_fast() -> f64 {
    32.0
}
fn default_beta_slow() -> f64 {
    1.0
}
fn default_truncate() -> bool {
    true
}

impl RopeScaling {
    /// Its name: `rope_type` in `config.json`, and the key of a recipe.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Linear { .. } => "linear",
            Self::Dynamic { .. } => "dynamic",
            Self::Yarn { .. } => "yarn",
            Self::LongRope { .. } => "longrope",
            Self::Llama3 { .. } => "llama3",
        }
    }

    /// The factor of cos and sin.
    pub fn attention_factor(&self, max_position_embeddings: usize) -> f64 {
        match self {
            Self::Yarn {
                attention_factor: Some(given),
                ..
            }
            | Self::LongRope {
                attention_factor: Some(given),
                ..
            } => *given,
            Self::Yarn {
                factor,
                mscale,
                mscale_all_dim,
                ..
            } => {
                let of = |weight: f64| {
                    if *factor <= 1.0 {
                        1.0
                    } else {
                        0.1 * weight * factor.ln() + 1.0
                    }
                };
                match (mscale, mscale_all_dim) {
                    (Some(above), Some(below)) => of(*above) / of(*below),
                    _ => of(1.0),
                }
            }
            Self::LongRope {
                factor,
                original_max_position_embeddings,
                ..
            } => {
                let original = *original_max_position_embeddings as f64;
                let factor = factor.unwrap_or(max_position_embeddings as f64 / original);
                if factor <= 1.0 {
                    1.0
                } else {
                    (1.0 + factor.ln() / original.ln()).sqrt()
                }
            }
            Self::Default | Self::Linear { .. } | Self::Dynamic { .. } | Self::Llama3 { .. } => 1.0,
        }
    }

    /// The length in tokens up to which all rows have the same frequencies; `None` if rows of every length have. See
    /// [`ModelConfig::same_frequencies_up_to`].
    pub fn same_up_to(&self, max_position_embeddings: usize) -> Option<usize> {
        match self {
            Self::Dynamic { .. } => Some(max_position_embeddings),
            Self::LongRope {
                original_max_position_embeddings,
                ..
            } => Some(*original_max_position_embeddings),
            Self::Default | Self::Linear { .. } | Self::Yarn { .. } | Self::Llama3 { .. } => None,
        }
    }

    /// The keys of `rope_parameters`, as transformers 5 writes them.
    pub(super) fn to_json(&self) -> Map<String, Value> {
        let all = match self {
            Self::Default => json!({}),
            Self::Linear { factor } | Self::Dynamic { factor } => json!({"factor": factor}),
            Self::Yarn {
                factor,
                original_max_position_embeddings,
                beta_fast,
                beta_slow,
                attention_factor,
                mscale,
                mscale_all_dim,
                truncate,
            } => json!({
                "factor": factor,
                (ORIGINAL): original_max_position_embeddings,
                "beta_fast": beta_fast,
                "beta_slow": beta_slow,
                "attention_factor": attention_factor,
                "mscale": mscale,
                "mscale_all_dim": mscale_all_dim,
                "truncate": truncate,
            }),
            Self::LongRope {
                short_factor,
                long_factor,
                original_max_position_embeddings,
                factor,
                attention_factor,
            } => json!({
                "short_factor": short_factor,
                "long_factor": long_factor,
                (ORIGINAL): original_max_position_embeddings,
                "factor": factor,
                "attention_factor": attention_factor,
            }),
            Self::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_max_position_embeddings,
            } => json!({
                "factor": factor,
                "low_freq_factor": low_freq_factor,
                "high_freq_factor": high_freq_factor,
                (ORIGINAL): original_max_position_embeddings,
            }),
        };
        let mut keys = Map::new();
        keys.insert("rope_type".to_owned(), json!(self.kind()));
        if let Value::Object(all) = all {
            keys.extend(all.into_iter().filter(|(_, value)| !value.is_null()));
        }
        keys
    }

    /// The context before scaling that `config.json` also has at its top level: transformers' Phi-3 reads it there.
    pub(super) fn top_level_original(&self) -> Option<usize> {
        match self {
            Self::LongRope {
                original_max_position_embeddings,
                ..
            } => Some(*original_max_position_embeddings),
            _ => None,
        }
    }

    /// Checks that the frequencies of `dim` rotary features are finite. `wrong` makes the error of a key, from what is
    /// expected and found.
    pub(super) fn check(
        &self,
        theta: f64,
        dim: usize,
        wrong: &dyn Fn(&str, String, String) -> ConfigError,
    ) -> Result<(), ConfigError> {
        let limits = Limits { wrong };
        match self {
            Self::Default => Ok(()),
            Self::Linear { factor } => limits.stretch("factor", *factor),
            Self::Dynamic { factor } => {
                if dim <= 2 {
                    let expected = "above 2 with dynamic scaling".to_owned();
                    return Err(wrong("head_dim", expected, dim.to_string()));
                }
                limits.longer("factor", *factor)
            }
            Self::Yarn {
                factor,
                original_max_position_embeddings,
                beta_fast,
                beta_slow,
                attention_factor,
                mscale,
                mscale_all_dim,
                truncate: _,
            } => {
                limits.longer("factor", *factor)?;
                limits.context(*original_max_position_embeddings, 1)?;
                let optional = [
                    ("attention_factor", *attention_factor),
                    ("mscale", *mscale),
                    ("mscale_all_dim", *mscale_all_dim),
                ];
                for (key, number) in optional {
                    number.map_or(Ok(()), |number| limits.stretch(key, number))?;
                }
                limits.stretch("beta_slow", *beta_slow)?;
                limits.stretch("beta_fast", *beta_fast)?;
                if beta_fast < beta_slow {
                    let expected = format!("a number of at least beta_slow ({beta_slow})");
                    return Err(limits.wrong("beta_fast", expected, *beta_fast));
                }
                if theta <= 1.0 {
                    let expected = "a number above 1 with yarn scaling".to_owned();
                    return Err(wrong("rope_theta", expected, format!("{theta:?}")));
                }
                Ok(())
            }
            Self::LongRope {
                short_factor,
                long_factor,
                original_max_position_embeddings,
                factor,
                attention_factor,
            } => {
                limits.divisors("short_factor", short_factor, dim)?;
                limits.divisors("long_factor", long_factor, dim)?;
                // the attention factor divides by the logarithm
                limits.context(*original_max_position_embeddings, 2)?;
                factor.map_or(Ok(()), |factor| limits.longer("factor", factor))?;
                attention_factor.map_or(Ok(()), |number| limits.stretch("attention_factor", number))
            }
            Self::Llama3 {
                factor,
                low_freq_factor: low,
                high_freq_factor: high,
                original_max_position_embeddings: original,
            } => {
                limits.stretch("factor", *factor)?;
                limits.stretch("low_freq_factor", *low)?;
                limits.stretch("high_freq_factor", *high)?;
                if low >= high {
                    let expected = format!("a number above low_freq_factor ({low})");
                    return Err(limits.wrong("high_freq_factor", expected, *high));
                }
                limits.context(*original, 1)
            }
        }
    }
}

impl ModelConfig {
    /// The length in tokens up to which all rows have the same rotary frequencies; `None` if rows of every length have. Longer
    /// rows cannot continue the keys of a shorter one.
    pub fn same_frequencies_up_to(&self) -> Option<usize> {
        self.rope_scaling.same_up_to(self.max_position_embeddings)
    }
}

/// The limits of the values of `rope_scaling`.
struct Limits<'a> {
    wrong: &'a dyn Fn(&str, String, String) -> ConfigError,
}

impl Limits<'_> {
    fn wrong(&self, key: &str, expected: String, found: f64) -> ConfigError {
        (self.wrong)(
            &format!("rope_scaling.{key}"),
            expected,
            format!("{found:?}"),
        )
    }

    fn between(&self, key: &str, number: f64, least: f64, most: f64) -> Result<(), ConfigError> {
        // false for NaN
        if (least..=most).contains(&number) {
            return Ok(());
        }
        let expected = format!("a number from {least} to {most}");
        Err(self.wrong(key, expected, number))
    }

    fn stretch(&self, key: &str, number: f64) -> Result<(), ConfigError> {
        self.between(key, number, 1e-3, 1e6)
    }

    /// A factor that does not shorten the context.
    fn longer(&self, key: &str, number: f64) -> Result<(), ConfigError> {
        self.between(key, number, 1.0, 1e6)
    }

    fn context(&self, original: usize, least: usize) -> Result<(), ConfigError> {
        self.between(ORIGINAL, original as f64, least as f64, MAX_CONTEXT as f64)
    }

    fn divisors(&self, key: &str, numbers: &[f64], dim: usize) -> Result<(), ConfigError> {
        let count = dim / 2;
        if numbers.len() != count {
            let expected = format!(
                "{}, one for each pair of rotary features",
                counted(count, "number")
            );
            let found = numbers.len().to_string();
            return Err((self.wrong)(
                &format!("rope_scaling.{key}"),
                expected,
                found,
            ));
        }
        let mut all = numbers.iter().enumerate();
        all.try_for_each(|(index, number)| self.stretch(&format!("{key}[{index}]"), *number))
    }
}

#[cfg(test)]
mod tests;
