//! Classifies the keys of an adapter's file by their names.

use simmer_checkpoint::Tensor;
use std::collections::BTreeMap;

use crate::adapter::kind::{self, Part, Trained};
use crate::adapter::peft::KEY_PREFIX;
use crate::adapter::tokens;

/// The ends of keys of full tensors; a longer end precedes a shorter one that it ends in.
const WHOLE: [&str; 7] = [
    tokens::ROWS,
    tokens::FROZEN,
    ".base_layer.weight",
    ".base_layer.bias",
    ".modules_to_save.weight",
    ".weight",
    ".bias",
];

/// The keys of one module's low-rank branch.
#[derive(Debug, Default)]
pub(in crate::adapter) struct Factors {
    /// `[r, in]`
    pub(in crate::adapter) a: Option<String>,
    /// `[out, r]`
    pub(in crate::adapter) b: Option<String>,
    /// Whether the module is an embedding, whose factors change `weightᵀ`.
    pub(in crate::adapter) embedding: bool,
    /// Tensors beside the two, such as DoRA's magnitudes.
    pub(in crate::adapter) beside: Vec<String>,
}

/// The keys of a file, by kind.
#[derive(Debug, Default)]
pub(in crate::adapter) struct Parts {
    /// By module.
    pub(in crate::adapter) factors: BTreeMap<String, Factors>,
    /// Tensors of kinds without a low-rank product: key -> module, and which tensor it is.
    pub(in crate::adapter) alone: BTreeMap<String, (String, &'static Trained)>,
    /// Full tensors: key -> module.
    pub(in crate::adapter) whole: BTreeMap<String, String>,
    /// Keys that do not belong to an adapter.
    pub(in crate::adapter) unknown: Vec<String>,
}

impl Parts {
    pub(in crate::adapter) fn of(tensors: &BTreeMap<String, Tensor>) -> Self {
        let mut parts = Self::default();
        for key in tensors.keys() {
            let path = key.strip_prefix(KEY_PREFIX);
            if let Some((module, tensor)) = path.and_then(kind::split_of_file) {
                if let Part::Alone(_) = tensor.part {
                    let named = (module.to_owned(), tensor);
                    parts.alone.insert(key.clone(), named);
                    continue;
                }
                let factors = parts.factors.entry(module.to_owned()).or_default();
                match tensor.part {
                    Part::A => factors.a = Some(key.clone()),
                    Part::B => factors.b = Some(key.clone()),
                    Part::Beside | Part::Alone(_) => factors.beside.push(key.clone()),
                }
                factors.embedding |= kind::is_of_embedding(tensor);
                continue;
            }
            let path = path.filter(|path| !path.split('.').any(|part| part.starts_with("lora_")));
            let module = path.and_then(|path| WHOLE.iter().find_map(|end| path.strip_suffix(end)));
            match module {
                Some(module) => {
                    parts.whole.insert(key.clone(), module.to_owned());
                }
                None => parts.unknown.push(key.clone()),
            }
        }
        parts
    }
}

/// The layer of a module (`None` outside the layers), and the last part of its path.
pub(in crate::adapter) fn place(module: &str) -> (Option<usize>, &str) {
    let layer = module.split('.').find_map(|part| part.parse().ok());
    let target = module.rsplit('.').next().unwrap_or(module);
    (layer, target)
}
