//! A LLaMA as GGUF: its shape in metadata, its tensors under other names and in another order.
//!
//! Source: llama.cpp, `convert_hf_to_gguf.py` and `src/llama-model.cpp`.

mod shape;

use std::collections::BTreeMap;

use super::names::has_paired_rows;
use super::{GgmlType, Gguf, GgufError, GgufTensor, GgufTensorSpec, blocks, rope};
use crate::config::ModelConfig;
use crate::layout;

pub use super::names::{gguf_name, hugging_face_name};
pub use shape::{config, metadata};

/// The name of the family in `general.architecture`.
pub const ARCHITECTURE: &str = "llama";
/// The tensor of Llama 3's rotary divisors.
const ROPE_FACTORS: &str = "rope_freqs.weight";
/// Disagreements that a message lists.
const MAX_PROBLEMS: usize = 20;

/// The row of Hugging Face's order that lies at a row of GGUF's, for query and key projections.
///
/// Within each head, pair `i` of GGUF's are rows `i` of Hugging Face's two halves.
pub fn hugging_face_row(row: usize, head_dim: usize) -> usize {
    let (head, within, half) = (row / head_dim, row % head_dim, head_dim / 2);
    head * head_dim + within % 2 * half + within / 2
}

/// A tensor of a LLaMA in a file.
#[derive(Debug, Clone)]
pub struct LlamaTensor<'a> {
    /// Hugging Face's name.
    pub name: String,
    /// Where it lies, with its shape.
    pub tensor: &'a GgufTensor,
    /// What widens its blocks.
    pub decoder: blocks::Decoder,
    /// Features of a head where rows lie in pairs, `(2i, 2i + 1)`.
    pub paired: Option<usize>,
}

/// A tensor that a file of a LLaMA is to have.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedTensor {
    /// As the writer wants it.
    pub spec: GgufTensorSpec,
    /// What it is made from.
    pub source: Source,
}

/// What a tensor of a file is made from.
#[derive(Debug, Clone, PartialEq)]
pub enum Source {
    /// A tensor of the model.
    Tensor {
        /// Hugging Face's name.
        name: String,
        /// Features of a head where rows are to lie in pairs, see [`hugging_face_row`].
        paired: Option<usize>,
    },
    /// These numbers.
    Numbers(Vec<f32>),
}

/// The tensors of the model in a file, in the order of the file.
///
/// # Errors
/// Where tensors are absent, unknown or of another shape than `config` says, or of a number type
/// that cannot be widened.
pub fn tensors<'a>(
    gguf: &'a Gguf,
    config: &ModelConfig,
) -> Result<Vec<LlamaTensor<'a>>, GgufError> {
    let mut expected: BTreeMap<_, _> = layout::tensors(config)
        .into_iter()
        .map(|tensor| (tensor.name, tensor.shape))
        .collect();
    let mut problems = Vec::new();
    let mut tensors = Vec::new();
    for tensor in gguf.tensors() {
        // The second held the rotary frequencies in some early files; they follow from the config.
        if tensor.name == ROPE_FACTORS || tensor.name.ends_with(".attn_rot_embd.weight") {
            continue;
        }
        let name = hugging_face_name(&tensor.name);
        let Some((name, shape)) = name.and_then(|name| expected.remove_entry(&name)) else {
            problems.push(format!("`{}` is no part of such a model", tensor.name));
            continue;
        };
        if tensor.shape != shape {
            problems.push(format!(
                "`{}`: expected shape {shape:?}, found {:?}",
                tensor.name, tensor.shape
            ));
            continue;
        }
        tensors.push(LlamaTensor {
            tensor,
            decoder: blocks::decoder(tensor.kind).map_err(|error| error.of_tensor(&tensor.name))?,
            paired: has_paired_rows(&name).then_some(config.head_dim),
            name,
        });
    }
    let missing = expected.keys().map(|name| {
        let name = gguf_name(name).unwrap_or_else(|| name.clone());
        format!("`{name}` is missing")
    });
    problems.extend(missing);
    if problems.is_empty() {
        return Ok(tensors);
    }
    let more = problems.len().saturating_sub(MAX_PROBLEMS);
    problems.truncate(MAX_PROBLEMS);
    if more > 0 {
        problems.push(format!("and {more} more"));
    }
    Err(GgufError::Mismatch { problems })
}

/// The tensors of a file with a model of this shape: matrices as `kind`, norms and biases as F32,
/// which llama.cpp asks for; matrices whose rows are no whole blocks of `kind` as F16.
pub fn plan(config: &ModelConfig, kind: GgmlType) -> Vec<PlannedTensor> {
    let factors = rope::factors(config.rope_scaling, config.rope_theta, config.head_dim);
    let factors = factors.map(|numbers| PlannedTensor {
        spec: GgufTensorSpec {
            name: ROPE_FACTORS.to_owned(),
            shape: vec![numbers.len()],
            kind: GgmlType::F32,
        },
        source: Source::Numbers(numbers),
    });
    let planned = layout::tensors(config).into_iter().filter_map(|tensor| {
        let kind = match tensor.shape.as_slice() {
            [_] => GgmlType::F32,
            shape if kind.tensor_bytes(shape).is_none() => GgmlType::F16,
            _ => kind,
        };
        Some(PlannedTensor {
            spec: GgufTensorSpec {
                name: gguf_name(&tensor.name)?,
                shape: tensor.shape,
                kind,
            },
            source: Source::Tensor {
                paired: has_paired_rows(&tensor.name).then_some(config.head_dim),
                name: tensor.name,
            },
        })
    });
    factors.into_iter().chain(planned).collect()
}

#[cfg(test)]
mod tests;
