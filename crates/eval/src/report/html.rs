//! Scores as a page that needs nothing beside it.

use std::fmt::Write as _;

use super::{Example, MetricReport, Report, TaskReport};
use crate::page::{self, escape};
use crate::statistics::Mean;

const STYLE: &str = "\
:root{--line:#8884;--soft:#8881;--a:#3b7dd8;--b:#d8763b;--c:#3ba55d;--d:#a33bd8}\
body{font:16px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem}\
h1{font-size:1.5rem}h2{font-size:1.2rem;margin-top:2.5rem}\
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}\
th,td{border-bottom:1px solid var(--line);padding:.3rem .6rem;text-align:left;vertical-align:top}\
td.n{text-align:right;white-space:nowrap}\
pre{white-space:pre-wrap;overflow-wrap:anywhere;margin:0;font:13px/1.4 ui-monospace,monospace}\
svg{display:block;width:100%;height:auto}\
details{border:1px solid var(--line);border-radius:.4rem;margin:.5rem 0;padding:.3rem .6rem}\
summary{cursor:pointer}.side{display:grid;grid-template-columns:repeat(auto-fit,minmax(16rem,1fr));gap:.8rem}\
.side>div{background:var(--soft);border-radius:.4rem;padding:.5rem}.soft{opacity:.7}";
const COLOURS: [&str; 4] = ["var(--a)", "var(--b)", "var(--c)", "var(--d)"];

/// The page.
pub fn html(report: &Report) -> String {
    let title = format!("Evaluation of {}", report.models.join(", "));
    let mut page = format!("<h1>{}</h1>", escape(&title));
    for (number, model) in report.models.iter().enumerate() {
        let _ = write!(
            page,
            "<p><b style=\"color:{}\">&#9632;</b> {}</p>",
            colour(number),
            escape(model)
        );
    }
    for task in &report.tasks {
        of_task(&mut page, report, task);
    }
    page.push_str("<p class=\"soft\">Bars end at the mean; whiskers are 95 % of a normal distribution with its \
        standard error. Differences: paired bootstrap over rows, 10,000 draws.</p>\n");
    page::page(&title, STYLE, &page)
}

fn of_task(page: &mut String, report: &Report, task: &TaskReport) {
    let shots = if task.shots > 0 {
        format!(", {}-shot", task.shots)
    } else {
        String::new()
    };
    let _ = write!(
        page,
        "<h2>{}</h2><p class=\"soft\">{} &middot; {} rows{shots}</p>",
        escape(&task.task),
        escape(&task.about),
        task.rows
    );
    for (model, cut) in report.models.iter().zip(&task.cut) {
        if *cut > 0 {
            let _ = write!(
                page,
                "<p>{cut} rows are longer than {} takes and lost their beginning.</p>",
                escape(model)
            );
        }
    }
    for metric in &task.metrics {
        page.push_str(&bars(report, metric));
    }
    page.push_str(
        "<table><tr><th>metric<th>model<th>mean<th>standard error<th>difference<th>95 %<th>p</tr>",
    );
    for metric in &task.metrics {
        for (number, mean) in metric.means.iter().enumerate() {
            row(page, &report.models[number], metric, number, mean);
        }
    }
    page.push_str("</table>");
    if let (Some(published), Some(size)) = (task.published, &report.size) {
        let _ = write!(page, "<p>LLaMA-{size} in its paper: {published:.1} %</p>");
    }
    groups(page, report, task);
    page.push_str("<h3>Answers</h3>");
    for example in &task.examples {
        of_example(page, report, example);
    }
}

fn row(page: &mut String, model: &str, metric: &MetricReport, number: usize, mean: &Mean) {
    let stderr = mean
        .stderr
        .map_or(String::new(), |stderr| format!("{stderr:.4}"));
    let difference = number
        .checked_sub(1)
        .map(|number| &metric.differences[number]);
    let [value, interval, p] = difference.map_or([const { String::new() }; 3], |found| {
        let [low, high] = found.interval;
        [
            format!("{:+.4}", found.value),
            format!("{low:+.4} to {high:+.4}"),
            format!("{:.4}", found.p),
        ]
    });
    let _ = write!(
        page,
        "<tr><td>{}<td>{}<td class=n>{:.4}<td class=n>{stderr}<td class=n>{value}<td class=n>{interval}<td class=n>{p}</tr>",
        escape(&metric.metric),
        escape(model),
        mean.value
    );
}

/// Bars from 0 to the largest, one a model.
fn bars(report: &Report, metric: &MetricReport) -> String {
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
    svg + "</svg>"
}

fn groups(page: &mut String, report: &Report, task: &TaskReport) {
    let Some(metric) = task
        .metrics
        .first()
        .filter(|metric| !metric.groups.is_empty())
    else {
        return;
    };
    let _ = write!(
        page,
        "<details><summary>{} groups, {}</summary><table><tr><th>group<th>rows",
        metric.groups.len(),
        escape(&metric.metric)
    );
    for model in &report.models {
        let _ = write!(page, "<th>{}", escape(model));
    }
    page.push_str("</tr>");
    for (group, means) in &metric.groups {
        let _ = write!(
            page,
            "<tr><td>{}<td class=n>{}",
            escape(group),
            means[0].rows
        );
        for mean in means {
            let _ = write!(page, "<td class=n>{:.4}", mean.value);
        }
        page.push_str("</tr>");
    }
    if metric.macro_average.is_empty() {
        page.push_str("</table></details>");
        return;
    }
    page.push_str("<tr><th>mean of groups<th>");
    for value in &metric.macro_average {
        let _ = write!(page, "<th class=n>{value:.4}");
    }
    page.push_str("</tr></table></details>");
}

fn of_example(page: &mut String, report: &Report, example: &Example) {
    let _ = write!(
        page,
        "<details><summary>{}</summary><div class=side><div><b>asked</b><pre>{}</pre></div><div><b>right</b><pre>{}</pre></div>",
        escape(&example.origin),
        escape(&example.prompt),
        escape(&example.right)
    );
    for (number, answer) in example.answers.iter().enumerate() {
        let scores = example.scores[number].iter();
        let scores = scores.map(|score| format!("{} {:.3}", score.metric, score.value));
        let _ = write!(
            page,
            "<div><b style=\"color:{}\">{}</b><pre>{}</pre><span class=soft>{}</span></div>",
            colour(number),
            escape(&report.models[number]),
            escape(answer),
            escape(&scores.collect::<Vec<_>>().join(" · "))
        );
    }
    page.push_str("</div></details>");
}

fn colour(number: usize) -> &'static str {
    COLOURS[number % COLOURS.len()]
}
