//! `simmer convert`: a model between the layouts of Hugging Face, Meta and llama.cpp.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use simmer_model::checkpoint::convert::{Precision, to_gguf, to_hugging_face};
use simmer_model::checkpoint::{Dtype, Layout, Pretrained};

use super::merge::byte_size;
use crate::{output, progress};

/// Convert a model between Hugging Face, Meta and GGUF layouts
///
/// IN is a Hugging Face folder, a Meta folder (params.json, consolidated.*.pth) or a .gguf file. OUT
/// is a .gguf file if it is called so, else a folder. Weights keep their precision without --dtype;
/// quantised ones become f32, which holds them exactly. Row by row, so that a model larger than the
/// memory can be converted.
#[derive(Debug, Args)]
pub(crate) struct Convert {
    /// The model
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
        let model = Pretrained::open(&self.input)?;
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
                &|_| Ok(()),
                &mut advance,
            ),
            To::Gguf => todo!(),
            To::Meta => todo!(),
        }
        .with_context(|| format!("nothing was written to {}", self.out.display()))?;
        bar.finish_and_clear();
        output::line(&self.out.display().to_string())
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
}
