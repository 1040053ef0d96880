//! Guesses which base model an adapter is for, if it does not fit the given one.

use std::collections::BTreeMap;

use simmer_checkpoint::family::{Module, Size, module_at};

use super::AdapterConfig;

/// Hidden size, number of layers and name of well-known base models.
const KNOWN: &[(usize, usize, &str)] = &[
    (576, 30, "SmolLM2-135M"),
    (960, 32, "SmolLM2-360M"),
    (2048, 16, "Llama-3.2-1B"),
    (2048, 22, "TinyLlama-1.1B"),
    (2048, 24, "SmolLM2-1.7B"),
    (3072, 28, "Llama-3.2-3B"),
    (4096, 32, "LLaMA 7B or 8B"),
    (5120, 40, "LLaMA 13B"),
    (6656, 60, "LLaMA 33B"),
    (8192, 80, "LLaMA 65B or 70B"),
    (16384, 126, "Llama-3.1-405B"),
];

/// The shape of a base model, as far as it follows from an adapter's tensors.
#[derive(Debug, Default, PartialEq, Eq)]
struct Base {
    hidden_size: Option<usize>,
    layers: Option<usize>,
    vocab_size: Option<usize>,
}

impl Base {
    fn of(shapes: &BTreeMap<String, Vec<usize>>) -> Self {
        let mut base = Self::default();
        for (key, shape) in shapes {
            let layer = key.split_once(".layers.").and_then(|(_, rest)| {
                let (number, _) = rest.split_once('.')?;
                number.parse::<usize>().ok()
            });
            base.layers = base.layers.max(layer.map(|layer| layer + 1));
            let (Some(&first), Some(&last)) = (shape.first(), shape.last()) else {
                continue;
            };
            let Some((module, end)) = split(key) else {
                continue;
            };
            let [rows, columns] = module.shape else {
                continue;
            };
            match end {
                End::A => base.set(*columns, last),
                End::B => base.set(*rows, first),
                End::EmbeddingA => base.set(*rows, last),
                End::EmbeddingB => base.set(*columns, first),
                End::Weight => {
                    base.set(*rows, first);
                    base.set(*columns, last);
                }
            }
        }
        base
    }

    fn set(&mut self, size: Size, found: usize) {
        match size {
            Size::Hidden => self.hidden_size = Some(found),
            Size::Vocabulary => self.vocab_size = Some(found),
            Size::Intermediate
            | Size::GateAndUp
            | Size::Head
            | Size::Queries
            | Size::Keys
            | Size::QueriesKeysValues => {}
        }
    }

    fn known_as(&self) -> Option<&'static str> {
        KNOWN
            .iter()
            .find(|(hidden, layers, _)| {
                Some(*hidden) == self.hidden_size && Some(*layers) == self.layers
            })
            .map(|(_, _, name)| *name)
    }
}

/// The tensors of an adapter that have sizes of the base model.
#[derive(Clone, Copy)]
enum End {
    A,
    B,
    EmbeddingA,
    EmbeddingB,
    Weight,
}

/// The ends of keys; a longer end precedes a shorter one that it ends in.
const ENDS: [(&str, End); 5] = [
    (".lora_A.weight", End::A),
    (".lora_B.weight", End::B),
    (".lora_embedding_A", End::EmbeddingA),
    (".lora_embedding_B", End::EmbeddingB),
    (".weight", End::Weight),
];

/// The module of a key, and which of its tensors the key names.
fn split(key: &str) -> Option<(&'static Module, End)> {
    let (path, end) = ENDS
        .iter()
        .find_map(|(end, tensor)| Some((key.strip_suffix(end)?, *tensor)))?;
    Some((module_at(path)?, end))
}

/// Why an adapter does not fit.
pub(super) struct Diagnosis {
    /// The end of the sentence "the adapter does not fit the base model"; may be empty.
    pub(super) text: String,
    /// Whether hidden size or layers differ, so that a list of tensors says nothing more.
    pub(super) is_other_base: bool,
}

/// Compares the shapes that the base model needs with those of the file.
pub(super) fn of(
    expected: &BTreeMap<String, Vec<usize>>,
    found: &BTreeMap<String, Vec<usize>>,
    config: &AdapterConfig,
) -> Diagnosis {
    let (wanted, made_for) = (Base::of(expected), Base::of(found));
    let mut differences = Vec::new();
    for (what, found, wanted) in [
        ("hidden size", made_for.hidden_size, wanted.hidden_size),
        ("layers", made_for.layers, wanted.layers),
        ("vocabulary", made_for.vocab_size, wanted.vocab_size),
    ] {
        if let (Some(found), Some(wanted)) = (found, wanted)
            && found != wanted
        {
            differences.push(format!("{what} {found}, this base has {wanted}"));
        }
    }
    let named = config
        .base_model_name_or_path
        .as_ref()
        .map_or_else(String::new, |name| {
            format!("; its base_model_name_or_path is `{name}`")
        });
    if differences.is_empty() {
        return Diagnosis {
            text: named,
            is_other_base: false,
        };
    }
    let differs = |one: Option<usize>, other: Option<usize>| {
        one.zip(other).is_some_and(|(one, other)| one != other)
    };
    let is_other_base = differs(made_for.hidden_size, wanted.hidden_size)
        || differs(made_for.layers, wanted.layers);
    let known = made_for
        .known_as()
        .map_or_else(String::new, |name| format!(" ({name})"));
    let text = format!(
        "; it seems to be for another base model{known}: {}{named}",
        differences.join("; ")
    );
    Diagnosis {
        text,
        is_other_base,
    }
}
