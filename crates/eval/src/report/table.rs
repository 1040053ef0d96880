//! Scores as a table, for the terminal and in Markdown.

use simmer_files::size::{are, counted};

use super::{Contamination, MetricReport, Report, TaskReport};
use crate::statistics::{Bootstrap, Difference, FEWEST_ROWS, Mean};

/// Differences with a smaller p-value get a star.
const SIGNIFICANT: f64 = 0.05;

/// The table for a terminal.
pub fn terminal(report: &Report) -> String {
    let mut lines = aligned(&cells(report), 2);
    lines.extend(notes(report));
    lines.join("\n") + "\n"
}

/// Rows of cells with aligned columns; the first `left` columns are aligned to the left.
pub fn aligned(rows: &[Vec<String>], left: usize) -> Vec<String> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).enumerate();
        let cells = cells.map(|(column, (cell, width))| {
            let width = *width;
            if column < left {
                format!("{cell:<width$}")
            } else {
                format!("{cell:>width$}")
            }
        });
        let cells: Vec<String> = cells.collect();
        cells.join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

/// Metrics of two models, one per line: the first model, the second, and the difference.
pub fn lines(metrics: &[MetricReport]) -> Vec<String> {
    let cells = metrics.iter().map(|metric| {
        let cells = models(metric).into_iter();
        std::iter::once(metric.metric.clone())
            .chain(cells)
            .collect()
    });
    aligned(&cells.collect::<Vec<Vec<String>>>(), 1)
}

/// The table in Markdown.
pub fn markdown(report: &Report) -> String {
    let rows = cells(report);
    let mut lines = Vec::new();
    for (number, row) in rows.iter().enumerate() {
        let cells = row.iter().map(|cell| cell.replace('|', "\\|"));
        lines.push(format!("| {} |", cells.collect::<Vec<_>>().join(" | ")));
        if number == 0 {
            let marks = (0..row.len()).map(|column| if column < 2 { "---" } else { "---:" });
            lines.push(format!("| {} |", marks.collect::<Vec<_>>().join(" | ")));
        }
    }
    for note in notes(report) {
        lines.extend([String::new(), note]);
    }
    lines.join("\n") + "\n"
}

fn cells(report: &Report) -> Vec<Vec<String>> {
    let mut head: Vec<String> = ["task", "metric", "rows"].map(str::to_owned).to_vec();
    for (number, model) in report.models.iter().enumerate() {
        head.push(model.clone());
        if number > 0 {
            head.push("difference".to_owned());
        }
        if knows_data(report, number) {
            head.push("contaminated".to_owned());
        }
    }
    let sizes = sizes(report);
    head.extend(sizes.iter().map(|size| format!("LLaMA-{size} (paper)")));
    let mut rows = vec![head];
    for task in &report.tasks {
        for (number, metric) in task.metrics.iter().enumerate() {
            let mut row = vec![String::new(), metric.metric.clone()];
            if number == 0 {
                row[0] = name(task);
            }
            row.push(metric.means.first().map_or(0, |mean| mean.rows).to_string());
            let of_models = cells_of_models(metric).into_iter().enumerate();
            for (model, cells) in of_models {
                row.extend(cells);
                if knows_data(report, model) {
                    row.push(contaminated(task, model, number));
                }
            }
            for size in &sizes {
                let published = task.published_for(size, report).filter(|_| number == 0);
                row.push(published.map_or(String::new(), |score| format!("{:.3}", score / 100.0)));
            }
            rows.push(row);
            if !metric.macro_average.is_empty() {
                rows.push(macro_row(report, metric));
            }
        }
    }
    rows
}

/// The sizes of the LLaMA paper whose scores are shown, smallest first: all of them beside its suite, or the base model's.
fn sizes(report: &Report) -> Vec<String> {
    let known = ["7B", "13B", "33B", "65B"].map(str::to_owned);
    let shown = |size: &String| {
        let mut tasks = report.tasks.iter();
        tasks.any(|task| task.published_for(size, report).is_some())
    };
    known.into_iter().filter(shown).collect()
}

impl TaskReport {
    /// The published score for a size, if it is shown.
    fn published_for(&self, size: &str, report: &Report) -> Option<f64> {
        let own = self
            .published
            .filter(|_| report.size.as_deref() == Some(size));
        own.or_else(|| self.paper.get(size).copied())
    }
}

fn name(task: &TaskReport) -> String {
    match task.shots {
        0 => task.task.clone(),
        shots => format!("{} ({shots}-shot)", task.task),
    }
}

fn models(metric: &MetricReport) -> Vec<String> {
    cells_of_models(metric).concat()
}

/// For each model its mean, and the difference from the first.
fn cells_of_models(metric: &MetricReport) -> Vec<Vec<String>> {
    let each = metric.means.iter().enumerate();
    let cells = each.map(|(number, mean)| {
        let before = number.checked_sub(1);
        let difference = before.map(|before| shown_difference(&metric.differences[before]));
        std::iter::once(shown(mean)).chain(difference).collect()
    });
    cells.collect()
}

/// Whether it is known for some task how many of a model's training rows have words of it.
fn knows_data(report: &Report, model: usize) -> bool {
    let known = |task: &TaskReport| task.contamination.get(model).is_some_and(Option::is_some);
    report.tasks.iter().any(known)
}

/// The cell of a model's training rows, which belongs to the first metric of a task.
fn contaminated(task: &TaskReport, model: usize, metric: usize) -> String {
    let found = task.contamination.get(model).copied().flatten();
    let shown = |found: Contamination| format!("{} of {} rows", found.rows, found.of);
    found.filter(|_| metric == 0).map_or(String::new(), shown)
}

fn macro_row(report: &Report, metric: &MetricReport) -> Vec<String> {
    let groups = format!(
        "{}, mean of {}",
        metric.metric,
        counted(metric.groups.len(), "group")
    );
    let mut row = vec![String::new(), groups, String::new()];
    for (number, value) in metric.macro_average.iter().enumerate() {
        row.push(format!("{value:.4}"));
        if number > 0 {
            let difference = value - metric.macro_average[0];
            row.push(format!("{difference:+.4}"));
        }
        if knows_data(report, number) {
            row.push(String::new());
        }
    }
    row
}

fn shown(mean: &Mean) -> String {
    match mean.stderr {
        Some(stderr) => format!("{:.4} ± {stderr:.4}", mean.value),
        None => format!("{:.4}", mean.value),
    }
}

fn shown_difference(difference: &Difference) -> String {
    let value = difference.value;
    let Some(Bootstrap { interval, p }) = difference.bootstrap else {
        return format!("{value:+.4}");
    };
    let [low, high] = interval;
    let finite = [value, low, high].iter().all(|bound| bound.is_finite());
    let star = if finite && p < SIGNIFICANT { "*" } else { "" };
    format!("{value:+.4} [{low:+.4}, {high:+.4}]{star}")
}

fn notes(report: &Report) -> Vec<String> {
    let mut notes = vec![format!(
        "± is one standard error.{}",
        if report.models.len() > 1 {
            " Differences are from the first model, with [95% bootstrap interval]; * means p < 0.05 (paired bootstrap over rows)."
        } else {
            ""
        }
    )];
    let few = |task: &TaskReport| task.rows < FEWEST_ROWS;
    if report.models.len() > 1 && report.tasks.iter().any(few) {
        notes.push(format!(
            "Differences on fewer than {FEWEST_ROWS} rows have no interval."
        ));
    }
    if (0..report.models.len()).any(|model| knows_data(report, model)) {
        notes.push(
            "contaminated: rows that the adapter was trained on with words of the task's questions."
                .to_owned(),
        );
    }
    for task in &report.tasks {
        let own = task.notes.iter();
        notes.extend(own.map(|note| format!("{}: {note}.", task.task)));
        for (model, cut) in report.models.iter().zip(&task.cut) {
            if *cut > 0 {
                notes.push(format!(
                    "{}: {cut} of {} longer than the context of {model}; their start was truncated.",
                    task.task,
                    are(task.rows, "row")
                ));
            }
        }
    }
    notes
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::task::{Protocol, Task};

    #[test]
    fn scores_of_the_paper_stand_beside_ours() {
        let task = Task::named("piqa").unwrap();
        let mut of_task = TaskReport::new(&task, &[], &[], Some("7B"));
        let metric = |name: &str| MetricReport {
            metric: name.to_owned(),
            means: Vec::new(),
            differences: Vec::new(),
            groups: BTreeMap::new(),
            macro_average: Vec::new(),
        };
        of_task.metrics = vec![metric("acc"), metric("acc_norm")];
        let mut report = Report {
            protocol: Protocol::Paper,
            models: vec!["base".to_owned()],
            size: Some("7B".to_owned()),
            tasks: vec![of_task],
        };
        let columns = |report: &Report| -> Vec<String> {
            let rows = cells(report).into_iter();
            rows.map(|row| row[row.len().min(3)..].join(" | "))
                .collect()
        };
        assert_eq!(columns(&report), ["base | LLaMA-7B (paper)", "0.798", ""]);
        report.tasks[0].paper = task.paper.unwrap().scores;
        report.size = None;
        assert_eq!(
            columns(&report),
            [
                "base | LLaMA-7B (paper) | LLaMA-13B (paper) | LLaMA-33B (paper) | LLaMA-65B (paper)",
                "0.798 | 0.801 | 0.823 | 0.828",
                " |  |  | "
            ]
        );
    }

    #[test]
    fn a_star_needs_finite_bounds() {
        let shown = |value, interval| {
            let p = 0.001;
            let bootstrap = Some(Bootstrap { interval, p });
            shown_difference(&Difference { value, bootstrap })
        };
        let bootstrap = None;
        let few = Difference {
            value: -0.5,
            bootstrap,
        };
        assert_eq!(shown_difference(&few), "-0.5000");
        assert_eq!(shown(0.5, [0.25, 0.75]), "+0.5000 [+0.2500, +0.7500]*");
        for value in [f64::NAN, f64::INFINITY] {
            assert!(!shown(value, [0.25, 0.75]).contains('*'));
            assert!(!shown(0.5, [value, 0.75]).contains('*'));
            assert!(!shown(0.5, [0.25, value]).contains('*'));
        }
    }
}
