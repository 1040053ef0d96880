//! Classifies the keys of an adapter's file by their names.

use simmer_checkpoint::Tensor;
use std::collections::BTreeMap;

use crate::adapter::peft::KEY_PREFIX;

/// Ends of keys and their meaning; a longer end precedes a shorter one that it ends in.
const ENDS: [(&str, End); 13] = [
    (".lora_A.weight", End::A),
    (".lora_B.weight", End::B),
    (".lora_embedding_A", End::EmbeddingA),
    (".lora_embedding_B", End::EmbeddingB),
    (".lora_magnitude_vector.weight", End::Magnitude),
    (".lora_magnitude_vector", End::Magnitude),
    (".lora_A.bias", End::Unknown),
    (".lora_B.bias", End::Unknown),
    (".base_layer.weight", End::Whole),
    (".base_layer.bias", End::Whole),
    (".modules_to_save.weight", End::Whole),
    (".weight", End::Whole),
    (".bias", End::Whole),
];

#[derive(Clone, Copy)]
enum End {
    A,
    B,
    EmbeddingA,
    EmbeddingB,
    Magnitude,
    Whole,
    Unknown,
}

/// The keys of one module's low-rank branch.
#[derive(Debug, Default)]
pub(in crate::adapter) struct Factors {
    /// `[r, in]`
    pub(in crate::adapter) a: Option<String>,
    /// `[out, r]`
    pub(in crate::adapter) b: Option<String>,
    /// Whether the module is an embedding, whose factors change `weightᵀ`.
    pub(in crate::adapter) embedding: bool,
    /// Whether it has DoRA's magnitude vector: a norm for each row of the weight.
    pub(in crate::adapter) magnitude: bool,
}

/// The keys of a file, by kind.
#[derive(Debug, Default)]
pub(in crate::adapter) struct Parts {
    /// By module.
    pub(in crate::adapter) factors: BTreeMap<String, Factors>,
    /// Full tensors: key -> module.
    pub(in crate::adapter) whole: BTreeMap<String, String>,
    /// Keys that do not belong to an adapter.
    pub(in crate::adapter) unknown: Vec<String>,
}

impl Parts {
    pub(in crate::adapter) fn of(tensors: &BTreeMap<String, Tensor>) -> Self {
        let mut parts = Self::default();
        for key in tensors.keys() {
            let end = ENDS.iter().find_map(|(end, part)| {
                let module = key.strip_prefix(KEY_PREFIX)?.strip_suffix(end)?;
                Some((module, *part))
            });
            let Some((module, end)) = end else {
                parts.unknown.push(key.clone());
                continue;
            };
            match end {
                End::Whole => {
                    parts.whole.insert(key.clone(), module.to_owned());
                    continue;
                }
                End::Unknown => {
                    parts.unknown.push(key.clone());
                    continue;
                }
                _ => {}
            }
            let factors = parts.factors.entry(module.to_owned()).or_default();
            match end {
                End::A | End::EmbeddingA => factors.a = Some(key.clone()),
                End::B | End::EmbeddingB => factors.b = Some(key.clone()),
                _ => factors.magnitude = true,
            }
            factors.embedding |= matches!(end, End::EmbeddingA | End::EmbeddingB);
        }
        parts
    }
}

/// The layer of a module (`None` outside the layers), and the last part of its path.
pub(in crate::adapter) fn place(module: &str) -> (Option<usize>, &str) {
    let layer = module.split('.').find_map(|part| part.parse().ok());
    let target = module.rsplit('.').next().unwrap_or(module);
    (layer, target)
}
