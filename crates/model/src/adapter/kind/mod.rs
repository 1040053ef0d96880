//! The kinds of adapters, one file each.
//!
//! A kind is a value of [`Kind`]: what PEFT's files call its tensors and what shapes they have, how they start, how a merge
//! computes new rows of a weight from its old ones, and what training it costs. Its tensors are the fields of a struct, which
//! computes what a module with the adapter computes ([`LinearAdapter`], [`EmbeddingAdapter`]). Everything else asks
//! these: no other file spells a key of an adapter, or matches on a kind.
//!
//! Axes: T tokens, I input features, O output features, V vocabulary, H hidden size, r rank.

pub(crate) mod dora;
mod embedding;
mod lora;
mod low_rank;
pub(crate) mod pissa;

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};
use simmer_kernels::FrozenWeight;

pub use self::dora::{DORA, Dora};
pub use self::embedding::EmbeddingLora;
pub use self::lora::{LORA, Lora};
pub use self::pissa::{OLORA, PISSA, Pissa};
use crate::adapter::init::Factors;

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

/// The kinds. Configurations choose one by its [`Kind::switch`], or by how it starts ([`super::Init::kind`]).
pub static ALL: [&Kind; 4] = [&LORA, &DORA, &PISSA, &OLORA];

one_of! {
    /// The adapter of a linear module or of the output head.
    BesideLinear: LinearAdapter { Lora, Dora, Pissa }
}

one_of! {
    /// The adapter of an embedding.
    BesideEmbedding: EmbeddingAdapter { EmbeddingLora }
}

/// A kind of adapter.
pub struct Kind {
    /// What people call it.
    pub name: &'static str,
    /// The key of PEFT's configuration that is true for this kind alone.
    pub switch: Option<&'static str>,
    /// Beside a linear module or the output head.
    pub linear: Form<BesideLinear>,
    /// Beside an embedding, if that is possible.
    pub embedding: Option<Form<BesideEmbedding>>,
    /// What it has beyond a low-rank product that is added to a weight, as a noun; llama.cpp and vLLM then do not
    /// take it.
    pub beyond_low_rank: Option<&'static str>,
    /// What training it costs beyond a low-rank product.
    pub costs: Costs,
}

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
    /// r
    Rank,
    /// Rows of the module's weight: O, or V.
    Rows,
    /// Columns of the module's weight: I, or H.
    Columns,
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
}

/// What training costs beyond a low-rank product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Costs {
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
            self.linear.tensors
        }
    }

    /// The merged weight of an adapter in a file.
    pub(crate) fn merged(&self, is_embedding: bool, stored: &Stored<'_>) -> Box<dyn MergedRows> {
        match &self.embedding {
            Some(form) if is_embedding => (form.merged)(stored),
            _ => (self.linear.merged)(stored),
        }
    }
}

impl Trained {
    /// Its shape beside a module whose weight has rows and columns `shape`.
    pub fn dims(&self, [rows, columns]: [usize; 2], rank: usize) -> Vec<usize> {
        let size = |axis: &Axis| match axis {
            Axis::Rank => rank,
            Axis::Rows => rows,
            Axis::Columns => columns,
        };
        self.shape.iter().map(size).collect()
    }
}

/// The tensors that any kind trains.
pub(crate) fn all_tensors() -> impl Iterator<Item = &'static Trained> {
    let beside = |is_embedding| ALL.iter().flat_map(move |kind| kind.tensors(is_embedding));
    beside(false).chain(beside(true))
}

/// The module of a key or of a name in [`crate::Parameters`], and which tensor it names.
pub(crate) fn split(key: &str) -> Option<(&str, &'static Trained)> {
    all_tensors().find_map(|tensor| Some((key.strip_suffix(tensor.end)?, tensor)))
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
    let beside_linear = ALL.iter().flat_map(|kind| kind.linear.tensors);
    beside_linear.into_iter().all(|other| other != tensor)
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
