//! The modules and tensors of a model: the table of its family, with the sizes of its configuration.

use std::collections::BTreeSet;

pub use crate::family::ModuleKind;

use crate::config::ModelConfig;
use crate::family::{Activation, HasBias, Module, Size};

/// The path of a layer in GGUF, before its index.
const GGUF_LAYER: &str = "blk";
/// The path of a layer in Meta's layout, before its index.
const META_LAYER: &str = "layers";

impl Size {
    /// The size in a model.
    pub fn of(self, config: &ModelConfig) -> usize {
        match self {
            Self::Vocabulary => config.vocab_size,
            Self::Hidden => config.hidden_size,
            Self::Intermediate => config.intermediate_size,
            Self::GateAndUp => 2 * config.intermediate_size,
            Self::Head => config.head_dim,
            Self::Queries => config.num_attention_heads * config.head_dim,
            Self::Keys => config.num_key_value_heads * config.head_dim,
            Self::QueriesKeysValues => Self::Queries.of(config) + 2 * Self::Keys.of(config),
        }
    }
}

impl HasBias {
    /// Whether it has one in a model.
    pub fn of(self, config: &ModelConfig) -> bool {
        match self {
            Self::Never => false,
            Self::Always => true,
            Self::AttentionBias => config.attention_bias,
            Self::MlpBias => config.mlp_bias,
        }
    }
}

impl Activation {
    /// Its number of features per token.
    pub fn features(self, config: &ModelConfig) -> usize {
        match self {
            Self::Tokens => 1,
            Self::LayerInput
            | Self::AttentionInput
            | Self::AttentionOutput
            | Self::Middle
            | Self::MlpInput
            | Self::MlpOutput
            | Self::LastHidden
            | Self::HeadInput => Size::Hidden.of(config),
            Self::Queries | Self::AttentionValues => Size::Queries.of(config),
            Self::Keys => Size::Keys.of(config),
            Self::Gated => Size::Intermediate.of(config),
        }
    }
}

/// One tensor of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorLayout {
    /// Hugging Face's name.
    pub name: String,
    /// `[out, in]` for matrices, `[features]` for norms and biases.
    pub shape: Vec<usize>,
    /// Its module.
    pub module: &'static Module,
    /// The layer of the module; `None` outside the layers.
    pub layer: Option<usize>,
    /// Which tensor of the module it is.
    pub part: Part,
}

/// A tensor of a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The weight.
    Weight,
    /// The bias.
    Bias,
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Self::Weight => "weight",
            Self::Bias => "bias",
        }
    }
}

impl TensorLayout {
    /// The weight of a module of a model.
    pub fn weight(config: &ModelConfig, module: &'static Module, layer: Option<usize>) -> Self {
        Self::new(
            &ModuleLayout::of(config, module, layer),
            module,
            Part::Weight,
        )
    }

    /// The bias of a module of a model, if it has one.
    pub fn bias(
        config: &ModelConfig,
        module: &'static Module,
        layer: Option<usize>,
    ) -> Option<Self> {
        let layout = ModuleLayout::of(config, module, layer);
        layout.bias.then(|| Self::new(&layout, module, Part::Bias))
    }

    fn new(layout: &ModuleLayout, module: &'static Module, part: Part) -> Self {
        Self {
            name: format!("{}.{}", layout.name, part.name()),
            shape: match part {
                Part::Weight => layout.shape.clone(),
                Part::Bias => layout.shape[..1].to_vec(),
            },
            module,
            layer: layout.layer,
            part,
        }
    }

    /// GGUF's name.
    pub fn gguf_name(&self) -> String {
        let module = gguf_name(self.module, self.layer);
        format!("{module}.{}", self.part.name())
    }

    /// Meta's name; `None` if Meta's layout cannot hold the tensor, as any bias.
    pub fn meta_name(&self) -> Option<String> {
        let module = self.module.meta.filter(|_| self.part == Part::Weight)?;
        let module = path(META_LAYER, self.layer, module.name);
        Some(format!("{module}.{}", self.part.name()))
    }
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
    /// Its layer; `None` outside the layers.
    pub layer: Option<usize>,
    /// Its row in the table of the family; `None` for a container.
    pub module: Option<&'static Module>,
    /// Whether it is an output head that has the embedding's weight.
    pub tied: bool,
    /// The query heads of its model's attention.
    pub heads: usize,
}

impl ModuleLayout {
    /// A module of a model.
    pub fn of(config: &ModelConfig, module: &'static Module, layer: Option<usize>) -> Self {
        Self {
            name: path(config.family.layers, layer, module.name),
            kind: module.kind,
            shape: module.shape.iter().map(|size| size.of(config)).collect(),
            bias: module.bias.of(config),
            layer,
            module: Some(module),
            tied: module.kind == ModuleKind::OutputHead && config.tie_word_embeddings,
            heads: config.num_attention_heads,
        }
    }

    fn container(config: &ModelConfig, name: &str, layer: Option<usize>) -> Self {
        Self {
            name: name.to_owned(),
            kind: ModuleKind::Container,
            shape: Vec::new(),
            bias: false,
            layer,
            module: None,
            tied: false,
            heads: config.num_attention_heads,
        }
    }

    /// The tensors of the module; none of a container.
    pub fn tensors(&self) -> impl Iterator<Item = TensorLayout> {
        let parts = [Part::Weight, Part::Bias].into_iter();
        let parts = parts.filter(|part| *part == Part::Weight || self.bias);
        parts.filter_map(|part| Some(TensorLayout::new(self, self.module?, part)))
    }
}

/// GGUF's name of a module.
pub(crate) fn gguf_name(module: &Module, layer: Option<usize>) -> String {
    path(GGUF_LAYER, layer, module.gguf.name)
}

/// The path of a module: in a layer, after the path of the layers and the index.
fn path(layers: &str, layer: Option<usize>, name: &str) -> String {
    match layer {
        Some(layer) => format!("{layers}.{layer}.{name}"),
        None => name.to_owned(),
    }
}

/// All modules, in the order of PyTorch's `named_modules`.
pub fn modules(config: &ModelConfig) -> Vec<ModuleLayout> {
    let family = config.family;
    let mut modules = Vec::new();
    let mut containers = BTreeSet::new();
    let mut push = |module, layer| {
        let module = ModuleLayout::of(config, module, layer);
        // the containers that the path goes through, each once, before their first module
        for (dot, _) in module.name.match_indices('.') {
            let path = &module.name[..dot];
            if containers.insert(path.to_owned()) {
                let within = layer.filter(|_| path.len() > family.layers.len());
                modules.push(ModuleLayout::container(config, path, within));
            }
        }
        modules.push(module);
    };
    push(&family.embedding, None);
    for layer in 0..config.num_hidden_layers {
        for module in family.layer {
            push(module, Some(layer));
        }
    }
    push(&family.norm, None);
    push(&family.head, None);
    modules
}

/// All tensors of a checkpoint with this configuration; a tied head has none.
pub fn tensors(config: &ModelConfig) -> Vec<TensorLayout> {
    let tied =
        |module: &ModuleLayout| module.kind == ModuleKind::OutputHead && config.tie_word_embeddings;
    let modules = modules(config).into_iter();
    let stored = modules.filter(|module| !tied(module));
    stored
        .flat_map(|module| module.tensors().collect::<Vec<_>>())
        .collect()
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

    fn config(hidden: usize, layers: usize, heads: usize, inner: usize) -> ModelConfig {
        let json = json!({
            "vocab_size": 32000, "hidden_size": hidden, "intermediate_size": inner,
            "num_hidden_layers": layers, "num_attention_heads": heads
        });
        ModelConfig::from_json(&json, Path::new("config.json")).unwrap()
    }

    #[test]
    fn counts_are_the_published_ones() {
        // Touvron et al. 2023, table 2: 6.7B, 13.0B, 32.5B and 65.2B
        for (hidden, layers, heads, inner, count) in [
            (4096, 32, 32, 11008, 6_738_415_616),
            (5120, 40, 40, 13824, 13_015_864_320),
            (6656, 60, 52, 17920, 32_528_943_616),
            (8192, 80, 64, 22016, 65_285_660_672),
        ] {
            let config = config(hidden, layers, heads, inner);
            assert_eq!(parameter_count(&config), count);
        }
    }

    /// As `[name for name, _ in model.named_modules()]` of transformers' `LlamaForCausalLM`, without the model itself and
    /// its modules without weights (`act_fn`, `rotary_emb`).
    #[test]
    fn modules_are_in_the_order_of_pytorch() {
        let modules = modules(&config(64, 1, 4, 96));
        let names: Vec<_> = modules.iter().map(|module| module.name.as_str()).collect();
        insta::assert_snapshot!(names.join("\n"), @"
        model
        model.embed_tokens
        model.layers
        model.layers.0
        model.layers.0.self_attn
        model.layers.0.self_attn.q_proj
        model.layers.0.self_attn.k_proj
        model.layers.0.self_attn.v_proj
        model.layers.0.self_attn.o_proj
        model.layers.0.mlp
        model.layers.0.mlp.gate_proj
        model.layers.0.mlp.up_proj
        model.layers.0.mlp.down_proj
        model.layers.0.input_layernorm
        model.layers.0.post_attention_layernorm
        model.norm
        lm_head
        ");
        for module in &modules {
            let in_layer = module.name.starts_with("model.layers.0");
            assert_eq!(module.layer, in_layer.then_some(0), "{}", module.name);
        }
    }

    /// llama.cpp's names, from `gguf-py/gguf/constants.py`, and those of Meta's checkpoints.
    #[test]
    fn names_of_other_layouts() {
        let config = ModelConfig {
            attention_bias: true,
            ..config(64, 13, 4, 96)
        };
        let tensors = tensors(&config);
        let named = |name: &str| tensors.iter().find(|tensor| tensor.name == name).unwrap();
        for (hugging_face, gguf, meta) in [
            (
                "model.embed_tokens.weight",
                "token_embd.weight",
                Some("tok_embeddings.weight"),
            ),
            ("lm_head.weight", "output.weight", Some("output.weight")),
            (
                "model.norm.weight",
                "output_norm.weight",
                Some("norm.weight"),
            ),
            (
                "model.layers.12.self_attn.q_proj.bias",
                "blk.12.attn_q.bias",
                None,
            ),
            (
                "model.layers.0.self_attn.o_proj.weight",
                "blk.0.attn_output.weight",
                Some("layers.0.attention.wo.weight"),
            ),
            (
                "model.layers.0.post_attention_layernorm.weight",
                "blk.0.ffn_norm.weight",
                Some("layers.0.ffn_norm.weight"),
            ),
        ] {
            let tensor = named(hugging_face);
            assert_eq!(tensor.gguf_name(), gguf);
            assert_eq!(tensor.meta_name().as_deref(), meta);
        }
        let pairs = |name: &str| named(name).module.gguf.pairs;
        assert!(pairs("model.layers.0.self_attn.k_proj.bias"));
        assert!(!pairs("model.layers.0.self_attn.v_proj.weight"));
    }
}
