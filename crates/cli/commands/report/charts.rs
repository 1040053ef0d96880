//! The charts of a page of runs.

use simmer_train::StepMetrics;

use super::axis::{Axis, Begins};
use super::chart::{Chart, Figure, Kind, Line};
use super::run::Run;
use super::series::{Point, smoothed, window};

/// A chart without its lines: title, unit, start of the axis, whether a mean is drawn, and the value of a step.
type Shown = (
    &'static str,
    &'static str,
    Begins,
    bool,
    fn(&StepMetrics) -> Option<f64>,
);

const SHOWN: [Shown; 5] = [
    ("Loss", "nats per token", Begins::AtLeast, true, |step| {
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
    ("Throughput", "tokens/s", Begins::AtZero, true, |step| {
        Some(step.tokens_per_second)
    }),
    ("Peak memory", "MiB", Begins::AtZero, false, |step| {
        Some(step.peak_memory? as f64 / f64::from(1 << 20))
    }),
];

/// The charts; none before the first step is finished.
pub(super) fn charts(runs: &[Run]) -> Vec<Figure> {
    if runs.iter().all(|run| run.steps.is_empty()) {
        return Vec::new();
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
    let mut charts = Vec::new();
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
        // means and validations are drawn over the lines of steps
        lines.sort_by_key(|line| line.kind != Kind::Each);
        let chart = Chart {
            title,
            unit,
            begins,
            lines,
        };
        charts.extend(chart.figure(&steps));
    }
    charts
}

/// The line of a run's steps; if there are many, a faint line and their moving average.
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
            format!("{name}, mean of {window} steps:"),
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
