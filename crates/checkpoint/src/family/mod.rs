//! The families of models. A family is a table of its modules.
//!
//! Everything that depends on the modules of a model reads this table: loading and saving weights, the selection of target
//! modules, merging, inspection, the memory estimate, the names in GGUF and in Meta's layout. No other code spells the name of
//! a module. The structs of the forward pass have the same names as fields; a test in `model` compares them with the table.

mod gemma;
mod gguf;
mod granite;
mod llama;
mod mistral;
mod module;
mod olmo2;
mod phi3;
mod qwen2;
mod qwen3;
mod smollm3;
mod standard;

use std::fmt;

pub use gguf::{Absent, ConfigNumber, GgufFamily, GgufHead, GgufLongRope, GgufNumber, GgufWindows};
pub use llama::LLAMA;
pub use module::{
    Activation, GgufModule, Half, HasBias, MetaModule, Module, ModuleKind, Role, Size, Split,
};

/// All families.
pub static ALL: [&Family; 11] = [
    &LLAMA,
    &mistral::MISTRAL,
    &qwen2::QWEN2,
    &qwen3::QWEN3,
    &smollm3::SMOLLM3,
    &phi3::PHI3,
    &gemma::GEMMA,
    &gemma::GEMMA2,
    &gemma::GEMMA3,
    &olmo2::OLMO2,
    &granite::GRANITE,
];

/// A family of models: the value of `model_type` in a configuration, and what it decides.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each says whether the family's configuration has a key"
)]
#[derive(Clone, Copy)]
pub struct Family {
    /// `model_type` in `config.json`.
    pub model_type: &'static str,
    /// The model's class in transformers: `architectures` in `config.json`.
    pub class: &'static str,
    /// The family in GGUF.
    pub gguf: GgufFamily,
    /// What gates the features of the MLP.
    pub gated_by: GatedBy,
    /// The key of `config.json` that names it.
    pub activation_key: &'static str,
    /// What the weight of a normalisation stands for.
    pub norm_weight: NormWeight,
    /// The factor of the embedding.
    pub embedding_scale: EmbeddingScale,
    /// Which layers have a sliding window.
    pub windows: Windows,
    /// Whether layers may have no rotary positions: `no_rope_layers`.
    pub layers_without_positions: bool,
    /// Whether layers with a window have rotary frequencies of their own: `rope_local_base_freq`.
    pub local_rotary: bool,
    /// Whether a part of each head may have no rotary positions: `partial_rotary_factor`.
    pub partial_rotary: bool,
    /// Whether logits may have a soft cap, and scores the scale `1 / √query_pre_attn_scalar`.
    pub soft_caps: bool,
    /// Whether attention applies `attn_logit_softcapping`. Gemma 3's configuration has the key, and transformers does not apply it.
    pub caps_scores: bool,
    /// Whether the configuration has Granite's multipliers.
    pub multipliers: bool,
    /// What a configuration has where its file lacks a key.
    pub defaults: Defaults,
    /// The token embedding.
    pub embedding: Module,
    /// The path of the list of layers.
    pub layers: &'static str,
    /// The modules of a layer, in the order of PyTorch's `named_modules`.
    pub layer: &'static [Module],
    /// The normalisation before the head.
    pub norm: Module,
    /// The output head.
    pub head: Module,
}

impl Family {
    /// What families have in common, for `..Family::STANDARD` in their tables: LLaMA's forward pass.
    pub(crate) const STANDARD: Self = Self {
        model_type: "",
        class: "",
        gguf: GgufFamily::of(""),
        gated_by: GatedBy::Silu,
        activation_key: "hidden_act",
        norm_weight: NormWeight::Factor,
        embedding_scale: EmbeddingScale::One,
        windows: Windows::Never,
        layers_without_positions: false,
        local_rotary: false,
        partial_rotary: false,
        soft_caps: false,
        caps_scores: false,
        multipliers: false,
        defaults: Defaults::STANDARD,
        embedding: Module::EMBEDDING,
        layers: standard::LAYERS,
        layer: &[],
        norm: Module::FINAL_NORM,
        head: Module::HEAD,
    };

    /// The family with this `model_type`.
    pub fn of_model_type(name: &str) -> Option<&'static Self> {
        ALL.into_iter().find(|family| family.model_type == name)
    }

    /// The families of this architecture in GGUF; a file says which one if several have the same.
    pub fn of_gguf(architecture: &str) -> impl Iterator<Item = &'static Self> {
        ALL.into_iter()
            .filter(move |family| family.gguf.architecture == architecture)
    }

    /// The module of a layer with this role, if the family has one.
    pub fn in_layer(&'static self, role: Role) -> Option<&'static Module> {
        self.layer.iter().find(|module| module.role == role)
    }

    /// All modules of the table: embedding, those of one layer, normalisation, head.
    pub fn modules(&'static self) -> impl Iterator<Item = &'static Module> {
        [&self.embedding]
            .into_iter()
            .chain(self.layer)
            .chain([&self.norm, &self.head])
    }

    /// Whether the path of one of its modules ends in this part.
    pub fn has_module(&'static self, last_part: &str) -> bool {
        self.modules().any(|module| module.last_part() == last_part)
    }

    /// The targets of an adapter that names none: PEFT's defaults, as the last parts of module paths.
    pub fn default_targets(&'static self) -> impl Iterator<Item = &'static str> {
        let targets = self.modules().filter(|module| module.default_target);
        targets.map(Module::last_part)
    }
}

/// Families are equal if they have the same `model_type`.
impl PartialEq for Family {
    fn eq(&self, other: &Self) -> bool {
        self.model_type == other.model_type
    }
}

impl Eq for Family {}

impl fmt::Debug for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.model_type)
    }
}

/// Names in quotes, as the values that a key may have: `"a", "b" or "c"`.
pub(crate) fn quoted(names: impl Iterator<Item = &'static str>) -> String {
    let names: Vec<String> = names.map(|name| format!("{name:?}")).collect();
    match names.as_slice() {
        [] => String::new(),
        [one] => one.clone(),
        [most @ .., last] => format!("{} or {last}", most.join(", ")),
    }
}

/// The modules of all families, in the order in which a model uses them.
pub fn all_modules() -> impl Iterator<Item = &'static Module> {
    ALL.into_iter().flat_map(Family::modules)
}

/// The module at a path, judging by the last part of the path alone, whatever the family: for adapters without a base model.
pub fn module_at(path: &str) -> Option<&'static Module> {
    let last = path.rsplit('.').next().unwrap_or(path);
    all_modules().find(|module| module.last_part() == last)
}

/// The first parts of all module paths, whatever the family.
pub fn roots() -> impl Iterator<Item = &'static str> {
    let modules = ALL
        .into_iter()
        .flat_map(|family| [&family.embedding, &family.norm, &family.head]);
    modules.filter_map(|module| module.name.split('.').next())
}

/// What a configuration has where its file lacks a key: the defaults of the family's class in transformers.
#[derive(Debug, Clone, Copy)]
pub struct Defaults {
    /// `num_key_value_heads`; `None`: `num_attention_heads`.
    pub num_key_value_heads: Option<usize>,
    /// `head_dim`; `None`: `hidden_size / num_attention_heads`.
    pub head_dim: Option<usize>,
    /// `rms_norm_eps`.
    pub rms_norm_eps: f64,
    /// `max_position_embeddings`, in tokens.
    pub max_position_embeddings: usize,
    /// `rope_theta`.
    pub rope_theta: f64,
    /// `rope_local_base_freq`.
    pub rope_local_base_freq: f64,
    /// `tie_word_embeddings`.
    pub tie_word_embeddings: bool,
    /// `sliding_window`, in tokens.
    pub sliding_window: Option<usize>,
    /// `query_pre_attn_scalar`.
    pub query_pre_attn_scalar: Option<f64>,
    /// `attn_logit_softcapping`.
    pub attn_logit_softcapping: Option<f64>,
    /// `final_logit_softcapping`.
    pub final_logit_softcapping: Option<f64>,
}

impl Defaults {
    /// Those of LLaMA.
    pub(crate) const STANDARD: Self = Self {
        num_key_value_heads: None,
        head_dim: None,
        rms_norm_eps: 1e-6,
        max_position_embeddings: 2048,
        rope_theta: 10_000.0,
        rope_local_base_freq: 10_000.0,
        tie_word_embeddings: false,
        sliding_window: None,
        query_pre_attn_scalar: None,
        attn_logit_softcapping: None,
        final_logit_softcapping: None,
    };
}

/// Which layers have a sliding window, if the configuration does not list it (`layer_types`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Windows {
    /// None; the family's code knows no windows.
    Never,
    /// All, if `sliding_window` is set.
    EveryLayer,
    /// Those from `max_window_layers` on, if `use_sliding_window` is set.
    LastLayers,
    /// Those without rotary positions, if `use_sliding_window` is set.
    LayersWithoutPositions,
    /// All except every n-th; n is `sliding_window_pattern`, by default this.
    ExceptEvery(usize),
}

/// What gates the features of the MLP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GatedBy {
    /// `x · sigmoid(x)`.
    Silu,
    /// GELU with tanh, as in PyTorch's `gelu(x, approximate="tanh")`.
    GeluTanh,
}

impl GatedBy {
    /// The names that a key of the configuration may have; the first is written.
    ///
    /// transformers reads "gelu" in `hidden_act` of Gemma's first files as GELU with tanh, with which it was trained; in
    /// `hidden_activation` of Gemma 2 and 3 it is the exact one.
    pub fn names(self, key: &str) -> &'static [&'static str] {
        match self {
            Self::Silu => &["silu", "swish"],
            Self::GeluTanh if key == "hidden_act" => &["gelu_pytorch_tanh", "gelu"],
            Self::GeluTanh => &["gelu_pytorch_tanh"],
        }
    }

    /// The name that is written.
    pub fn name(self) -> &'static str {
        self.names("")[0]
    }
}

/// What the weight of a normalisation stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormWeight {
    /// The factor itself.
    Factor,
    /// The factor minus one.
    PlusOne,
}

/// The factor of the embedding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EmbeddingScale {
    /// None.
    One,
    /// `√hidden_size`.
    RootOfHidden,
    /// `embedding_multiplier`.
    Multiplier,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_and_roles_are_unique_within_a_family() {
        for family in ALL {
            let count = family.modules().count();
            let roles: BTreeSet<Role> = family.modules().map(|module| module.role).collect();
            assert_eq!(roles.len(), count, "{family:?}");
            for name in [
                |module: &Module| Some(module.last_part()),
                |module: &Module| Some(module.gguf.name),
                |module: &Module| module.meta.map(|meta| meta.name),
            ] {
                let names: Vec<_> = family.modules().filter_map(name).collect();
                let different: BTreeSet<_> = names.iter().collect();
                assert_eq!(different.len(), names.len(), "{family:?}: {names:?}");
                assert!(names.iter().all(|name| !name.is_empty()), "{family:?}");
            }
            assert_eq!(Family::of_model_type(family.model_type), Some(family));
            assert!(Family::of_gguf(family.gguf.architecture).any(|other| other == family));
            assert!(family.layer.iter().all(Module::is_in_layer));
            for outside in [&family.embedding, &family.norm, &family.head] {
                assert!(!outside.is_in_layer());
            }
        }
    }

    #[test]
    fn a_module_is_found_without_its_family() {
        let module = module_at("base.layers.3.mlp.up_proj").unwrap();
        assert_eq!(module.role, Role::Up);
        assert!(module_at("lm_head").unwrap().is_outermost());
        assert_eq!(module_at("model.layers.0.mlp"), None);
        assert_eq!(quoted(["a", "b", "c"].into_iter()), r#""a", "b" or "c""#);
    }
}
