//! `simmer eval`: evaluates models on tasks.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use clap::Args;
use serde::Serialize;
use simmer_checkpoint::hub::What;
use simmer_data::Template;
use simmer_eval::report::{self, Report, Results, TaskReport};
use simmer_eval::{
    Answer, Answers, Asking, EvalError, Evaluator, Measure, Protocol, Question, Suite, Task,
};
use simmer_files::size::{counted, duration};
use simmer_model::LlamaForCausalLM;
use simmer_model::adapter::PromptTemplate;
use simmer_model::adapter::peft::AdapterFolder;
use simmer_train::ranks::{self, Ranks, RanksError};

use crate::commands::eval_contamination::TrainedOn;
use crate::commands::eval_ranks::Shared;
use crate::commands::eval_tools::{Ready, ToolArgs, left_out};
use crate::commands::fields::Names;
use crate::commands::row_hints::hinted;
use crate::failure::{Context, Failure, bail};
use crate::loaded::{ComputeArgs, Loaded};
use crate::usage::one_or_more;
use crate::{hub, interrupt, output, page_file, progress};

/// Evaluate a base model and its adapters on tasks
///
/// All models answer the same questions, and adapters are compared with the base model. Each answer is
/// saved at once, so the same command resumes where it was interrupted.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
#[command(after_help = "\
Examples:
  simmer eval --list
  simmer eval --base data/tiny-base --file data/kitchen/heldout.json --template alpaca
  simmer eval --base HuggingFaceTB/SmolLM2-135M-Instruct --tasks piqa,arc_easy --limit 100")]
pub(crate) struct Eval {
    /// Base model: a folder, a .gguf file, or a name on the Hugging Face Hub
    #[arg(long, value_name = "MODEL", required_unless_present = "list")]
    base: Option<PathBuf>,
    /// Adapter to compare with the base model; repeatable
    #[arg(long, value_name = "ADAPTER")]
    adapter: Vec<PathBuf>,
    #[command(flatten)]
    computing: ComputeArgs,
    /// Tasks: names, or files that end in .toml
    #[arg(long, value_delimiter = ',', value_name = "TASK,...")]
    tasks: Vec<String>,
    /// All tasks of a suite whose files are in the data folder: llama-paper
    #[arg(long, value_name = "NAME", value_parser = suite)]
    suite: Option<&'static Suite>,
    /// List the tasks and exit
    #[arg(long)]
    list: bool,
    /// Folder with the files of the tasks, or a data set on the Hugging Face Hub (hf://datasets/NAME)
    #[arg(long, value_name = "FOLDER", default_value = "eval-data")]
    data: PathBuf,
    /// Evaluate on the rows of this instruction file, as the task `held-out`
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// The rows' own names for the keys of a format, for --file: instruction=question,output=answer. Default: the usual names
    #[arg(long, value_name = "KEY=NAME,...", value_parser = Names::parse, requires = "file")]
    fields: Option<Names>,
    /// Prompt template for --file. Default: the one that the adapters were trained with, else `chat`
    #[arg(long, value_name = "NAME", requires = "file")]
    template: Option<String>,
    /// Maximum number of tokens to generate for a row of --file; 0: only score the reference answers
    #[arg(long, value_name = "N", default_value_t = 128, requires = "file")]
    max_new_tokens: usize,
    /// Use only the first N rows of each task
    #[arg(long, value_name = "N", value_parser = one_or_more, default_value_t = usize::MAX, hide_default_value = true)]
    limit: usize,
    /// Number of few-shot examples. Default: set by the task
    #[arg(long, value_name = "K")]
    shots: Option<usize>,
    /// Sample K answers per question of a generation task and also score the most frequent one (maj@K)
    #[arg(long, value_name = "K", value_parser = one_or_more)]
    samples: Option<usize>,
    /// Sampling temperature of --samples
    #[arg(long, value_name = "T", default_value_t = 0.7, value_parser = temperature, requires = "samples")]
    temperature: f64,
    #[command(flatten)]
    tools: ToolArgs,
    /// Apply the chat template of the model to the prompts of generation tasks
    #[arg(long)]
    chat: bool,
    /// Prompts and metrics: harness (as lm-evaluation-harness) or paper (as the LLaMA paper). Default: that of the
    /// suite, else harness
    #[arg(long, value_parser = protocol, value_name = "NAME")]
    protocol: Option<Protocol>,
    /// Folder for the answers
    #[arg(long, value_name = "FOLDER", default_value = "runs/eval")]
    out: PathBuf,
    /// Delete saved answers and start again
    #[arg(long)]
    overwrite: bool,
    /// Print the scores as JSON
    #[arg(long)]
    json: bool,
    /// Also write the scores as Markdown
    #[arg(long, value_name = "FILE.md")]
    markdown: Option<PathBuf>,
    /// Also write the scores and the answers, side by side, as an HTML page
    #[arg(long, value_name = "FILE.html")]
    html: Option<PathBuf>,
}

fn suite(text: &str) -> Result<&'static Suite, String> {
    let names: Vec<&str> = Suite::names().collect();
    Suite::named(text).ok_or_else(|| format!("expected {}, found {text}", names.join(" or ")))
}

fn temperature(text: &str) -> Result<f64, String> {
    let number = text.parse().ok();
    let number = number.filter(|number: &f64| number.is_finite() && *number >= 0.0);
    number.ok_or_else(|| format!("expected a number, 0 or more, found {text}"))
}

fn protocol(text: &str) -> Result<Protocol, String> {
    serde_json::from_value(text.into())
        .map_err(|_| format!("expected harness or paper, found {text}"))
}

/// Ctrl-C: checked between rows while questions are answered; ends the program at once while models load.
struct Interrupt {
    stop: Arc<AtomicBool>,
    answering: Arc<AtomicBool>,
}

/// A task and its questions.
struct Asked {
    task: Task,
    questions: Vec<Question>,
}

#[derive(Serialize)]
struct Listed<'a> {
    task: &'a str,
    about: &'a str,
    files: &'a [String],
}

impl Eval {
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        if self.list {
            self.print_list()?;
            return Ok(ExitCode::SUCCESS);
        }
        let Some(path) = &self.base else {
            bail!("--base MODEL is required; --list lists the tasks");
        };
        self.check_files()?;
        let base = self.computing.base(path);
        let answering = Arc::new(AtomicBool::new(false));
        let stop = interrupt::flag(
            "stopping after these rows; press Ctrl-C again to stop at once",
            Arc::clone(&answering),
        );
        let ranks = ranks::join(&stop)?;
        let stop = if ranks.rank() == 0 {
            stop
        } else {
            // rank 0 prints the messages of all, and ends the evaluation at a signal
            output::silence();
            interrupt::flag("", Arc::new(AtomicBool::new(true)));
            Arc::default()
        };
        let devices = self.computing.devices()?;
        let devices = if ranks.size() > 1 {
            ranks::devices(&devices)?
        } else {
            devices
        };
        let interrupt = Interrupt { stop, answering };
        let asked = self.asked()?;
        let ready = self.tools.ready(asked.iter().map(|asked| &asked.task))?;
        let mut models = vec![(path.display().to_string(), None)];
        models.extend(self.adapter.iter().map(|adapter| {
            let name = adapter.display().to_string();
            (name, Some(adapter.as_path()))
        }));
        let mut kept = Vec::new();
        let mut size = None;
        for (name, adapter) in &models {
            let loaded = Loaded::open(&base, *adapter, &devices)?;
            size = size.or_else(|| published_size(&loaded.model));
            if ranks.rank() > 0 {
                match self.follow(&loaded, name, &asked, &*ranks) {
                    Err(failure) if is_reported(&failure) => return Ok(ExitCode::FAILURE),
                    followed => followed?,
                }
                continue;
            }
            match self.ask(&loaded, name, &asked, &interrupt, &*ranks)? {
                Some(answers) => kept.push(answers),
                None => return Ok(interrupt::exit_code()),
            }
        }
        let is_first = ranks.rank() == 0;
        ranks.end();
        if !is_first {
            return Ok(ExitCode::SUCCESS);
        }
        let names = models.into_iter().map(|(name, _)| name).collect();
        let report = self.report(names, size, &asked, &kept, &ready)?;
        self.show(&report)?;
        Ok(ExitCode::SUCCESS)
    }

    fn print_list(&self) -> Result<(), Failure> {
        let tasks = Task::names().map(Task::named);
        let tasks: Vec<Task> = tasks.collect::<Result<_, _>>()?;
        let width = tasks.iter().map(|task| task.name.len()).max().unwrap_or(0);
        for task in &tasks {
            if self.json {
                output::json(&Listed {
                    task: &task.name,
                    about: &task.about,
                    files: &task.files,
                })?;
            } else {
                output::text(&format!("{:width$}  {}", task.name, task.about))?;
            }
        }
        Ok(())
    }

    /// The tasks and their questions. Reads them all, so that errors appear before a model is loaded.
    fn asked(&self) -> Result<Vec<Asked>, Failure> {
        let mut tasks: Vec<(Task, &Path)> = Vec::new();
        let data = hub::locate_folder(&self.data)?;
        for name in &self.tasks {
            let task = self.settled(Task::named(name)?)?;
            if task.runs_code() && !self.tools.run_code {
                return Err(EvalError::NotRun { name: task.name }.into());
            }
            if self.tools.lacks(&task).is_some() {
                return Err(EvalError::NoScorer { name: task.name }.into());
            }
            tasks.push((task, &data));
        }
        if let Some(file) = &self.file {
            let file = hub::locate_file(file)?;
            tasks.push((self.of_file(&file)?, Path::new("")));
        }
        if tasks.is_empty() && self.suite.is_none() {
            bail!("no task given; use --tasks NAME,..., --suite NAME or --file FILE");
        }
        let mut asked = match self.suite {
            Some(suite) => self.of_suite(suite, &data)?,
            None => Vec::new(),
        };
        for (task, folder) in tasks {
            let questions = task.questions(folder, self.limit).map_err(named)?;
            Measure::new(&task)?.check(&questions)?;
            asked.push(Asked { task, questions });
        }
        self.check_used(&asked)?;
        Ok(asked)
    }

    /// Refuses options that none of the tasks uses.
    fn check_used(&self, asked: &[Asked]) -> Result<(), Failure> {
        let only_file = self.tasks.is_empty() && self.suite.is_none();
        let generates = asked.iter().any(|asked| asked.task.generation.is_some());
        let of_tasks =
            "the rows of --file have no few-shot examples, and one form of prompts and metrics";
        let of_texts = if only_file {
            "the answers to the rows of --file are generated greedily, in the prompts of --template"
        } else {
            "none of the tasks generates answers"
        };
        let unused = [
            ("--shots", only_file && self.shots.is_some(), of_tasks),
            ("--protocol", only_file && self.protocol.is_some(), of_tasks),
            ("--samples", !generates && self.samples.is_some(), of_texts),
            ("--chat", !generates && self.chat, of_texts),
        ];
        let of_tools = self.tools.unused(asked.iter().map(|asked| &asked.task));
        // a suite leaves out the tasks whose files are missing
        let of_tools = of_tools.filter(|_| self.suite.is_none());
        let unused = unused.into_iter().filter(|(_, unused, _)| *unused);
        let mut unused = unused.map(|(option, _, why)| (option, why)).chain(of_tools);
        match unused.next() {
            None => Ok(()),
            Some((option, why)) => {
                let hint = if option == "--chat" && only_file {
                    "remove --chat; --template chat applies the chat template to the rows of --file"
                        .to_owned()
                } else {
                    format!("remove {option}")
                };
                Err(Failure::new(format!("{option} would not be used: {why}")).with_hint(hint))
            }
        }
    }

    /// The tasks of a suite whose files are there, except those of --tasks. Says which are missing.
    fn of_suite(&self, suite: &Suite, data: &Path) -> Result<Vec<Asked>, Failure> {
        let mut asked = Vec::new();
        for name in suite.tasks {
            if self.tasks.iter().any(|known| known == name) {
                continue;
            }
            let task = match self.settled(Task::named(name)?) {
                Ok(task) => task,
                Err(failure) if lacks_shots(&failure) => {
                    left_out(
                        suite.name,
                        name,
                        "it has fewer few-shot examples than --shots",
                    );
                    continue;
                }
                Err(failure) => return Err(failure),
            };
            if let Some(why) = self.tools.lacks(&task) {
                left_out(suite.name, name, why);
                continue;
            }
            match task.questions(data, self.limit) {
                Ok(questions) => {
                    Measure::new(&task)?.check(&questions)?;
                    asked.push(Asked { task, questions });
                }
                Err(EvalError::NoFile { files, .. }) => {
                    let files = files.join(", ");
                    output::note(&format!(
                        "{}: skipped {name}: not found: {files}",
                        suite.name
                    ));
                }
                Err(error) => return Err(error.into()),
            }
        }
        for (what, why) in suite.without {
            output::note(&format!("{}: without {what}: {why}", suite.name));
        }
        if asked.is_empty() && self.tasks.is_empty() {
            bail!(
                "{}: {} has the files of none of its tasks",
                suite.name,
                data.display()
            );
        }
        Ok(asked)
    }

    /// The prompts and metrics of all tasks.
    fn protocol(&self) -> Protocol {
        let of_suite = self.suite.map(|suite| suite.protocol);
        self.protocol.or(of_suite).unwrap_or_default()
    }

    /// The task of --file. All models get the same prompts: those of the template that is given, or that the adapters
    /// were trained with.
    fn of_file(&self, file: &Path) -> Result<Task, Failure> {
        let mut kept: Vec<(PromptTemplate, &Path)> = Vec::new();
        for adapter in &self.adapter {
            let folder = AdapterFolder::open(hub::locate(adapter, What::Adapter)?)?;
            let template = folder
                .trained_with()
                .and_then(|with| with.templates.first());
            kept.extend(template.map(|template| (template.clone(), adapter.as_path())));
        }
        let names = self.fields.clone().unwrap_or_default().fields();
        let of =
            |name: &str| Task::of_file(file, name, self.max_new_tokens).with_names(names.clone());
        if let Some(name) = &self.template {
            for (template, adapter) in &kept {
                if template.name != *name {
                    output::note(&format!(
                        "warning: {}: the adapter was trained with the prompt template `{}`, and gets prompts of `{name}`",
                        adapter.display(),
                        template.name
                    ));
                }
            }
            return Ok(of(name));
        }
        let Some((first, adapter)) = kept.first() else {
            return Ok(of("chat"));
        };
        if let Some((other, path)) = kept.iter().find(|(template, _)| template != first) {
            bail!(
                "the adapters were trained with different prompt templates: {} with `{}`, {} with `{}`; \
                 choose one for all with --template NAME",
                adapter.display(),
                first.name,
                path.display(),
                other.name
            );
        }
        output::note(&format!(
            "prompt template `{}`, with which {} was trained",
            first.name,
            adapter.display()
        ));
        let task = of(&first.name);
        Ok(match first.chat_name() {
            // each model's own, which is the adapter's
            Some(_) => task,
            None => task.with_template_text(first.text.clone()),
        })
    }

    fn settled(&self, task: Task) -> Result<Task, Failure> {
        let mut task = task.under(self.protocol())?;
        if let Some(shots) = self.shots {
            task = task.with_shots(shots)?;
        }
        if let Some(samples) = self.samples {
            task = task.with_samples(samples, self.temperature);
        }
        self.tools.settled(task)
    }

    /// One model's answers to every task; `None` if it was interrupted, which is reported.
    fn ask(
        &self,
        loaded: &Loaded,
        name: &str,
        asked: &[Asked],
        interrupt: &Interrupt,
        ranks: &dyn Ranks,
    ) -> Result<Option<Vec<Answers>>, Failure> {
        let chat = self.chat(loaded)?;
        let evaluator = evaluator(loaded, chat.as_ref());
        let mut kept = Vec::new();
        for Asked { task, questions } in asked {
            let folder = self.out.join(file_name(name));
            let path = folder.join(format!("{}.jsonl", task.name));
            if self.overwrite && path.exists() {
                fs::remove_file(&path)
                    .with_context(|| format!("cannot remove {}", path.display()))?;
            }
            let asking = self.asking(loaded, name, task);
            let mut answers = Answers::open(&path, &asking)?;
            let bar = progress::steps(questions.len() as u64);
            bar.set_message(format!("{name}: {}", task.name));
            let begin = Instant::now();
            let shared = Shared {
                ranks,
                evaluator: &evaluator,
                task,
                questions,
                asking: &asking,
                stop: &interrupt.stop,
                folder: &self.out,
            };
            let before = answers.len();
            interrupt.answering.store(true, Ordering::SeqCst);
            let answered = shared.lead(&mut answers, &mut |done| bar.set_position(done as u64));
            interrupt.answering.store(false, Ordering::SeqCst);
            bar.finish_and_clear();
            if let Err(failure) = answered {
                let cause = failure.downcast_ref::<EvalError>();
                if matches!(cause, Some(EvalError::Interrupted { .. })) {
                    failure.report();
                    return Ok(None);
                }
                return Err(failure);
            }
            let took = duration(begin.elapsed().as_secs_f64());
            let new = answers.len() - before;
            output::note(&format!(
                "{name}: {}: {} in {took}",
                task.name,
                counted(new, "row")
            ));
            kept.push(answers);
        }
        Ok(Some(kept))
    }

    /// What every rank but the first does in place of [`Eval::ask`].
    fn follow(
        &self,
        loaded: &Loaded,
        name: &str,
        asked: &[Asked],
        ranks: &dyn Ranks,
    ) -> Result<(), Failure> {
        let chat = self.chat(loaded)?;
        for Asked { task, questions } in asked {
            let shared = Shared {
                ranks,
                evaluator: &evaluator(loaded, chat.as_ref()),
                task,
                questions,
                asking: &self.asking(loaded, name, task),
                stop: &AtomicBool::new(false),
                folder: &self.out,
            };
            shared.follow()?;
        }
        Ok(())
    }

    fn chat(&self, loaded: &Loaded) -> Result<Option<Template>, Failure> {
        self.chat.then(|| loaded.template("chat")).transpose()
    }

    fn asking(&self, loaded: &Loaded, name: &str, task: &Task) -> Asking {
        let mut identity = loaded.identity.clone();
        if self.chat {
            identity.push_str(" in its chat template, in turns");
        }
        Asking::new(name, task, &identity)
    }

    fn report(
        &self,
        models: Vec<String>,
        size: Option<&'static str>,
        asked: &[Asked],
        kept: &[Vec<Answers>],
        ready: &Ready,
    ) -> Result<Report, Failure> {
        let mut tasks = Vec::new();
        let trained_on = self.adapter.iter().map(|adapter| TrainedOn::of(adapter));
        let trained_on: Vec<Option<TrainedOn>> = std::iter::once(None).chain(trained_on).collect();
        for (number, Asked { task, questions }) in asked.iter().enumerate() {
            let mut measure = Measure::new(task)?;
            let found = kept.iter().map(|answers| {
                let pairs = questions.iter().map(|question| {
                    let answer = answers[number].find(question)?;
                    Ok(answer.map(|answer| (question, answer)))
                });
                let pairs = pairs.collect::<Result<Vec<_>, EvalError>>()?;
                Ok(pairs.into_iter().flatten().collect())
            });
            let found: Vec<Vec<(&Question, &Answer)>> = found.collect::<Result<_, Failure>>()?;
            ready.prepare(&mut measure, task, &found.concat())?;
            let results = found.iter().map(|pairs| {
                let scores = pairs.iter();
                let scores = scores.map(|(question, answer)| measure.scores(question, answer));
                Ok(Results {
                    scores: scores.collect::<Result<_, _>>()?,
                    answers: pairs.iter().map(|(_, answer)| *answer).collect(),
                })
            });
            let results: Vec<Results<'_>> = results.collect::<Result<_, Failure>>()?;
            let mut report = TaskReport::new(task, questions, &results, size);
            report.contamination = TrainedOn::overlaps(&trained_on, questions);
            if let (Some(_), Protocol::Paper, Some(paper)) =
                (self.suite, self.protocol(), &task.paper)
            {
                report.paper.clone_from(&paper.scores);
            }
            ready.tell(&mut report, &measure, &models, &found)?;
            tasks.push(report);
        }
        Ok(Report {
            protocol: self.protocol(),
            models,
            size: size.map(str::to_owned),
            tasks,
        })
    }

    /// Checks the files that are written in the end, before the work.
    fn check_files(&self) -> Result<(), Failure> {
        let files = [(&self.markdown, "--markdown"), (&self.html, "--html")];
        for (path, option) in files {
            if let Some(path) = path {
                page_file::check(path, option)?;
            }
        }
        Ok(())
    }

    fn show(&self, report: &Report) -> Result<(), Failure> {
        if let Some(path) = &self.markdown {
            page_file::write(path, &report::markdown(report))?;
        }
        if let Some(path) = &self.html {
            page_file::write(path, &report::html(report)?)?;
        }
        if self.json {
            return output::json(report);
        }
        output::text(report::terminal(report).trim_end_matches('\n'))
    }
}

/// An error of questions; --fields is the hint for rows whose keys fit no format.
fn named(error: EvalError) -> Failure {
    match error {
        EvalError::Data(error) => hinted(error),
        other => other.into(),
    }
}

/// Whether a task has fewer few-shot examples than requested.
fn lacks_shots(failure: &Failure) -> bool {
    let cause = failure.downcast_ref::<EvalError>();
    matches!(cause, Some(EvalError::TooFewShots { .. }))
}

/// Whether another rank reports why this one has ended.
fn is_reported(failure: &Failure) -> bool {
    failure.downcast_ref() == Some(&RanksError::Reported)
}

fn evaluator<'a>(loaded: &'a Loaded, chat: Option<&'a Template>) -> Evaluator<'a> {
    Evaluator {
        chat,
        model: &loaded.model,
        tokenizer: &loaded.tokenizer,
        eos: &loaded.eos,
    }
}

/// The size in the LLaMA paper that a model has, by its shape.
fn published_size(model: &LlamaForCausalLM) -> Option<&'static str> {
    let config = model.config();
    // later models of these shapes have a longer context or a larger vocabulary
    if config.max_position_embeddings != 2048 || config.vocab_size < 32_000 {
        return None;
    }
    match (config.hidden_size, config.num_hidden_layers) {
        (4096, 32) if config.vocab_size < 33_000 => Some("7B"),
        (5120, 40) => Some("13B"),
        (6656, 60) => Some("33B"),
        (8192, 80) => Some("65B"),
        _ => None,
    }
}

/// A model's name as the name of a folder.
fn file_name(model: &str) -> String {
    let kept = |c: char| {
        if c.is_alphanumeric() || matches!(c, '.' | '-' | '_') {
            c
        } else {
            '-'
        }
    };
    let name: String = model.chars().map(kept).collect();
    name.trim_matches(['-', '.']).to_owned()
}
