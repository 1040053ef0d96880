//! `simmer data generate`: training data that a model writes.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Args;
use simmer_files::write_file;
use simmer_instruct::{
    About, Completions, Endpoint, GenerateRecipe, InstructError, Journal, Method, ModelConfig,
    Outcome, Report, Run, Seeds, Stage, Watch,
};

use crate::failure::{Context, Failure};
use crate::local_model::Local;
use crate::{embedded, interrupt, output, progress};

/// Generate training data with a model: Self-Instruct, Alpaca's method, or Baize's self-chat
///
/// The recipe names the method, the seeds, the model (local, or a server of OpenAI's API) and the
/// folder to write. Every completion is kept as it arrives: the same command resumes an interrupted
/// run. The folder then has data.json (instruction, input and output) or data.jsonl (conversations),
/// provenance.jsonl, dropped.jsonl, report.json and journal.jsonl.
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
    #[arg(long, value_name = "N")]
    target: Option<usize>,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

impl Generate {
    pub(super) fn run(self) -> Result<ExitCode, Failure> {
        let mut recipe = GenerateRecipe::from_file(&self.recipe, &self.set)?;
        if let Some(out) = &self.out {
            recipe.out.clone_from(out);
        }
        recipe.target = self.target.unwrap_or(recipe.target).max(1);
        let method = embedded::or_copy(Path::new(&recipe.method))?;
        let method = Method::named(&method.to_string_lossy())?;
        let seeds = embedded::or_copy(&recipe.seeds)?;
        let seeds = if method.dialogue.is_some() {
            Seeds::questions(&seeds)?
        } else {
            Seeds::tasks(&seeds)?
        };
        let runs = Arc::new(AtomicBool::new(false));
        let stop = interrupt::flag("stopping after this batch", Arc::clone(&runs));
        let made = match &recipe.model {
            ModelConfig::Endpoint(config) => {
                let mut endpoint = Endpoint::new(config)?;
                let mut journal = open(&recipe, &method, &seeds, &endpoint)?;
                endpoint.spend(journal.completions());
                Self::made(
                    &recipe,
                    &method,
                    &seeds,
                    &mut journal,
                    &mut endpoint,
                    &runs,
                    &stop,
                )
            }
            ModelConfig::Local(config) => {
                let mut local = Local::load(config, "[model.local]")?;
                let mut journal = open(&recipe, &method, &seeds, &local)?;
                Self::made(
                    &recipe,
                    &method,
                    &seeds,
                    &mut journal,
                    &mut local,
                    &runs,
                    &stop,
                )
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
                Ok(ExitCode::SUCCESS)
            }
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
