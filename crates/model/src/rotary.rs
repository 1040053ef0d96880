//! Rotary position embedding (RoPE): frequencies, and the angles of a packed sequence.
//!
//! Frequencies and angles are computed in f32, in the same order of operations as in transformers, so
//! that high positions agree, too. PyTorch divides a number by a tensor by multiplying with the
//! reciprocal.
//!
//! Source: transformers `modeling_rope_utils.py`.
//!
//! Axes: T tokens, R rotary features of a head.

use std::collections::{BTreeMap, BTreeSet};
use std::f64::consts::PI;

use burn::tensor::{Device, Int, Tensor};
use simmer_checkpoint::config::{ModelConfig, Positions, RopeScaling};
use simmer_kernels::{Rows, upload_floats};

use crate::sequence::ids;

/// What determines the rotary table of a layer.
#[derive(Debug, Clone, Copy)]
pub struct RotarySettings<'a> {
    /// Base of the frequencies.
    pub theta: f64,
    /// Their scaling.
    pub scaling: &'a RopeScaling,
    /// Rotary features of a head, `R`.
    pub dim: usize,
    /// Maximum context of the model, in tokens.
    pub max_position_embeddings: usize,
}

impl<'a> RotarySettings<'a> {
    /// Those of some layers of a model.
    pub fn of(config: &'a ModelConfig, positions: Positions) -> Self {
        let (theta, scaling) = match (positions, config.rope_local_base_freq) {
            (Positions::Local, Some(theta)) => (theta, &RopeScaling::Default),
            _ => (config.rope_theta, &config.rope_scaling),
        };
        Self {
            theta,
            scaling,
            dim: config.rotary_dim(),
            max_position_embeddings: config.max_position_embeddings,
        }
    }

    /// The frequency of each pair of features in a row of `length` tokens, `[R/2]`, in radians per
    /// position. The length matters for dynamic scaling and LongRoPE alone.
    pub fn frequencies(&self, length: usize) -> Vec<f32> {
        match self.scaling {
            RopeScaling::Default => self.of_base(self.theta as f32),
            RopeScaling::Linear { factor } => {
                let frequencies = self.of_base(self.theta as f32).into_iter();
                frequencies.map(|f| f / *factor as f32).collect()
            }
            RopeScaling::Dynamic { factor } => self.of_base(self.dynamic_base(*factor, length)),
            RopeScaling::Yarn { .. } => self.yarn(),
            RopeScaling::LongRope {
                short_factor,
                long_factor,
                original_max_position_embeddings,
                ..
            } => {
                let divisors = if length > *original_max_position_embeddings {
                    long_factor
                } else {
                    short_factor
                };
                let powers = self.powers(self.theta as f32).zip(divisors);
                powers.map(|(p, d)| (*d as f32 * p).recip()).collect()
            }
            RopeScaling::Llama3 { .. } => self.llama3(),
        }
    }

    /// The factor of cosines and sines.
    pub fn attention_factor(&self) -> f32 {
        self.scaling.attention_factor(self.max_position_embeddings) as f32
    }

    /// The base to the power of `2i/R` for each pair `i`.
    fn powers(&self, base: f32) -> impl Iterator<Item = f32> + use<> {
        let dim = self.dim;
        (0..dim / 2).map(move |pair| base.powf((2 * pair) as f32 / dim as f32))
    }

    fn of_base(&self, base: f32) -> Vec<f32> {
        self.powers(base).map(f32::recip).collect()
    }

    /// The base grows with the length of a row above the maximum context. transformers computes it in f64
    /// up to there, and in f32 above.
    fn dynamic_base(&self, factor: f64, length: usize) -> f32 {
        let [max, dim] = [self.max_position_embeddings, self.dim].map(|size| size as f64);
        let exponent = dim / (dim - 2.0);
        if length <= self.max_position_embeddings {
            return (self.theta * (factor * max / max - (factor - 1.0)).powf(exponent)) as f32;
        }
        let growth = factor as f32 * length as f32 / max as f32 - (factor - 1.0) as f32;
        self.theta as f32 * growth.powf(exponent as f32)
    }

    fn yarn(&self) -> Vec<f32> {
        let RopeScaling::Yarn {
            factor,
            original_max_position_embeddings: original,
            beta_fast,
            beta_slow,
            truncate,
            ..
        } = self.scaling
        else {
            unreachable!("called for YaRN alone");
        };
        let dim = self.dim as f64;
        // the pair whose wavelength has this many rotations over the original context
        let pair = |rotations: f64| {
            let wavelengths = *original as f64 / (rotations * 2.0 * PI);
            dim * wavelengths.ln() / (2.0 * self.theta.ln())
        };
        let [mut low, mut high] = [pair(*beta_fast), pair(*beta_slow)];
        if *truncate {
            [low, high] = [low.floor(), high.ceil()];
        }
        let low = low.max(0.0);
        let mut high = high.min(dim - 1.0);
        #[expect(
            clippy::float_cmp,
            reason = "as in transformers: a ramp without length"
        )]
        if low == high {
            high += 0.001;
        }
        let [start, length] = [low as f32, (high - low) as f32];
        let powers = self.powers(self.theta as f32).enumerate();
        powers
            .map(|(pair, power)| {
                let [kept, scaled] = [power.recip(), (*factor as f32 * power).recip()];
                let share = 1.0 - ((pair as f32 - start) / length).clamp(0.0, 1.0);
                scaled * (1.0 - share) + kept * share
            })
            .collect()
    }

    fn llama3(&self) -> Vec<f32> {
        let RopeScaling::Llama3 {
            factor,
            low_freq_factor: low,
            high_freq_factor: high,
            original_max_position_embeddings: original,
        } = self.scaling
        else {
            unreachable!("called for Llama 3's rule alone");
        };
        let original = *original as f64;
        let [shortest, longest] = [original / high, original / low].map(|x| x as f32);
        let spread = (high - low) as f32;
        let [factor, low, original] = [*factor, *low, original].map(|x| x as f32);
        let frequencies = self.of_base(self.theta as f32).into_iter();
        frequencies
            .map(|frequency| {
                let wavelength = frequency.recip() * (2.0 * PI) as f32;
                if wavelength > longest {
                    frequency / factor
                } else if wavelength < shortest {
                    frequency
                } else {
                    let smooth = (wavelength.recip() * original - low) / spread;
                    (1.0 - smooth) * frequency / factor + smooth * frequency
                }
            })
            .collect()
    }

    /// The frequencies of a row of this length are those of this shorter length.
    pub(crate) fn representative(&self, length: usize) -> usize {
        let Some(bound) = self.scaling.same_up_to(self.max_position_embeddings) else {
            return 0;
        };
        match self.scaling {
            _ if length <= bound => 0,
            RopeScaling::LongRope { .. } => bound + 1,
            _ => length,
        }
    }
}

/// Cosine and sine of each token's angles, multiplied by the attention factor.
#[derive(Debug, Clone)]
pub(crate) struct Rotary {
    /// `[T, R/2]`
    pub(crate) cos: Tensor<2>,
    /// `[T, R/2]`
    pub(crate) sin: Tensor<2>,
}

impl Rotary {
    /// The table for the tokens of the rows. A row's frequencies are those of its length in this pass: the
    /// number of its keys.
    pub(crate) fn new(settings: &RotarySettings<'_>, rows: &Rows, device: &Device) -> Self {
        let lengths = rows.iter().map(|row| {
            let length = settings.representative(row.key_count());
            (length, row.queries.len())
        });
        let lengths: Vec<(usize, usize)> = lengths.collect();
        let kinds: BTreeSet<usize> = lengths.iter().map(|(length, _)| *length).collect();
        let kinds: BTreeMap<usize, Vec<f32>> = kinds
            .into_iter()
            .map(|length| (length, settings.frequencies(length)))
            .collect();
        let factor = settings.attention_factor();
        let positions = rows.positions();
        if let (1, Some(frequencies)) = (kinds.len(), kinds.values().next()) {
            return Self::of_positions(frequencies, factor, &positions, device);
        }
        let of_tokens = lengths
            .iter()
            .flat_map(|(length, tokens)| std::iter::repeat_n(&kinds[length], *tokens));
        let angles = positions.iter().zip(of_tokens);
        let angles = angles.flat_map(|(position, frequencies)| angles_at(*position, frequencies));
        let shape = [positions.len(), settings.dim / 2];
        Self::of_angles(&angles.collect::<Vec<f32>>(), factor, shape, device)
    }

    /// The table of the positions from 0 to `positions`, for a row of this length.
    ///
    /// # Shapes
    /// `[positions, R/2]`
    pub(crate) fn of_all(
        settings: &RotarySettings<'_>,
        length: usize,
        positions: usize,
        device: &Device,
    ) -> Self {
        let frequencies = settings.frequencies(settings.representative(length));
        let positions: Vec<u32> = (0..positions as u32).collect();
        let factor = settings.attention_factor();
        Self::of_positions(&frequencies, factor, &positions, device)
    }

    /// The angles at some positions of a table of all, or those of some tokens.
    pub(crate) fn at(&self, positions: Tensor<1, Int>) -> Self {
        let [cos, sin] =
            [&self.cos, &self.sin].map(|table| table.clone().select(0, positions.clone()));
        Self { cos, sin }
    }

    fn of_positions(frequencies: &[f32], factor: f32, positions: &[u32], device: &Device) -> Self {
        let at = |positions: &[u32]| {
            let angles = positions.iter();
            let angles = angles.flat_map(|position| angles_at(*position, frequencies));
            let shape = [positions.len(), frequencies.len()];
            Self::of_angles(&angles.collect::<Vec<f32>>(), factor, shape, device)
        };
        let end = positions.iter().max().map_or(0, |last| last + 1);
        if end as usize >= positions.len() {
            return at(positions);
        }
        // the rows have most positions in common: compute each position once
        let each: Vec<u32> = (0..end).collect();
        let once = at(&each);
        let wanted = ids(positions.iter().copied(), device);
        let [cos, sin] = [once.cos, once.sin].map(|table| table.select(0, wanted.clone()));
        Self { cos, sin }
    }

    fn of_angles(angles: &[f32], factor: f32, shape: [usize; 2], device: &Device) -> Self {
        let table = |f: fn(f32) -> f32| {
            let values = angles.iter().map(|angle| f(*angle) * factor).collect();
            upload_floats(values, shape, device)
        };
        Self {
            cos: table(f32::cos),
            sin: table(f32::sin),
        }
    }

    /// The same without automatic differentiation.
    pub(crate) fn valid(&self) -> Self {
        let [cos, sin] = [&self.cos, &self.sin].map(|table| table.clone().inner());
        Self { cos, sin }
    }
}

fn angles_at(position: u32, frequencies: &[f32]) -> impl Iterator<Item = f32> {
    frequencies.iter().map(move |f| position as f32 * f)
}

#[cfg(test)]
mod tests;
