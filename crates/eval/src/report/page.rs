//! Scores as an HTML page.

use std::fmt::Write as _;

use serde::Serialize;
use simmer_page::{Html, PageError, Template, escape, render};

use super::{MetricReport, Report};
use crate::statistics::Mean;

const PAGE: Template = Template {
    name: "evaluation.html",
    text: include_str!("page.html"),
};
/// The colours of models: variables of the page's style.
const COLOURS: [&str; 4] = ["var(--a)", "var(--b)", "var(--c)", "var(--d)"];

/// What the template is filled with.
#[derive(Serialize)]
struct Context<'a> {
    title: String,
    report: &'a Report,
    /// One for each model.
    colours: Vec<&'static str>,
    /// For each task, a chart for each metric.
    charts: Vec<Vec<Html>>,
}

/// The page.
///
/// # Errors
/// If its template has a mistake.
pub fn html(report: &Report) -> Result<String, PageError> {
    let charts = report.tasks.iter().map(|task| {
        let metrics = task.metrics.iter();
        metrics.map(|metric| bars(report, metric)).collect()
    });
    let context = Context {
        title: format!("Evaluation of {}", report.models.join(", ")),
        report,
        colours: (0..report.models.len()).map(colour).collect(),
        charts: charts.collect(),
    };
    render(PAGE, &[], &context)
}

/// One bar for each model, from 0 to the largest mean.
fn bars(report: &Report, metric: &MetricReport) -> Html {
    const HEIGHT: usize = 26;
    const WIDTH: f64 = 640.0;
    let reach = |mean: &Mean| mean.value + 1.96 * mean.stderr.unwrap_or(0.0);
    let most = metric
        .means
        .iter()
        .map(reach)
        .fold(f64::MIN_POSITIVE, f64::max);
    let most = if most <= 1.0 { 1.0 } else { most };
    let all = HEIGHT * metric.means.len() + 22;
    let mut svg = format!(
        "<svg viewBox=\"0 0 900 {all}\" role=\"img\" aria-label=\"{0}\"><text x=\"0\" y=\"14\" font-size=\"13\" \
         fill=\"currentColor\">{0}</text>",
        escape(&metric.metric)
    );
    for (number, mean) in metric.means.iter().enumerate() {
        let y = 22 + number * HEIGHT;
        let at = |value: f64| 120.0 + WIDTH * (value / most).clamp(0.0, 1.0);
        let _ = write!(
            svg,
            "<rect x=\"120\" y=\"{y}\" width=\"{:.1}\" height=\"18\" rx=\"3\" fill=\"{}\"><title>{}</title></rect>\
             <text x=\"{:.1}\" y=\"{}\" font-size=\"13\" fill=\"currentColor\">{:.4}</text>",
            at(mean.value) - 120.0,
            colour(number),
            escape(&report.models[number]),
            at(reach(mean)) + 8.0,
            y + 14,
            mean.value
        );
        if let Some(stderr) = mean.stderr {
            let ends = [mean.value - 1.96 * stderr, mean.value + 1.96 * stderr].map(at);
            let _ = write!(
                svg,
                "<line x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{2}\" y2=\"{2}\" stroke=\"currentColor\" stroke-width=\"2\"/>",
                ends[0],
                ends[1],
                y + 9
            );
        }
    }
    Html(svg + "</svg>")
}

fn colour(number: usize) -> &'static str {
    COLOURS[number % COLOURS.len()]
}
