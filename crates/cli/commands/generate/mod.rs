//! `simmer generate`: one answer, or those to the rows of a file.

mod rows;

use clap::{ArgGroup, Args};
use serde::Serialize;
use simmer_data::example::prompt_tokens;
use simmer_data::{Content, Conversation, Message, Role, Template};
use simmer_model::{Generated, KvCache, Sampling, Stop};

use self::rows::RowArgs;
use crate::failure::{Context, Failure, bail};
use crate::loaded::{Loaded, ModelArgs};
use crate::output;

/// Generate the answer to a prompt, or to each row of a file
///
/// The prompt is put into the prompt template that the adapter was trained with, if its folder names one.
/// `--chat` applies the model's chat template instead, `--template NAME` another one, and `--raw` none.
/// A model without an adapter continues the prompt as it is.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("asked").required(true).args(["prompt", "file"])))]
#[command(after_help = "\
Examples:
  simmer generate --base HuggingFaceTB/SmolLM2-135M-Instruct --chat --prompt 'Hello!'
  simmer generate --base data/tiny-base --adapter runs/quickstart/adapter --prompt 'What is tea?'
  simmer generate --base data/tiny-base --file data/kitchen/heldout.json --template alpaca --greedy")]
pub(crate) struct Generate {
    #[command(flatten)]
    model: ModelArgs,
    /// Prompt: an instruction, a question, or text to continue
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
    /// Input of the instruction, for templates that have one, such as alpaca
    #[arg(long, value_name = "TEXT")]
    input: Option<String>,
    #[command(flatten)]
    rows: RowArgs,
    /// Apply the chat template of the model
    #[arg(long, conflicts_with_all = ["template", "raw"])]
    chat: bool,
    /// Apply this prompt template. Default: the one that the adapter was trained with
    #[arg(long, value_name = "NAME")]
    template: Option<String>,
    /// Continue the prompt as it is, without a template
    #[arg(long, conflicts_with_all = ["template", "system", "input"])]
    raw: bool,
    /// System message, for templates that have a place for it
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    #[command(flatten)]
    answer: AnswerArgs,
    /// Print text, token IDs and log-probabilities as JSON; with --file, add the last two to each line
    #[arg(long)]
    json: bool,
}

/// How an answer is generated; shared by `generate` and `chat`.
#[derive(Debug, Args)]
pub(crate) struct AnswerArgs {
    /// Maximum number of tokens to generate
    #[arg(long, default_value_t = 256, value_name = "N")]
    pub(crate) max_new_tokens: usize,
    /// Always take the most likely token
    #[arg(long, conflicts_with_all = ["temperature", "top_k", "top_p", "seed"])]
    greedy: bool,
    /// Sampling temperature; lower values favour likely tokens
    #[arg(long, default_value_t = 0.7, value_name = "T")]
    temperature: f64,
    /// Sample from the K most likely tokens; 0: from all
    #[arg(long, default_value_t = 0, value_name = "K")]
    top_k: usize,
    /// Sample from the smallest set of tokens whose probabilities add up to P
    #[arg(long, default_value_t = 0.95, value_name = "P")]
    top_p: f64,
    /// Penalty on tokens that are already in the text; 1: none
    #[arg(long, default_value_t = 1.0, value_name = "R")]
    repetition_penalty: f64,
    /// Random seed; the same seed gives the same answer
    #[arg(long, default_value_t = 0, value_name = "S")]
    seed: u64,
}

/// What `--json` prints of an answer beside its text and why it ended.
#[derive(Serialize)]
struct Tokens<'a> {
    prompt_ids: &'a [u32],
    ids: &'a [u32],
    logprobs: &'a [f32],
}

impl<'a> Tokens<'a> {
    fn of(prompt: &'a [u32], answer: &'a Generated) -> Self {
        Self {
            prompt_ids: prompt,
            ids: &answer.tokens,
            logprobs: &answer.log_probs,
        }
    }
}

#[derive(Serialize)]
struct Json<'a> {
    text: String,
    #[serde(flatten)]
    tokens: Tokens<'a>,
    stop: &'static str,
}

impl Generate {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let sampling = self.answer.sampling()?;
        if let Some(file) = &self.rows.file {
            return self.answer_rows(file, &sampling);
        }
        let loaded = self.model.load()?;
        let prompt = self.prompt_tokens(&loaded)?;
        let mut cache = KvCache::default();
        let length = self.answer.max_new_tokens;
        if self.json {
            let answer = loaded.answer(&prompt, &mut cache, length, &sampling, &mut |_| Ok(()))?;
            return output::json(&Json {
                text: loaded.tokenizer.decode(&answer.tokens, true)?,
                tokens: Tokens::of(&prompt, &answer),
                stop: stop(answer.stop),
            });
        }
        loaded.answer(&prompt, &mut cache, length, &sampling, &mut output::answer)?;
        output::line("")
    }

    /// The template of the prompts, if they have one.
    fn chosen_template(&self, loaded: &Loaded) -> Result<Option<Template>, Failure> {
        let name = if self.chat {
            Some("chat")
        } else {
            self.template.as_deref()
        };
        if self.raw {
            Ok(None)
        } else {
            loaded.prompt_template(name)
        }
    }

    fn prompt_tokens(&self, loaded: &Loaded) -> Result<Vec<u32>, Failure> {
        let prompt = self.prompt.as_deref().unwrap_or_default();
        let Some(template) = self.chosen_template(loaded)? else {
            for (option, text) in [("--input", &self.input), ("--system", &self.system)] {
                if text.is_some() {
                    bail!("{option} needs a prompt template; use --chat or --template NAME");
                }
            }
            return Ok(loaded.tokenizer.encode_with_prefix(prompt)?);
        };
        let prompt = template
            .prompt(&self.conversation(prompt, template.name()))
            .with_context(|| format!("template {}: cannot render this prompt", template.name()))?;
        Ok(prompt_tokens(&prompt, &loaded.tokenizer)?)
    }

    /// The prompt as the row that the template renders.
    fn conversation(&self, prompt: &str, template: &str) -> Conversation {
        if self.input.is_some() {
            return Conversation::new(Content::Instruction {
                system: self.system.clone(),
                instruction: prompt.to_owned(),
                input: self.input.clone(),
                output: None,
            });
        }
        let is_chat = template == "chat" || template.starts_with("chat:");
        if self.system.is_none() && !is_chat {
            return Conversation::prompt(prompt);
        }
        let system = self
            .system
            .iter()
            .map(|text| Message::new(Role::System, text));
        let user = Message::new(Role::User, prompt);
        Conversation::chat(system.chain([user]).collect())
    }
}

impl AnswerArgs {
    /// The settings as the model takes them, checked.
    pub(crate) fn sampling(&self) -> Result<Sampling, Failure> {
        let sampling = Sampling {
            temperature: if self.greedy { 0.0 } else { self.temperature },
            top_k: self.top_k,
            top_p: self.top_p,
            repetition_penalty: self.repetition_penalty,
            seed: self.seed,
            ..Sampling::default()
        };
        sampling.check()?;
        Ok(sampling)
    }
}

fn stop(stop: Stop) -> &'static str {
    match stop {
        Stop::Eos(_) => "eos",
        Stop::Length => "length",
        Stop::Context => "context",
        Stop::Caller => "caller",
    }
}
