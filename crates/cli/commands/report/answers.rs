//! Base and trained models side by side: what they answer, and how they score.

use std::fmt::Write as _;

use simmer_eval::page::escape;
use simmer_eval::report::MetricReport;

use super::chart::named;
use super::page::table;
use super::run::Run;

/// What was answered to a prompt: by whom, and what.
type Answered = (String, String);

/// The answers of runs to their sample prompts.
pub(super) fn answers(html: &mut String, runs: &[Run]) {
    let mut prompts: Vec<(&str, Vec<Answered>, Vec<Answered>)> = Vec::new();
    for (number, run) in runs.iter().enumerate() {
        for sample in run
            .comparison
            .iter()
            .flat_map(|comparison| &comparison.samples)
        {
            let place = prompts
                .iter()
                .position(|(prompt, ..)| *prompt == sample.prompt);
            let place = place.unwrap_or_else(|| {
                prompts.push((&sample.prompt, Vec::new(), Vec::new()));
                prompts.len() - 1
            });
            let (_, before, after) = &mut prompts[place];
            let name = named(number, &run.name);
            // runs of one base begin with the same answer
            match before.iter_mut().find(|(_, text)| *text == sample.before) {
                Some((names, _)) => names.push_str(&name),
                None => before.push((name.clone(), sample.before.clone())),
            }
            after.push((name, sample.after.clone()));
        }
    }
    if prompts.is_empty() {
        return;
    }
    html.push_str("<h2>Answers before and after</h2>\n");
    for (prompt, before, after) in prompts {
        let _ = write!(html, "<h3>{}</h3><div class=side>", escape(prompt));
        let said = |when: &'static str, answers: Vec<Answered>| {
            let one = move |(name, text): Answered| {
                let name = if runs.len() == 1 { String::new() } else { name };
                format!(
                    "<div><span class=soft>{when}</span> {name}<pre>{}</pre></div>",
                    escape(text.trim())
                )
            };
            answers.into_iter().map(one).collect::<String>()
        };
        let _ = writeln!(
            html,
            "{}{}</div>",
            said("before", before),
            said("after", after)
        );
    }
}

/// The scores of base and trained models.
pub(super) fn scores(html: &mut String, runs: &[Run]) {
    let mut rows = Vec::new();
    for (number, run) in runs.iter().enumerate() {
        let Some(comparison) = &run.comparison else {
            continue;
        };
        for metric in &comparison.scores {
            let mut row = vec![
                named(number, &run.name),
                comparison.held_out_rows.to_string(),
            ];
            row.extend(score(metric));
            rows.push(row);
        }
    }
    if rows.is_empty() {
        return;
    }
    html.push_str("<h2>Base and trained model on held-out rows</h2>\n");
    let heads = [
        "run",
        "rows",
        "metric",
        "before",
        "after",
        "difference",
        "95 %",
        "p",
    ];
    table(html, &heads.map(str::to_owned), &rows);
    html.push_str("<p class=soft>± is one standard error; differences by paired bootstrap over the rows.</p>\n");
}

fn score(metric: &MetricReport) -> Vec<String> {
    let means = metric.means.iter().map(|mean| match mean.stderr {
        Some(stderr) => format!("{:.4} ± {stderr:.4}", mean.value),
        None => format!("{:.4}", mean.value),
    });
    let differences = metric.differences.iter().flat_map(|found| {
        let [low, high] = found.interval;
        [
            format!("{:+.4}", found.value),
            format!("{low:+.4} to {high:+.4}"),
            format!("{:.4}", found.p),
        ]
    });
    std::iter::once(escape(&metric.metric))
        .chain(means)
        .chain(differences)
        .collect()
}
