//! The page.

use serde::Serialize;
use simmer_page::{PageError, Template, render};

use super::answers::{Prompt, Scored, prompts, scores};
use super::chart::{Figure, colour};
use super::charts::charts;
use super::files::{Examples, RunFile, Source, examples, files, sources};
use super::recipes::{self, differences};
use super::run::Run;
use super::summary;

const PAGE: Template = Template {
    name: "report.html",
    text: include_str!("page.html"),
};
const PARTS: [Template; 3] = [
    Template {
        name: "chart.html",
        text: include_str!("chart.html"),
    },
    Template {
        name: "report.css",
        text: include_str!("page.css"),
    },
    Template {
        name: "report.js",
        text: include_str!("page.js"),
    },
];

/// What the template is filled with.
#[derive(Serialize)]
struct Context<'a> {
    title: String,
    /// Which program and runs the page is of.
    generator: String,
    runs: Vec<Shown<'a>>,
    charts: Vec<Figure>,
    /// Names of rows, with a cell for each run.
    numbers: Vec<(&'static str, Vec<String>)>,
    /// `None` for a single run.
    differences: Option<Differences<'a>>,
    prompts: Vec<Prompt<'a>>,
    scores: Vec<Scored>,
    sources: Vec<Source<'a>>,
}

/// A run's name and its colour in charts.
#[derive(Clone, Serialize)]
pub(super) struct Named<'a> {
    name: &'a str,
    colour: String,
}

#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    named: Named<'a>,
    state: String,
    warnings: &'a [String],
    recipe: &'a str,
    examples: Option<Examples>,
    files: Option<Vec<RunFile<'a>>>,
}

/// What differs between the recipes of runs.
#[derive(Serialize)]
struct Differences<'a> {
    rows: Vec<recipes::Row>,
    damaged: Option<Damaged<'a>>,
}

/// A recipe that cannot be compared.
#[derive(Serialize)]
struct Damaged<'a> {
    run: &'a str,
    error: String,
}

/// The whole page; `generator` marks it.
pub(super) fn html(runs: &[Run], generator: String) -> Result<String, PageError> {
    let title = match runs {
        [run] => format!("Run {}", run.name),
        runs => format!("{} runs", runs.len()),
    };
    let context = Context {
        title,
        generator,
        runs: runs.iter().enumerate().map(Shown::of).collect(),
        charts: charts(runs),
        numbers: summary::rows(runs),
        differences: (runs.len() > 1).then(|| Differences::of(runs)),
        prompts: prompts(runs),
        scores: scores(runs),
        sources: sources(runs),
    };
    render(PAGE, &PARTS, &context)
}

impl<'a> Named<'a> {
    pub(super) fn of(number: usize, run: &'a Run) -> Self {
        Self {
            name: &run.name,
            colour: colour(number),
        }
    }
}

impl<'a> Shown<'a> {
    fn of((number, run): (usize, &'a Run)) -> Self {
        Self {
            named: Named::of(number, run),
            state: summary::state(run),
            warnings: &run.warnings,
            recipe: &run.recipe,
            examples: examples(run),
            files: files(run),
        }
    }
}

impl<'a> Differences<'a> {
    fn of(runs: &'a [Run]) -> Self {
        let texts: Vec<&str> = runs.iter().map(|run| run.recipe.as_str()).collect();
        match differences(&texts) {
            Ok(rows) => Self {
                rows,
                damaged: None,
            },
            Err((place, error)) => Self {
                rows: Vec::new(),
                damaged: Some(Damaged {
                    run: &runs[place].name,
                    error: error.to_string(),
                }),
            },
        }
    }
}
