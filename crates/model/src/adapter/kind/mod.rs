//! The kinds of adapters, one file each.
//!
//! A kind is a value of [`Kind`]: what PEFT's files call its tensors and what shapes they have, how they start, how a merge
//! computes new rows of a weight from its old ones, and what training it costs. Its tensors are the fields of a struct, which
//! computes what a module with the adapter computes ([`LinearAdapter`], [`EmbeddingAdapter`]). Everything else asks
//! these: no other file spells a key of an adapter, or matches on a kind.
//!
//! Axes: T tokens, I input features, O output features, V vocabulary, H hidden size, r rank.

mod adaption_prompt;
pub(crate) mod dora;
mod embedding;
mod ia3;
mod lora;
mod low_rank;
pub(crate) mod pissa;

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{DType, Device, Int, Tensor};
use simmer_kernels::{FrozenWeight, LowRank, residual};

pub(crate) use self::adaption_prompt::AttentionStart;
pub use self::adaption_prompt::{
    ADAPTION_PROMPT, AdaptionPrompt, AttentionAdapter, AttentionForm, GateActivation,
    LLAMA_ADAPTER, LlamaAdapter,
};
pub(super) use self::adaption_prompt::{GATE, PROMPT};
pub use self::dora::{DORA, Dora};
pub use self::embedding::EmbeddingLora;
pub use self::ia3::{IA3, IA3_OF_INPUT, Ia3, Ia3OfInput};
pub use self::lora::{LORA, Lora};
pub use self::pissa::{OLORA, PISSA, Pissa};
use super::init::Factors;
use super::peft_type::{self, PeftType};

/// An enum of structs that are adapters, and what they compute.
macro_rules! one_of {
    ($(#[$doc:meta])* $name:ident: $computes:ident { $($kind:ident),* }) => {
        $(#[$doc])*
        #[derive(Module, Debug)]
        pub enum $name {
            $(
                #[doc = concat!("See [`", stringify!($kind), "`].")]
                $kind($kind)
            ),*
        }

        impl Deref for $name {
            type Target = dyn $computes;

            fn deref(&self) -> &Self::Target {
                match self {
                    $(Self::$kind(adapter) => adapter),*
                }
            }
        }
    };
}

/// The kinds. A configuration chooses one by [`Kind::peft`], [`Kind::switch`], or how it starts ([`super::Init`]).
pub static ALL: [&Kind; 8] = [
    &LORA,
    &DORA,
    &PISSA,
    &OLORA,
    &IA3,
    &IA3_OF_INPUT,
    &ADAPTION_PROMPT,
    &LLAMA_ADAPTER,
];

one_of! {
    /// The adapter of a linear module or of the output head.
    BesideLinear: LinearAdapter { Lora, Dora, Pissa, Ia3, Ia3OfInput }
}

one_of! {
    /// The adapter of an embedding.
    BesideEmbedding: EmbeddingAdapter { EmbeddingLora }
}

one_of! {
    /// The adapter of the attention of a layer.
    BesideAttention: AttentionAdapter { AdaptionPrompt, LlamaAdapter }
}

/// A kind of adapter.
pub struct Kind {
    /// What people call it.
    pub name: &'static str,
    /// PEFT's type of it, which says what its configuration has.
    pub peft: &'static PeftType,
    /// The key of PEFT's configuration that is true for this kind alone.
    pub switch: Option<&'static str>,
    /// Beside a linear module or the output head, if that is possible.
    pub linear: Option<Form<BesideLinear>>,
    /// The kind of modules that `feedforward_modules` names, whose input it changes.
    pub of_input: Option<&'static Kind>,
    /// Beside an embedding, if that is possible.
    pub embedding: Option<Form<BesideEmbedding>>,
    /// Beside the attention of a layer, if that is possible.
    pub attention: Option<AttentionForm>,
    /// Why it cannot be merged into a base model, if it cannot.
    pub cannot_merge: Option<&'static str>,
    /// Whether it multiplies the bias of a module as it does the rows of the weight.
    pub scales_bias: bool,
    /// What it has beyond a low-rank product that is added to a weight, as a noun; llama.cpp and vLLM then do not
    /// take it.
    pub beyond_low_rank: Option<&'static str>,
    /// What training it costs beyond a low-rank product.
    pub costs: Costs,
}

/// What most kinds have; a kind names what is special about it.
const PLAIN: Kind = Kind {
    name: "",
    peft: &peft_type::LORA,
    switch: None,
    linear: None,
    of_input: None,
    embedding: None,
    attention: None,
    cannot_merge: None,
    scales_bias: false,
    beyond_low_rank: None,
    costs: Costs {
        keeps_input: true,
        keeps_result: false,
        dropout_takes_a_product: false,
        keeps_start: false,
    },
};

/// A kind beside a module of one sort.
pub struct Form<A> {
    /// The tensors that are trained.
    pub tensors: &'static [Trained],
    /// A new adapter, which changes nothing yet.
    pub(crate) start: fn(&Start<'_>) -> A,
    /// The merged weight of an adapter in a file.
    pub(crate) merged: fn(&Stored<'_>) -> Box<dyn MergedRows>,
}

/// A tensor that is trained.
#[derive(Debug, PartialEq, Eq)]
pub struct Trained {
    /// The name of its field in this crate, and of its parameter or module in PEFT.
    pub field: &'static str,
    /// What follows the path of the module in PEFT's key.
    pub end: &'static str,
    /// Its shape.
    pub shape: &'static [Axis],
    /// What it is.
    pub part: Part,
    /// Whether a model that computes in 16 bits computes with a copy in 16 bits.
    pub(crate) is_factor: bool,
}

/// An axis of a trained tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Axis {
    /// r; of prompts, their number.
    Rank,
    /// Rows of the module's weight: O, or V; of attention, its query heads.
    Rows,
    /// Columns of the module's weight: I, or H.
    Columns,
    /// 1
    One,
}

/// What a trained tensor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The factor A of a low-rank product.
    A,
    /// The factor B of a low-rank product.
    B,
    /// Anything beside the two.
    Beside,
    /// A tensor of a kind without a low-rank product.
    Alone(Neutral),
}

/// The value with which a tensor changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Neutral {
    /// 0
    Zero,
    /// 1
    One,
    /// None: another tensor decides.
    Without,
}

impl Neutral {
    /// The value.
    pub fn value(self) -> Option<f64> {
        match self {
            Self::Zero => Some(0.0),
            Self::One => Some(1.0),
            Self::Without => None,
        }
    }
}

/// What training costs beyond a low-rank product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a cost of its own")]
pub struct Costs {
    /// Whether the backward pass needs what the module reads.
    pub keeps_input: bool,
    /// Whether the backward pass needs what the module computed without it, once more.
    pub keeps_result: bool,
    /// Whether dropout takes a second product with the frozen weight, and keeps its input.
    pub dropout_takes_a_product: bool,
    /// Whether the start is kept, and multiplied with as the branch is.
    pub keeps_start: bool,
}

/// What a new adapter is made for.
pub(crate) struct Start<'a> {
    /// The path of the module.
    pub(crate) module: &'a str,
    /// Rows and columns of its weight.
    pub(crate) shape: [usize; 2],
    pub(crate) rank: usize,
    /// Scale of the low-rank product.
    pub(crate) scale: f64,
    pub(crate) dropout: f64,
    pub(crate) seed: u64,
    /// The frozen weight.
    pub(crate) weight: FrozenWeight,
    /// The factors of the weight that the adapter starts with, if it starts so.
    pub(crate) factors: Option<&'a Factors>,
    pub(crate) device: &'a Device,
}

/// The tensors of an adapter in a file.
pub(crate) struct Stored<'a> {
    /// Rows and columns of the module's weight.
    pub(crate) shape: [usize; 2],
    pub(crate) rank: usize,
    pub(crate) scale: f64,
    /// The values of a tensor.
    pub(crate) values: &'a dyn Fn(&Trained) -> Vec<f64>,
    /// The factors of the weight that the adapter started with, if it started so.
    pub(crate) factors: Option<&'a Factors>,
}

/// A weight that an adapter was merged into.
pub(crate) trait MergedRows: Send + Sync {
    /// Computes a row from the old one: f32, or the exact sum or product of two f32, to be rounded once.
    fn row(&self, row: usize, old: &[f32], new: &mut [f64]);
}

/// What a linear module or the output head computes with an adapter.
pub trait LinearAdapter: fmt::Debug {
    /// The result of the module without its bias; with dropout if `dropout_keys`, `[T]`, are given.
    ///
    /// # Shapes
    /// `x`: `[T, I]`. `weight`: `[O, I]`, frozen. Result: `[T, O]`.
    fn forward(
        &self,
        x: Tensor<2>,
        weight: FrozenWeight,
        dropout_keys: Option<&Arc<[u64]>>,
    ) -> Tensor<2>;

    /// Two matrices `x'`, `W'` with `x' W'ᵀ` equal to the result of [`LinearAdapter::forward`], for the loss of the output
    /// head, which never forms all logits.
    ///
    /// # Shapes
    /// `x`: `[T, I]`. `weight`: `[O, I]`. Result: `[T, K]` and `[O, K]`.
    fn operands(
        &self,
        x: Tensor<2>,
        weight: Tensor<2>,
        dropout_keys: Option<&Arc<[u64]>>,
    ) -> [Tensor<2>; 2];

    /// Its low-rank branch, if that is all that it computes: `x Wᵀ` plus the branch is then [`LinearAdapter::forward`].
    fn low_rank(&self, _dropout_keys: Option<&Arc<[u64]>>) -> Option<LowRank> {
        None
    }

    /// What is added to the result in place of the module's bias.
    ///
    /// # Shapes
    /// `bias`, result: `[O]`.
    fn bias(&self, bias: Tensor<1>) -> Tensor<1> {
        bias
    }

    /// Whether it has dropout.
    fn has_dropout(&self) -> bool {
        false
    }
}

/// What an embedding computes with an adapter.
pub trait EmbeddingAdapter: fmt::Debug {
    /// The embeddings of tokens from their rows of the frozen weight.
    ///
    /// # Shapes
    /// `tokens`: `[T]`. `rows`, result: `[T, H]`.
    fn forward(&self, tokens: Tensor<1, Int>, rows: Tensor<2>) -> Tensor<2>;
}

impl Kind {
    /// The tensors that are trained beside an embedding, or beside another module. None if that is not possible.
    pub fn tensors(&self, is_embedding: bool) -> &'static [Trained] {
        if is_embedding {
            self.embedding.as_ref().map_or(&[], |form| form.tensors)
        } else {
            self.linear.as_ref().map_or(&[], |form| form.tensors)
        }
    }

    /// Whether it has a low-rank product, and so a rank.
    pub fn has_rank(&self) -> bool {
        let mut tensors = self.tensors(false).iter();
        tensors.any(|tensor| tensor.part == Part::A)
    }

    /// The merged weight of an adapter in a file; `None` if it cannot be beside such a module.
    pub(crate) fn merged(
        &self,
        is_embedding: bool,
        stored: &Stored<'_>,
    ) -> Option<Box<dyn MergedRows>> {
        let of_embedding = self.embedding.as_ref().map(|form| form.merged);
        let of_linear = self.linear.as_ref().map(|form| form.merged);
        let merged = if is_embedding {
            of_embedding
        } else {
            of_linear
        };
        merged.map(|merged| merged(stored))
    }
}

impl Trained {
    /// Its shape beside a module whose weight has rows and columns `shape`.
    pub fn dims(&self, [rows, columns]: [usize; 2], rank: usize) -> Vec<usize> {
        let size = |axis: &Axis| match axis {
            Axis::Rank => rank,
            Axis::Rows => rows,
            Axis::Columns => columns,
            Axis::One => 1,
        };
        self.shape.iter().map(size).collect()
    }
}

/// The tensors that any kind trains.
pub(crate) fn all_tensors() -> impl Iterator<Item = &'static Trained> {
    let beside = |is_embedding| ALL.iter().flat_map(move |kind| kind.tensors(is_embedding));
    let attention = ALL.iter().filter_map(|kind| kind.attention.as_ref());
    let attention = attention.flat_map(|form| form.tensors);
    beside(false).chain(beside(true)).chain(attention)
}

/// The module of a key or of a name in [`crate::Parameters`], and which tensor it names.
pub(crate) fn split(key: &str) -> Option<(&str, &'static Trained)> {
    all_tensors().find_map(|tensor| Some((key.strip_suffix(tensor.end)?, tensor)))
}

/// The axes of a tensor of this shape: kinds may share a key, and differ in the axis that they multiply.
pub(crate) fn axes_of(key: &str, shape: &[usize]) -> Option<&'static [Axis]> {
    let fits = |tensor: &&Trained| {
        let ones = tensor.shape.iter().zip(shape);
        key.ends_with(tensor.end)
            && ones
                .into_iter()
                .all(|(axis, size)| *axis != Axis::One || *size == 1)
    };
    all_tensors().find(fits).map(|tensor| tensor.shape)
}

/// What the tensor of this name is, and whether it is beside an embedding; `None` if it is no adapter's.
pub fn part_of(name: &str) -> Option<(Part, bool)> {
    let (_, tensor) = split(name)?;
    Some((tensor.part, is_of_embedding(tensor)))
}

/// As [`split`], of a file of any version of PEFT: some have a tensor beside the factors as the weight of a module.
pub(crate) fn split_of_file(key: &str) -> Option<(&str, &'static Trained)> {
    split(key).or_else(|| {
        let found = split(key.strip_suffix(".weight")?);
        found.filter(|(_, tensor)| tensor.part == Part::Beside)
    })
}

/// The factors of a low-rank product beside an embedding, or beside another module: A, then B.
pub(crate) fn factors(is_embedding: bool) -> [&'static Trained; 2] {
    let [a, b, ..] = LORA.tensors(is_embedding) else {
        unreachable!("LoRA has two factors beside every module");
    };
    [a, b]
}

/// Whether a tensor is trained beside embeddings alone.
pub(crate) fn is_of_embedding(tensor: &Trained) -> bool {
    let mut beside_linear = ALL.iter().flat_map(|kind| kind.tensors(false));
    beside_linear.all(|other| other != tensor) && !matches!(tensor.part, Part::Alone(_))
}

/// Activations in f32, for arithmetic between the operations of `simmer_kernels`: these pass gradients in f32 on, and Burn's
/// in the dtype of the activations, so that both would meet.
pub(crate) fn wide(x: Tensor<2>) -> Tensor<2> {
    if x.dtype() == DType::F32 {
        return x;
    }
    // its gradient is the one that those operations pass on
    let nothing = x.zeros_like().detach();
    residual(x, nothing).cast(DType::F32)
}

/// The end of PEFT's key of a tensor that is a field of this name.
pub(crate) fn end_of(field: &str) -> Option<&'static str> {
    let tensor = all_tensors().find(|tensor| tensor.field == field)?;
    Some(tensor.end)
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// By name: the forms beside outputs and inputs are one kind.
impl PartialEq for Kind {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_all_versions_are_split() {
        let field = |key| split_of_file(key).map(|(module, tensor)| (module, tensor.field));
        let magnitude = Some(("q_proj", "lora_magnitude_vector"));
        assert_eq!(field("q_proj.lora_magnitude_vector"), magnitude);
        assert_eq!(field("q_proj.lora_magnitude_vector.weight"), magnitude);
        assert_eq!(field("q_proj.lora_A.weight"), Some(("q_proj", "lora_A")));
        assert_eq!(field("q_proj.lora_A.weight.weight"), None);
        assert_eq!(field("q_proj.weight"), None);
    }
}
