//! The families of models. A family is a table of its modules.
//!
//! Everything that depends on the modules of a model reads this table: loading and saving weights, the selection of target
//! modules, merging, inspection, the memory estimate, the names in GGUF and in Meta's layout. No other code spells the name of
//! a module. The structs of the forward pass have the same names as fields; a test in `model` compares them with the table.

mod llama;

use std::fmt;

pub use llama::LLAMA;

/// All families.
pub static ALL: [&Family; 1] = [&LLAMA];

/// A family of models: the value of `model_type` in a configuration, and what it decides.
#[derive(Clone, Copy)]
pub struct Family {
    /// `model_type` in `config.json`.
    pub model_type: &'static str,
    /// The model's class in transformers: `architectures` in `config.json`.
    pub class: &'static str,
    /// `general.architecture` in GGUF, which is also the prefix of its keys.
    pub gguf: &'static str,
    /// The activation function of the MLP: `hidden_act` in `config.json`.
    pub hidden_act: &'static str,
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
    /// The family with this `model_type`.
    pub fn of_model_type(name: &str) -> Option<&'static Self> {
        ALL.into_iter().find(|family| family.model_type == name)
    }

    /// The family with this name in GGUF.
    pub fn of_gguf(name: &str) -> Option<&'static Self> {
        ALL.into_iter().find(|family| family.gguf == name)
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

    /// The targets of an adapter that names none: PEFT's defaults, as the last parts of module paths.
    pub fn default_targets(&'static self) -> impl Iterator<Item = &'static str> {
        let targets = self.modules().filter(|module| module.default_target);
        targets.map(Module::last_part)
    }

    /// The path of a layer.
    pub fn layer_path(&self, layer: usize) -> String {
        format!("{}.{layer}", self.layers)
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

/// One module of a family: a row of its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Module {
    /// What it computes.
    pub role: Role,
    /// Its path in Hugging Face; of a module in a layer, the part after the layer's index.
    pub name: &'static str,
    /// Its kind.
    pub kind: ModuleKind,
    /// `[out, in]` of a linear module, `[vocab, hidden]` of embedding and head, `[features]` of a normalisation.
    pub shape: &'static [Size],
    /// Whether it has a bias.
    pub bias: HasBias,
    /// Whether PEFT adapts it if `target_modules` is not set.
    pub default_target: bool,
    /// What it reads. The backward pass needs this again: a linear module if something in it is trained, a normalisation
    /// whenever a gradient passes through it.
    pub reads: Activation,
    /// The module in GGUF.
    pub gguf: GgufModule,
    /// The module in Meta's layout; `None` if that layout cannot hold it.
    pub meta: Option<MetaModule>,
}

/// What a module computes. A model of any family has a field for each role of its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// The token embedding.
    Embedding,
    /// The normalisation before attention.
    AttentionNorm,
    /// The queries.
    Query,
    /// The keys.
    Key,
    /// The values.
    Value,
    /// The output of attention.
    AttentionOutput,
    /// The normalisation before the MLP.
    MlpNorm,
    /// The gate of the MLP.
    Gate,
    /// The gated features of the MLP.
    Up,
    /// The output of the MLP.
    Down,
    /// The normalisation before the head.
    FinalNorm,
    /// The output head.
    Head,
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

/// A size of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// Rows of the embedding.
    Vocabulary,
    /// Features of a token between layers.
    Hidden,
    /// Features inside the MLP.
    Intermediate,
    /// Features of all query heads.
    Queries,
    /// Features of all key heads, or of all value heads.
    Keys,
}

/// Whether a module has a bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HasBias {
    /// It has none.
    Never,
    /// If `attention_bias` is set.
    AttentionBias,
    /// If `mlp_bias` is set.
    MlpBias,
}

impl HasBias {
    /// The key of `config.json` that decides, if one does.
    pub fn key(self) -> Option<&'static str> {
        match self {
            Self::Never => None,
            Self::AttentionBias => Some("attention_bias"),
            Self::MlpBias => Some("mlp_bias"),
        }
    }
}

/// A value that modules read. Modules that read the same value share it, and the backward pass keeps it once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Activation {
    /// The ids of the tokens.
    Tokens,
    /// The input of a layer.
    LayerInput,
    /// The normalised input of attention.
    AttentionInput,
    /// The weighted values of all heads.
    AttentionValues,
    /// The sum of the layer's input and the output of attention.
    Middle,
    /// The normalised input of the MLP.
    MlpInput,
    /// The gated features inside the MLP.
    Gated,
    /// The output of the last layer.
    LastHidden,
    /// The normalised input of the head.
    HeadInput,
}

/// A half of a layer, or the modules outside the layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Half {
    /// Attention, up to the input of the MLP's normalisation.
    Attention,
    /// The MLP.
    Mlp,
    /// Outside the layers.
    Outside,
}

impl Activation {
    /// The half of a layer that computes or receives it.
    pub fn half(self) -> Half {
        match self {
            Self::LayerInput | Self::AttentionInput | Self::AttentionValues | Self::Middle => {
                Half::Attention
            }
            Self::MlpInput | Self::Gated => Half::Mlp,
            Self::Tokens | Self::LastHidden | Self::HeadInput => Half::Outside,
        }
    }
}

/// A module in GGUF.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GgufModule {
    /// Its name; of a module in a layer, the part after the layer's index.
    pub name: &'static str,
    /// Whether the rows of each head are stored as rotary pairs `(2i, 2i + 1)` instead of halves `(i, i + half)`.
    pub pairs: bool,
}

/// A module in Meta's layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetaModule {
    /// Its name; of a module in a layer, the part after the layer's index.
    pub name: &'static str,
    /// How its weight is split into the parts of a model.
    pub split: Split,
    /// Whether the rows of each head are stored as rotary pairs.
    pub pairs: bool,
}

/// How a tensor is split into the parts of a model in Meta's layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// Each part has some of the rows.
    Rows,
    /// Each part has some of the columns.
    Columns,
    /// Each part has the whole tensor.
    Whole,
}

impl Module {
    /// The token embedding.
    const fn embedding(name: &'static str) -> Self {
        let shape = &[Size::Vocabulary, Size::Hidden];
        Self::new(
            Role::Embedding,
            name,
            ModuleKind::Embedding,
            shape,
            Activation::Tokens,
        )
    }

    /// A normalisation of hidden states.
    const fn norm(role: Role, name: &'static str, reads: Activation) -> Self {
        Self::new(role, name, ModuleKind::Norm, &[Size::Hidden], reads)
    }

    /// A linear module of shape `[out, in]`.
    const fn linear(
        role: Role,
        name: &'static str,
        shape: &'static [Size],
        reads: Activation,
    ) -> Self {
        Self::new(role, name, ModuleKind::Linear, shape, reads)
    }

    /// The output head.
    const fn head(name: &'static str) -> Self {
        let shape = &[Size::Vocabulary, Size::Hidden];
        Self::new(
            Role::Head,
            name,
            ModuleKind::OutputHead,
            shape,
            Activation::HeadInput,
        )
    }

    const fn new(
        role: Role,
        name: &'static str,
        kind: ModuleKind,
        shape: &'static [Size],
        reads: Activation,
    ) -> Self {
        Self {
            role,
            name,
            kind,
            shape,
            bias: HasBias::Never,
            default_target: false,
            reads,
            gguf: GgufModule {
                name: "",
                pairs: false,
            },
            meta: None,
        }
    }

    const fn bias(self, bias: HasBias) -> Self {
        Self { bias, ..self }
    }

    /// One of PEFT's default targets.
    const fn default_target(self) -> Self {
        Self {
            default_target: true,
            ..self
        }
    }

    const fn gguf(self, name: &'static str) -> Self {
        let gguf = GgufModule { name, pairs: false };
        Self { gguf, ..self }
    }

    const fn meta(self, name: &'static str, split: Split) -> Self {
        let meta = MetaModule {
            name,
            split,
            pairs: false,
        };
        Self {
            meta: Some(meta),
            ..self
        }
    }

    /// Its rows are stored as rotary pairs, in GGUF and in Meta's layout.
    const fn pairs(self) -> Self {
        let gguf = GgufModule {
            pairs: true,
            ..self.gguf
        };
        let meta = match self.meta {
            Some(meta) => Some(MetaModule {
                pairs: true,
                ..meta
            }),
            None => None,
        };
        Self { gguf, meta, ..self }
    }

    /// Whether it is the embedding or the output head, which may share one tensor.
    pub fn is_outermost(&self) -> bool {
        matches!(self.kind, ModuleKind::Embedding | ModuleKind::OutputHead)
    }

    /// Whether it belongs to each layer.
    pub fn is_in_layer(&self) -> bool {
        self.reads.half() != Half::Outside
    }

    /// The last part of its path.
    pub fn last_part(&self) -> &'static str {
        self.name.rsplit('.').next().unwrap_or(self.name)
    }

    /// The name of its weight in Hugging Face, if it is outside the layers.
    pub fn weight(&self) -> String {
        format!("{}.weight", self.name)
    }
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
            assert_eq!(Family::of_gguf(family.gguf), Some(family));
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
