//! The model card of an adapter (README.md): what it is, how it was trained, and how to load it.
//!
//! Its YAML header has the keys that PEFT writes for the hub, except `license`, which simmer does not know.

use std::fmt::Write as _;

use serde_json::Value;

use super::config::AdapterConfig;
use super::limits::{Limit, Program, limits, vllm_rank};
use super::peft_type::PeftType;
use super::trained_with::{PromptTemplate, QuantisedBase};

/// What the card of an adapter says about its training run. It is the same for two runs of one recipe.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Card {
    /// Datasets on the hub.
    pub datasets: Vec<String>,
    /// The prompt templates of the training rows, each once; `chat` is the model's own chat template.
    pub templates: Vec<PromptTemplate>,
    /// How the base model was quantised, if it was.
    pub base: Option<QuantisedBase>,
    /// Rows of the embedding, if tokens were added to the base model.
    pub vocab_size: Option<usize>,
    /// The kind that it was trained as and its rank, if it is saved as plain LoRA of twice the rank.
    pub converted: Option<(&'static str, usize)>,
    /// How it was trained, as Markdown; empty if unknown.
    pub training: String,
    /// Whether it was combined from other adapters.
    pub is_combined: bool,
}

impl Card {
    /// The text of the README. `vocab_size` is the number of rows of the embedding, if tokens were added or the adapter's file
    /// has an embedding.
    pub(super) fn text(&self, config: &AdapterConfig, vocab_size: Option<usize>) -> String {
        let named = config.base_model_name_or_path.as_deref();
        let base = named.filter(|name| !name.is_empty()).unwrap_or("BASE");
        let limits = limits(config, self.vocab_size.is_some());
        let limit = |program| limits.iter().find(|limit| limit.program == program);
        let mut text = self.front(base, config.kind.peft);
        let _ = write!(
            text,
            "\n# {} adapter for {base}\n\n{}\n",
            config.kind.name,
            what(
                config,
                if self.is_combined {
                    "combined"
                } else {
                    "trained"
                }
            )
        );
        if let Some((kind, rank)) = self.converted {
            let _ = write!(
                text,
                "\nIt was trained as {kind} of rank {rank}, which starts at a part of the base model's weights. It is saved as plain LoRA \
                 of twice the rank, the trained factors beside those of the start, for the untouched base model.\n"
            );
        }
        if !self.training.is_empty() {
            let _ = write!(text, "\n{}\n", self.training.trim_end());
        }
        let _ = write!(
            text,
            "\n## How to use it\n\n`ADAPTER` is the folder of this file. `{base}` is the base model that it was trained on: a name on \
             the hub, or a local path of the training run.\n"
        );
        let merges = config.kind.cannot_merge.is_none();
        text += &self.simmer(base, merges);
        match limit(Program::Peft) {
            None => text += &peft(base, vocab_size),
            Some(limit) => {
                let _ = write!(text, "\n### PEFT\n\n{limit}.\n");
            }
        }
        if let Some(why) = config.kind.cannot_merge {
            let _ = write!(
                text,
                "\n### vLLM and llama.cpp\n\nThey apply only low-rank branches, and this adapter cannot be merged into its base \
                 model: {why}.\n"
            );
            return text;
        }
        text += &vllm(base, config, limit(Program::Vllm));
        text += &llama_cpp(base, limit(Program::LlamaCpp));
        text
    }

    fn front(&self, base: &str, of_type: &PeftType) -> String {
        let mut text = format!(
            "---\nbase_model: {}\nbase_model_relation: adapter\n",
            yaml(base)
        );
        if of_type.unknown_to_peft.is_none() {
            text += "library_name: peft\n";
        }
        text += "pipeline_tag: text-generation\n";
        if !self.datasets.is_empty() {
            text += "datasets:\n";
            for name in &self.datasets {
                let _ = writeln!(text, "- {}", yaml(name));
            }
        }
        let tag = yaml(&format!("base_model:adapter:{base}"));
        let method = of_type.tag;
        let _ = write!(text, "tags:\n- {tag}\n- {method}\n- simmer\n---\n");
        text
    }

    fn simmer(&self, base: &str, merges: bool) -> String {
        let base = word(base);
        let merge = if merges {
            format!("simmer merge --base {base} --adapter ADAPTER --out merged\n")
        } else {
            String::new()
        };
        let template = match self.templates.first().map(|template| &*template.name) {
            None => String::new(),
            Some("chat") => " --chat".to_owned(),
            Some(name) => format!(" --template {}", word(name)),
        };
        format!(
            "\n### simmer\n\n```sh\n\
             simmer generate --base {base} --adapter ADAPTER{template} --prompt \"...\"\n\
             simmer adapter inspect ADAPTER\n{merge}```\n"
        )
    }
}

fn what(config: &AdapterConfig, made: &str) -> String {
    let targets = config.target_modules.as_ref();
    let default = || "PEFT's default targets".to_owned();
    let targets = targets.map_or_else(default, ToString::to_string);
    let settings = config.settings();
    let first = settings
        .chars()
        .next()
        .map(|first| first.to_uppercase().to_string());
    let rest = settings.chars().skip(1).collect::<String>();
    let settings = first.unwrap_or_default() + &rest;
    if config.kind.attention.is_some() {
        return format!("{settings}; {made} with simmer.");
    }
    let rows = config.trainable_token_indices.as_ref();
    let rows = rows.map_or("", |_| ", and rows of single tokens");
    format!("{settings}, on {targets}{rows}; {made} with simmer.")
}

fn peft(base: &str, vocab_size: Option<usize>) -> String {
    let quoted = yaml(base);
    let (mut resize, mut tokenizer) = (String::new(), quoted.clone());
    if let Some(rows) = vocab_size {
        resize = format!("base.resize_token_embeddings({rows})\n");
        tokenizer = yaml("ADAPTER");
    }
    format!(
        "\n### PEFT\n\n```python\nfrom peft import PeftModel\n\
         from transformers import AutoModelForCausalLM, AutoTokenizer\n\n\
         base = AutoModelForCausalLM.from_pretrained({quoted})\n\
         {resize}\
         model = PeftModel.from_pretrained(base, \"ADAPTER\")\n\
         tokenizer = AutoTokenizer.from_pretrained({tokenizer})\n```\n"
    )
}

fn vllm(base: &str, config: &AdapterConfig, limit: Option<&Limit>) -> String {
    let base = word(base);
    let room = vllm_rank(config);
    match (limit, room) {
        (None, Some(room)) => format!(
            "\n### vLLM\n\n```sh\n\
             vllm serve {base} --enable-lora --max-lora-rank {room} --lora-modules adapter=ADAPTER\n```\n\n\
             Requests name the model `adapter`.\n"
        ),
        (limit, _) => format!(
            "\n### vLLM\n\n{}Merge it first.\n\n```sh\n\
             simmer merge --base {base} --adapter ADAPTER --out merged\nvllm serve merged\n```\n",
            sentence(limit)
        ),
    }
}

fn llama_cpp(base: &str, limit: Option<&Limit>) -> String {
    let base = word(base);
    if limit.is_none() {
        return format!(
            "\n### llama.cpp\n\n```sh\n\
             simmer convert {base} base.gguf\n\
             simmer convert ADAPTER adapter.gguf --base {base}\n\
             llama-cli -m base.gguf --lora adapter.gguf\n```\n"
        );
    }
    format!(
        "\n### llama.cpp\n\n{}Merge it first.\n\n```sh\n\
         simmer merge --base {base} --adapter ADAPTER --out merged\n\
         simmer convert merged merged.gguf\nllama-cli -m merged.gguf\n```\n",
        sentence(limit)
    )
}

fn sentence(limit: Option<&Limit>) -> String {
    limit.map(|limit| format!("{limit}. ")).unwrap_or_default()
}

/// A string literal, valid in YAML and in Python.
fn yaml(text: &str) -> String {
    Value::from(text).to_string()
}

/// An argument of a shell command, quoted if necessary.
fn word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./,:+@%".contains(c);
    if text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::targets::Targets;

    fn config() -> AdapterConfig {
        AdapterConfig {
            r: 12,
            target_modules: Some(Targets::Names(vec!["q_proj".to_owned()])),
            base_model_name_or_path: Some("some/base".to_owned()),
            ..AdapterConfig::default()
        }
    }

    #[test]
    fn a_card_says_how_to_load_the_adapter() {
        let card = Card {
            is_combined: false,
            datasets: vec!["who/rows".to_owned()],
            templates: vec![PromptTemplate {
                name: "alpaca".to_owned(),
                text: String::new(),
            }],
            base: None,
            vocab_size: None,
            converted: Some(("PiSSA", 6)),
            training: "## Training\n\nTen steps.\n".to_owned(),
        };
        insta::assert_snapshot!(card.text(&config(), None));
    }

    #[test]
    fn what_others_cannot_apply_is_merged_first() {
        let config = AdapterConfig {
            base_model_name_or_path: Some("my base".to_owned()),
            modules_to_save: Some(vec!["lm_head".to_owned()]),
            ..config()
        };
        let card = Card {
            vocab_size: Some(17),
            ..Card::default()
        };
        insta::assert_snapshot!(card.text(&config, card.vocab_size));
    }

    #[test]
    fn methods_other_than_lora_say_what_they_are() {
        use crate::adapter::{AdapterTable, AdaptionPromptConfig, Gate, Ia3Config};
        let of_heads = AdaptionPromptConfig {
            gate: Gate::Head,
            ..AdaptionPromptConfig::default()
        };
        let tables: [&dyn AdapterTable; 3] = [
            &Ia3Config::default(),
            &AdaptionPromptConfig::default(),
            &of_heads,
        ];
        for table in tables {
            insta::assert_snapshot!(Card::default().text(&table.to_peft("some/base"), None));
        }
    }
}
