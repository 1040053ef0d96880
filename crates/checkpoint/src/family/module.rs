//! A row of a family's table: one module, and how it is built.

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
    /// Queries, keys and values in one matrix, in this order.
    QueryKeyValue,
    /// The normalisation of the queries: of each head, or of all heads together.
    QueryNorm,
    /// The normalisation of the keys: of each head, or of all heads together.
    KeyNorm,
    /// The output of attention.
    AttentionOutput,
    /// The normalisation of the output of attention, before it is added to the layer's input.
    AttentionOutputNorm,
    /// The normalisation before the MLP.
    MlpNorm,
    /// The gate of the MLP.
    Gate,
    /// The gated features of the MLP.
    Up,
    /// Gate and gated features in one matrix, in this order.
    GateUp,
    /// The output of the MLP.
    Down,
    /// The normalisation of the output of the MLP, before it is added to what the MLP received.
    MlpOutputNorm,
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
    /// Twice the features inside the MLP: gate and gated features.
    GateAndUp,
    /// Features of one head.
    Head,
    /// Features of all query heads.
    Queries,
    /// Features of all key heads, or of all value heads.
    Keys,
    /// Features of all query, key and value heads.
    QueriesKeysValues,
}

/// Whether a module has a bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HasBias {
    /// It has none.
    Never,
    /// It has one.
    Always,
    /// If `attention_bias` is set.
    AttentionBias,
    /// If `mlp_bias` is set.
    MlpBias,
}

impl HasBias {
    /// The key of `config.json` that decides, if one does.
    pub fn key(self) -> Option<&'static str> {
        match self {
            Self::Never | Self::Always => None,
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
    /// The queries before their normalisation.
    Queries,
    /// The keys before their normalisation.
    Keys,
    /// The weighted values of all heads.
    AttentionValues,
    /// The output of attention before its normalisation.
    AttentionOutput,
    /// The sum of the layer's input and the output of attention.
    Middle,
    /// The normalised input of the MLP.
    MlpInput,
    /// The gated features inside the MLP.
    Gated,
    /// The output of the MLP before its normalisation.
    MlpOutput,
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
            Self::LayerInput
            | Self::AttentionInput
            | Self::Queries
            | Self::Keys
            | Self::AttentionValues
            | Self::AttentionOutput
            | Self::Middle => Half::Attention,
            Self::MlpInput | Self::Gated | Self::MlpOutput => Half::Mlp,
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
    /// A normalisation.
    pub(super) const fn norm(
        role: Role,
        name: &'static str,
        shape: &'static [Size],
        reads: Activation,
    ) -> Self {
        Self::new(role, name, ModuleKind::Norm, shape, reads)
    }

    /// A linear module of shape `[out, in]`.
    pub(super) const fn linear(
        role: Role,
        name: &'static str,
        shape: &'static [Size],
        reads: Activation,
    ) -> Self {
        Self::new(role, name, ModuleKind::Linear, shape, reads)
    }

    pub(super) const fn new(
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

    /// It has a bias, or a key of the configuration decides.
    pub(super) const fn bias(self, bias: HasBias) -> Self {
        Self { bias, ..self }
    }

    /// One of PEFT's default targets.
    pub(super) const fn default_target(self) -> Self {
        Self {
            default_target: true,
            ..self
        }
    }

    /// It reads something else.
    pub(super) const fn reads(self, reads: Activation) -> Self {
        Self { reads, ..self }
    }

    pub(super) const fn gguf(self, name: &'static str) -> Self {
        let gguf = GgufModule { name, ..self.gguf };
        Self { gguf, ..self }
    }

    pub(super) const fn meta(self, name: &'static str, split: Split) -> Self {
        let meta = MetaModule {
            name,
            split,
            pairs: self.gguf.pairs,
        };
        Self {
            meta: Some(meta),
            ..self
        }
    }

    /// Its rows are stored as rotary pairs, in GGUF and in Meta's layout.
    pub(super) const fn pairs(self) -> Self {
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
