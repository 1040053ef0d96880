//! Guesses which base model an adapter is for, if it does not fit the given one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use simmer_checkpoint::family::{self, Family, Module, Size, module_at};

use super::AdapterConfig;
use super::kind::{self, Axis};

/// Hidden size, number of layers and name of well-known base models.
const KNOWN: &[(usize, usize, &str)] = &[
    (576, 30, "SmolLM2-135M"),
    (640, 18, "Gemma-3-270m"),
    (896, 24, "Qwen2.5-0.5B"),
    (960, 32, "SmolLM2-360M"),
    (1024, 28, "Qwen3-0.6B"),
    (1152, 26, "Gemma-3-1b"),
    (1536, 28, "Qwen2.5-1.5B"),
    (2048, 16, "Llama-3.2-1B or OLMo-2-1B"),
    (2048, 18, "Gemma-2b"),
    (2048, 22, "TinyLlama-1.1B"),
    (2048, 24, "SmolLM2-1.7B"),
    (2048, 28, "Qwen3-1.7B"),
    (2048, 36, "Qwen2.5-3B or SmolLM3-3B"),
    (2048, 40, "Granite-3.3-2b"),
    (2304, 26, "Gemma-2-2b"),
    (2560, 36, "Qwen3-4B"),
    (3072, 28, "Llama-3.2-3B or Gemma-7b"),
    (3072, 32, "Phi-3-mini, Phi-3.5-mini or Phi-4-mini"),
    (3584, 28, "Qwen2.5-7B"),
    (3584, 42, "Gemma-2-9b"),
    (4096, 32, "LLaMA 7B or 8B, Mistral 7B or OLMo-2-7B"),
    (4096, 36, "Qwen3-8B"),
    (4096, 40, "Granite-3.3-8b"),
    (4608, 46, "Gemma-2-27b"),
    (
        5120,
        40,
        "LLaMA 13B, Mistral NeMo or Small, Phi-4, Qwen3-14B or OLMo-2-13B",
    ),
    (5120, 48, "Qwen2.5-14B"),
    (5120, 64, "Qwen2.5-32B or Qwen3-32B"),
    (6656, 60, "LLaMA 33B"),
    (8192, 80, "LLaMA 65B or 70B, or Qwen2.5-72B"),
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
            let Some((module, axes)) = split(key, shape) else {
                continue;
            };
            let [rows, columns] = module.shape else {
                continue;
            };
            let ends = [(axes.first(), first), (axes.last(), last)];
            for (axis, size) in ends {
                match axis {
                    Some(Axis::Rows) => base.set(*rows, size),
                    Some(Axis::Columns) => base.set(*columns, size),
                    Some(Axis::Rank | Axis::One) | None => {}
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

/// The module of a key, and the axes of the tensor that it names.
fn split(key: &str, shape: &[usize]) -> Option<(&'static Module, &'static [Axis])> {
    let whole = || Some((key.strip_suffix(".weight")?, WHOLE));
    let of_adapter = kind::split(key).map(|(path, tensor)| {
        let axes = kind::axes_of(key, shape).unwrap_or(tensor.shape);
        (path, axes)
    });
    let (path, axes) = of_adapter.or_else(whole)?;
    Some((module_at(path)?, axes))
}

/// The axes of a whole weight.
const WHOLE: &[Axis] = &[Axis::Rows, Axis::Columns];

/// Why an adapter does not fit.
pub(super) struct Diagnosis {
    /// The end of the sentence "the adapter does not fit the base model"; may be empty.
    pub(super) text: String,
    /// Whether hidden size or layers differ, so that a list of tensors says nothing more.
    pub(super) is_other_base: bool,
}

/// The families that have all modules of a file, if the base model lacks one of them: `phi3`, or two or three names.
fn other_family(
    found: &BTreeMap<String, Vec<usize>>,
    modules: &BTreeSet<String>,
) -> Option<String> {
    let used: BTreeSet<&str> = found
        .iter()
        .filter_map(|(key, shape)| Some(split(key, shape)?.0.last_part()))
        .collect();
    if used.iter().all(|name| modules.contains(*name)) {
        return None;
    }
    let has_all = |family: &&'static Family| used.iter().all(|name| family.has_module(name));
    let families = family::ALL.into_iter().filter(has_all);
    let names: Vec<String> = families
        .map(|family| format!("`{}`", family.model_type))
        .collect();
    (1..=3).contains(&names.len()).then(|| names.join(" or "))
}

/// Compares the shapes that the base model needs with those of the file. `modules` are the last parts of the paths of all
/// modules of the base model.
pub(super) fn of(
    expected: &BTreeMap<String, Vec<usize>>,
    found: &BTreeMap<String, Vec<usize>>,
    modules: &BTreeSet<String>,
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
    let mut named = String::new();
    if let Some(class) = &config.base_class {
        let _ = write!(named, "; its base model is a {class} (auto_mapping)");
    }
    if let Some(name) = &config.base_model_name_or_path {
        let _ = write!(named, "; its base_model_name_or_path is `{name}`");
    }
    let family = other_family(found, modules);
    if let Some(family) = &family {
        differences.insert(0, format!("its modules are those of {family}"));
    }
    if differences.is_empty() {
        return Diagnosis {
            text: named,
            is_other_base: false,
        };
    }
    let differs = |one: Option<usize>, other: Option<usize>| {
        one.zip(other).is_some_and(|(one, other)| one != other)
    };
    let is_other_base = family.is_some()
        || differs(made_for.hidden_size, wanted.hidden_size)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn shapes(modules: &[(&str, [usize; 2])]) -> BTreeMap<String, Vec<usize>> {
        let key = |(name, [rows, columns]): &(&str, [usize; 2])| {
            let path = format!("base_model.model.model.layers.31.{name}");
            [
                (format!("{path}.lora_A.weight"), vec![4, *columns]),
                (format!("{path}.lora_B.weight"), vec![*rows, 4]),
            ]
        };
        modules.iter().flat_map(key).collect()
    }

    #[test]
    fn an_adapter_of_another_family_is_named_as_such() {
        let found = shapes(&[
            ("self_attn.qkv_proj", [9216, 3072]),
            ("self_attn.o_proj", [3072, 3072]),
        ]);
        let expected = shapes(&[("self_attn.o_proj", [4096, 4096])]);
        let llama: BTreeSet<String> = ["q_proj", "k_proj", "v_proj", "o_proj"]
            .map(str::to_owned)
            .into();
        let diagnosis = of(&expected, &found, &llama, &AdapterConfig::default());
        insta::assert_snapshot!(diagnosis.text, @"; it seems to be for another base model (Phi-3-mini, Phi-3.5-mini or Phi-4-mini): its modules are those of `phi3`; hidden size 3072, this base has 4096");
        assert!(diagnosis.is_other_base);
        // PEFT names the class of a model that it has no task for
        let config = serde_json::json!({
            "peft_type": "LORA", "task_type": null, "base_model_name_or_path": "org/phi",
            "auto_mapping": {"base_model_class": "Phi3Model", "parent_library": "transformers.models.phi3"},
        });
        let map = config.as_object().unwrap().clone();
        let (config, warnings) =
            AdapterConfig::from_json(map, std::path::Path::new("adapter_config.json")).unwrap();
        assert!(warnings.is_empty());
        let named = of(&expected, &found, &llama, &config).text;
        assert!(
            named.ends_with(
                "; its base model is a Phi3Model (auto_mapping); its base_model_name_or_path is `org/phi`"
            ),
            "{named}"
        );
        let diagnosis = of(&expected, &expected, &llama, &AdapterConfig::default());
        assert_eq!(
            (diagnosis.text.as_str(), diagnosis.is_other_base),
            ("", false)
        );
    }
}
