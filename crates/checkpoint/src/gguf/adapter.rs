//! LoRA adapters as GGUF, which llama.cpp applies to a base model.
//!
//! llama.cpp computes `W x + (alpha / rank) B A x` with one alpha for the file and the rank of each module. If a module
//! has another scaling, its B is multiplied by the quotient.
//!
//! The A of an embedding is transposed: one row per token.
//!
//! Source: llama.cpp, `convert_lora_to_gguf.py` and `src/llama-adapter.cpp`.

use std::borrow::Cow;
use std::io::Write;

use super::model::hugging_face_row;
use super::{GgmlType, GgufError, GgufTensorSpec, GgufWriter, Metadata, blocks};
use crate::config::ModelConfig;
use crate::family::{Family, Module};
use crate::layout::{ModuleKind, ModuleLayout, gguf_name, modules};

/// A module of an adapter: `W + scaling B A`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LoraModule<'a> {
    /// Hugging Face's name of the module: `model.layers.0.self_attn.q_proj`.
    pub name: &'a str,
    /// Rows of A, columns of B.
    pub rank: usize,
    /// Factor of the product: `alpha / rank`, or `alpha / sqrt(rank)` for rsLoRA.
    pub scaling: f64,
    /// `[rank, in]`; for the embedding `[rank, vocab]`.
    pub a: &'a [f32],
    /// `[out, rank]`; for the embedding `[hidden, rank]`.
    pub b: &'a [f32],
}

/// Writes an adapter for a base with this configuration, with elements as `kind` (F32, F16 or BF16). Returns the modules
/// whose B was multiplied: those whose `scaling * rank` differs from that of the first module.
///
/// # Errors
/// If llama.cpp cannot adapt a module, a matrix has another shape than in `config`, `kind` cannot hold a value, there are no
/// modules, or `out` fails.
pub fn write_adapter<'a>(
    out: impl Write,
    config: &ModelConfig,
    name: &str,
    kind: GgmlType,
    loras: &[LoraModule<'a>],
) -> Result<Vec<&'a str>, GgufError> {
    let Some(first) = loras.first() else {
        return Err(refused("adapter", "it has no modules"));
    };
    let alpha = alpha_of(first);
    let modules = modules(config);
    let mut tensors = Vec::new();
    let mut found = Vec::new();
    for lora in loras {
        let layout = modules.iter().find(|module| module.name == lora.name);
        let layout = layout.ok_or_else(|| unknown(lora.name))?;
        let [output, input] = check(lora, layout, config.tie_word_embeddings)?;
        let module = layout.module.ok_or_else(|| unknown(lora.name))?;
        found.push(module);
        let mut a = [lora.rank, input];
        if module.kind == ModuleKind::Embedding {
            a.reverse();
        }
        let module = gguf_name(module, layout.layer);
        for (side, shape) in [("a", a), ("b", [output, lora.rank])] {
            tensors.push(GgufTensorSpec {
                name: format!("{module}.weight.lora_{side}"),
                shape: shape.to_vec(),
                kind,
            });
        }
    }
    let mut writer = GgufWriter::new(out, &metadata(config.family, name, alpha), tensors)?;
    let mut folded = Vec::new();
    for (lora, module) in loras.iter().zip(found) {
        let encoded = |numbers: &[f32], side: &str| {
            let mut bytes = Vec::new();
            let encoded = blocks::quantize(kind, numbers, &mut bytes);
            encoded.map_err(|error| refused(format!("{}.lora_{side}", lora.name), error))?;
            Ok::<_, GgufError>(bytes)
        };
        writer.append(&encoded(&numbers_of_a(lora, module), "A")?)?;
        // two ways to compute the same alpha may differ by rounding
        let ratio = alpha_of(lora) / alpha;
        let fold = (ratio - 1.0).abs() > 1e-6;
        if fold {
            folded.push(lora.name);
        }
        let scaled = |x| {
            if fold {
                (f64::from(x) * ratio) as f32
            } else {
                x
            }
        };
        let b: Vec<f32> = numbers_of_b(lora, module, config.head_dim)
            .map(scaled)
            .collect();
        writer.append(&encoded(&b, "B")?)?;
    }
    writer.finish()?;
    Ok(folded)
}

fn alpha_of(lora: &LoraModule<'_>) -> f64 {
    lora.scaling * lora.rank as f64
}

fn metadata(family: &Family, name: &str, alpha: f64) -> Metadata {
    let mut metadata = Metadata::new();
    metadata.set("general.architecture", family.gguf.architecture);
    metadata.set("general.type", "adapter");
    metadata.set("adapter.type", "lora");
    metadata.set("general.name", name);
    metadata.set("adapter.lora.alpha", alpha as f32);
    metadata.set("general.quantization_version", 2u32);
    metadata
}

/// Output and input size of a module, after checking the requirements of llama.cpp.
fn check(
    lora: &LoraModule<'_>,
    module: &ModuleLayout,
    tied: bool,
) -> Result<[usize; 2], GgufError> {
    let [output, input] = match (module.kind, module.shape.as_slice()) {
        (ModuleKind::OutputHead | ModuleKind::Embedding, _) if tied => {
            let reason = "the head is tied to the embedding, and llama.cpp would adapt both";
            return Err(refused(lora.name, reason));
        }
        (ModuleKind::Linear | ModuleKind::OutputHead, &[output, input]) => [output, input],
        (ModuleKind::Embedding, &[vocab, hidden]) => [hidden, vocab],
        _ => return Err(refused(lora.name, "it has no matrix")),
    };
    // llama.cpp reads alpha 0 as no alpha, and does not scale the product
    if !(lora.scaling.is_finite() && lora.scaling != 0.0 && lora.rank > 0) {
        let found = format!("its scaling is {} at rank {}", lora.scaling, lora.rank);
        return Err(refused(lora.name, found));
    }
    let sizes = [lora.rank * input, output * lora.rank];
    if [lora.a.len(), lora.b.len()] != sizes {
        let (a, b) = (lora.a.len(), lora.b.len());
        let reason = format!("A and B have {a} and {b} elements, expected {sizes:?}");
        return Err(refused(lora.name, reason));
    }
    Ok([output, input])
}

/// The elements of A; one row per token for the embedding.
fn numbers_of_a<'a>(lora: &LoraModule<'a>, module: &Module) -> Cow<'a, [f32]> {
    let LoraModule { rank, a, .. } = *lora;
    if module.kind != ModuleKind::Embedding {
        return Cow::Borrowed(a);
    }
    let columns = a.len() / rank;
    let turned = (0..columns).flat_map(|column| a.iter().skip(column).step_by(columns));
    turned.copied().collect()
}

/// The elements of B, with its rows in the order of the matrix in a GGUF base.
fn numbers_of_b<'a>(
    lora: &LoraModule<'a>,
    module: &Module,
    head_dim: usize,
) -> impl Iterator<Item = f32> + use<'a> {
    let LoraModule { rank, b, .. } = *lora;
    let paired = module.gguf.pairs;
    (0..b.len() / rank).flat_map(move |row| {
        let row = if paired {
            hugging_face_row(row, head_dim)
        } else {
            row
        };
        b[row * rank..][..rank].iter().copied()
    })
}

fn unknown(module: &str) -> GgufError {
    refused(module, "it is not a module of the base")
}

fn refused(module: impl Into<String>, reason: impl ToString) -> GgufError {
    GgufError::NotForAdapter {
        module: module.into(),
        reason: reason.to_string(),
    }
}

#[cfg(test)]
mod tests;
