//! `simmer estimate`: the memory and time that a run will take.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::Args;
use simmer_checkpoint::sizes;
use simmer_data::Steps;
use simmer_model::base::BasePrecision;
use simmer_train::estimate::{Known, Rate, estimate, parse_bytes};
use simmer_train::{Observer, Recipe, open_base, recipe_vocabulary};

use crate::commands::train::sets;
use crate::failure::{Context, Failure, bail};
use crate::output::{self, note};
use crate::{hub, progress};

/// Estimate the memory and time of a run
///
/// Reads the recipe's data and the shape of its base model, but no weights. Exit code 1 if the run does
/// not fit in memory.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  simmer estimate my.toml
  simmer estimate my.toml --size llama-13b --memory 24GiB --rate 60
  simmer estimate my.toml --ranks 1,2,8 --bandwidth 25")]
pub(crate) struct Estimate {
    /// Recipe, a TOML file
    #[arg(value_name = "RECIPE")]
    recipe: PathBuf,
    /// Override a key of the recipe, such as train.micro_batch_tokens=2048; repeatable
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Device to compute on: auto, cpu, libtorch, libtorch-cuda:N; several GPUs, with commas between them, share the layers.
    /// Default: the recipe's `device`
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,
    /// Published size to estimate instead of the recipe's base model, such as llama-7b (the
    /// names of `simmer show`). Weights are in bf16 unless the recipe has base.precision; the tokenizer is still the
    /// recipe's (--set base.tokenizer=FOLDER)
    #[arg(long, value_name = "NAME")]
    size: Option<String>,
    /// Memory of the device, or of each of several, such as 24GiB. Default: that of the chosen device
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    memory: Option<u64>,
    /// Speed of matrix multiplications, for the time of a step. Default: measured
    #[arg(long, value_name = "TFLOP/S")]
    rate: Option<f64>,
    /// Numbers of ranks (see `docs/guide/several-ranks.md`) to simulate a step on, such as 1,2,8
    #[arg(long, value_name = "N,...", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=65536))]
    ranks: Vec<u32>,
    /// Bandwidth of the network between ranks
    #[arg(
        long,
        value_name = "GBIT/S",
        default_value_t = 10.0,
        requires = "ranks"
    )]
    bandwidth: f64,
    /// Latency of the network between ranks
    #[arg(
        long,
        value_name = "MICROSECONDS",
        default_value_t = 50.0,
        requires = "ranks"
    )]
    latency: f64,
    /// Print the estimate as JSON, in bytes and seconds
    #[arg(long)]
    json: bool,
}

/// Prints notices.
struct Notes;

impl Observer for Notes {
    fn on_notice(&mut self, text: &str) {
        note(text);
    }
}

impl Estimate {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let mut recipe =
            Recipe::from_file(&self.recipe, &sets(&self.set, self.device.as_deref())?)?;
        if let Some(size) = &self.size {
            let names = || sizes::names().collect::<Vec<_>>().join(", ");
            let shape = sizes::named(size);
            let shape = shape
                .with_context(|| format!("--size {size}: unknown size; sizes: {}", names()))?;
            if recipe.base.tokenizer.is_none() {
                recipe.base.tokenizer = recipe.base.path.take();
            }
            (recipe.base.path, recipe.base.init) = (None, Some(shape));
            recipe.base.precision.get_or_insert(BasePrecision::Bf16);
        }
        hub::locate_recipe(&mut recipe)?;
        let device = recipe.device.capabilities()?;
        let mut base = open_base(&mut recipe, &device)?;
        let tokenizer = recipe_vocabulary(&mut recipe, &mut base, &mut Notes)?;
        let spinner = progress::spinner("reading");
        let steps = Steps {
            batch_size: recipe.train.batch_size,
            seed: recipe.train.seed,
        };
        let data = simmer_lint::load(&recipe.data, &tokenizer, steps);
        spinner.finish_and_clear();
        let rate = match self.rate {
            Some(teraflops) if (1e-6..=1e9).contains(&teraflops) => Rate::Given(teraflops * 1e12),
            Some(found) => bail!("--rate {found}: expected a number from 1e-6 to 1e9, in TFLOP/s"),
            None => Rate::Measured,
        };
        let memory = self.memory;
        let known = Known { memory, rate };
        let (mut data, _) = data?;
        let mut found = estimate(&recipe, &base, &tokenizer, &mut data, known)?;
        if !self.ranks.is_empty() {
            let ranks: BTreeSet<usize> = self.ranks.iter().map(|ranks| *ranks as usize).collect();
            let ranks: Vec<usize> = ranks.into_iter().collect();
            found.on_ranks(&recipe, &mut data, &ranks, self.network()?)?;
        }
        if self.json {
            output::json(&found)?;
        } else {
            output::text(&found.to_string())?;
        }
        if !found.fits() {
            if let Some(setting) = found.fitting() {
                bail!("the run does not fit in memory; it would with {setting}");
            }
            let text = "the run does not fit in memory with any train.micro_batch_tokens and train.recompute";
            return Err(Failure::new(text).and_hint(&found.otherwise(&recipe)));
        }
        Ok(())
    }

    /// Bandwidth in bytes per second, and latency in seconds.
    fn network(&self) -> Result<[f64; 2], Failure> {
        let (bandwidth, latency) = (self.bandwidth, self.latency);
        if !(1e-3..=1e6).contains(&bandwidth) {
            bail!("--bandwidth {bandwidth}: expected a number from 0.001 to 1e6, in Gbit/s");
        }
        if !(0.0..=1e7).contains(&latency) {
            bail!("--latency {latency}: expected a number from 0 to 1e7, in microseconds");
        }
        Ok([bandwidth * 1e9 / 8.0, latency * 1e-6])
    }
}
