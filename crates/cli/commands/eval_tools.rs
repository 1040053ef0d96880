//! What `simmer eval` scores answers with, beside their text: a sandbox for programs, and a scorer.

use std::path::PathBuf;

use clap::Args;
use simmer_eval::report::TaskReport;
use simmer_eval::{Answer, Measure, Question, Scorer, Task, Tools};
use simmer_files::size::readable;
use simmer_sandbox::{Limits, Python, Sandbox};

use crate::failure::{Failure, bail};
use crate::{output, progress};

/// The tools that a user allows or names.
#[derive(Debug, Args)]
pub(crate) struct ToolArgs {
    /// Run the programs that models write (humaneval, mbpp), in a sandbox without network and without your
    /// files. Linux only
    #[arg(long)]
    pub(crate) run_code: bool,
    /// Python that runs these programs: a path, or a name in PATH
    #[arg(
        long,
        value_name = "PYTHON",
        default_value = "python3",
        requires = "run_code"
    )]
    python: PathBuf,
    /// Seconds that each of these programs may take
    #[arg(long, value_name = "S", default_value_t = 3.0, value_parser = seconds, requires = "run_code")]
    code_seconds: f64,
    /// The K of pass@K, at most --samples. Default: 1,10,100
    #[arg(long, value_name = "K,...", value_delimiter = ',')]
    pass_at: Vec<usize>,
    /// Command that scores how toxic texts are: reads {"text": ...} a line, writes a number from 0 to 1 a line
    #[arg(long, value_name = "COMMAND")]
    scorer: Option<String>,
}

/// The bound on a program's memory, in words.
fn memory(sandbox: &Sandbox) -> String {
    let limits = sandbox.limits();
    if sandbox.counts_all_memory() {
        return format!("{} in all its processes", readable(limits.total_memory));
    }
    format!(
        "{} in each of {} processes (this kernel does not list the children of a process, so their sum has no other bound)",
        readable(limits.memory),
        limits.processes
    )
}

fn seconds(text: &str) -> Result<f64, String> {
    let number = text.parse().ok();
    let number = number.filter(|seconds| (0.1..=3600.0).contains(seconds));
    number.ok_or_else(|| format!("expected seconds from 0.1 to 3600, found {text}"))
}

/// The tools, ready for use.
pub(crate) struct Ready {
    sandbox: Option<Sandbox>,
    scorer: Option<Scorer>,
}

impl ToolArgs {
    /// Why a task cannot be scored with these tools.
    pub(crate) fn lacks(&self, task: &Task) -> Option<&'static str> {
        if task.runs_code() && !self.run_code {
            return Some("its answers are programs; --run-code runs them in a sandbox");
        }
        if task.needs_scorer() && self.scorer.is_none() {
            return Some("a program of yours scores its answers: --scorer COMMAND");
        }
        None
    }

    /// The first of these options that none of the tasks uses, and why.
    pub(crate) fn unused<'a>(
        &self,
        tasks: impl Iterator<Item = &'a Task>,
    ) -> Option<(&'static str, &'static str)> {
        let tasks: Vec<&Task> = tasks.collect();
        let runs = tasks.iter().any(|task| task.runs_code());
        let scored = tasks.iter().any(|task| task.needs_scorer());
        let of_programs = "the answers of none of the tasks are programs";
        let unused = [
            ("--run-code", self.run_code && !runs, of_programs),
            ("--pass-at", !self.pass_at.is_empty() && !runs, of_programs),
            (
                "--scorer",
                self.scorer.is_some() && !scored,
                "none of the tasks has answers that a program of yours scores",
            ),
        ];
        let first = unused.into_iter().find(|(_, is_unused, _)| *is_unused);
        first.map(|(option, _, why)| (option, why))
    }

    /// The task with the K of --pass-at.
    pub(crate) fn settled(&self, task: Task) -> Result<Task, Failure> {
        if self.pass_at.is_empty() || !task.runs_code() {
            return Ok(task);
        }
        let samples = task
            .generation
            .as_ref()
            .map_or(1, |generation| generation.samples);
        if let Some(k) = self.pass_at.iter().find(|k| !(1..=samples).contains(*k)) {
            bail!("--pass-at {k}: expected a number from 1 to --samples, which is {samples}");
        }
        Ok(task.with_pass_at(&self.pass_at))
    }

    /// Starts what the tasks need, before any model is loaded.
    pub(crate) fn ready<'a>(
        &self,
        mut tasks: impl Iterator<Item = &'a Task>,
    ) -> Result<Ready, Failure> {
        let scorer = self.scorer.clone().map(|command| Scorer { command });
        let mut sandbox = None;
        if self.run_code && tasks.any(Task::runs_code) {
            let limits = Limits {
                seconds: self.code_seconds,
                ..Limits::default()
            };
            let python = Python::find(&self.python)?;
            sandbox = Some(Sandbox::new(None, python, limits)?);
        }
        Ok(Ready { sandbox, scorer })
    }
}

impl Ready {
    /// Prepares a measure for these answers: runs programs, asks the scorer.
    pub(crate) fn prepare(
        &self,
        measure: &mut Measure<'_>,
        task: &Task,
        answers: &[(&Question, &Answer)],
    ) -> Result<(), Failure> {
        let tools = Tools {
            sandbox: self.sandbox.as_ref(),
            scorer: self.scorer.as_ref(),
        };
        let bar = progress::steps(0);
        bar.set_message(format!("running the programs of {}", task.name));
        let step = |done: usize, all: usize| {
            bar.set_length(all as u64);
            bar.set_position(done as u64);
        };
        let prepared = measure.prepare(answers, tools, &step);
        bar.finish_and_clear();
        Ok(prepared?)
    }

    /// Adds what ran the programs of a task, and how they ended for each model.
    pub(crate) fn tell(
        &self,
        report: &mut TaskReport,
        measure: &Measure<'_>,
        models: &[String],
        answers: &[Vec<(&Question, &Answer)>],
    ) -> Result<(), Failure> {
        let Some(sandbox) = &self.sandbox else {
            return Ok(());
        };
        let python = sandbox.python();
        for (number, (model, answers)) in models.iter().zip(answers).enumerate() {
            let ended = measure.ended(answers)?;
            if ended.is_empty() {
                return Ok(());
            }
            if number == 0 {
                let limits = sandbox.limits();
                report.python = Some(python.version.clone());
                report.notes.push(format!(
                    "programs ran in {} ({}), each for at most {} s, with at most {}",
                    python.version,
                    python.executable.display(),
                    limits.seconds,
                    memory(sandbox)
                ));
            }
            let counts: Vec<String> = ended
                .iter()
                .map(|(how, count)| format!("{count} {how}"))
                .collect();
            report
                .notes
                .push(format!("programs of {model}: {}", counts.join(", ")));
        }
        Ok(())
    }
}

/// Says that a task of a suite is left out.
pub(crate) fn left_out(suite: &str, task: &str, why: &str) {
    output::note(&format!("{suite}: skipped {task}: {why}"));
}
