//! A LoRA adapter as GGUF, which llama.cpp adds to a base of its own.
//!
//! llama.cpp computes `W x + (alpha / rank) B A x` with one alpha for the whole file and the rank of
//! each pair. Where the scaling of a module is another, the difference goes into its B.
//!
//! The A of an embedding lies the other way round, a row for each token.
//!
//! Source: llama.cpp, `convert_lora_to_gguf.py` and `src/llama-adapter.cpp`.

use std::borrow::Cow;
use std::io::Write;

use super::llama::{ARCHITECTURE, hugging_face_row};
use super::names::{gguf_module, has_paired_rows};
use super::{GgmlType, GgufError, GgufTensorSpec, GgufWriter, Metadata, blocks};
use crate::config::ModelConfig;
use crate::layout::{ModuleKind, ModuleLayout, modules};

const EMBEDDING: &str = "model.embed_tokens";

/// One module's part of an adapter: `W + scaling B A`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LoraModule<'a> {
    /// Hugging Face's name of the module: `model.layers.0.self_attn.q_proj`.
    pub name: &'a str,
    /// Rows of A, columns of B.
    pub rank: usize,
    /// What the product is multiplied by: `alpha / rank`, `alpha / sqrt(rank)` for rsLoRA.
    pub scaling: f64,
    /// `[rank, in]`; for the embedding `[rank, vocab]`.
    pub a: &'a [f32],
    /// `[out, rank]`; for the embedding `[hidden, rank]`.
    pub b: &'a [f32],
}

/// Writes an adapter for a base of this shape, its numbers as `kind` (F32, F16 or BF16). Returns the
/// modules whose B another scaling went into: those whose `scaling * rank` is not the first
/// module's.
///
/// # Errors
/// For modules that llama.cpp cannot adapt, matrices of another shape than `config` says, numbers
/// that `kind` cannot hold, no modules at all, and where `out` fails.
pub fn write_adapter<'a>(
    out: impl Write,
    config: &ModelConfig,
    name: &str,
    kind: GgmlType,
    loras: &[LoraModule<'a>],
) -> Result<Vec<&'a str>, GgufError> {
    let Some(first) = loras.first() else {
        return Err(refused("adapter", "it adapts no module"));
    };
    let alpha = alpha_of(first);
    let modules = modules(config);
    let mut tensors = Vec::new();
    for lora in loras {
        let module = modules.iter().find(|module| module.name == lora.name);
        let module = module.ok_or_else(|| unknown(lora.name))?;
        let [output, input] = check(lora, module, config.tie_word_embeddings)?;
        let module = gguf_module(lora.name).ok_or_else(|| unknown(lora.name))?;
        let mut a = [lora.rank, input];
        if lora.name == EMBEDDING {
            a.reverse();
        }
        for (side, shape) in [("a", a), ("b", [output, lora.rank])] {
            tensors.push(GgufTensorSpec {
                name: format!("{module}.weight.lora_{side}"),
                shape: shape.to_vec(),
                kind,
            });
        }
    }
    let mut writer = GgufWriter::new(out, &metadata(name, alpha), tensors)?;
    let mut folded = Vec::new();
    for lora in loras {
        let encoded = |numbers: &[f32], side: &str| {
            let mut bytes = Vec::new();
            let encoded = blocks::quantize(kind, numbers, &mut bytes);
            encoded.map_err(|error| refused(format!("{}.lora_{side}", lora.name), error))?;
            Ok::<_, GgufError>(bytes)
        };
        writer.append(&encoded(&numbers_of_a(lora), "A")?)?;
        // Two ways to compute one alpha may differ by rounding.
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
        let b: Vec<f32> = numbers_of_b(lora, config.head_dim).map(scaled).collect();
        writer.append(&encoded(&b, "B")?)?;
    }
    writer.finish()?;
    Ok(folded)
}

fn alpha_of(lora: &LoraModule<'_>) -> f64 {
    lora.scaling * lora.rank as f64
}

fn metadata(name: &str, alpha: f64) -> Metadata {
    let mut metadata = Metadata::new();
    metadata.set("general.architecture", ARCHITECTURE);
    metadata.set("general.type", "adapter");
    metadata.set("adapter.type", "lora");
    metadata.set("general.name", name);
    metadata.set("adapter.lora.alpha", alpha as f32);
    metadata.set("general.quantization_version", 2u32);
    metadata
}

/// What a module gives and takes, checked with everything else that llama.cpp asks for.
fn check(
    lora: &LoraModule<'_>,
    module: &ModuleLayout,
    tied: bool,
) -> Result<[usize; 2], GgufError> {
    let [output, input] = match (module.kind, module.shape.as_slice()) {
        (ModuleKind::OutputHead | ModuleKind::Embedding, _) if tied => {
            let reason = "embedding and head are one, and llama.cpp would adapt both";
            return Err(refused(lora.name, reason));
        }
        (ModuleKind::Linear | ModuleKind::OutputHead, &[output, input]) => [output, input],
        (ModuleKind::Embedding, &[vocab, hidden]) => [hidden, vocab],
        _ => return Err(refused(lora.name, "it has no matrix to adapt")),
    };
    // Zero means to llama.cpp that there is no alpha, and that the product is taken as it is.
    if !(lora.scaling.is_finite() && lora.scaling != 0.0 && lora.rank > 0) {
        let found = format!("its scaling is {} at rank {}", lora.scaling, lora.rank);
        return Err(refused(lora.name, found));
    }
    let sizes = [lora.rank * input, output * lora.rank];
    if [lora.a.len(), lora.b.len()] != sizes {
        let (a, b) = (lora.a.len(), lora.b.len());
        let reason = format!("A and B have {a} and {b} numbers, expected {sizes:?}");
        return Err(refused(lora.name, reason));
    }
    Ok([output, input])
}

/// The numbers of A, a row for each token where it is that of the embedding.
fn numbers_of_a<'a>(lora: &LoraModule<'a>) -> Cow<'a, [f32]> {
    let LoraModule { name, rank, a, .. } = *lora;
    if name != EMBEDDING {
        return Cow::Borrowed(a);
    }
    let columns = a.len() / rank;
    let turned = (0..columns).flat_map(|column| a.iter().skip(column).step_by(columns));
    turned.copied().collect()
}

/// The numbers of B, its rows in the order of the matrix in a GGUF base.
fn numbers_of_b<'a>(lora: &LoraModule<'a>, head_dim: usize) -> impl Iterator<Item = f32> + 'a {
    let LoraModule { name, rank, b, .. } = *lora;
    let paired = has_paired_rows(name);
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
    refused(module, "it is no module of the base")
}

fn refused(module: impl Into<String>, reason: impl ToString) -> GgufError {
    GgufError::NotForAdapter {
        module: module.into(),
        reason: reason.to_string(),
    }
}

#[cfg(test)]
mod tests;
