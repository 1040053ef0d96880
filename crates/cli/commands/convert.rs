//! `simmer convert`: converts models between the layouts of Hugging Face, Meta and llama.cpp, and adapters
//! to that of llama.cpp.

mod quantise;

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use simmer_checkpoint::convert::{to_bitsandbytes, to_gguf, to_hugging_face, to_meta};
use simmer_checkpoint::gguf::GgmlType;
use simmer_checkpoint::gguf::model::{self as gguf_model, FileType};
use simmer_checkpoint::hub::What;
use simmer_checkpoint::{Dtype, Pretrained};
use simmer_model::adapter::gguf::to_gguf as adapter_to_gguf;
use simmer_model::adapter::llama_adapter::{to_original, to_peft};
use simmer_model::adapter::peft::AdapterFolder;
use simmer_model::merge::files_beside;
use simmer_train::tokenizer::{self, Tokenizers};

pub(super) use self::quantise::TYPES;
use self::quantise::{Kind, Quantise};
use super::merge::{byte_size, lacks_hugging_face_tokenizer};
use crate::failure::{Context, Failure, bail};
use crate::{hub, output, progress};

/// Convert a model between Hugging Face, Meta and GGUF layouts, or an adapter to GGUF
///
/// IN is a Hugging Face folder, a Meta folder (params.json, consolidated.*.pth), a .gguf file, a name
/// on the Hugging Face Hub, the folder of an adapter, or a checkpoint of the original LLaMA-Adapter. If
/// OUT ends in .gguf, it is a GGUF file, else a folder. An adapter of LLaMA-Adapter with a gate for each
/// head is written as the original's checkpoint if OUT ends in .pth, else in PEFT's form, if that
/// computes the same. Works row by row, so the model may be larger than memory.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  simmer convert runs/merged merged.gguf --dtype q8_0
  simmer convert folder model.gguf --quantize q4_k_m
  simmer convert runs/quickstart/adapter adapter.gguf")]
pub(crate) struct Convert {
    /// Model or adapter to convert
    #[arg(value_name = "IN")]
    input: PathBuf,
    /// Folder or .gguf file to write; must not exist
    #[arg(value_name = "OUT")]
    out: PathBuf,
    /// Layout to write. Default: gguf if OUT ends in .gguf, else hf
    #[arg(long, value_name = "hf|meta|gguf")]
    to: Option<To>,
    /// Dtype of the written weights; q8_0 only in GGUF. Default: as stored; quantised weights become f32,
    /// which represents them exactly
    #[arg(long, value_name = "f32|bf16|f16|q8_0")]
    dtype: Option<Stored>,
    #[command(flatten)]
    quantise: Quantise,
    /// Maximum size of a weights file of a Hugging Face folder, such as 5GB or 500MB
    #[arg(long, value_parser = byte_size, value_name = "SIZE")]
    max_shard_size: Option<u64>,
    /// Number of weights files of a Meta checkpoint: 1, 2, 4 or 8. Default: 1
    #[arg(long, value_name = "N")]
    shards: Option<usize>,
    /// Base model of an adapter. Default: the one that its adapter_config.json names
    #[arg(long, value_name = "MODEL")]
    base: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum To {
    Hf,
    Meta,
    Gguf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Stored {
    F32,
    Bf16,
    F16,
    #[value(name = "q8_0")]
    Q8_0,
}

/// Whether a name is that of a file of weights, which no layout has alone.
fn is_weights_file(path: &Path) -> bool {
    has_ending(path, &["safetensors", "bin", "pth", "pt", "ckpt"])
}

/// The endings of files that PyTorch saves.
const PICKLED: [&str; 2] = ["pth", "pt"];

fn has_ending(path: &Path, endings: &[&str]) -> bool {
    let ending = path.extension().and_then(|ending| ending.to_str());
    ending.is_some_and(|ending| endings.contains(&ending))
}

impl Convert {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let is_gguf = self.out.extension().is_some_and(|ext| ext == "gguf");
        let to = self.to.unwrap_or(if is_gguf { To::Gguf } else { To::Hf });
        let is_adapter = self.input.is_file() && has_ending(&self.input, &PICKLED)
            || self.input.join("adapter_config.json").exists();
        let is_original = is_adapter && has_ending(&self.out, &PICKLED);
        if self.to.is_none() && is_weights_file(&self.out) && !is_original {
            let text = format!(
                "{}: expected a folder or a .gguf file to write",
                self.out.display()
            );
            return Err(Failure::new(text).and_hint(
                "name a folder: the weights are written into it, beside config.json and the tokenizer; --to hf takes any name",
            ));
        }
        self.check_used(to, is_adapter)?;
        if is_adapter {
            self.adapter(to)?;
        } else {
            let input = hub::locate(&self.input, What::Model)?;
            self.model(&input, to)
                .with_context(|| format!("nothing was written to {}", self.out.display()))?;
        }
        output::line(&self.out.display().to_string())
    }

    /// Refuses options that nothing would use.
    fn check_used(&self, to: To, is_adapter: bool) -> Result<(), Failure> {
        let sharded = |layout| !is_adapter && to == layout;
        let unused = [
            (
                "--shards",
                self.shards.is_some() && !sharded(To::Meta),
                "only a Meta checkpoint (--to meta) has a number of weights files",
            ),
            (
                "--max-shard-size",
                self.max_shard_size.is_some() && !sharded(To::Hf),
                "only the weights of a Hugging Face folder are divided by size",
            ),
            (
                "--base",
                self.base.is_some() && !is_adapter,
                "IN is a model, not an adapter",
            ),
            (
                "--double-quant",
                self.quantise.double_quant_is_unused(),
                "only nf4 and fp4 have scales that are quantised",
            ),
        ];
        match unused.into_iter().find(|(_, is_unused, _)| *is_unused) {
            None => Ok(()),
            Some((option, _, why)) => {
                let failure = Failure::new(format!("{option} would not be used: {why}"));
                Err(failure.with_hint(format!("remove {option}")))
            }
        }
    }

    fn model(&self, input: &Path, to: To) -> Result<(), Failure> {
        let kind = self.quantise.kind(to, self.dtype.is_some())?;
        let model = Pretrained::open(input)?;
        let tokenizer = tokenizer::open(input)?;
        tokenizer.check_vocabulary(model.config.vocab_size)?;
        for note in tokenizer.notes() {
            output::note(note);
        }
        let saved = tempfile::tempdir()?;
        let beside = || -> Result<Vec<PathBuf>, Failure> {
            let other = lacks_hugging_face_tokenizer(input);
            if other {
                tokenizer.save(saved.path())?;
            }
            Ok(files_beside(input, other.then_some(saved.path()))?)
        };
        if kind.is_some() {
            quantise::note_again(&model);
        }
        let mut report = None;
        let bar = progress::bytes(0, "converting");
        let mut advance = |done, all| {
            bar.set_length(all);
            bar.set_position(done);
        };
        match to {
            To::Hf if let Some(Kind::BitsAndBytes(how)) = kind => {
                report = Some(to_bitsandbytes(
                    &model,
                    &self.out,
                    how,
                    self.dtype()?,
                    self.max_shard_size,
                    &beside()?,
                    &mut advance,
                )?);
            }
            To::Hf => to_hugging_face(
                &model,
                &self.out,
                self.dtype()?,
                self.max_shard_size,
                &beside()?,
                &mut advance,
            )?,
            To::Meta => to_meta(
                &model,
                &self.out,
                self.dtype()?,
                self.shards.unwrap_or(1),
                &beside()?,
                &mut advance,
            )?,
            To::Gguf => {
                let (vocabulary, notes) = tokenizer::to_gguf(&tokenizer, model.config.vocab_size)?;
                for note in notes {
                    output::note(&note);
                }
                for note in gguf_model::notes(&model.config) {
                    output::note(&note);
                }
                let name = input.file_stem().unwrap_or(input.as_os_str());
                let quantised = match kind {
                    Some(Kind::Gguf(kinds)) => Some(kinds),
                    _ => None,
                };
                report = Some(to_gguf(
                    &model,
                    &self.out,
                    quantised.or(self.kind()),
                    &name.to_string_lossy(),
                    &vocabulary,
                    &mut advance,
                )?);
            }
        }
        bar.finish_and_clear();
        if let Some(report) = &report {
            quantise::note(report);
        }
        if model.checkpoint.rotary_buffers() > 0 {
            output::note("rotary tables were dropped; they follow from the configuration");
        }
        Ok(())
    }

    fn adapter(&self, to: To) -> Result<(), Failure> {
        if self.dtype.is_some_and(|dtype| dtype != Stored::F32) {
            bail!("--dtype: adapters are always written in f32");
        }
        if self.quantise.is_set() {
            bail!("--quantize: adapters are always written in f32");
        }
        let adapter = AdapterFolder::open(&self.input)?;
        let has_prompts = adapter.config().kind.attention.is_some();
        if to == To::Meta || to == To::Hf && !has_prompts {
            bail!("an adapter can be converted to GGUF only; OUT must end in .gguf");
        }
        let named = || -> Result<PathBuf, Failure> {
            let name = adapter.config().base_model_name_or_path.as_ref();
            name.map(PathBuf::from)
                .context("the adapter does not name its base model; use --base MODEL")
        };
        let base = self.base.clone().map_or_else(named, Ok)?;
        let base = hub::locate(&base, What::Model)
            .context("cannot open the base model of the adapter, which is needed for its shape; use --base MODEL")?;
        let config = Pretrained::open(&base)?.config;
        if to == To::Hf {
            for note in adapter.warnings() {
                output::note(note);
            }
            return if has_ending(&self.out, &PICKLED) {
                Ok(to_original(&adapter, &config, &self.out)?)
            } else {
                Ok(to_peft(&adapter, &config, &self.out)?)
            };
        }
        for note in adapter_to_gguf(&adapter, &config, &self.out)? {
            output::note(&note);
        }
        let own = Tokenizers::of_adapter(tokenizer::open(&base), &adapter, config.vocab_size);
        // without any tokenizer there is nothing to say
        if let Some(told) = own.ok().and_then(|own| own.told) {
            output::note(&format!(
                "{}: a GGUF adapter cannot hold them; llama.cpp uses the base model's\n\
                 hint: merge the adapter, and convert the merged model",
                told.replacen("using the adapter's", "it has its own", 1)
            ));
        }
        Ok(())
    }

    fn dtype(&self) -> Result<Option<Dtype>, Failure> {
        Ok(match self.dtype {
            None => None,
            Some(Stored::F32) => Some(Dtype::F32),
            Some(Stored::Bf16) => Some(Dtype::BF16),
            Some(Stored::F16) => Some(Dtype::F16),
            Some(Stored::Q8_0) => {
                bail!("--dtype q8_0 is only possible in GGUF files; OUT is not one")
            }
        })
    }

    fn kind(&self) -> Option<FileType> {
        let kind = self.dtype.map(|dtype| match dtype {
            Stored::F32 => GgmlType::F32,
            Stored::Bf16 => GgmlType::BF16,
            Stored::F16 => GgmlType::F16,
            Stored::Q8_0 => GgmlType::Q8_0,
        });
        kind.map(FileType::from)
    }
}
