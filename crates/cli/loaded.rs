//! A base with its tokenizer and perhaps an adapter, ready to be used.

use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use anyhow::Context;
use burn::module::Module;
use burn::tensor::Device;
use clap::Args;
use sha2::{Digest, Sha256};
use simmer_checkpoint::hub::What;
use simmer_data::{Template, Tokenizer};
use simmer_model::base::{Base, BaseConfig, Precision};
use simmer_model::{Generated, KvCache, LlamaForCausalLM, Sampling, adapter, device};

use simmer_train::tokenizer;

use crate::{hub, output, progress};

/// Which model a command uses.
#[derive(Debug, Args)]
pub(crate) struct ModelArgs {
    /// The base model: a folder, a .gguf file, or a name on the hub
    #[arg(long, value_name = "MODEL")]
    pub(crate) base: PathBuf,
    /// An adapter (PEFT layout): a folder, or a name on the hub
    #[arg(long, value_name = "ADAPTER")]
    pub(crate) adapter: Option<PathBuf>,
    /// Keep the weights in this precision instead of the stored one
    #[arg(long, value_parser = precision, value_name = "f32|bf16|f16")]
    precision: Option<Precision>,
    /// Where to compute: cpu, libtorch, libtorch-cuda:N
    #[arg(long, default_value = "auto", value_name = "DEVICE")]
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
    /// What tells these weights from others: a hash of the names, sizes and times of their files.
    pub(crate) identity: String,
}

impl ModelArgs {
    /// Loads the base, its tokenizer and the adapter.
    pub(crate) fn load(&self) -> anyhow::Result<Loaded> {
        let mut base = BaseConfig::from_path(&self.base);
        base.precision = self.precision;
        Loaded::open(&base, self.adapter.as_deref(), &self.device)
    }
}

/// Reads the files of a base into memory, with a bar.
pub(crate) fn read_ahead(base: &Base) {
    if let Some(checkpoint) = base.checkpoint() {
        let bar = progress::bytes(checkpoint.file_bytes(), "reading");
        checkpoint.read_ahead(|bytes| bar.inc(bytes));
        bar.finish_and_clear();
    }
}

/// Tokens that end an answer: the tokenizer's, and those of the configuration that can be meant. Early
/// conversions have numbers there that are other tokens.
fn ends(tokenizer: &Tokenizer, config: &[u32]) -> Vec<u32> {
    let mut ends = tokenizer.eos_ids().to_vec();
    let special = tokenizer.special_tokens();
    for &id in config {
        let known = tokenizer
            .token(id)
            .is_some_and(|text| special.contains(&text));
        if known && tokenizer.bos_id() != Some(id) && !ends.contains(&id) {
            ends.push(id);
        }
    }
    ends
}

/// A hash of the names, sizes and times of a model's files, and of how it computes with them.
fn identity(paths: &[Option<&Path>], base: &BaseConfig, device: &Device) -> String {
    let mut hash = Sha256::new();
    hash.update(format!(
        "{:?} {:?} {device:?}",
        base.precision, base.compute
    ));
    for path in paths.iter().copied().flatten() {
        let mut files = vec![path.to_owned()];
        if let Ok(entries) = path.read_dir() {
            files = entries.flatten().map(|entry| entry.path()).collect();
            files.sort();
        }
        for file in files {
            let Ok(about) = file.metadata() else { continue };
            if about.is_file() {
                let time = about.modified().ok();
                hash.update(format!("{:?} {} {time:?}\n", file.file_name(), about.len()));
            }
        }
        hash.update("\n");
    }
    let digest = hash.finalize();
    digest.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

impl Loaded {
    /// Loads a base, its tokenizer and an adapter for it.
    pub(crate) fn open(
        base: &BaseConfig,
        adapter: Option<&Path>,
        device: &str,
    ) -> anyhow::Result<Self> {
        let device = device::named(device)?;
        let mut base = base.clone();
        hub::locate_base(&mut base)?;
        let adapter = adapter.map(|path| hub::locate(path, What::Adapter));
        let adapter = adapter.transpose()?;
        let found = base.open()?;
        read_ahead(&found);
        let identity = identity(&[base.found_path(), adapter.as_deref()], &base, &device);
        let bar = progress::spinner("loading");
        let mut tokenizer = base.tokenizer_path().map(Path::to_owned);
        let mut model = found.load(0, &device)?;
        if let Some(folder) = &adapter {
            let cannot = || format!("cannot use the adapter in {}", folder.display());
            let attached = adapter::load(model, folder).with_context(cannot)?;
            for warning in &attached.warnings {
                output::note(&format!("warning: {warning}"));
            }
            if let Some(resized) = &attached.resized {
                output::note(resized);
            }
            if let Some(path) = attached.tokenizer {
                tokenizer = Ok(path);
            }
            model = attached.model;
        }
        let tokenizer = tokenizer::open(&tokenizer?)?;
        bar.finish_and_clear();
        tokenizer.check_vocabulary(model.config().vocab_size)?;
        for note in tokenizer.notes() {
            output::note(note);
        }
        let eos = ends(&tokenizer, &model.config().eos_token_id);
        Ok(Self {
            model: model.valid(),
            tokenizer,
            eos,
            identity,
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
