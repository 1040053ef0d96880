//! What each key of an adapter's file is, by its name.

use simmer_checkpoint::Tensor;
use std::collections::BTreeMap;

use crate::adapter::peft::KEY_PREFIX;

/// Ends of keys, longest first where one is the end of another, and what they are.
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

/// The keys of one module's low-rank path.
#[derive(Debug, Default)]
pub(in crate::adapter) struct Factors {
    /// `[r, in]`
    pub(in crate::adapter) a: Option<String>,
    /// `[out, r]`
    pub(in crate::adapter) b: Option<String>,
    /// Of an embedding, whose factors change `weightᵀ`.
    pub(in crate::adapter) embedding: bool,
    /// DoRA's lengths of columns.
    pub(in crate::adapter) magnitude: bool,
}

/// Every key of a file, sorted.
#[derive(Debug, Default)]
pub(in crate::adapter) struct Parts {
    /// By module.
    pub(in crate::adapter) factors: BTreeMap<String, Factors>,
    /// Tensors without a low-rank form: key -> module.
    pub(in crate::adapter) whole: BTreeMap<String, String>,
    /// Keys that are nothing of an adapter's.
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

/// The layer that a module is in, and the last part of its name; none for what stands outside the layers.
pub(in crate::adapter) fn place(module: &str) -> (Option<usize>, &str) {
    let layer = module.split('.').find_map(|part| part.parse().ok());
    let target = module.rsplit('.').next().unwrap_or(module);
    (layer, target)
}
