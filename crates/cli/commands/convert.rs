//! `simmer convert`: models between the layouts of Hugging Face, Meta and llama.cpp, and adapters to
//! the last.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use simmer_checkpoint::convert::{to_gguf, to_hugging_face, to_meta};
use simmer_checkpoint::gguf::GgmlType;
use simmer_checkpoint::hub::What;
use simmer_checkpoint::{Dtype, Pretrained};
use simmer_model::adapter::gguf::to_gguf as adapter_to_gguf;
use simmer_model::merge::files_beside;
use simmer_train::tokenizer;

use super::merge::{byte_size, lacks_hugging_face_tokenizer};
use crate::{hub, output, progress};

/// Convert a model between Hugging Face, Meta and GGUF layouts, or an adapter to GGUF
///
/// IN is a Hugging Face folder, a Meta folder (params.json, consolidated.*.pth), a .gguf file, a name
/// on the hub, or the folder of an adapter. OUT is a .gguf file if it is called so, else a folder.
/// Weights keep their precision without --dtype; quantised ones become f32, which holds them exactly.
/// Row by row, so that a model larger than the memory can be converted.
#[derive(Debug, Args)]
pub(crate) struct Convert {
    /// The model, or an adapter
    #[arg(value_name = "IN")]
    input: PathBuf,
    /// The folder or .gguf file to write; must not exist
    #[arg(value_name = "OUT")]
    out: PathBuf,
    /// The layout to write; told from OUT without it
    #[arg(long, value_name = "hf|meta|gguf")]
    to: Option<To>,
    /// Store the weights in this precision (q8_0 in GGUF alone)
    #[arg(long, value_name = "f32|bf16|f16|q8_0")]
    dtype: Option<Stored>,
    /// Most bytes of a weights file of a Hugging Face folder (5GB, 500MB)
    #[arg(long, value_parser = byte_size, value_name = "SIZE")]
    max_shard_size: Option<u64>,
    /// Files of a Meta checkpoint: 1, 2, 4 or 8
    #[arg(long, default_value_t = 1, value_name = "N")]
    shards: usize,
    /// The base of an adapter; the one that its adapter_config.json names without it
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

impl Convert {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let is_gguf = self.out.extension().is_some_and(|ext| ext == "gguf");
        let to = self.to.unwrap_or(if is_gguf { To::Gguf } else { To::Hf });
        if self.input.join("adapter_config.json").exists() {
            self.adapter(to)?;
        } else {
            let input = hub::locate(&self.input, What::Model)?;
            self.model(&input, to)
                .with_context(|| format!("nothing was written to {}", self.out.display()))?;
        }
        output::line(&self.out.display().to_string())
    }

    fn model(&self, input: &Path, to: To) -> anyhow::Result<()> {
        let model = Pretrained::open(input)?;
        let tokenizer = tokenizer::open(input)?;
        tokenizer.check_vocabulary(model.config.vocab_size)?;
        for note in tokenizer.notes() {
            output::note(note);
        }
        let saved = tempfile::tempdir()?;
        let beside = || -> anyhow::Result<Vec<PathBuf>> {
            let other = lacks_hugging_face_tokenizer(input);
            if other {
                tokenizer.save(saved.path())?;
            }
            Ok(files_beside(input, other.then_some(saved.path()))?)
        };
        let bar = progress::bytes(0, "converting");
        let mut advance = |done, all| {
            bar.set_length(all);
            bar.set_position(done);
        };
        match to {
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
                self.shards,
                &beside()?,
                &mut advance,
            )?,
            To::Gguf => {
                let (vocabulary, notes) = tokenizer::to_gguf(&tokenizer, model.config.vocab_size)?;
                for note in notes {
                    output::note(&note);
                }
                let name = input.file_stem().unwrap_or(input.as_os_str());
                to_gguf(
                    &model,
                    &self.out,
                    self.kind(),
                    &name.to_string_lossy(),
                    &vocabulary,
                    &mut advance,
                )?;
            }
        }
        bar.finish_and_clear();
        if model.checkpoint.rotary_buffers() > 0 {
            output::note("rotary tables, which follow from the configuration, were left out");
        }
        Ok(())
    }

    fn adapter(&self, to: To) -> anyhow::Result<()> {
        if to != To::Gguf {
            bail!("an adapter is converted to GGUF alone: OUT has to end in .gguf");
        }
        if self.dtype.is_some_and(|dtype| dtype != Stored::F32) {
            bail!("an adapter is written in f32");
        }
        let named = || -> anyhow::Result<PathBuf> {
            let config = self.input.join("adapter_config.json");
            let (config, _) = simmer_model::adapter::AdapterConfig::read(&config)?;
            let name = config.base_model_name_or_path.map(PathBuf::from);
            name.context("which base? the adapter does not say; give --base MODEL")
        };
        let base = self.base.clone().map_or_else(named, Ok)?;
        let base = hub::locate(&base, What::Model)
            .context("the base of the adapter gives its shape; give --base MODEL")?;
        let config = Pretrained::open(&base)?.config;
        for note in adapter_to_gguf(&self.input, &config, &self.out)? {
            output::note(&note);
        }
        Ok(())
    }

    fn dtype(&self) -> anyhow::Result<Option<Dtype>> {
        Ok(match self.dtype {
            None => None,
            Some(Stored::F32) => Some(Dtype::F32),
            Some(Stored::Bf16) => Some(Dtype::BF16),
            Some(Stored::F16) => Some(Dtype::F16),
            Some(Stored::Q8_0) => bail!("q8_0 is a precision of GGUF files; OUT is none"),
        })
    }

    fn kind(&self) -> Option<GgmlType> {
        self.dtype.map(|dtype| match dtype {
            Stored::F32 => GgmlType::F32,
            Stored::Bf16 => GgmlType::BF16,
            Stored::F16 => GgmlType::F16,
            Stored::Q8_0 => GgmlType::Q8_0,
        })
    }
}
