//! `simmer estimate`: what a run will take.

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use simmer_data::Steps;
use simmer_model::base::Precision;
use simmer_model::checkpoint::sizes;
use simmer_train::estimate::{Known, Rate, estimate, parse_bytes};
use simmer_train::{Observer, Recipe, recipe_tokenizer};

use crate::commands::train::sets;
use crate::output::{self, note};
use crate::{hub, progress};

/// Say how much memory and time a run will take
///
/// Reads the recipe's data and the shape of its base, and none of the weights. Exit code 1 where the
/// run does not fit into the memory.
#[derive(Debug, Args)]
pub(crate) struct Estimate {
    /// The recipe
    #[arg(value_name = "RECIPE")]
    recipe: PathBuf,
    /// Change a key: train.micro_batch_tokens=2048
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Where to compute, instead of the recipe's `device`: auto, cpu, libtorch, libtorch-cuda:N
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,
    /// A size instead of the recipe's base: llama-7b, as `simmer show` knows them; its weights in bf16
    /// unless the recipe has base.precision. The tokenizer stays the recipe's: --set
    /// base.tokenizer=FOLDER
    #[arg(long, value_name = "NAME")]
    size: Option<String>,
    /// Memory of another device than the one at hand: 24GiB
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    memory: Option<u64>,
    /// TFLOP/s of its matrix products, for the time of a step
    #[arg(long, value_name = "TFLOP/S")]
    rate: Option<f64>,
    /// Print it as JSON, in bytes and seconds
    #[arg(long)]
    json: bool,
}

/// Says what a person should know.
struct Notes;

impl Observer for Notes {
    fn on_notice(&mut self, text: &str) {
        note(text);
    }
}

impl Estimate {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let mut recipe = Recipe::from_file(&self.recipe, &sets(&self.set, self.device.as_deref()))?;
        if let Some(size) = &self.size {
            let names = || sizes::names().collect::<Vec<_>>().join(", ");
            let shape = sizes::named(size);
            let shape = shape.with_context(|| format!("--size {size}: sizes are {}", names()))?;
            if recipe.base.tokenizer.is_none() {
                recipe.base.tokenizer = recipe.base.path.take();
            }
            (recipe.base.path, recipe.base.init) = (None, Some(shape));
            recipe.base.precision.get_or_insert(Precision::Bf16);
        }
        hub::locate_base(&mut recipe.base)?;
        hub::locate_data(&mut recipe.data)?;
        let base = recipe.base.open()?;
        let tokenizer = recipe_tokenizer(&recipe, &mut Notes)?;
        let spinner = progress::spinner("reading");
        let steps = Steps {
            batch_size: recipe.train.batch_size,
            seed: recipe.train.seed,
        };
        let data = simmer_lint::load(&recipe.data, &tokenizer, steps);
        spinner.finish_and_clear();
        let rate = match self.rate {
            Some(teraflops) if teraflops > 0.0 => Rate::Given(teraflops * 1e12),
            Some(found) => bail!("--rate {found}: expected a number above 0"),
            None => Rate::Measured,
        };
        let memory = self.memory;
        let known = Known { memory, rate };
        let (mut data, _) = data?;
        let found = estimate(&recipe, &base, &tokenizer, &mut data, known)?;
        if self.json {
            output::json(&found)?;
        } else {
            output::line(&found.to_string())?;
        }
        if !found.fits() {
            match found.fitting() {
                Some(setting) => bail!("the run does not fit; it would with {setting}"),
                None => bail!(
                    "the run does not fit, whatever train.micro_batch_tokens and train.recompute say"
                ),
            }
        }
        Ok(())
    }
}
