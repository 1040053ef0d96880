//! A local model that completes prompts, in batches.

use std::ops::ControlFlow;

use simmer_data::tokenizer::StopTexts;
use simmer_data::{Conversation, Template, prompt_tokens};
use simmer_files::size::counted;
use simmer_instruct::{
    Completion, Completions, ComputeDtype, Finish, InstructError, LocalConfig, Prompt as Asked,
    Request, Stop as Stopped,
};
use simmer_model::base::{BaseConfig, Compute};
use simmer_model::{Prompt, Sampling, Stop};

use crate::failure::{Failure, bail};
use crate::loaded::{Loaded, precision};

/// A loaded model.
pub(crate) struct Local {
    loaded: Loaded,
    name: String,
    /// What conversations are rendered with.
    template: Option<Template>,
    /// How many prompts are computed together.
    together: usize,
}

impl Local {
    /// Loads the model of a recipe's table.
    pub(crate) fn load(config: &LocalConfig, table: &str) -> Result<Self, Failure> {
        let held = config.precision.as_deref().map(precision).transpose();
        let held =
            held.map_err(|problem| Failure::new(format!("{table}: `precision`: {problem}")))?;
        let mut base = BaseConfig::from_path(&config.base);
        base.precision = held;
        base.compute = config.compute.map(|dtype| match dtype {
            ComputeDtype::F32 => Compute::F32,
            ComputeDtype::Bf16 => Compute::Bf16,
        });
        let loaded = Loaded::open(&base, config.adapter.as_deref(), &config.device.parse()?)?;
        let adapter = config
            .adapter
            .as_ref()
            .map(|path| format!(" with {}", path.display()));
        let name = format!(
            "{}{} ({})",
            config.base.display(),
            adapter.unwrap_or_default(),
            &loaded.identity[..loaded.identity.len().min(16)]
        );
        // sums of other groups of prompts are rounded otherwise
        let name = match config.together {
            None => name,
            Some(0) => bail!("{table}: `together`: expected at least 1, found 0"),
            Some(together) => format!("{name}, {} together", counted(together, "prompt")),
        };
        Ok(Self {
            loaded,
            name,
            template: None,
            together: config.together.unwrap_or(usize::MAX),
        })
    }

    /// The prompts of a batch that are computed together.
    pub(crate) fn groups<'a, 'b>(
        &self,
        batch: &'a [Request<'b>],
    ) -> impl Iterator<Item = &'a [Request<'b>]> {
        batch.chunks(self.together)
    }

    /// The same for conversations too, which are rendered with this template; without a name, with that of the adapter's
    /// training, or the model's own.
    pub(crate) fn with_template(mut self, name: Option<&str>) -> Result<Self, Failure> {
        let template = match self.loaded.prompt_template(name)? {
            Some(template) => template,
            None => self.loaded.template("chat")?,
        };
        self.name = format!("{}, template {}", self.name, template.name());
        self.template = Some(template);
        Ok(self)
    }

    fn tokens(&self, prompt: Asked<'_>) -> Result<Vec<u32>, InstructError> {
        let tokenizer = &self.loaded.tokenizer;
        let messages = match prompt {
            Asked::Text(text) => return tokenizer.encode_with_prefix(text).map_err(model),
            Asked::Chat(messages) => messages.to_vec(),
        };
        let Some(template) = &self.template else {
            return Err(model("a conversation needs a prompt template"));
        };
        let rendered = template.prompt(&Conversation::chat(messages));
        let rendered = rendered.map_err(|error| {
            let name = template.name();
            model(format!(
                "template {name} cannot render this conversation: {error}"
            ))
        })?;
        prompt_tokens(&rendered, tokenizer).map_err(model)
    }

    /// Requests of the same settings together, for each the new text and why it ended.
    fn together(
        &self,
        prompts: &[Prompt<'_>],
        max_tokens: usize,
        until: &[String],
        stop: Stopped<'_>,
    ) -> Result<Vec<Completion>, InstructError> {
        let mut texts = StopTexts::new(&self.loaded.tokenizer, prompts.len(), until);
        let mut on_token = |number, token| {
            let flow = texts.push(number, token);
            if stop() { ControlFlow::Break(()) } else { flow }
        };
        let eos = &self.loaded.eos;
        let generated = self
            .loaded
            .model
            .generate_batch(prompts, max_tokens, eos, &mut on_token)
            .map_err(model)?;
        let tokens = generated.iter().map(|generated| &generated.tokens[..]);
        let texts = texts.finish(tokens).map_err(model)?;
        let all = texts.into_iter().zip(&generated).zip(prompts);
        let completions = all.map(|((text, generated), prompt)| Completion {
            text,
            finish: match generated.stop {
                Stop::Eos(_) | Stop::Caller => Finish::Stop,
                Stop::Length | Stop::Context => Finish::Length,
            },
            prompt_tokens: Some(prompt.tokens.len() as u64),
            completion_tokens: Some(generated.tokens.len() as u64),
        });
        Ok(completions.collect())
    }
}

fn model(error: impl std::fmt::Display) -> InstructError {
    InstructError::Model(error.to_string())
}

impl Completions for Local {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn computes_batches(&self) -> bool {
        true
    }

    fn complete(
        &mut self,
        requests: &[Request<'_>],
        stop: Stopped<'_>,
        done: &mut dyn FnMut(usize, Completion) -> Result<(), InstructError>,
    ) -> Result<(), InstructError> {
        let mut first = 0;
        for group in self.groups(requests) {
            self.complete_group(group, stop, &mut |number, completion| {
                done(first + number, completion)
            })?;
            first += group.len();
        }
        Ok(())
    }
}

impl Local {
    /// Continues requests that are computed together.
    fn complete_group(
        &self,
        requests: &[Request<'_>],
        stop: Stopped<'_>,
        done: &mut dyn FnMut(usize, Completion) -> Result<(), InstructError>,
    ) -> Result<(), InstructError> {
        let limit = self.loaded.model.config().max_position_embeddings;
        let mut left: Vec<(usize, Vec<u32>)> = Vec::new();
        for (number, request) in requests.iter().enumerate() {
            let tokens = self.tokens(request.prompt)?;
            if tokens.len() < limit {
                left.push((number, tokens));
            } else {
                done(
                    number,
                    Completion {
                        prompt_tokens: Some(tokens.len() as u64),
                        completion_tokens: Some(0),
                        ..Completion::too_long()
                    },
                )?;
            }
        }
        // requests of a batch differ in their settings if some instructions are classification tasks
        while let Some((first, _)) = left.first() {
            let settings = requests[*first].sampling;
            let (same, rest): (Vec<_>, Vec<_>) = left
                .into_iter()
                .partition(|(number, _)| requests[*number].sampling == settings);
            left = rest;
            let sampling: Vec<Sampling> = same
                .iter()
                .map(|(number, _)| sampling(&requests[*number]))
                .collect();
            let prompts: Vec<Prompt<'_>> = same
                .iter()
                .zip(&sampling)
                .map(|((_, tokens), sampling)| Prompt { tokens, sampling })
                .collect();
            let completions = self.together(&prompts, settings.max_tokens, &settings.stop, stop)?;
            if stop() {
                // the texts are cut off
                return Err(InstructError::interrupted());
            }
            for ((number, _), completion) in same.iter().zip(completions) {
                done(*number, completion)?;
            }
        }
        Ok(())
    }
}

/// The settings as the model takes them. `top_p` of 0 is the most likely token, as temperature 0.
fn sampling(request: &Request<'_>) -> Sampling {
    let settings = request.sampling;
    let is_greedy = settings.temperature <= 0.0 || settings.top_p <= 0.0;
    Sampling {
        temperature: if is_greedy { 0.0 } else { settings.temperature },
        top_p: if is_greedy {
            1.0
        } else {
            settings.top_p.min(1.0)
        },
        frequency_penalty: settings.frequency_penalty,
        presence_penalty: settings.presence_penalty,
        seed: request.seed,
        ..Sampling::default()
    }
}
