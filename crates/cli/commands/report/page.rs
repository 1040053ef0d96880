//! The page.

use std::fmt::Write as _;

use simmer_eval::page::{self, escape};
use simmer_train::{Fingerprint, SourceCounts, StepMetrics};

use super::answers::{answers, scores};
use super::axis::{Axis, Begins};
use super::chart::{Chart, Kind, Line, named};
use super::recipes::differences;
use super::run::Run;
use super::series::{Point, smoothed, window};
use super::summary::{self, grouped};

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// The whole page.
pub(super) fn html(runs: &[Run]) -> String {
    let title = match runs {
        [run] => format!("Run {}", run.name),
        runs => format!("{} runs", runs.len()),
    };
    let mut html = format!("<h1>{}</h1>\n<p>", escape(&title));
    for (number, run) in runs.iter().enumerate() {
        let state = summary::state(run);
        let _ = write!(
            html,
            "{}<span class=soft>{state}</span><br>",
            named(number, &run.name)
        );
    }
    html.push_str("</p>\n");
    for warning in runs.iter().flat_map(|run| &run.warnings) {
        let _ = writeln!(html, "<p class=warn>{}</p>", escape(warning));
    }
    charts(&mut html, runs);
    html.push_str("<h2>In numbers</h2>\n");
    table(&mut html, &heads(runs), &text_rows(summary::rows(runs)));
    recipe_differences(&mut html, runs);
    answers(&mut html, runs);
    scores(&mut html, runs);
    data(&mut html, runs);
    recipes(&mut html, runs);
    let _ = writeln!(html, "<script>{SCRIPT}</script>");
    page::page(&title, STYLE, &html)
}

/// A chart before it has its lines: title, unit, where the axis begins, whether there is a mean, and a step's value.
type Shown = (
    &'static str,
    &'static str,
    Begins,
    bool,
    fn(&StepMetrics) -> Option<f64>,
);

const SHOWN: [Shown; 5] = [
    ("Loss", "nats a token", Begins::AtLeast, true, |step| {
        Some(step.loss)
    }),
    ("Learning rate", "", Begins::AtZero, false, |step| {
        Some(step.learning_rate)
    }),
    (
        "Gradient norm",
        "before clipping",
        Begins::AtLeast,
        true,
        |step| Some(step.grad_norm),
    ),
    (
        "Throughput",
        "tokens a second",
        Begins::AtZero,
        true,
        |step| Some(step.tokens_per_second),
    ),
    ("Peak memory", "MiB", Begins::AtZero, false, |step| {
        Some(step.peak_memory? as f64 / f64::from(1 << 20))
    }),
];

fn charts(html: &mut String, runs: &[Run]) {
    if runs.iter().all(|run| run.steps.is_empty()) {
        html.push_str("<p>No step is finished yet; there is nothing to draw.</p>\n");
        return;
    }
    let all = runs
        .iter()
        .flat_map(|run| &run.steps)
        .map(|step| step.step as f64);
    let ends = [
        all.clone().fold(f64::INFINITY, f64::min),
        all.fold(0.0, f64::max),
    ];
    let steps = Axis::of_steps(ends[0], ends[1]);
    html.push_str("<div class=charts>\n");
    for (title, unit, begins, has_mean, value) in SHOWN {
        let mut lines = Vec::new();
        for (number, run) in runs.iter().enumerate() {
            let points = run
                .steps
                .iter()
                .filter_map(|step| Some((step.step as f64, value(step)?)));
            of_steps(&mut lines, number, &run.name, points.collect(), has_mean);
        }
        if title == "Loss" {
            lines.extend(runs.iter().enumerate().filter_map(validation));
        }
        // means and validations over what they are of
        lines.sort_by_key(|line| line.kind != Kind::Each);
        let chart = Chart {
            title,
            unit,
            begins,
            lines,
        };
        html.push_str(&chart.html(&steps));
    }
    html.push_str("</div>\n");
}

/// The line of a run's steps; where there are many, a faint one and their mean.
fn of_steps(lines: &mut Vec<Line>, run: usize, name: &str, points: Vec<Point>, has_mean: bool) {
    let window = if has_mean { window(points.len()) } else { 1 };
    let line = |kind, points, name: String| Line {
        run,
        name,
        kind,
        points,
    };
    if window > 1 {
        let means = smoothed(&points, window);
        lines.push(line(Kind::Each, points, name.to_owned()));
        lines.push(line(
            Kind::Plain,
            means,
            format!("{name}, mean of {window}:"),
        ));
    } else {
        lines.push(line(Kind::Plain, points, name.to_owned()));
    }
}

fn validation((run, of): (usize, &Run)) -> Option<Line> {
    let points = of
        .validations
        .iter()
        .map(|line| (line.step as f64, line.validation_loss));
    let points: Vec<Point> = points.collect();
    (!points.is_empty()).then(|| Line {
        run,
        name: format!("{}, validation:", of.name),
        kind: Kind::Dots,
        points,
    })
}

/// A table; its cells are HTML.
pub(super) fn table(html: &mut String, heads: &[String], rows: &[Vec<String>]) {
    html.push_str("<div class=wide><table><tr>");
    for head in heads {
        let _ = write!(html, "<th>{head}");
    }
    html.push_str("</tr>\n");
    for row in rows {
        let _ = writeln!(html, "<tr><td>{}</tr>", row.join("<td>"));
    }
    html.push_str("</table></div>\n");
}

/// The heads of a table with a column a run.
fn heads(runs: &[Run]) -> Vec<String> {
    let names = runs
        .iter()
        .enumerate()
        .map(|(number, run)| named(number, &run.name));
    std::iter::once(String::new()).chain(names).collect()
}

fn text_rows(rows: Vec<(&'static str, Vec<String>)>) -> Vec<Vec<String>> {
    let row = |(name, cells): (&str, Vec<String>)| {
        let cells = cells.iter().map(|cell| escape(cell));
        std::iter::once(name.to_owned()).chain(cells).collect()
    };
    rows.into_iter().map(row).collect()
}

fn recipe_differences(html: &mut String, runs: &[Run]) {
    if runs.len() < 2 {
        return;
    }
    html.push_str("<h2>Differences between the recipes</h2>\n");
    let texts: Vec<&str> = runs.iter().map(|run| run.recipe.as_str()).collect();
    match differences(&texts) {
        Ok(rows) if rows.is_empty() => html.push_str("<p>None.</p>\n"),
        Ok(rows) => {
            let rows = rows.into_iter().map(|(key, values)| {
                let code = |text: &str| format!("<code>{}</code>", escape(text));
                let cell = |value: Option<String>| {
                    value.map_or_else(|| "–".to_owned(), |value| code(&value))
                };
                std::iter::once(code(&key))
                    .chain(values.into_iter().map(cell))
                    .collect()
            });
            table(html, &heads(runs), &rows.collect::<Vec<_>>());
        }
        Err((place, error)) => {
            let name = escape(&runs[place].name);
            let _ = writeln!(
                html,
                "<p class=warn>The recipe of {name} is damaged:</p><pre>{}</pre>",
                escape(&error.to_string())
            );
        }
    }
}

fn data(html: &mut String, runs: &[Run]) {
    let mut rows = Vec::new();
    for (number, run) in runs.iter().enumerate() {
        let Some(counts) = &run.counts else { continue };
        let files = counts.train.iter().map(|file| ("training", file));
        let files = files.chain(counts.validation.iter().map(|file| ("validation", file)));
        for (what, file) in files {
            let name = named(number, &run.name);
            rows.push([vec![name, what.to_owned()], source(file)].concat());
        }
    }
    if rows.is_empty() {
        return;
    }
    html.push_str("<h2>Data</h2>\n");
    let heads = [
        "run",
        "for",
        "file",
        "layout, template",
        "rows",
        "examples",
        "tokens",
        "trained on",
        "cut",
        "left out",
    ];
    table(html, &heads.map(str::to_owned), &rows);
    for run in runs {
        let Some(counts) = &run.counts else { continue };
        let examples = counts
            .examples
            .map_or_else(|| "a stream of".to_owned(), |count| grouped(count as u64));
        let _ = writeln!(
            html,
            "<p class=soft>{}: {examples} training and {} validation examples, {} steps an epoch.</p>",
            escape(&run.name),
            grouped(counts.validation_examples as u64),
            grouped(counts.steps_per_epoch)
        );
    }
}

fn source(file: &SourceCounts) -> Vec<String> {
    let counts = [
        file.rows,
        file.examples,
        file.tokens,
        file.targets,
        file.truncated,
        file.left_out,
    ];
    let counts = counts.map(|count| grouped(count as u64));
    let form = format!("{}, {}", file.format, file.template);
    [escape(&file.path), escape(&form)]
        .into_iter()
        .chain(counts)
        .collect()
}

fn recipes(html: &mut String, runs: &[Run]) {
    html.push_str("<h2>Recipe and files</h2>\n");
    for (number, run) in runs.iter().enumerate() {
        let name = named(number, &run.name);
        let open = if runs.len() == 1 { " open" } else { "" };
        let _ = writeln!(
            html,
            "<details{open}><summary>{name} recipe</summary><pre>{}</pre></details>",
            escape(&run.recipe)
        );
        let Some(manifest) = &run.manifest else {
            continue;
        };
        let mut rows = Vec::new();
        let mut add = |what: &str, name: &str, file: &Fingerprint| {
            let sha256 = format!("<code>{}</code>", escape(&file.sha256));
            rows.push(vec![
                what.to_owned(),
                escape(name),
                grouped(file.bytes),
                sha256,
            ]);
        };
        let folders = [
            ("base", &manifest.base),
            ("tokenizer", &manifest.tokenizer),
            ("adapter", &manifest.adapter),
        ];
        for (what, files) in folders {
            for (name, file) in files {
                add(what, name, file);
            }
        }
        for file in &manifest.data {
            add("data", &file.path, &file.fingerprint);
        }
        let _ = write!(
            html,
            "<details><summary>{name} files that it was made with</summary>"
        );
        table(
            html,
            &["of", "file", "bytes", "SHA-256"].map(str::to_owned),
            &rows,
        );
        html.push_str("</details>\n");
    }
}
