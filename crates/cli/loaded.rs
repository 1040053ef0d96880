//! A base with its tokenizer and perhaps an adapter, ready to be used.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use burn::module::Module;
use clap::Args;
use simmer_data::{Template, Tokenizer};
use simmer_model::base::{BaseConfig, Precision};
use simmer_model::{Generated, KvCache, LlamaForCausalLM, Sampling, adapter, device};

use crate::{output, progress};

/// Which model a command uses.
#[derive(Debug, Args)]
pub(crate) struct ModelArgs {
    /// Folder of the base model (Hugging Face layout)
    #[arg(long, value_name = "FOLDER")]
    pub(crate) base: PathBuf,
    /// Folder of an adapter (PEFT layout)
    #[arg(long, value_name = "FOLDER")]
    pub(crate) adapter: Option<PathBuf>,
    /// Keep the weights in this precision instead of the stored one
    #[arg(long, value_parser = precision, value_name = "f32|bf16|f16")]
    precision: Option<Precision>,
    /// Where to compute
    #[arg(long, default_value = "auto", value_name = "auto|cpu")]
    device: String,
}

pub(crate) fn precision(text: &str) -> Result<Precision, String> {
    serde_json::from_value(text.into())
        .map_err(|_| format!("expected f32, bf16 or f16, found {text}"))
}

/// A model that a command can use.
pub(crate) struct Loaded {
    pub(crate) model: LlamaForCausalLM,
    pub(crate) tokenizer: Tokenizer,
    /// Tokens that end an answer, as tokenizer and configuration know them.
    pub(crate) eos: Vec<u32>,
}

impl ModelArgs {
    /// Loads the base, its tokenizer and the adapter.
    pub(crate) fn load(&self) -> anyhow::Result<Loaded> {
        let base = BaseConfig {
            precision: self.precision,
            ..BaseConfig::from_path(&self.base)
        };
        Loaded::open(&base, self.adapter.as_deref(), &self.device)
    }
}

/// A token that the model has no embedding for would be a panic deep inside.
fn check_vocabulary(tokenizer: &Tokenizer, vocab_size: usize) -> anyhow::Result<()> {
    let max = tokenizer.max_token_id();
    if max as usize >= vocab_size {
        bail!(
            "{}: the tokenizer has token ids up to {max}, the model's embedding has {vocab_size} \
             rows: they do not belong together",
            tokenizer.path().display()
        );
    }
    Ok(())
}

impl Loaded {
    /// Loads a base, its tokenizer and an adapter for it.
    pub(crate) fn open(
        base: &BaseConfig,
        adapter: Option<&Path>,
        device: &str,
    ) -> anyhow::Result<Self> {
        let device = device::named(device)?;
        let bar = progress::spinner("loading");
        let found = base.open()?;
        let tokenizer = Tokenizer::from_folder(base.tokenizer_path()?)?;
        let mut model = found.load(0, &device)?;
        if let Some(folder) = adapter {
            let attached = adapter::load(model, folder)
                .with_context(|| format!("cannot use the adapter in {}", folder.display()))?;
            for warning in &attached.warnings {
                output::note(&format!("warning: {warning}"));
            }
            model = attached.model;
        }
        bar.finish_and_clear();
        check_vocabulary(&tokenizer, model.config().vocab_size)?;
        let mut eos = tokenizer.eos_ids().to_vec();
        for id in &model.config().eos_token_id {
            if !eos.contains(id) {
                eos.push(*id);
            }
        }
        Ok(Self {
            model: model.valid(),
            tokenizer,
            eos,
        })
    }

    /// The template of that name, with this model's tokenizer.
    pub(crate) fn template(&self, name: &str) -> anyhow::Result<Template> {
        Ok(Template::named(name, &self.tokenizer)?)
    }

    /// Generates an answer; `show` gets its text piece by piece.
    pub(crate) fn answer(
        &self,
        prompt: &[u32],
        cache: &mut KvCache,
        max_new_tokens: usize,
        sampling: &Sampling,
        show: &mut dyn FnMut(&str) -> anyhow::Result<()>,
    ) -> anyhow::Result<Generated> {
        let mut text = self.tokenizer.decode_stream(true);
        let mut failure = None;
        let mut on_token = |token| {
            let shown = text
                .push(token)
                .map_err(anyhow::Error::from)
                .and_then(|piece| show(&piece));
            match shown {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => {
                    failure = Some(error);
                    ControlFlow::Break(())
                }
            }
        };
        let answer = self.model.generate(
            prompt,
            cache,
            max_new_tokens,
            &self.eos,
            sampling,
            &mut on_token,
        )?;
        if let Some(error) = failure {
            return Err(error);
        }
        show(&text.finish()?)?;
        Ok(answer)
    }
}
