//! Which types the matrices of a file have: all the same, or llama.cpp's mixes.
//!
//! Source: llama.cpp, `src/llama-quant.cpp` (`llama_tensor_get_type`), without an importance matrix.

use crate::config::ModelConfig;
use crate::family::Role;
use crate::gguf::{GgmlType, GgufError, blocks};

/// The types of a file's matrices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileType {
    /// One type, as `llama-quantize --pure` writes it.
    Of(GgmlType),
    /// A mix: some matrices have more bits than most.
    Mix(Mix),
}

/// The mixes of llama.cpp; the names are its.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(non_camel_case_types, reason = "the names of llama.cpp")]
pub enum Mix {
    /// Q4_K, with Q5_K in the first layers.
    Q4_K_S,
    /// Q4_K, with Q6_K for values and down projections of half of the layers.
    Q4_K_M,
    /// Q5_K, with Q6_K for values and down projections of half of the layers.
    Q5_K_M,
}

impl From<GgmlType> for FileType {
    fn from(kind: GgmlType) -> Self {
        Self::Of(kind)
    }
}

impl FileType {
    /// The file type with this name: that of a type or of a mix, such as `q8_0` or `q4_k_m`.
    pub fn named(name: &str) -> Option<Self> {
        let name = name.to_uppercase();
        let mix = match name.as_str() {
            "Q4_K_S" => Some(Mix::Q4_K_S),
            "Q4_K_M" => Some(Mix::Q4_K_M),
            "Q5_K_M" => Some(Mix::Q5_K_M),
            _ => None,
        };
        let kind = || {
            let mut kinds = blocks::ENCODED.iter().copied();
            kinds.find(|kind| kind.name() == name)
        };
        mix.map(Self::Mix).or_else(|| kind().map(Self::Of))
    }

    /// The type of most matrices.
    pub fn most(self) -> GgmlType {
        match self {
            Self::Of(kind) => kind,
            Self::Mix(Mix::Q4_K_S | Mix::Q4_K_M) => GgmlType::Q4_K,
            Self::Mix(Mix::Q5_K_M) => GgmlType::Q5_K,
        }
    }

    /// Whether matrices are quantised.
    pub fn quantises(self) -> bool {
        blocks::block_type(self.most()).is_some()
    }

    /// llama.cpp's number: "all" or "mostly" of a type.
    pub(super) fn number(self) -> Result<u32, GgufError> {
        Ok(match self {
            Self::Mix(Mix::Q4_K_S) => 14,
            Self::Mix(Mix::Q4_K_M) => 15,
            Self::Mix(Mix::Q5_K_M) => 17,
            Self::Of(kind) => match kind {
                GgmlType::F32 => 0,
                GgmlType::F16 => 1,
                GgmlType::Q4_0 => 2,
                GgmlType::Q4_1 => 3,
                GgmlType::Q8_0 => 7,
                GgmlType::Q5_0 => 8,
                GgmlType::Q5_1 => 9,
                GgmlType::Q4_K => 14,
                GgmlType::Q5_K => 16,
                GgmlType::Q6_K => 18,
                GgmlType::IQ4_NL => 25,
                GgmlType::BF16 => 32,
                kind => {
                    return Err(GgufError::UnsupportedType {
                        tensor: None,
                        kind,
                        supported: blocks::ENCODED,
                    });
                }
            },
        })
    }

    /// The type of a matrix of a layer, if its rows are whole blocks of it; a matrix outside the layers has layer 0. An
    /// embedding that is the head too has the role of the head.
    pub(super) fn wanted(self, role: Role, layer: usize, config: &ModelConfig) -> GgmlType {
        let Self::Mix(mix) = self else {
            return self.most();
        };
        let layers = config.num_hidden_layers;
        let more = match (role, mix) {
            (Role::Head, _) => Some(GgmlType::Q6_K),
            (Role::Value | Role::QueryKeyValue | Role::Down, Mix::Q4_K_M | Mix::Q5_K_M) => {
                more_bits(layer, layers).then_some(GgmlType::Q6_K)
            }
            (Role::Value | Role::QueryKeyValue, Mix::Q4_K_S) => {
                (layer < 4).then_some(GgmlType::Q5_K)
            }
            (Role::Down, Mix::Q4_K_S) => (layer < layers / 8).then_some(GgmlType::Q5_K),
            _ => None,
        };
        let is_value = matches!(role, Role::Value | Role::QueryKeyValue);
        match more.unwrap_or(self.most()) {
            GgmlType::Q4_K if is_value && is_70b(config) => GgmlType::Q5_K,
            kind => kind,
        }
    }
}

/// The type of a matrix whose rows have this number of columns: the nearest with shorter blocks, if the rows are not whole
/// blocks of `wanted`.
pub(super) fn fitting(wanted: GgmlType, columns: usize) -> GgmlType {
    let fits = |kind: &GgmlType| columns.is_multiple_of(kind.block_len());
    let shorter = match wanted {
        GgmlType::Q6_K => GgmlType::Q8_0,
        GgmlType::Q4_K => GgmlType::Q5_0,
        GgmlType::Q5_K => GgmlType::Q5_1,
        _ => GgmlType::F16,
    };
    let mut kinds = [wanted, shorter].into_iter();
    kinds.find(fits).unwrap_or(GgmlType::F16)
}

/// The layers whose values and down projections have more bits: the first and the last eighth, and every third between.
fn more_bits(layer: usize, layers: usize) -> bool {
    let eighth = layers / 8;
    layer < eighth || layer >= 7 * layers / 8 || (layer - eighth) % 3 == 2
}

/// Whether llama.cpp takes a model for one of 70B, whose few value heads get more bits.
fn is_70b(config: &ModelConfig) -> bool {
    let grouped = config.num_attention_heads != config.num_key_value_heads;
    let known = match config.family.gguf.architecture {
        "llama" => grouped,
        "qwen2" => true,
        _ => false,
    };
    known && config.num_hidden_layers == 80
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use serde_json::json;

    use super::super::plan;
    use super::*;

    /// The numbers of tensors of each type that `llama_model_quantize` of llama.cpp wrote; see
    /// `tests/reference/check_quantised.py`, which compares the types of all tensors, and their bytes.
    #[test]
    fn mixes_are_those_of_llama_cpp() {
        for (model_type, tied, layers, hidden, inner, expected) in [
            (
                "llama",
                false,
                18,
                256,
                512,
                [
                    ("q4_k_s", "F32 37, Q4_K 121, Q5_K 6, Q6_K 1"),
                    ("q4_k_m", "F32 37, Q4_K 109, Q6_K 19"),
                    ("q5_k_m", "F32 37, Q5_K 109, Q6_K 19"),
                ],
            ),
            (
                "qwen2",
                true,
                9,
                256,
                512,
                [
                    ("q4_k_s", "F32 46, Q4_K 58, Q5_K 5, Q6_K 1"),
                    ("q4_k_m", "F32 46, Q4_K 53, Q6_K 11"),
                    ("q5_k_m", "F32 46, Q5_K 53, Q6_K 11"),
                ],
            ),
            (
                "phi3",
                false,
                8,
                256,
                512,
                [
                    ("q4_k_s", "F32 17, Q4_K 28, Q5_K 5, Q6_K 1"),
                    ("q4_k_m", "F32 17, Q4_K 25, Q6_K 9"),
                    ("q5_k_m", "F32 17, Q5_K 25, Q6_K 9"),
                ],
            ),
            (
                "llama",
                false,
                8,
                96,
                80,
                [
                    ("q4_k_s", "F16 8, F32 17, Q5_0 45, Q5_1 4, Q8_0 1"),
                    ("q4_k_m", "F16 8, F32 17, Q5_0 45, Q8_0 5"),
                    ("q5_k_m", "F16 8, F32 17, Q5_1 45, Q8_0 5"),
                ],
            ),
            (
                "llama",
                false,
                80,
                256,
                256,
                [
                    ("q4_k_s", "F32 161, Q4_K 471, Q5_K 90, Q6_K 1"),
                    ("q4_k_m", "F32 161, Q4_K 441, Q5_K 40, Q6_K 81"),
                    ("q5_k_m", "F32 161, Q5_K 481, Q6_K 81"),
                ],
            ),
        ] {
            let config = json!({
                "model_type": model_type, "vocab_size": 1536, "hidden_size": hidden, "intermediate_size": inner,
                "num_hidden_layers": layers, "num_attention_heads": 4, "num_key_value_heads": 2,
                "tie_word_embeddings": tied,
            });
            let config = ModelConfig::from_json(&config, Path::new("config.json")).unwrap();
            for (name, expected) in expected {
                let mut types: BTreeMap<&str, usize> = BTreeMap::new();
                for tensor in plan(&config, FileType::named(name).unwrap()) {
                    *types.entry(tensor.spec.kind.name()).or_default() += 1;
                }
                let types: Vec<String> = types
                    .iter()
                    .map(|(kind, count)| format!("{kind} {count}"))
                    .collect();
                assert_eq!(types.join(", "), expected, "{model_type} {layers} {name}");
            }
        }
    }
}
