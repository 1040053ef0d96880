//! Models as GGUF: the configuration in metadata, the tensors under other names and, in some families, in another row order.
//!
//! Source: llama.cpp, `convert_hf_to_gguf.py` and `src/llama-model.cpp`.

mod file_type;
mod limits;
mod numbers;
mod read;
mod rotary;
mod windows;
mod write;

use std::collections::{BTreeMap, HashMap};

use super::{GgmlType, Gguf, GgufError, GgufTensor, GgufTensorSpec, blocks};
use crate::config::ModelConfig;
use crate::family::{GgufHead, Module, ModuleKind, NormWeight, Role};
use crate::layout::{self, Part, TensorLayout};

pub use file_type::{FileType, Mix};
pub use limits::notes;
pub use read::config;
pub use write::metadata;

/// Maximum number of contradictions in a message.
const MAX_PROBLEMS: usize = 20;

/// The row in Hugging Face's order for a row in GGUF's order, for query and key projections.
///
/// Within each head, pair `i` of GGUF consists of the rows `i` of Hugging Face's two halves.
pub fn hugging_face_row(row: usize, head_dim: usize) -> usize {
    let (head, within, half) = (row / head_dim, row % head_dim, head_dim / 2);
    head * head_dim + within % 2 * half + within / 2
}

/// A tensor of a model in a file.
#[derive(Debug, Clone)]
pub struct ModelTensor<'a> {
    /// Hugging Face's name.
    pub name: String,
    /// Its place and shape.
    pub tensor: &'a GgufTensor,
    /// The decoder of its blocks.
    pub decoder: blocks::Decoder,
    /// Features of a head, if its rows are stored as rotary pairs `(2i, 2i + 1)`.
    pub paired: Option<usize>,
    /// Whether it is stored as `1 + weight`.
    pub plus_one: bool,
}

/// A planned tensor of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedTensor {
    /// Its specification for the writer.
    pub spec: GgufTensorSpec,
    /// Its source.
    pub source: Source,
    /// The type that its rows are not whole blocks of, if it has another for that reason.
    pub instead_of: Option<GgmlType>,
}

/// The source of a tensor.
#[derive(Debug, Clone, PartialEq)]
pub enum Source {
    /// A tensor of the model.
    Tensor {
        /// Hugging Face's name.
        name: String,
        /// Features of a head, if its rows are written as rotary pairs; see [`hugging_face_row`].
        paired: Option<usize>,
        /// Whether it is written as `1 + weight`.
        plus_one: bool,
    },
    /// These values.
    Numbers(Vec<f32>),
}

/// The tensors of the model in a file, in the order of the file.
///
/// # Errors
/// If tensors are missing, unknown, of another shape than in `config`, or of a type that cannot be dequantised.
pub fn tensors<'a>(
    gguf: &'a Gguf,
    config: &ModelConfig,
) -> Result<Vec<ModelTensor<'a>>, GgufError> {
    let all = layout::tensors(config);
    let by_name: HashMap<String, &TensorLayout> = all
        .iter()
        .map(|tensor| (tensor.gguf_name(), tensor))
        .collect();
    let mut missing: BTreeMap<&str, &TensorLayout> = all
        .iter()
        .map(|tensor| (tensor.name.as_str(), tensor))
        .collect();
    let mut problems = Vec::new();
    let mut tensors = Vec::new();
    for tensor in gguf.tensors() {
        // the last held the rotary frequencies in some early files; the configuration determines them
        let is_rotary = rotary::TENSORS.contains(&tensor.name.as_str())
            || tensor.name.ends_with(".attn_rot_embd.weight");
        if is_rotary || copied_head(config).is_some_and(|head| tensor.name == gguf_weight(head)) {
            continue;
        }
        let expected = by_name.get(&tensor.name);
        let Some(expected) = expected.and_then(|expected| missing.remove(expected.name.as_str()))
        else {
            problems.push(format!("`{}` is not a tensor of this model", tensor.name));
            continue;
        };
        if tensor.shape != expected.shape {
            problems.push(format!(
                "`{}`: expected shape {:?}, found {:?}",
                tensor.name, expected.shape, tensor.shape
            ));
            continue;
        }
        tensors.push(ModelTensor {
            tensor,
            decoder: blocks::decoder(tensor.kind).map_err(|error| error.of_tensor(&tensor.name))?,
            paired: paired(expected, config),
            plus_one: plus_one(expected, config),
            name: expected.name.clone(),
        });
    }
    let missing = missing.values();
    let missing = missing.map(|tensor| format!("`{}` is missing", tensor.gguf_name()));
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

/// Features of a head, if GGUF has the rows of each head as rotary pairs.
fn paired(tensor: &TensorLayout, config: &ModelConfig) -> Option<usize> {
    tensor.module.gguf.pairs.then_some(config.head_dim)
}

/// Whether GGUF has `1 + weight`: the normalisations of families that multiply by that, because llama.cpp multiplies by the
/// stored factor.
fn plus_one(tensor: &TensorLayout, config: &ModelConfig) -> bool {
    config.family.norm_weight == NormWeight::PlusOne
        && tensor.module.kind == ModuleKind::Norm
        && tensor.part == Part::Weight
}

/// The output head, if it is tied and the file has a copy of the embedding for it.
fn copied_head(config: &ModelConfig) -> Option<&'static Module> {
    let family = config.family;
    let copied = config.tie_word_embeddings && family.gguf.head == GgufHead::Always;
    copied.then_some(&family.head)
}

/// The weight of a module outside the layers.
fn gguf_weight(module: &Module) -> String {
    format!("{}.weight", module.gguf.name)
}

/// The tensors of a file with a model of this configuration: matrices as `kinds`; norms and biases as F32, which llama.cpp
/// requires. Matrices whose rows are not whole blocks have the type that llama.cpp chooses instead: Q5_0 for Q4_K, Q5_1 for
/// Q5_K, Q8_0 for Q6_K, else F16.
pub fn plan(config: &ModelConfig, kinds: impl Into<FileType>) -> Vec<PlannedTensor> {
    let kinds = kinds.into();
    let numbers = rotary::tensors(config).map(|(name, numbers)| PlannedTensor {
        spec: GgufTensorSpec {
            name: name.to_owned(),
            shape: vec![numbers.len()],
            kind: GgmlType::F32,
        },
        source: Source::Numbers(numbers),
        instead_of: None,
    });
    let planned = |tensor: TensorLayout, role: Role| {
        let (wanted, kind) = match tensor.shape.as_slice() {
            [.., columns] if tensor.shape.len() > 1 => {
                let wanted = kinds.wanted(role, tensor.layer.unwrap_or(0), config);
                (wanted, file_type::fitting(wanted, *columns))
            }
            _ => (GgmlType::F32, GgmlType::F32),
        };
        PlannedTensor {
            instead_of: (kind != wanted).then_some(wanted),
            source: Source::Tensor {
                paired: paired(&tensor, config),
                plus_one: plus_one(&tensor, config),
                name: tensor.name.clone(),
            },
            spec: GgufTensorSpec {
                name: tensor.gguf_name(),
                shape: tensor.shape,
                kind,
            },
        }
    };
    let copy = copied_head(config).map(|head| {
        let embedding = TensorLayout::weight(config, &config.family.embedding, None);
        let mut copy = planned(embedding, Role::Head);
        copy.spec.name = gguf_weight(head);
        copy
    });
    let is_head = config.tie_word_embeddings && copy.is_none();
    let tensors = layout::tensors(config).into_iter().map(|tensor| {
        let role = match tensor.module.role {
            Role::Embedding if is_head => Role::Head,
            role => role,
        };
        planned(tensor, role)
    });
    numbers.into_iter().chain(tensors).chain(copy).collect()
}

#[cfg(test)]
mod families;
#[cfg(test)]
mod tests;
