//! `simmer generate`: one answer.

use clap::Args;
use serde::Serialize;
use simmer_data::example::prompt_tokens;
use simmer_data::{Content, Conversation, Message, Role};
use simmer_model::{KvCache, Sampling, Stop};

use crate::failure::{Context, Failure};
use crate::loaded::{Loaded, ModelArgs};
use crate::output;

/// Answer one prompt
///
/// The prompt is continued as it stands, or put into a template first: `--chat` for the model's
/// own chat template, `--template NAME` for the one that an adapter was trained with.
#[derive(Debug, Args)]
pub(crate) struct Generate {
    #[command(flatten)]
    model: ModelArgs,
    /// What the model is asked, or is to go on from
    #[arg(long, value_name = "TEXT")]
    prompt: String,
    /// What the instruction is about (templates with a place for it, such as alpaca)
    #[arg(long, value_name = "TEXT", requires = "template")]
    input: Option<String>,
    /// Put the prompt into the model's chat template
    #[arg(long, conflicts_with = "template")]
    chat: bool,
    /// Put the prompt into this template
    #[arg(long, value_name = "NAME")]
    template: Option<String>,
    /// System message for the chat template
    #[arg(long, value_name = "TEXT", requires = "chat")]
    system: Option<String>,
    #[command(flatten)]
    answer: AnswerArgs,
    /// Print text, token ids and log-probabilities as JSON
    #[arg(long)]
    json: bool,
}

/// How an answer is made; shared by `generate` and `chat`.
#[derive(Debug, Args)]
pub(crate) struct AnswerArgs {
    /// Most tokens of an answer
    #[arg(long, default_value_t = 256, value_name = "N")]
    pub(crate) max_new_tokens: usize,
    /// Take the most likely token every time
    #[arg(long, conflicts_with_all = ["temperature", "top_k", "top_p", "seed"])]
    greedy: bool,
    /// Below 1: more likely tokens; above 1: more surprising ones
    #[arg(long, default_value_t = 0.7, value_name = "T")]
    temperature: f64,
    /// Draw among this many most likely tokens; 0: among all
    #[arg(long, default_value_t = 0, value_name = "K")]
    top_k: usize,
    /// Draw among the fewest tokens that together have this probability
    #[arg(long, default_value_t = 0.95, value_name = "P")]
    top_p: f64,
    /// Above 1: tokens already in the text become less likely
    #[arg(long, default_value_t = 1.0, value_name = "R")]
    repetition_penalty: f64,
    /// The same seed gives the same answer
    #[arg(long, default_value_t = 0, value_name = "S")]
    seed: u64,
}

#[derive(Serialize)]
struct Json<'a> {
    text: String,
    prompt_ids: &'a [u32],
    ids: &'a [u32],
    logprobs: &'a [f32],
    stop: &'static str,
}

impl Generate {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let sampling = self.answer.sampling()?;
        let loaded = self.model.load()?;
        let prompt = self.prompt_tokens(&loaded)?;
        let mut cache = KvCache::default();
        let length = self.answer.max_new_tokens;
        if self.json {
            let answer = loaded.answer(&prompt, &mut cache, length, &sampling, &mut |_| Ok(()))?;
            return output::json(&Json {
                text: loaded.tokenizer.decode(&answer.tokens, true)?,
                prompt_ids: &prompt,
                ids: &answer.tokens,
                logprobs: &answer.log_probs,
                stop: stop(answer.stop),
            });
        }
        loaded.answer(&prompt, &mut cache, length, &sampling, &mut output::print)?;
        output::line("")
    }

    fn prompt_tokens(&self, loaded: &Loaded) -> Result<Vec<u32>, Failure> {
        let name = if self.chat {
            Some("chat")
        } else {
            self.template.as_deref()
        };
        let Some(name) = name else {
            let text = loaded.tokenizer.encode(&self.prompt)?.ids;
            return Ok([loaded.tokenizer.prefix(), &text].concat());
        };
        let conversation = if self.chat {
            let system = self
                .system
                .iter()
                .map(|text| Message::new(Role::System, text));
            let user = Message::new(Role::User, &self.prompt);
            Conversation::chat(system.chain([user]).collect())
        } else if self.input.is_some() {
            Conversation::new(Content::Instruction {
                system: None,
                instruction: self.prompt.clone(),
                input: self.input.clone(),
                output: None,
            })
        } else {
            Conversation::prompt(&self.prompt)
        };
        let prompt = loaded
            .template(name)?
            .prompt(&conversation)
            .with_context(|| format!("the template {name} cannot take this prompt"))?;
        Ok(prompt_tokens(&prompt, &loaded.tokenizer)?)
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
