//! Rotary position embedding (RoPE): frequencies, and the angles of a packed sequence.
//!
//! Frequencies and angles are computed in f32, in the same order of operations as in transformers, so
//! that high positions agree, too.
//!
//! Source: transformers `modeling_rope_utils.py`.
//!
//! Axes: T tokens, D head_dim.

use std::f64::consts::PI;

use burn::tensor::{Device, Tensor};
use simmer_checkpoint::config::{ModelConfig, Positions, RopeScaling};
use simmer_kernels::upload_floats;

use crate::sequence::ids;

/// The frequency of each pair of dimensions, `[D/2]`, in radians per position.
pub fn inverse_frequencies(config: &ModelConfig, kind: Positions) -> Vec<f32> {
    let dim = config.rotary_dim();
    let (theta, scaling) = match (kind, config.rope_local_base_freq) {
        (Positions::Local, Some(theta)) => (theta, RopeScaling::Default),
        _ => (config.rope_theta, config.rope_scaling),
    };
    (0..dim / 2)
        .map(|pair| {
            let exponent = (2 * pair) as f32 / dim as f32;
            scale(1.0 / (theta as f32).powf(exponent), scaling)
        })
        .collect()
}

fn scale(frequency: f32, scaling: RopeScaling) -> f32 {
    match scaling {
        RopeScaling::Default => frequency,
        RopeScaling::Linear { factor } => frequency / factor as f32,
        RopeScaling::Llama3 {
            factor,
            low_freq_factor,
            high_freq_factor,
            original_max_position_embeddings,
        } => {
            let original = original_max_position_embeddings as f64;
            let frequency = f64::from(frequency);
            let wavelength = 2.0 * PI / frequency;
            let scaled = if wavelength < original / high_freq_factor {
                frequency
            } else if wavelength > original / low_freq_factor {
                frequency / factor
            } else {
                let smooth = (original / wavelength - low_freq_factor)
                    / (high_freq_factor - low_freq_factor);
                (1.0 - smooth) * frequency / factor + smooth * frequency
            };
            scaled as f32
        }
    }
}

/// Cosine and sine of each token's angles.
#[derive(Debug, Clone)]
pub(crate) struct Rotary {
    /// `[T, D/2]`
    pub(crate) cos: Tensor<2>,
    /// `[T, D/2]`
    pub(crate) sin: Tensor<2>,
}

impl Rotary {
    /// The table for tokens at `positions`, `[T]`.
    pub(crate) fn new(
        config: &ModelConfig,
        kind: Positions,
        positions: &[u32],
        device: &Device,
    ) -> Self {
        let end = positions.iter().max().map_or(0, |last| last + 1);
        if end as usize >= positions.len() {
            return Self::at(config, kind, positions, device);
        }
        // the rows have most positions in common: compute each position once
        let each: Vec<u32> = (0..end).collect();
        let once = Self::at(config, kind, &each, device);
        let wanted = ids(positions.iter().copied(), device);
        let [cos, sin] = [once.cos, once.sin].map(|table| table.select(0, wanted.clone()));
        Self { cos, sin }
    }

    fn at(config: &ModelConfig, kind: Positions, positions: &[u32], device: &Device) -> Self {
        let frequencies = inverse_frequencies(config, kind);
        let angles: Vec<f32> = positions
            .iter()
            .flat_map(|position| frequencies.iter().map(|f| *position as f32 * f))
            .collect();
        let shape = [positions.len(), frequencies.len()];
        let table = |f: fn(f32) -> f32| {
            let values = angles.iter().map(|angle| f(*angle)).collect();
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
