//! A chart: lines over steps. The image is stretched to any width; the text around it keeps its size.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::json;
use simmer_page::Html;

use super::axis::{Axis, Begins};
use super::series::{Point, thinned};

/// A line is thinned to this many columns.
const COLUMNS: usize = 300;
/// The width and height of the image, in its own units.
const SIZE: f64 = 1000.0;

/// Lines over steps.
pub(super) struct Chart {
    /// The title.
    pub(super) title: &'static str,
    /// Its unit.
    pub(super) unit: &'static str,
    /// The start of the axis of values.
    pub(super) begins: Begins,
    /// The lines; later ones are drawn over earlier ones.
    pub(super) lines: Vec<Line>,
}

/// A line of a chart.
pub(super) struct Line {
    /// The number of its run, which sets the colour.
    pub(super) run: usize,
    /// Its name in the tooltip.
    pub(super) name: String,
    /// How it is drawn.
    pub(super) kind: Kind,
    /// Values over steps, in the order of steps.
    pub(super) points: Vec<Point>,
}

/// How a line is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Solid.
    Plain,
    /// Faint, behind the line of its mean.
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
    /// The numbers of the tooltip, as JSON.
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
            // A line of one point is invisible. A path of length 0 is a round dot, however the image is stretched.
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
            "moving average"
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

/// The numbers of the tooltip, as JSON: of the mean, if there is one.
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
    // a name may contain `</script>`
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

/// The colour of a run: a variable of the page's style, which has a light and a dark value, or else a hue.
pub(super) fn colour(run: usize) -> String {
    const STYLED: usize = 8;
    if run < STYLED {
        format!("var(--run{run})")
    } else {
        // multiples of the golden angle: no two hues are close
        format!("hsl({:.0} 60% 55%)", (run as f64 * 137.508) % 360.0)
    }
}
