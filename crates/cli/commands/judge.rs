//! `simmer judge`: a model judges the answers of models.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Args;
use simmer_files::digest::sha256;
use simmer_files::size::counted;
use simmer_files::write_file;
use simmer_instruct::{
    About, Completions, Endpoint, EndpointConfig, InstructError, Journal, JournalKey, LocalConfig,
    Spent,
};
use simmer_judge::{
    Answer, Answering, JudgeError, JudgeRecipe, Judgement, Judging, ModelConfig, Prompts, Question,
    Report, Results, Watch, read_answers, read_questions, with_references, write,
};

use crate::failure::{Context, Failure};
use crate::local_model::Local;
use crate::{embedded, interrupt, output, progress};

/// Judge the answers of one or two models with a model, as MT-bench does
///
/// The recipe names the questions, the models (local, a server of OpenAI's API, or a file of answers),
/// the judge, and the folder to write. The judge rates each answer from 1 to 10, or compares two in
/// both orders. Every answer and verdict is kept as it arrives: the same command resumes an
/// interrupted run. The folder then has page.html, report.json, verdicts.json and the answers.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  simmer judge recipes/judge/kitchen.toml
  simmer judge recipes/judge/mt-bench.toml --max-questions 10 --out judged/first
  simmer judge recipes/judge/mt-bench.toml --set judge.repeats=2 --json")]
pub(crate) struct Judge {
    /// Recipe, a TOML file
    #[arg(value_name = "RECIPE")]
    recipe: PathBuf,
    /// Override a key of the recipe, such as judge.temperature=0.7; repeatable
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Folder to write. Default: `out` of the recipe
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Judge the first N questions; 0: all. Default: `max_questions` of the recipe
    #[arg(long, value_name = "N")]
    max_questions: Option<usize>,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

/// What a run has read.
struct Work {
    recipe: JudgeRecipe,
    prompts: Prompts,
    questions: Vec<Question>,
    /// Whether a model is asked, so that a signal stops the run.
    runs: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
}

impl Judge {
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        match self.judged() {
            Err(failure) if is_interrupted(&failure) => {
                failure.report();
                Ok(interrupt::exit_code())
            }
            judged => {
                let (report, page) = judged?;
                if self.json {
                    output::json(&report)?;
                } else {
                    output::text(&report.text())?;
                }
                output::note(&format!("wrote {}", page.display()));
                Ok(ExitCode::SUCCESS)
            }
        }
    }

    fn judged(&self) -> Result<(Report, PathBuf), Failure> {
        let work = self.open()?;
        let Work {
            recipe, questions, ..
        } = &work;
        let (mut answers, mut spent) = (Vec::new(), BTreeMap::new());
        for number in 0..recipe.models.len() {
            answers.push(work.answers(number, &mut spent)?);
        }
        let judging = Judging {
            recipe,
            questions,
            answers: &answers,
            prompts: &work.prompts,
        };
        let (judge, judgements) = work.judgements(&judging, &mut spent)?;
        let without = judging.without_reference();
        let mut report = Report::new(recipe, &judge, questions, &answers, &judgements, without);
        report.spent = spent;
        let results = Results::new(&report, questions, &answers, &judgements);
        // after the journals: those of another run are refused, and its recipe stays
        let text = toml::to_string(recipe).map_err(Failure::foreign)?;
        write_file(recipe.out.join("recipe.toml"), |file| {
            file.write_all(text.as_bytes())
        })?;
        let page = write(&recipe.out, &results, questions, &answers)?;
        Ok((report, page))
    }

    /// Reads and checks everything that needs no model.
    fn open(&self) -> Result<Work, Failure> {
        let mut recipe = JudgeRecipe::from_file(&self.recipe, &self.set)?;
        if let Some(out) = &self.out {
            recipe.out.clone_from(out);
        }
        recipe.max_questions = self.max_questions.unwrap_or(recipe.max_questions);
        let prompts = Prompts::named(&recipe.prompts)?;
        let mut questions =
            read_questions(&embedded::or_copy(&recipe.questions)?, recipe.max_questions)?;
        if let Some(path) = &recipe.references {
            with_references(&mut questions, path)?;
        }
        for (number, model) in recipe.models.iter().enumerate() {
            if let Some(path) = &model.answers {
                let read = read_answers(&embedded::or_copy(path)?, &questions)?;
                if read.others > 0 {
                    output::note(&format!(
                        "{}: not used: {} to questions that are not asked",
                        path.display(),
                        counted(read.others, "answer")
                    ));
                }
            }
            if let Some(endpoint) = &model.endpoint {
                client(&table(number), endpoint)?;
            }
        }
        if let Some(endpoint) = &recipe.judge.endpoint {
            client("[judge]", endpoint)?;
        }
        Judging {
            recipe: &recipe,
            questions: &questions,
            answers: &[],
            prompts: &prompts,
        }
        .check()?;
        let runs = Arc::new(AtomicBool::new(false));
        Ok(Work {
            stop: interrupt::flag("stopping after this batch", Arc::clone(&runs)),
            runs,
            recipe,
            prompts,
            questions,
        })
    }
}

fn is_interrupted(failure: &Failure) -> bool {
    let of_judge = failure.downcast_ref::<JudgeError>();
    let of_model = failure.downcast_ref::<InstructError>();
    matches!(
        of_judge,
        Some(JudgeError::Model(InstructError::Interrupted { .. }))
    ) || matches!(of_model, Some(InstructError::Interrupted { .. }))
}

/// A model's table, as messages name it.
fn table(number: usize) -> String {
    format!("[[model]] {}", number + 1)
}

/// The client of a table's server.
fn client(table: &str, config: &EndpointConfig) -> Result<Endpoint, Failure> {
    Endpoint::new(config).map_err(|error| match error {
        InstructError::Endpoint { problem } => {
            Failure::new(format!("{table}: `endpoint`: {problem}"))
                .with_hint("set that variable, or remove `key_env` if the server needs no key")
        }
        error => error.into(),
    })
}

/// What completes prompts.
enum Asked {
    Local(Box<Local>),
    Endpoint(Box<Endpoint>),
}

impl Asked {
    fn open(
        table: &str,
        local: Option<&LocalConfig>,
        endpoint: Option<&EndpointConfig>,
        template: Option<&str>,
    ) -> Result<Self, Failure> {
        if let Some(config) = endpoint {
            return Ok(Self::Endpoint(Box::new(client(table, config)?)));
        }
        let config = local.with_context(|| format!("{table}: names no model"))?;
        let local = Local::load(config, table)?.with_template(template)?;
        Ok(Self::Local(Box::new(local)))
    }

    fn completions(&mut self) -> &mut dyn Completions {
        match self {
            Self::Local(local) => local.as_mut(),
            Self::Endpoint(endpoint) => endpoint.as_mut(),
        }
    }

    /// The journal of what it is asked; says what it has already.
    fn journal<K: JournalKey>(
        &mut self,
        path: &Path,
        seed: (u64, usize),
        names: &[&str],
        settings: &impl serde::Serialize,
    ) -> Result<Journal<K>, Failure> {
        let hash = |value: serde_json::Result<String>| {
            let text = value.map_err(Failure::foreign)?;
            Ok::<_, Failure>(sha256(text.as_bytes()))
        };
        let about = About {
            journal: 1,
            method: "judge".to_owned(),
            model: self.completions().name(),
            sha256: BTreeMap::from([
                (
                    "`seed` or `batch`".to_owned(),
                    hash(serde_json::to_string(&seed))?,
                ),
                (
                    format!("a setting of the samples ({})", names.join(", ")),
                    hash(serde_json::to_string(settings))?,
                ),
            ]),
        };
        let journal = Journal::open(path, &about)?;
        if let Self::Endpoint(endpoint) = self {
            endpoint.spend(journal.completions());
        }
        if !journal.is_empty() {
            output::note(&format!(
                "resuming with {} completions of {}",
                journal.len(),
                path.display()
            ));
        }
        Ok(journal)
    }
}

impl Work {
    /// The answers of a model: of its file, or the model is asked.
    fn answers(
        &self,
        number: usize,
        spent: &mut BTreeMap<String, Spent>,
    ) -> Result<Vec<Answer>, Failure> {
        let model = &self.recipe.models[number];
        if let Some(path) = &model.answers {
            return Ok(read_answers(&embedded::or_copy(path)?, &self.questions)?.answers);
        }
        let ModelConfig {
            local, endpoint, ..
        } = model;
        let (table, template) = (table(number), model.template.as_deref());
        let mut asked = Asked::open(&table, local.as_ref(), endpoint.as_ref(), template)?;
        let path = format!("answers.{}.journal.jsonl", number + 1);
        let seed = (self.recipe.seed, self.recipe.batch);
        let names = ["`temperature`", "`top_p`", "`max_tokens`", "`stop`"];
        let settings = (
            &model.temperature,
            model.top_p,
            model.max_tokens,
            &model.stop,
        );
        let mut journal = asked.journal(&self.recipe.out.join(path), seed, &names, &settings)?;
        let what = format!("answers of {}", model.shown());
        let found = self.watched(&what, |progress| {
            Answering {
                recipe: &self.recipe,
                model,
                questions: &self.questions,
                prompts: &self.prompts,
                journal: &mut journal,
                completions: asked.completions(),
                stop: &|| self.stop.load(Ordering::SeqCst),
                progress,
            }
            .run()
        });
        let found = found?;
        spent.insert(what, Spent::new(endpoint.as_ref(), journal.completions()));
        Ok(found)
    }

    /// The judge's name, and what it says.
    fn judgements(
        &self,
        judging: &Judging<'_>,
        spent: &mut BTreeMap<String, Spent>,
    ) -> Result<(String, Vec<Judgement>), Failure> {
        let judge = &self.recipe.judge;
        let template = judge.template.as_deref();
        let (local, endpoint) = (judge.local.as_ref(), judge.endpoint.as_ref());
        let mut asked = Asked::open("[judge]", local, endpoint, template)?;
        let name = asked.completions().name();
        let seed = (self.recipe.seed, self.recipe.batch);
        let names = ["`temperature`", "`max_tokens`"];
        let settings = (judge.temperature, judge.max_tokens);
        let path = self.recipe.out.join("verdicts.journal.jsonl");
        let mut journal = asked.journal(&path, seed, &names, &settings)?;
        let found = self.watched("verdicts", |progress| {
            let watch = Watch {
                stop: &|| self.stop.load(Ordering::SeqCst),
                progress,
            };
            judging.run(&mut journal, asked.completions(), watch)
        });
        let found = found?;
        let all = Spent::new(endpoint, journal.completions());
        spent.insert("verdicts".to_owned(), all);
        Ok((name, found))
    }

    /// Work with a progress bar, which a signal stops.
    fn watched<T>(&self, what: &str, work: impl FnOnce(&mut dyn FnMut(usize, usize)) -> T) -> T {
        let bar = progress::steps(0);
        bar.set_message(what);
        let mut advance = |done: usize, total: usize| {
            bar.set_length(total as u64);
            bar.set_position(done as u64);
        };
        self.runs.store(true, Ordering::SeqCst);
        let found = work(&mut advance);
        self.runs.store(false, Ordering::SeqCst);
        bar.finish_and_clear();
        found
    }
}
