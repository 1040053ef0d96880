//! The tensors of a model: names and shapes as in a Hugging Face checkpoint.

use crate::config::ModelConfig;

/// One tensor of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorLayout {
    /// Hugging Face's name.
    pub name: String,
    /// `[out, in]` for matrices, `[features]` for norms and biases.
    pub shape: Vec<usize>,
}

/// The kind of a module, for the selection of target modules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModuleKind {
    /// A linear layer.
    Linear,
    /// The output head, a linear layer that "all-linear" excludes.
    OutputHead,
    /// The token embedding.
    Embedding,
    /// A normalisation.
    Norm,
    /// A container of modules.
    Container,
}

/// A module by its path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModuleLayout {
    /// Path as in Hugging Face: `model.layers.0.self_attn.q_proj`.
    pub name: String,
    /// Its kind.
    pub kind: ModuleKind,
    /// `[out, in]` of a linear module, `[vocab, hidden]` of the embedding, `[features]` of a
    /// norm, empty for a container.
    pub shape: Vec<usize>,
    /// Whether it has a bias.
    pub bias: bool,
}

/// All modules, in the order of PyTorch's `named_modules`.
pub fn modules(config: &ModelConfig) -> Vec<ModuleLayout> {
    let mut modules = Vec::new();
    let mut push = |name: String, kind, shape: &[usize], bias| {
        modules.push(ModuleLayout {
            name,
            kind,
            shape: shape.to_vec(),
            bias,
        });
    };
    let hidden = config.hidden_size;
    let inner = config.intermediate_size;
    let query = config.num_attention_heads * config.head_dim;
    let key = config.num_key_value_heads * config.head_dim;
    push("model".into(), ModuleKind::Container, &[], false);
    let embedding = [config.vocab_size, hidden];
    push(
        "model.embed_tokens".into(),
        ModuleKind::Embedding,
        &embedding,
        false,
    );
    push("model.layers".into(), ModuleKind::Container, &[], false);
    for layer in 0..config.num_hidden_layers {
        let path = format!("model.layers.{layer}");
        push(path.clone(), ModuleKind::Container, &[], false);
        push(
            format!("{path}.self_attn"),
            ModuleKind::Container,
            &[],
            false,
        );
        for (name, shape) in [
            ("q_proj", [query, hidden]),
            ("k_proj", [key, hidden]),
            ("v_proj", [key, hidden]),
            ("o_proj", [hidden, query]),
        ] {
            let name = format!("{path}.self_attn.{name}");
            push(name, ModuleKind::Linear, &shape, config.attention_bias);
        }
        push(format!("{path}.mlp"), ModuleKind::Container, &[], false);
        for (name, shape) in [
            ("gate_proj", [inner, hidden]),
            ("up_proj", [inner, hidden]),
            ("down_proj", [hidden, inner]),
        ] {
            let name = format!("{path}.mlp.{name}");
            push(name, ModuleKind::Linear, &shape, config.mlp_bias);
        }
        for name in ["input_layernorm", "post_attention_layernorm"] {
            push(format!("{path}.{name}"), ModuleKind::Norm, &[hidden], false);
        }
    }
    push("model.norm".into(), ModuleKind::Norm, &[hidden], false);
    push("lm_head".into(), ModuleKind::OutputHead, &embedding, false);
    modules
}

/// All tensors of a checkpoint with this configuration; a tied head has none.
pub fn tensors(config: &ModelConfig) -> Vec<TensorLayout> {
    let mut tensors = Vec::new();
    for module in modules(config) {
        let tied_head = module.kind == ModuleKind::OutputHead && config.tie_word_embeddings;
        if module.kind == ModuleKind::Container || tied_head {
            continue;
        }
        tensors.push(TensorLayout {
            name: format!("{}.weight", module.name),
            shape: module.shape.clone(),
        });
        if module.bias {
            tensors.push(TensorLayout {
                name: format!("{}.bias", module.name),
                shape: vec![module.shape[0]],
            });
        }
    }
    tensors
}

/// Number of parameters: all matrices, biases and norms; a tied head counts once.
pub fn parameter_count(config: &ModelConfig) -> usize {
    tensors(config)
        .iter()
        .map(|tensor| tensor.shape.iter().product::<usize>())
        .sum()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;

    #[test]
    fn counts_are_the_published_ones() {
        // Touvron et al. 2023, table 2: 6.7B, 13.0B, 32.5B and 65.2B
        for (hidden, layers, heads, inner, count) in [
            (4096, 32, 32, 11008, 6_738_415_616),
            (5120, 40, 40, 13824, 13_015_864_320),
            (6656, 60, 52, 17920, 32_528_943_616),
            (8192, 80, 64, 22016, 65_285_660_672),
        ] {
            let json = json!({
                "vocab_size": 32000, "hidden_size": hidden, "intermediate_size": inner,
                "num_hidden_layers": layers, "num_attention_heads": heads
            });
            let config = ModelConfig::from_json(&json, Path::new("config.json")).unwrap();
            assert_eq!(parameter_count(&config), count);
        }
    }
}
