//! `simmer launch`: starts a run on several ranks, or writes the job file of a cluster.

mod amount;
mod job;
mod kubernetes;
mod local;
mod mpirun;
mod skypilot;
mod slurm;
mod yaml;

use std::env;
use std::path::{Path, PathBuf};
use std::process::{self, ExitCode};

use clap::{ArgGroup, Args};
use simmer_files::write_file;
use simmer_train::{Recipe, ranks};

use self::amount::{Gpus, Memory, Time};
use self::job::{Job, Place};
use crate::failure::{Context, Failure, bail};
use crate::{hub, new_file, output, progress, usage};

/// The variable that names the file to which rank 0 writes its process.
const PROCESS_FILE: &str = "SIMMER_RANK_0_PROCESS";
/// The variable with the words of the command before those of `simmer train`.
const COMMAND: &str = "SIMMER_LAUNCH_COMMAND";

/// The seconds of `--grace` if it is not given.
const GRACE: u32 = 120;

/// Start a run on several ranks, or write the job file of a cluster
///
/// `--local N` starts N ranks of `simmer train` on this machine, with the mpirun that the variable MPIRUN names, or that is in
/// PATH. Ctrl-C and SIGTERM reach rank 0 alone, which has `--grace` seconds to write a checkpoint; a second Ctrl-C stops at once.
///
/// `--slurm`, `--skypilot` and `--kubernetes` write a job file, and submit nothing. A job that is started again resumes.
///
/// Arguments after RECIPE that are not listed here, and all after them, are those of `simmer train`.
#[derive(Debug, Args)]
#[command(
    group = ArgGroup::new("place").args(["local", "slurm", "skypilot", "kubernetes"]).required(true),
    after_help = "\
Examples:
  simmer launch --local 4 my.toml --resume
  simmer launch --slurm --ranks 8 --nodes 2 --cores 16 --memory 64G --time 24h my.toml
  simmer launch --kubernetes --ranks 4 --image me/simmer-mpi --storage my-claim my.toml --out runs/first"
)]
pub(crate) struct Launch {
    /// Start N ranks on this machine
    #[arg(long, value_name = "N")]
    local: Option<usize>,
    /// Write a batch script for Slurm's sbatch
    #[arg(long)]
    slurm: bool,
    /// Write a task for SkyPilot, on spot instances
    #[arg(long)]
    skypilot: bool,
    /// Write a Job for Kubernetes; for several nodes an MPIJob of Kubeflow
    #[arg(long)]
    kubernetes: bool,
    /// Ranks of the job, on all nodes
    #[arg(long, value_name = "N")]
    ranks: Option<usize>,
    /// Nodes of the job. Default: 1
    #[arg(long, value_name = "N")]
    nodes: Option<usize>,
    /// Processor cores of each rank
    #[arg(long, value_name = "N")]
    cores: Option<usize>,
    /// GPUs of each node, one for each rank: 4, or with their type H100:4
    #[arg(long, value_name = "[TYPE:]N")]
    gpus: Option<Gpus>,
    /// Memory of each node, such as 64G
    #[arg(long, value_name = "SIZE")]
    memory: Option<Memory>,
    /// Time limit of the job, such as 90m, 24h, 2d or 1-12:00:00
    #[arg(long, value_name = "TIME")]
    time: Option<Time>,
    /// Partition of Slurm
    #[arg(long, value_name = "NAME")]
    partition: Option<String>,
    /// Container image with simmer, built with MPI, and its mpirun
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,
    /// Where the run is kept: a bucket for SkyPilot, such as s3://my-bucket; a PersistentVolumeClaim for Kubernetes
    #[arg(long, value_name = "NAME")]
    storage: Option<String>,
    /// Job file to write. Default: the name of the recipe with .sbatch, .sky.yaml or .k8s.yaml, in the current folder
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Seconds in which a run that shall end can write a checkpoint
    #[arg(long, value_name = "SECONDS", default_value_t = GRACE)]
    grace: u32,
    /// Recipe, a TOML file
    #[arg(value_name = "RECIPE")]
    recipe: PathBuf,
    /// Arguments of `simmer train`
    #[arg(
        value_name = "TRAIN_ARGUMENT",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    train: Vec<String>,
}

impl Launch {
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        let Some(recipe) = self.recipe.to_str() else {
            bail!("{}: the name is not UTF-8", self.recipe.display());
        };
        let own = usage::options("launch");
        let is_own = |word: &&String| {
            let option = word.split('=').next().unwrap_or_default();
            own.iter().any(|own| own == option)
        };
        if let Some(word) = self.train.iter().find(is_own) {
            let text = format!(
                "{word} is an option of `simmer launch`, and stands after those of `simmer train`"
            );
            return Err(Failure::new(text).with_hint("move it before the recipe"));
        }
        let words = [&[recipe.to_owned()], &self.train[..]].concat();
        let train = usage::train(&words);
        // a mistake in the recipe is reported here, and not by a job hours later
        let checked = train.recipe()?;
        let place = self.place();
        refuse_others(place)?;
        let ranks = match place {
            Place::Local(ranks) => ranks,
            _ => self.ranks.unwrap_or(1),
        };
        ranks::check_recipe(&checked, ranks)?;
        if let Place::Local(ranks) = place {
            let gpus = self.gpus.as_ref();
            local::check(ranks, gpus)?;
            if ranks > 1 && !train.resumes() {
                check(checked, ranks)?;
            }
            return local::start(ranks, gpus, self.grace, &words);
        }
        let job = self.job(words, &train)?;
        self.write(place, &job)?;
        Ok(ExitCode::SUCCESS)
    }

    fn place(&self) -> Place {
        match self.local {
            Some(ranks) => Place::Local(ranks),
            None if self.slurm => Place::Slurm,
            None if self.skypilot => Place::SkyPilot,
            None => Place::Kubernetes,
        }
    }

    fn job(&self, words: Vec<String>, train: &super::Train) -> Result<Job, Failure> {
        let Some(ranks) = self.ranks else {
            return Err(
                Failure::new("--ranks is missing: how many processes compute")
                    .with_hint("a step needs at least as many micro-batches as there are ranks"),
            );
        };
        let text = simmer_files::read_text(&self.recipe, 1 << 20)
            .map_err(Failure::foreign)
            .with_context(|| format!("{}: cannot read", self.recipe.display()))?;
        Job {
            name: job::name(&self.recipe),
            text,
            words,
            folder: train.folder().display().to_string(),
            resumes: train.resumes(),
            names_folder: train.names_folder(),
            ranks,
            nodes: self.nodes.unwrap_or(1),
            cores: self.cores,
            gpus: self.gpus.clone(),
            memory: self.memory,
            time: self.time,
            partition: self.partition.clone(),
            image: self.image.clone(),
            storage: self.storage.clone(),
            grace: self.grace,
        }
        .checked()
    }

    /// Writes the job file, and says how it is submitted.
    fn write(&self, place: Place, job: &Job) -> Result<(), Failure> {
        let stem = self.recipe.file_stem().unwrap_or(self.recipe.as_os_str());
        let usual = format!("{}{}", stem.display(), place.ending());
        let out = self.output.clone().unwrap_or_else(|| usual.clone().into());
        let path = out.display().to_string();
        let text = match place {
            Place::SkyPilot => skypilot::task(job, &path)?,
            Place::Kubernetes => kubernetes::manifests(job, &path)?,
            Place::Local(_) | Place::Slurm => slurm::script(job, &path)?,
        };
        new_file::write(
            &out,
            &text,
            &usual,
            "remove it, or name another file with --output",
        )?;
        output::line(&path)?;
        let submit = place.submit(job, &path);
        output::note(&format!("read it, then submit it: {submit}"));
        Ok(())
    }
}

/// Refuses options that the place has no use for.
fn refuse_others(place: Place) -> Result<(), Failure> {
    for option in usage::given("launch") {
        if !place.takes(&option) {
            let text = format!("{option} is no option of {}", place.option());
            return Err(Failure::new(text).with_hint(place.instead(&option)));
        }
    }
    Ok(())
}

/// Checks that each rank has something to do in the first step, before the ranks are started and load the model.
fn check(mut recipe: Recipe, ranks: usize) -> Result<(), Failure> {
    hub::locate_recipe(&mut recipe)?;
    let spinner = progress::spinner("reading");
    let checked = ranks::check(&recipe, ranks);
    spinner.finish_and_clear();
    Ok(checked?)
}

/// The words before those of `simmer train` of the command that has started this process as rank 0 of so many.
pub(super) fn started_by(ranks: usize) -> String {
    if let Ok(words) = env::var(COMMAND) {
        return words;
    }
    let before = ranks::launched_by(ranks).map(|words| words + " ");
    format!("{}simmer train", before.unwrap_or_default())
}

/// Tells `simmer launch`, if it has started this process as rank 0, which process it is.
pub(super) fn tell_process() -> Result<(), Failure> {
    let Some(file) = env::var_os(PROCESS_FILE) else {
        return Ok(());
    };
    let text = process::id().to_string();
    Ok(write_file(Path::new(&file), |file| {
        file.write_all(text.as_bytes())
    })?)
}
