//! `simmer data generate`: training data that a model writes.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Args;
use simmer_files::size::counted;
use simmer_files::write_file;
use simmer_instruct::{
    About, Completions, Endpoint, GenerateRecipe, InstructError, Journal, LocalConfig, Method,
    ModelConfig, Outcome, Report, Run, Seeds, Stage, Watch,
};
use simmer_model::device::Devices;
use simmer_train::ranks::{self, Ranks, RanksError};

use crate::commands::train::not_joined;
use crate::failure::{Context, Failure};
use crate::local_model::Local;
use crate::local_ranks::{self, OnRanks};
use crate::usage::one_or_more;
use crate::{embedded, interrupt, output, progress};

/// The table of a local model.
const TABLE: &str = "[model.local]";

/// Generate training data with a model: Self-Instruct, Alpaca's method, or Baize's self-chat
///
/// The recipe names the method, the seeds, the model (local, or a server of OpenAI's API) and the
/// folder to write. Every completion is kept as it arrives: the same command resumes an interrupted
/// run. The folder then has data.json (instruction, input and output) or data.jsonl (conversations),
/// provenance.jsonl, dropped.jsonl, report.json and journal.jsonl.
///
/// Under mpirun, srun or torchrun a local model completes the prompts on all ranks.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  simmer data generate recipes/generate/kitchen.toml
  simmer data generate recipes/generate/alpaca.toml --out generated/alpaca --target 100
  simmer data generate recipes/generate/kitchen.toml --set seed=2 --out generated/second")]
pub(super) struct Generate {
    /// Recipe, a TOML file
    #[arg(value_name = "RECIPE")]
    recipe: PathBuf,
    /// Override a key of the recipe, such as batch=8; repeatable
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Folder to write. Default: `out` of the recipe
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// How many instructions or conversations to keep. Default: `target` of the recipe
    #[arg(long, value_name = "N", value_parser = one_or_more)]
    target: Option<usize>,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

impl Generate {
    pub(super) fn run(self) -> Result<ExitCode, Failure> {
        let runs = Arc::new(AtomicBool::new(false));
        let stop = interrupt::flag("stopping after this batch", Arc::clone(&runs));
        let ranks = match ranks::join(&stop) {
            Err(_) if ranks::is_another() => return Ok(not_joined()),
            ranks => ranks?,
        };
        if ranks.rank() > 0 {
            return self.work(&*ranks);
        }
        let recipe = self.recipe()?;
        let method = embedded::or_copy(Path::new(&recipe.method))?;
        let method = Method::named(&method.to_string_lossy())?;
        let seeds = embedded::or_copy(&recipe.seeds)?;
        let seeds = if method.dialogue.is_some() {
            Seeds::questions(&seeds)?
        } else {
            Seeds::tasks(&seeds)?
        };
        let made = |completions: &mut dyn Completions, journal: &mut Journal| {
            Self::made(&recipe, &method, &seeds, journal, completions, &runs, &stop)
        };
        let open = |completions: &dyn Completions| open(&recipe, &method, &seeds, completions);
        let made = match &recipe.model {
            ModelConfig::Endpoint(config) => {
                if ranks.size() > 1 {
                    return Err(one_asks(ranks.size()));
                }
                let mut endpoint = Endpoint::new(config)?;
                let mut journal = open(&endpoint)?;
                endpoint.spend(journal.completions());
                made(&mut endpoint, &mut journal)
            }
            ModelConfig::Local(config) if ranks.size() > 1 => {
                let local = loaded(config)?;
                let mut local = OnRanks::new(local, &*ranks)?;
                let mut journal = open(&local)?;
                let made = made(&mut local, &mut journal);
                if let Some(error) = local.failed() {
                    return Err(Failure::from(error).with_hint(
                        "what was completed is kept; the same command resumes, on any number of ranks",
                    ));
                }
                if made.is_ok() {
                    local.end()?;
                }
                made
            }
            ModelConfig::Local(config) => {
                let mut local = Local::load(config, TABLE)?;
                let mut journal = open(&local)?;
                made(&mut local, &mut journal)
            }
        };
        match made {
            Err(error @ InstructError::Interrupted { .. }) => {
                Failure::from(error).report();
                Ok(interrupt::exit_code())
            }
            made => {
                let (report, path) = made?;
                // only now: a recipe that would shorten the files is refused, and theirs stays
                keep(&recipe)?;
                if self.json {
                    output::json(&report)?;
                } else {
                    output::text(&report.text())?;
                }
                output::note(&format!("wrote {}", path.display()));
                if report.rows == 0 {
                    return Err(nothing_kept(&path));
                }
                Ok(ExitCode::SUCCESS)
            }
        }
    }

    /// The recipe with the overrides of the command line.
    fn recipe(&self) -> Result<GenerateRecipe, Failure> {
        let mut recipe = GenerateRecipe::from_file(&self.recipe, &self.set)?;
        if let Some(out) = &self.out {
            recipe.out.clone_from(out);
        }
        recipe.target = self.target.unwrap_or(recipe.target);
        Ok(recipe)
    }

    /// Completes what rank 0 asks for. Rank 0 prints all messages, also the error of a rank that has no model.
    fn work(&self, ranks: &dyn Ranks) -> Result<ExitCode, Failure> {
        output::silence();
        let _stop = interrupt::flag("", Arc::new(AtomicBool::new(true)));
        let recipe = self.recipe();
        let local = recipe.and_then(|recipe| match &recipe.model {
            ModelConfig::Endpoint(_) => Err(one_asks(ranks.size())),
            ModelConfig::Local(config) => loaded(config),
        });
        let mut local = match local {
            Ok(local) => local,
            Err(failure) => {
                ranks::refuse(ranks, failure.to_string());
                return Ok(ExitCode::FAILURE);
            }
        };
        match local_ranks::follow(&mut local, ranks) {
            Err(RanksError::Reported) => Ok(ExitCode::FAILURE),
            Err(error) => Err(Failure::from(error).of_rank(ranks.rank())),
            Ok(()) => Ok(ExitCode::SUCCESS),
        }
    }

    fn made(
        recipe: &GenerateRecipe,
        method: &Method,
        seeds: &Seeds,
        journal: &mut Journal,
        completions: &mut dyn Completions,
        runs: &AtomicBool,
        stop: &AtomicBool,
    ) -> Result<(Report, PathBuf), InstructError> {
        let before = journal.len();
        if before > 0 {
            output::note(&format!(
                "resuming with {} completions of {}",
                before,
                journal.path().display()
            ));
        }
        let bar = progress::steps(recipe.target as u64);
        let mut advance = |stage, done: usize, total: usize| {
            bar.set_length(total as u64);
            bar.set_position(done as u64);
            bar.set_message(name(stage));
        };
        runs.store(true, Ordering::SeqCst);
        let model = completions.name();
        let run = Run {
            recipe,
            method,
            seeds,
            journal: &mut *journal,
            completions,
            watch: Watch {
                progress: &mut advance,
                stop: &|| stop.load(Ordering::SeqCst),
            },
        };
        let outcome: Result<Outcome, InstructError> = run.run();
        runs.store(false, Ordering::SeqCst);
        bar.finish_and_clear();
        let outcome = outcome?;
        let report = Report::new(recipe, &model, &outcome, journal.completions());
        let path = simmer_instruct::write(&recipe.out, &outcome, recipe.chat_format, &report)?;
        Ok((report, path))
    }
}

fn nothing_kept(path: &Path) -> Failure {
    let text = format!("{} has no row: nothing was kept", path.display());
    Failure::new(text).with_hint(
        "the report above says what was dropped and why; a higher `target` continues from what was completed",
    )
}

/// The model of one of several ranks.
fn loaded(config: &LocalConfig) -> Result<Local, Failure> {
    let mut config = config.clone();
    config.device = ranks::devices(&config.device.parse::<Devices>()?)?.to_string();
    Local::load(&config, TABLE)
}

/// The error of several ranks for one server.
fn one_asks(ranks: usize) -> Failure {
    let ranks = counted(ranks, "rank");
    Failure::new(format!(
        "[model.endpoint]: {ranks} were started, and one process asks a server"
    ))
    .with_hint("start it without mpirun or torchrun; `concurrency` of the table says how many requests are sent at a time")
}

/// The journal of a run. A new one has a copy of its recipe beside it.
fn open(
    recipe: &GenerateRecipe,
    method: &Method,
    seeds: &Seeds,
    completions: &dyn Completions,
) -> Result<Journal, Failure> {
    let about = About::new(recipe, method, seeds, &completions.name());
    let journal = Journal::open(&recipe.out.join("journal.jsonl"), &about)?;
    if journal.is_empty() {
        keep(recipe)?;
    }
    Ok(journal)
}

/// Writes the recipe into the folder of its run.
fn keep(recipe: &GenerateRecipe) -> Result<(), Failure> {
    let text = toml::to_string(recipe).map_err(Failure::foreign)?;
    let path = recipe.out.join("recipe.toml");
    write_file(&path, |file| file.write_all(text.as_bytes()))
        .with_context(|| format!("cannot write {}", path.display()))
}

fn name(stage: Stage) -> &'static str {
    match stage {
        Stage::Instructions => "instructions",
        Stage::Classification => "classification",
        Stage::Instances => "instances",
        Stage::Dialogue => "conversations",
    }
}
