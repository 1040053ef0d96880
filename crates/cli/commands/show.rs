//! `simmer show`: what a recipe or a model is.

use std::path::{Path, PathBuf};

use clap::Args;
use simmer_model::checkpoint::Pretrained;
use simmer_model::layout::parameter_count;
use simmer_train::Recipe;

use crate::output;

/// Show a recipe with every default spelled out, or a model's shape
#[derive(Debug, Args)]
pub(crate) struct Show {
    /// A recipe, or the folder of a model
    #[arg(value_name = "RECIPE|FOLDER")]
    what: PathBuf,
    /// Change a key of the recipe: train.learning_rate=1e-4
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

impl Show {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        if self.what.is_dir() {
            return show_model(&self.what);
        }
        output::print(&Recipe::from_file(&self.what, &self.set)?.resolved())
    }
}

fn show_model(folder: &Path) -> anyhow::Result<()> {
    let Pretrained { config, checkpoint } = Pretrained::open(folder)?;
    let mut dtypes: Vec<String> = checkpoint
        .tensors()
        .map(|(_, info)| info.dtype.to_string())
        .collect();
    dtypes.sort();
    dtypes.dedup();
    let tied = if config.tie_word_embeddings {
        "tied to the embedding"
    } else {
        "its own"
    };
    output::line(&format!(
        "{}\n\
         parameters       {}\n\
         bytes            {} in {} file(s), {}\n\
         layers           {} of {} features\n\
         attention        {} query heads, {} key heads of {}\n\
         feed-forward     {} features\n\
         vocabulary       {}, output head {tied}\n\
         context          {} tokens, rope_theta {}, scaling {:?}",
        folder.display(),
        parameter_count(&config),
        checkpoint.total_bytes(),
        checkpoint.files(),
        dtypes.join(", "),
        config.num_hidden_layers,
        config.hidden_size,
        config.num_attention_heads,
        config.num_key_value_heads,
        config.head_dim,
        config.intermediate_size,
        config.vocab_size,
        config.max_position_embeddings,
        config.rope_theta,
        config.rope_scaling,
    ))
}
