//! The model card of an adapter (README.md): what it is, how it was trained, and how to load it.
//!
//! Its YAML header has the keys that PEFT writes for the hub, except `license`, which simmer does not know.

use std::fmt::Write as _;

use serde_json::Value;

use super::config::{AdapterConfig, Bias};
use super::trained_with::{PromptTemplate, QuantisedBase};

/// Values that vLLM accepts for `--max-lora-rank`.
const VLLM_RANKS: [usize; 8] = [8, 16, 32, 64, 128, 256, 320, 512];

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
    /// How it was trained, as Markdown; empty if unknown.
    pub training: String,
}

impl Card {
    /// The text of the README. `vocab_size` is that of the resized base model, if the adapter adds tokens.
    pub(super) fn text(&self, config: &AdapterConfig, vocab_size: Option<usize>) -> String {
        let named = config.base_model_name_or_path.as_deref();
        let base = named.filter(|name| !name.is_empty()).unwrap_or("BASE");
        let is_plain_lora = vocab_size.is_none()
            && config.kind.beyond_low_rank.is_none()
            && config.bias == Bias::None
            && config.trainable_token_indices.is_none()
            && config.modules_to_save.as_ref().is_none_or(Vec::is_empty);
        let mut text = self.front(base);
        let _ = write!(
            text,
            "\n# {} adapter for {base}\n\n{}\n",
            config.kind.name,
            what(config)
        );
        if !self.training.is_empty() {
            let _ = write!(text, "\n{}\n", self.training.trim_end());
        }
        let _ = write!(
            text,
            "\n## How to use it\n\n`ADAPTER` is the folder of this file. `{base}` is the base model that it was trained on: a name on \
             the hub, or a local path of the training run.\n"
        );
        text += &self.simmer(base);
        text += &peft(base, vocab_size);
        text += &vllm(base, config, is_plain_lora);
        text += &llama_cpp(base, is_plain_lora);
        text
    }

    fn front(&self, base: &str) -> String {
        let mut text = format!(
            "---\nbase_model: {}\nbase_model_relation: adapter\nlibrary_name: peft\npipeline_tag: text-generation\n",
            yaml(base)
        );
        if !self.datasets.is_empty() {
            text += "datasets:\n";
            for name in &self.datasets {
                let _ = writeln!(text, "- {}", yaml(name));
            }
        }
        let tag = yaml(&format!("base_model:adapter:{base}"));
        let _ = write!(text, "tags:\n- {tag}\n- lora\n- simmer\n---\n");
        text
    }

    fn simmer(&self, base: &str) -> String {
        let base = word(base);
        let template = match self.templates.first().map(|template| &*template.name) {
            None => String::new(),
            Some("chat") => " --chat".to_owned(),
            Some(name) => format!(" --template {}", word(name)),
        };
        format!(
            "\n### simmer\n\n```sh\n\
             simmer generate --base {base} --adapter ADAPTER{template} --prompt \"...\"\n\
             simmer adapter inspect ADAPTER\n\
             simmer merge --base {base} --adapter ADAPTER --out merged\n```\n"
        )
    }
}

fn what(config: &AdapterConfig) -> String {
    let targets = config.target_modules.as_ref();
    let default = || "PEFT's default targets".to_owned();
    let targets = targets.map_or_else(default, ToString::to_string);
    let AdapterConfig { r, lora_alpha, .. } = config;
    let stabilised = if config.use_rslora {
        ", rank-stabilised"
    } else {
        ""
    };
    let rows = config.trainable_token_indices.as_ref();
    let rows = rows.map_or_else(String::new, |_| ", and rows of single tokens".to_owned());
    format!("Rank {r}, alpha {lora_alpha}{stabilised}, on {targets}{rows}; trained with simmer.")
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

fn vllm(base: &str, config: &AdapterConfig, is_plain_lora: bool) -> String {
    let ranks = config.rank_pattern.iter().map(|(_, rank)| *rank);
    let rank = ranks.chain([config.r]).max().unwrap_or(config.r);
    let room = VLLM_RANKS.into_iter().find(|room| *room >= rank);
    let base = word(base);
    match room.filter(|_| is_plain_lora) {
        Some(room) => format!(
            "\n### vLLM\n\n```sh\n\
             vllm serve {base} --enable-lora --max-lora-rank {room} --lora-modules adapter=ADAPTER\n```\n\n\
             Requests name the model `adapter`.\n"
        ),
        None => format!(
            "\n### vLLM\n\nvLLM loads only low-rank branches, up to rank 512: merge the adapter first.\n\n```sh\n\
             simmer merge --base {base} --adapter ADAPTER --out merged\nvllm serve merged\n```\n"
        ),
    }
}

fn llama_cpp(base: &str, is_plain_lora: bool) -> String {
    let base = word(base);
    if is_plain_lora {
        return format!(
            "\n### llama.cpp\n\n```sh\n\
             simmer convert {base} base.gguf\n\
             simmer convert ADAPTER adapter.gguf --base {base}\n\
             llama-cli -m base.gguf --lora adapter.gguf\n```\n"
        );
    }
    format!(
        "\n### llama.cpp\n\nllama.cpp applies only low-rank branches: merge the adapter first.\n\n```sh\n\
         simmer merge --base {base} --adapter ADAPTER --out merged\n\
         simmer convert merged merged.gguf\nllama-cli -m merged.gguf\n```\n"
    )
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
            datasets: vec!["who/rows".to_owned()],
            templates: vec![PromptTemplate {
                name: "alpaca".to_owned(),
                text: String::new(),
            }],
            base: None,
            vocab_size: None,
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
        insta::assert_snapshot!(Card::default().text(&config, Some(17)));
    }
}
