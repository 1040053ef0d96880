//! What other programs do not take of an adapter.
//!
//! vLLM (`vllm/lora/peft_helper.py` and `lora_model.py`) reads the rank, alpha and `use_rslora` of the whole
//! configuration, and refuses DoRA, whole modules and unknown keys; llama.cpp (`convert_lora_to_gguf.py`) takes
//! low-rank branches alone.

use std::fmt;

use super::config::{AdapterConfig, Bias};

/// Values that vLLM accepts for `--max-lora-rank`.
const VLLM_RANKS: [usize; 8] = [8, 16, 32, 64, 128, 256, 320, 512];

/// A program that loads adapters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// PEFT.
    Peft,
    /// vLLM, with `--lora-modules`.
    Vllm,
    /// llama.cpp, with `--lora`.
    LlamaCpp,
}

/// A program that does not take an adapter, and why.
///
/// Its text is a sentence without a full stop: `vLLM does not take this adapter: ...`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// The program.
    pub program: Program,
    /// What the adapter has that the program does not take.
    pub reasons: Vec<String>,
}

/// The programs that do not take an adapter as it is; merged into its base model, if it can be, they do. `resized` says whether the
/// adapter has an embedding with more rows than that of the base model.
pub(super) fn limits(config: &AdapterConfig, resized: bool) -> Vec<Limit> {
    let all = [Program::Peft, Program::Vllm, Program::LlamaCpp];
    let limit = |program| {
        let reasons = reasons(program, config, resized);
        (!reasons.is_empty()).then_some(Limit { program, reasons })
    };
    all.into_iter().filter_map(limit).collect()
}

/// The smallest value of vLLM's `--max-lora-rank` that an adapter fits into, if there is one.
pub(super) fn vllm_rank(config: &AdapterConfig) -> Option<usize> {
    VLLM_RANKS
        .into_iter()
        .find(|room| *room >= config.largest_rank())
}

fn reasons(program: Program, config: &AdapterConfig, resized: bool) -> Vec<String> {
    let kind = config.kind;
    let mut found: Vec<String> = Vec::new();
    if program == Program::Peft {
        found.extend(kind.peft.unknown_to_peft.map(str::to_owned));
        return found;
    }
    found.extend(
        kind.beyond_low_rank
            .map(|what| format!("it has {what} ({})", kind.name)),
    );
    let saved = config.modules_to_save.as_deref().unwrap_or_default();
    if !saved.is_empty() {
        found.push(format!("it has whole modules, {}", saved.join(", ")));
    }
    if config.trainable_token_indices.is_some() {
        found.push("it has rows of single tokens".to_owned());
    }
    if resized {
        found.push("it adds tokens to the vocabulary".to_owned());
    }
    if config.bias != Bias::None {
        found.push("it has biases".to_owned());
    }
    if program == Program::Vllm {
        if config.has_own_scales() {
            found.push("its modules differ in alpha / rank, and vLLM uses one for all".to_owned());
        }
        if vllm_rank(config).is_none() {
            found.push(format!("its rank is {}, above 512", config.largest_rank()));
        }
    }
    found
}

impl AdapterConfig {
    /// The largest rank of a module.
    fn largest_rank(&self) -> usize {
        let ranks = self.rank_pattern.iter().map(|(_, rank)| *rank);
        ranks.chain([self.r]).max().unwrap_or(self.r)
    }

    /// Whether a module may have another scale than the whole configuration gives: vLLM reads neither pattern.
    fn has_own_scales(&self) -> bool {
        self.rank_pattern.iter().next().is_some() || self.alpha_pattern.iter().next().is_some()
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Peft => "PEFT",
            Self::Vllm => "vLLM",
            Self::LlamaCpp => "llama.cpp",
        })
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { program, reasons } = self;
        write!(
            f,
            "{program} does not take this adapter: {}",
            reasons.join("; ")
        )
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::{Value, json};

    use super::*;

    fn said(keys: Value, resized: bool) -> String {
        let Value::Object(mut all) =
            json!({"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj"]})
        else {
            unreachable!("an object");
        };
        all.extend(keys.as_object().cloned().unwrap_or_default());
        let (config, _) = AdapterConfig::from_json(all, Path::new("adapter_config.json")).unwrap();
        let limits = limits(&config, resized);
        let lines: Vec<String> = limits.iter().map(ToString::to_string).collect();
        lines.join("\n")
    }

    #[test]
    fn what_a_program_does_not_take_is_said() {
        assert_eq!(said(json!({}), false), "");
        assert_eq!(
            said(json!({"use_rslora": true, "lora_dropout": 0.1}), false),
            ""
        );
        insta::assert_snapshot!(said(json!({"use_dora": true}), false));
        insta::assert_snapshot!(said(
            json!({"modules_to_save": ["lm_head"], "bias": "all"}),
            true
        ));
        insta::assert_snapshot!(said(json!({"rank_pattern": {"k_proj": 1024}}), false));
        insta::assert_snapshot!(said(json!({"alpha_pattern": {"q_proj": 4}}), false));
    }
}
