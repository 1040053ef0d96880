//! The learning rate of each trained tensor: `train.learning_rates` by name, LoRA+, or `train.learning_rate`.
//!
//! LoRA+ multiplies the rate of B, which starts at zero, by `loraplus_lr_ratio`: η of A, `ratio · η` of B. The groups are PEFT's:
//! the factors of an embedding have a rate of their own, and vectors are in the group of B.
//!
//! Source: Hayou et al. 2024; PEFT 0.21, src/peft/optimizers/loraplus.py, `create_loraplus_optimizer`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use fancy_regex::Regex;
use simmer_checkpoint::config::ModelConfig;
use simmer_files::size::counted;
use simmer_model::adapter::{self, kind};
use simmer_model::{Group, Segments};

use crate::config::TrainConfig;
use crate::recipe::Recipe;
use simmer_recipe::Problem;

/// PEFT's default of `loraplus_lr_embedding`.
const OF_EMBEDDING: f64 = 1e-6;
/// Names that an error lists.
const LISTED: usize = 3;

/// Peak learning rates of the trained tensors, in their order.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rates {
    peaks: Vec<f64>,
    /// `train.learning_rate`
    usual: f64,
}

/// A trained tensor.
struct Tensor<'a> {
    name: &'a str,
    group: Group,
}

impl Rates {
    /// The rates of a model's trained tensors.
    ///
    /// # Errors
    /// As [`check`].
    pub(crate) fn of(config: &TrainConfig, segments: &Segments) -> Result<Self, Problem> {
        let tensors = segments.all().iter().map(|segment| Tensor {
            name: &segment.name,
            group: segment.group,
        });
        Self::of_tensors(config, &tensors.collect::<Vec<_>>())
    }

    fn of_tensors(config: &TrainConfig, tensors: &[Tensor<'_>]) -> Result<Self, Problem> {
        let patterns = patterns(config)?;
        let mut matched = vec![false; patterns.len()];
        let mut has_faster = false;
        let mut peaks = Vec::with_capacity(tensors.len());
        for tensor in tensors {
            let mut own = None;
            for (index, (pattern, rate)) in patterns.iter().enumerate() {
                if is_found(pattern, tensor.name)? {
                    matched[index] = true;
                    own = own.or(Some(*rate));
                }
            }
            let in_group = config.rate_of(tensor);
            has_faster |= in_group.is_some_and(|of| of.is_ratio);
            let in_group = in_group.map(|of| of.rate);
            peaks.push(own.or(in_group).unwrap_or(config.learning_rate));
        }
        if let Some(index) = matched.iter().position(|matched| !matched) {
            return Err(unmatched(&config.learning_rates.0[index].0, tensors));
        }
        if config.loraplus_lr_ratio.is_some() && !has_faster {
            let why = "no trained tensor is a factor B: LoRA+ has no effect";
            return Err(Problem::new("train.loraplus_lr_ratio", why));
        }
        let usual = config.learning_rate;
        Ok(Self { peaks, usual })
    }

    /// The rates as multiples of `train.learning_rate`; `None` if all are that.
    pub(crate) fn multiples(&self) -> Option<Vec<f64>> {
        let multiples: Vec<f64> = self.peaks.iter().map(|peak| peak / self.usual).collect();
        let differs = |multiple: &f64| multiple.to_bits() != 1.0_f64.to_bits();
        multiples.iter().any(differs).then_some(multiples)
    }

    /// The lowest and the highest rate of an update whose schedule has this factor; `None` if all are one.
    pub(crate) fn range(&self, factor: f64) -> Option<[f64; 2]> {
        self.multiples()?;
        let [lowest, highest] =
            [f64::min, f64::max].map(|of| self.peaks.iter().copied().reduce(of));
        Some([lowest? * factor, highest? * factor])
    }

    /// The rates with the number of tensors of each, if they differ: `learning rates: 2e-4 (84 tensors), 3.2e-3 (84 tensors)`.
    pub(crate) fn text(&self) -> Option<String> {
        self.multiples()?;
        // The bits of numbers that are not negative are in their order.
        let mut counts: BTreeMap<u64, usize> = BTreeMap::new();
        for peak in &self.peaks {
            *counts.entry(peak.to_bits()).or_default() += 1;
        }
        let mut text = "learning rates: ".to_owned();
        for (index, (peak, tensors)) in counts.into_iter().enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            let _ = write!(
                text,
                "{comma}{:e} ({})",
                f64::from_bits(peak),
                counted(tensors, "tensor")
            );
        }
        Some(text)
    }
}

/// The rate of a group of LoRA+.
#[derive(Clone, Copy)]
struct OfGroup {
    rate: f64,
    is_ratio: bool,
}

impl TrainConfig {
    /// The rate that LoRA+ gives to a tensor, if it is not `learning_rate`.
    fn rate_of(&self, tensor: &Tensor<'_>) -> Option<OfGroup> {
        let ratio = self.loraplus_lr_ratio?;
        let part = kind::part_of(tensor.name);
        if part.is_some_and(|(_, of_embedding)| of_embedding) {
            let rate = self.loraplus_lr_embedding.unwrap_or(OF_EMBEDDING);
            return Some(OfGroup {
                rate,
                is_ratio: false,
            });
        }
        let is_b = part.is_some_and(|(part, _)| part == kind::Part::B);
        (is_b || tensor.group == Group::Vector).then_some(OfGroup {
            rate: self.learning_rate * ratio,
            is_ratio: is_b,
        })
    }

    /// Checks the keys of learning rates, without a model.
    pub(crate) fn check_rates(&self) -> Result<(), Problem> {
        let wrong = |key: &str, why: String| Err(Problem::new(format!("train.{key}"), why));
        if let Some(ratio) = self.loraplus_lr_ratio
            && !(ratio >= 1.0 && ratio.is_finite())
        {
            let why = format!("expected a number of at least 1, such as 16, found {ratio}");
            return wrong("loraplus_lr_ratio", why);
        }
        if let Some(rate) = self.loraplus_lr_embedding {
            if !is_rate(rate) {
                let why = format!("expected a number of at least 0, such as 1e-6, found {rate}");
                return wrong("loraplus_lr_embedding", why);
            }
            if self.loraplus_lr_ratio.is_none() {
                let why = "has no effect without `loraplus_lr_ratio`";
                return wrong("loraplus_lr_embedding", why.to_owned());
            }
        }
        for (pattern, rate) in self.learning_rates.iter() {
            if !is_rate(*rate) {
                let why = format!(
                    "`{pattern}`: expected a number of at least 0, such as 1e-4, found {rate}"
                );
                return wrong("learning_rates", why);
            }
        }
        patterns(self).map(|_| ())
    }
}

fn is_rate(rate: f64) -> bool {
    rate >= 0.0 && rate.is_finite()
}

/// Checks the learning rates of the tensors that the adapter of a recipe trains, before anything is loaded. Those of
/// `method.full` are checked when the model is there.
///
/// # Errors
/// A pattern that matches no tensor; LoRA+ without a factor B.
pub(crate) fn check(recipe: &Recipe, model: &ModelConfig) -> Result<(), Problem> {
    let Some(table) = recipe.method.adapter() else {
        return Ok(());
    };
    let train = &recipe.train;
    if train.learning_rates.is_empty() && train.loraplus_lr_ratio.is_none() {
        return Ok(());
    }
    let Ok(selection) = adapter::selection(table, model) else {
        return Ok(()); // attaching reports it
    };
    let shapes = adapter::trained_shapes(&selection);
    let tensors = shapes.iter().map(|(name, shape)| Tensor {
        name,
        group: Group::of(shape),
    });
    Rates::of_tensors(train, &tensors.collect::<Vec<_>>()).map(|_| ())
}

/// The compiled patterns of `train.learning_rates`, with their rates.
fn patterns(config: &TrainConfig) -> Result<Vec<(Regex, f64)>, Problem> {
    let patterns = config.learning_rates.iter();
    let compiled = patterns.map(|(pattern, rate)| match Regex::new(pattern) {
        Ok(regex) => Ok((regex, *rate)),
        Err(error) => Err(bad_pattern(pattern, &error)),
    });
    compiled.collect()
}

fn is_found(pattern: &Regex, name: &str) -> Result<bool, Problem> {
    let found = pattern.is_match(name);
    found.map_err(|error| bad_pattern(pattern.as_str(), &error))
}

fn bad_pattern(pattern: &str, error: &fancy_regex::Error) -> Problem {
    let why = format!("`{pattern}` is not a valid regular expression: {error}");
    Problem::new("train.learning_rates", why)
}

/// The error of a pattern that is in no name, with the names that are most similar.
fn unmatched(pattern: &str, tensors: &[Tensor<'_>]) -> Problem {
    // The text of a pattern that is meant for a name looks like it without its escapes.
    let plain = pattern.replace('\\', "").replace(".*", "");
    let mut names: Vec<(f64, &str)> = tensors
        .iter()
        .map(|tensor| (similarity(&plain, tensor.name), tensor.name))
        .collect();
    names.sort_by(|a, b| b.0.total_cmp(&a.0));
    let names = names.iter().take(LISTED);
    let names: Vec<String> = names.map(|(_, name)| format!("`{name}`")).collect();
    let why = format!(
        "`{pattern}` is in the name of no trained tensor; the nearest of {} are {}",
        tensors.len(),
        names.join(", ")
    );
    let hint =
        "a pattern is a regular expression that is found anywhere in a name, such as \"lora_B\"";
    Problem::new("train.learning_rates", why).with_hint(Some(hint.to_owned()))
}

/// How much of a name looks like a text: the best of its parts, or of its end.
fn similarity(text: &str, name: &str) -> f64 {
    let ends = name.match_indices('.').map(|(dot, _)| &name[dot + 1..]);
    let parts = name.split('.');
    let all = parts.chain(ends).chain([name]);
    let of = |part: &str| strsim::normalized_damerau_levenshtein(text, part);
    all.map(of).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [(&str, Group); 6] = [
        ("model.embed_tokens.lora_embedding_A", Group::Matrix),
        ("model.embed_tokens.lora_embedding_B", Group::Matrix),
        ("model.layers.0.self_attn.q_proj.bias", Group::Vector),
        (
            "model.layers.0.self_attn.q_proj.lora_A.weight",
            Group::Matrix,
        ),
        (
            "model.layers.0.self_attn.q_proj.lora_B.weight",
            Group::Matrix,
        ),
        (
            "model.layers.1.self_attn.q_proj.lora_B.weight",
            Group::Matrix,
        ),
    ];

    fn config(more: &str) -> TrainConfig {
        let text = format!("epochs = 1\nbatch_size = 1\nlearning_rate = 1e-3\n{more}");
        toml::from_str(&text).unwrap()
    }

    fn rates(more: &str) -> Result<Rates, Problem> {
        let config = config(more);
        config.check_rates()?;
        let tensors = NAMES.map(|(name, group)| Tensor { name, group });
        Rates::of_tensors(&config, &tensors)
    }

    fn peaks(more: &str) -> String {
        format!("{:?}", rates(more).unwrap().peaks)
    }

    #[test]
    fn groups_are_those_of_peft() {
        insta::assert_snapshot!(peaks(""), @"[0.001, 0.001, 0.001, 0.001, 0.001, 0.001]");
        insta::assert_snapshot!(peaks("loraplus_lr_ratio = 16"), @"[1e-6, 1e-6, 0.016, 0.001, 0.016, 0.016]");
        let both = "loraplus_lr_ratio = 2\nloraplus_lr_embedding = 5e-4";
        insta::assert_snapshot!(peaks(both), @"[0.0005, 0.0005, 0.002, 0.001, 0.002, 0.002]");
    }

    #[test]
    fn the_first_pattern_that_is_found_applies() {
        let patterns =
            r#"learning_rates = { "layers\\.0\\..*lora_B" = 0.5, "lora_B" = 0.25, "embed" = 0 }"#;
        insta::assert_snapshot!(peaks(patterns), @"[0.0, 0.0, 0.001, 0.001, 0.5, 0.25]");
        let with = format!("{patterns}\nloraplus_lr_ratio = 16");
        insta::assert_snapshot!(peaks(&with), @"[0.0, 0.0, 0.016, 0.001, 0.5, 0.25]");
    }

    #[test]
    fn rates_that_differ_are_described() {
        assert_eq!(rates("").unwrap().text(), None);
        assert_eq!(rates("").unwrap().range(0.5), None);
        let text = rates("loraplus_lr_ratio = 16").unwrap().text().unwrap();
        insta::assert_snapshot!(text, @"learning rates: 1e-6 (2 tensors), 1e-3 (1 tensor), 1.6e-2 (3 tensors)");
        let range = rates("loraplus_lr_ratio = 16").unwrap().range(0.5);
        insta::assert_snapshot!(format!("{range:?}"), @"Some([5e-7, 0.008])");
    }

    #[test]
    fn wrong_keys_are_named() {
        let error = |more: &str| {
            let problem = rates(more).unwrap_err();
            match &problem.hint {
                Some(hint) => format!("{problem}\nhint: {hint}"),
                None => problem.to_string(),
            }
        };
        let errors = [
            "loraplus_lr_ratio = 0.5",
            "loraplus_lr_ratio = nan",
            "loraplus_lr_embedding = 1e-6",
            "loraplus_lr_ratio = 2\nloraplus_lr_embedding = -1",
            "learning_rates = { lora_B = -1e-3 }",
            "learning_rates = { 'lora_(B' = 1e-3 }",
            "learning_rates = { 'q_porj' = 1e-3 }",
            "learning_rates = { 'lora_B' = 1e-3, 'layers\\.2\\..*lora_A' = 1e-3 }",
        ];
        insta::assert_snapshot!(errors.map(error).join("\n\n"));
    }

    #[test]
    fn lora_plus_needs_a_factor_b() {
        let tensors =
            [("model.norm.weight", Group::Vector)].map(|(name, group)| Tensor { name, group });
        let error = Rates::of_tensors(&config("loraplus_lr_ratio = 16"), &tensors).unwrap_err();
        insta::assert_snapshot!(error, @"`train.loraplus_lr_ratio`: no trained tensor is a factor B: LoRA+ has no effect");
    }
}
