//! A chart: lines over steps. The picture is stretched to any width; text stands beside it in its own size.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::json;
use simmer_page::Html;

use super::axis::{Axis, Begins};
use super::series::{Point, thinned};

/// Columns that a line is drawn from.
const COLUMNS: usize = 300;
/// The picture's width and height, in its own units.
const SIZE: f64 = 1000.0;

/// Lines over steps.
pub(super) struct Chart {
    /// What is shown.
    pub(super) title: &'static str,
    /// Its unit.
    pub(super) unit: &'static str,
    /// Where its axis begins.
    pub(super) begins: Begins,
    /// The lines; those after cover those before.
    pub(super) lines: Vec<Line>,
}

/// A line of a chart.
pub(super) struct Line {
    /// The number of its run, which has a colour.
    pub(super) run: usize,
    /// What it is called under the pointer.
    pub(super) name: String,
    /// How it is drawn.
    pub(super) kind: Kind,
    /// Values over steps, in the order of steps.
    pub(super) points: Vec<Point>,
}

/// How a line is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// As it is.
    Plain,
    /// Faint, behind its mean.
    Each,
    /// Dashed, with a dot at each point.
    Dots,
}

/// A chart, as its template `chart.html` takes it.
#[derive(Serialize)]
pub(super) struct Figure {
    title: &'static str,
    unit: &'static str,
    is_log: bool,
    /// Ticks of the axis of values.
    values: Vec<Tick>,
    /// Ticks of the axis of steps.
    steps: Vec<Tick>,
    svg: Html,
    /// The numbers that the pointer shows, as JSON.
    data: Html,
    /// Kinds of lines with their names, if there is more than one kind.
    legend: Vec<(&'static str, &'static str)>,
}

/// A label beside an axis.
#[derive(Serialize)]
struct Tick {
    /// From the start of the axis.
    percent: f64,
    label: String,
}

impl Kind {
    /// The CSS class of its lines.
    fn class(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Each => "each",
            Self::Dots => "dots",
        }
    }
}

impl Chart {
    /// The chart; `None` if it has no point. All charts of a page have the same `steps`.
    pub(super) fn figure(&self, steps: &Axis) -> Option<Figure> {
        let values = self.lines.iter().flat_map(|line| &line.points);
        let values = values.map(|(_, value)| *value);
        if !values.clone().any(f64::is_finite) {
            return None;
        }
        let axis = Axis::new(values, self.begins);
        let thin = |line: &Line| thinned(&line.points, COLUMNS);
        let lines: Vec<(&Line, Vec<Point>)> =
            self.lines.iter().map(|line| (line, thin(line))).collect();
        Some(Figure {
            title: self.title,
            unit: self.unit,
            is_log: axis.is_log,
            values: ticks(&axis, 5),
            steps: ticks(steps, 6),
            svg: self.svg(&lines, steps, &axis),
            data: data(&lines, steps),
            legend: self.legend(),
        })
    }

    fn svg(&self, lines: &[(&Line, Vec<Point>)], steps: &Axis, axis: &Axis) -> Html {
        let mut svg = format!(
            "<svg viewBox=\"0 0 {SIZE} {SIZE}\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"{} over steps\">",
            self.title
        );
        let mut grid = String::new();
        for (value, _) in axis.ticks(5) {
            let _ = write!(grid, "M0 {:.1}H{SIZE}", SIZE * (1.0 - axis.place(value)));
        }
        let _ = write!(svg, "<path class=grid d=\"{grid}\"/>");
        for (line, points) in lines {
            let places = points.iter().map(|(step, value)| {
                [SIZE * steps.place(*step), SIZE * (1.0 - axis.place(*value))]
            });
            let places: Vec<[f64; 2]> = places.collect();
            let class = line.kind.class();
            let colour = colour(line.run);
            let _ = write!(
                svg,
                "<path class=\"line {class}\" style=\"stroke:{colour}\" d=\"{}\"/>",
                path(&places)
            );
            // a line of one point is none; a dot of any width and height is round
            if places.len() == 1 || (line.kind == Kind::Dots && places.len() <= COLUMNS) {
                let dots = places.iter().map(|[x, y]| format!("M{x:.1} {y:.1}h0"));
                let _ = write!(
                    svg,
                    "<path class=dot style=\"stroke:{colour}\" d=\"{}\"/>",
                    dots.collect::<String>()
                );
            }
        }
        Html(svg + "</svg>")
    }

    /// What the kinds of lines mean, if there is more than one.
    fn legend(&self) -> Vec<(&'static str, &'static str)> {
        let has = |kind| self.lines.iter().any(|line| line.kind == kind);
        let plain = if has(Kind::Each) {
            "mean of steps around"
        } else {
            "each step"
        };
        let kinds = [
            (Kind::Plain, plain),
            (Kind::Each, "each step"),
            (Kind::Dots, "validation"),
        ];
        let shown = kinds.into_iter().filter(|(kind, _)| has(*kind));
        let shown: Vec<_> = shown.map(|(kind, name)| (kind.class(), name)).collect();
        if shown.len() < 2 { Vec::new() } else { shown }
    }
}

fn ticks(axis: &Axis, count: usize) -> Vec<Tick> {
    let ticks = axis.ticks(count).into_iter();
    let ticks = ticks.map(|(value, label)| Tick {
        percent: 100.0 * axis.place(value),
        label,
    });
    ticks.collect()
}

/// The numbers that the pointer shows: those of means, where there are means.
fn data(lines: &[(&Line, Vec<Point>)], steps: &Axis) -> Html {
    let shown = lines.iter().filter(|(line, _)| line.kind != Kind::Each);
    let lines = shown.map(|(line, points)| {
        let points = points
            .iter()
            .map(|(step, value)| json!([step, five_digits(*value)]));
        json!({
            "name": line.name,
            "colour": colour(line.run),
            "points": points.collect::<Vec<_>>(),
        })
    });
    let data = json!({
        "from": steps.least,
        "to": steps.most,
        "lines": lines.collect::<Vec<_>>(),
    });
    // a name may hold what ends a script
    Html(data.to_string().replace('<', "\\u003c"))
}

fn five_digits(value: f64) -> f64 {
    format!("{value:.4e}").parse().unwrap_or(value)
}

fn path(places: &[[f64; 2]]) -> String {
    let mut path = String::new();
    for (number, [x, y]) in places.iter().enumerate() {
        let letter = if number == 0 { 'M' } else { 'L' };
        let _ = write!(path, "{letter}{x:.1} {y:.1}");
    }
    path
}

/// The colour of a run: one that the page's style has in light and dark, or one from around the circle.
pub(super) fn colour(run: usize) -> String {
    const STYLED: usize = 8;
    if run < STYLED {
        format!("var(--run{run})")
    } else {
        // the golden angle: no two are close
        format!("hsl({:.0} 60% 55%)", (run as f64 * 137.508) % 360.0)
    }
}
