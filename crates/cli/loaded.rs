//! A base model with its tokenizer and an optional adapter, ready for use.

use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::module::Module;
use burn::tensor::Device;
use clap::Args;
use simmer_checkpoint::hub::What;
use simmer_data::{Template, Tokenizer};
use simmer_files::digest::sha256;
use simmer_kernels::{Capabilities, Memory};
use simmer_model::adapter::peft::AdapterFolder;
use simmer_model::adapter::{PromptTemplate, TrainedWith};
use simmer_model::base::{Base, BaseConfig, BasePrecision, Compute, QuantisedOnLoad};
use simmer_model::device::Devices;
use simmer_model::{Generated, KvCache, LlamaForCausalLM, Sampling, adapter, device};
use simmer_train::tokenizer::{self, Tokenizers};

use crate::failure::{Context, Failure};
use crate::{hub, output, progress};

/// Which model a command uses.
#[derive(Debug, Args)]
pub(crate) struct ModelArgs {
    /// Base model: a folder, a .gguf file, or a name on the Hugging Face Hub
    #[arg(long, value_name = "MODEL")]
    pub(crate) base: PathBuf,
    /// Adapter in PEFT's layout: a folder, or a name on the Hugging Face Hub
    #[arg(long, value_name = "ADAPTER")]
    pub(crate) adapter: Option<PathBuf>,
    #[command(flatten)]
    computing: ComputeArgs,
}

/// How a model is held in memory, and what it computes with.
#[derive(Debug, Args)]
pub(crate) struct ComputeArgs {
    /// How the weights are held in memory. Default: as stored
    #[arg(long, value_parser = precision, value_name = "f32|bf16|f16|nf4|fp4|int8")]
    precision: Option<BasePrecision>,
    /// Dtype of the activations and of the matrix multiplications: f32, or bf16, which is less exact, and faster where
    /// the device multiplies in it. Default: bf16 for weights in bf16 on a GPU, else f32
    #[arg(long, value_parser = compute, value_name = "f32|bf16")]
    compute: Option<Compute>,
    /// Device to compute on: auto, cpu, libtorch, libtorch-cuda:N; several GPUs, with commas between them, share the layers
    #[arg(long, default_value = "auto", value_name = "DEVICE")]
    pub(crate) device: String,
}

impl ComputeArgs {
    /// The devices that share the layers of the model, or the only one.
    pub(crate) fn devices(&self) -> Result<Devices, Failure> {
        Ok(self.device.parse()?)
    }

    /// The base at `path`, held and computed so.
    pub(crate) fn base(&self, path: &Path) -> BaseConfig {
        let mut base = BaseConfig::from_path(path);
        base.precision = self.precision;
        base.compute = self.compute;
        base
    }
}

fn compute(text: &str) -> Result<Compute, String> {
    match serde_json::from_value(text.into()) {
        Ok(found @ (Compute::F32 | Compute::Bf16)) => Ok(found),
        // "fp8" is for training: its second copy of the weights would serve nothing
        Ok(Compute::Fp8) | Err(_) => Err(format!("expected f32 or bf16, found {text}")),
    }
}

pub(crate) fn precision(text: &str) -> Result<BasePrecision, String> {
    serde_json::from_value(text.into())
        .map_err(|_| format!("expected f32, bf16, f16, nf4, fp4 or int8, found {text}"))
}

/// A loaded model.
pub(crate) struct Loaded {
    pub(crate) model: LlamaForCausalLM,
    pub(crate) tokenizer: Arc<Tokenizer>,
    /// Tokens that end an answer, from the tokenizer and the configuration.
    pub(crate) eos: Vec<u32>,
    /// Distinguishes these weights from others: a hash of the names, sizes and times of their files.
    pub(crate) identity: String,
    /// What the adapter was trained with, if its folder says so.
    trained_with: TrainedWith,
}

impl ModelArgs {
    /// Loads the base, its tokenizer and the adapter.
    pub(crate) fn load(&self) -> Result<Loaded, Failure> {
        let base = self.computing.base(&self.base);
        Loaded::open(&base, self.adapter.as_deref(), &self.computing.devices()?)
    }
}

/// Reads the files of a base model into memory, with a progress bar. Weights that are quantised while they are loaded are
/// read then, one after another, so that there is never more than a part of one in memory.
pub(crate) fn read_ahead(base: &Base) {
    if base.quantises() {
        output::note("quantising the weights of the linear modules while they are loaded");
    } else if let Some(checkpoint) = base.checkpoint() {
        let bar = progress::bytes(checkpoint.file_bytes(), "reading");
        checkpoint.read_ahead(|bytes| bar.inc(bytes));
        bar.finish_and_clear();
    }
}

/// A hash of the names, sizes and times of a model's files, its precision, what it computes in, and its device. The GPUs of
/// several ranks are taken to be alike.
fn identity(
    paths: &[Option<&Path>],
    base: &BaseConfig,
    compute: Compute,
    device: &Device,
) -> String {
    let is_gpu = matches!(Capabilities::of(device).memory, Memory::Nvidia(_));
    let first = is_gpu.then(|| device::named("libtorch-cuda:0").ok());
    let first = first.flatten();
    let device = first.as_ref().unwrap_or(device);
    let mut text = format!("{:?} {:?} {device:?}", base.precision, compute);
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
                let _ = writeln!(text, "{:?} {} {time:?}", file.file_name(), about.len());
            }
        }
        text.push('\n');
    }
    sha256(text.as_bytes())
}

/// The tokenizer of a base model at `base`, with what the adapter has of its own.
fn tokenizers(
    base: &Path,
    adapter: Option<&AdapterFolder>,
    rows: usize,
) -> Result<Tokenizers, Failure> {
    let base = tokenizer::open(base);
    Ok(match adapter {
        None => Tokenizers::of_base(base?),
        Some(adapter) => Tokenizers::of_adapter(base, adapter, rows)?,
    })
}

/// An adapter on this machine.
struct Adapter {
    path: PathBuf,
    folder: AdapterFolder,
}

impl Adapter {
    fn open(path: &Path) -> Result<Self, Failure> {
        let path = hub::locate(path, What::Adapter)?;
        let folder = AdapterFolder::open(&path).with_context(|| cannot_use(&path))?;
        Ok(Self { path, folder })
    }

    /// How its base model was quantised while it was loaded for training.
    fn quantised_in_training(&self) -> Option<QuantisedOnLoad> {
        self.folder.trained_with()?.base.as_ref()?.on_load()
    }
}

fn cannot_use(adapter: &Path) -> String {
    format!("cannot use the adapter in {}", adapter.display())
}

/// How the base model was quantised while it was loaded for the training of all these adapters.
fn same_in_training<'a>(
    adapters: impl Iterator<Item = &'a Adapter>,
) -> Result<Option<QuantisedOnLoad>, Failure> {
    let all: Vec<&Adapter> = adapters.collect();
    let Some(first) = all.first() else {
        return Ok(None);
    };
    let expected = first.quantised_in_training();
    let Some(other) = all
        .iter()
        .find(|other| other.quantised_in_training() != expected)
    else {
        return Ok(expected);
    };
    let precision = |adapter: &Adapter| match adapter.quantised_in_training() {
        Some(quantised) => quantised.to_string(),
        None => "as it is stored".to_owned(),
    };
    let text = format!(
        "the adapters were trained on the base model in different precisions: {} {}, {} {}",
        first.path.display(),
        precision(first),
        other.path.display(),
        precision(other)
    );
    Err(Failure::new(text).with_hint("choose a precision for all of them with --precision"))
}

/// Says what comes from the adapter.
pub(crate) fn tell(tokenizers: &Tokenizers) {
    for warning in &tokenizers.warnings {
        output::note(&format!("warning: {warning}"));
    }
    if let Some(told) = &tokenizers.told {
        output::note(told);
    }
}

/// The names of more templates, as the end of a sentence.
fn also(more: &[PromptTemplate]) -> String {
    if more.is_empty() {
        return String::new();
    }
    let names: Vec<String> = more
        .iter()
        .map(|template| format!("`{}`", template.name))
        .collect();
    format!(" (also with {})", names.join(", "))
}

impl Loaded {
    /// Loads a base model, its tokenizer and an adapter.
    pub(crate) fn open(
        base: &BaseConfig,
        adapter: Option<&Path>,
        devices: &Devices,
    ) -> Result<Self, Failure> {
        let mut all = Self::open_each(base, &[adapter], devices)?;
        Ok(all.remove(0))
    }

    /// Loads a base model once, and each of these adapters on it; `None` is the base model alone. They share its weights.
    pub(crate) fn open_each(
        base: &BaseConfig,
        adapters: &[Option<&Path>],
        devices: &Devices,
    ) -> Result<Vec<Self>, Failure> {
        let devices = devices.open()?;
        let mut base = base.clone();
        hub::locate_base(&mut base)?;
        let located = adapters.iter().map(|adapter| match adapter {
            None => Ok(None),
            Some(path) => Adapter::open(path).map(Some),
        });
        let located: Vec<Option<Adapter>> = located.collect::<Result<_, _>>()?;
        let mut found = base.open()?;
        let is_as_stored = found
            .checkpoint()
            .is_some_and(|stored| stored.most_quantised().is_none());
        if base.precision.is_none()
            && is_as_stored
            && let Some(trained_on) = same_in_training(located.iter().flatten())?
        {
            output::note(&format!(
                "the adapter was trained on this model in {trained_on}; with --precision {} its weights are used as they are",
                found.precision().name()
            ));
            base.precision = Some(trained_on.precision);
            base.double_quant = trained_on.double_quant;
            found.set_quantised(trained_on);
        }
        let placement = found.placed(devices)?;
        if let Some(shares) = placement.text() {
            output::note(&shares);
        }
        let can = Capabilities::of(placement.first());
        if base.compute.is_none() && can.memory.is_main() {
            // in bf16 scores would be less exact; f32 takes twice the time on a processor, and ten times as much on a GPU
            found.set_compute(Some(Compute::F32));
        }
        let compute = found.choose_compute(&can);
        read_ahead(&found);
        let bar = progress::spinner("loading");
        let model = found.load_at(0, &placement)?;
        let loaded = located.iter().map(|adapter| {
            let files = [
                base.found_path(),
                adapter.as_ref().map(|adapter| &*adapter.path),
            ];
            let identity = identity(&files, &base, compute, placement.first());
            let folder = adapter.as_ref().map(|adapter| &adapter.folder);
            Self::with_adapter(model.clone(), base.tokenizer_path()?, folder, identity)
        });
        let loaded = loaded.collect();
        bar.finish_and_clear();
        loaded
    }

    /// A base model with an adapter.
    fn with_adapter(
        mut model: LlamaForCausalLM,
        tokenizer: &Path,
        adapter: Option<&AdapterFolder>,
        identity: String,
    ) -> Result<Self, Failure> {
        if let Some(folder) = adapter {
            let attached =
                adapter::load_folder(model, folder).with_context(|| cannot_use(folder.folder()))?;
            for warning in &attached.warnings {
                output::note(&format!("warning: {warning}"));
            }
            if let Some(resized) = &attached.resized {
                output::note(resized);
            }
            model = attached.model;
        }
        let tokenizers = tokenizers(tokenizer, adapter, model.config().vocab_size)?;
        tell(&tokenizers);
        let eos = tokenizers.ends(&model.config().eos_token_id);
        let tokenizer = tokenizers.tokenizer;
        tokenizer.check_vocabulary(model.config().vocab_size)?;
        for note in tokenizer.notes() {
            output::note(note);
        }
        let trained_with = adapter.and_then(AdapterFolder::trained_with);
        Ok(Self {
            model: model.valid(),
            tokenizer: Arc::new(tokenizer),
            eos,
            identity,
            trained_with: trained_with.cloned().unwrap_or_default(),
        })
    }

    /// The prompt template of this name; without one, that of the training of the adapter, with a note. Warns of a template
    /// that the adapter was not trained with.
    pub(crate) fn prompt_template(&self, name: Option<&str>) -> Result<Option<Template>, Failure> {
        let kept = &self.trained_with.templates;
        let Some(name) = name else {
            let Some(first) = kept.first() else {
                return Ok(None);
            };
            output::note(&format!(
                "prompt template `{}`, with which the adapter was trained{}",
                first.name,
                also(&kept[1..])
            ));
            return Ok(Some(Template::kept(
                &first.name,
                &first.text,
                &self.tokenizer,
            )?));
        };
        let template = self.template(name)?;
        let known = kept.iter().any(|kept| kept.text == template.source());
        if let Some(first) = kept.first().filter(|_| !known) {
            output::note(&format!(
                "warning: the adapter was trained with the prompt template `{}`{}, and gets prompts of `{name}`",
                first.name,
                also(&kept[1..])
            ));
        }
        Ok(Some(template))
    }

    /// Bytes of the longest token, as the vocabulary spells it.
    pub(crate) fn longest_token(&self) -> usize {
        let tokens = 0..=self.tokenizer.max_token_id();
        let lengths = tokens.filter_map(|id| self.tokenizer.token(id));
        lengths.map(|token| token.len()).max().unwrap_or(0)
    }

    /// The template of that name, for this model's tokenizer.
    pub(crate) fn template(&self, name: &str) -> Result<Template, Failure> {
        Ok(Template::named(name, &self.tokenizer)?)
    }

    /// Generates an answer and passes its text to `show` piece by piece.
    pub(crate) fn answer(
        &self,
        prompt: &[u32],
        cache: &mut KvCache,
        max_new_tokens: usize,
        sampling: &Sampling,
        show: &mut dyn FnMut(&str) -> Result<(), Failure>,
    ) -> Result<Generated, Failure> {
        let mut text = self.tokenizer.decode_stream(true);
        let mut failure = None;
        let mut on_token = |token| {
            let shown = text
                .push(token)
                .map_err(Failure::from)
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
