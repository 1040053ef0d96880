//! A chart: lines over steps. The picture is stretched to any width; text stands beside it in its own size.

use std::fmt::Write as _;

use serde_json::json;
use simmer_eval::page::escape;

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

impl Chart {
    /// The chart; nothing where it has no point. `steps` is the same of all charts of a page.
    pub(super) fn html(&self, steps: &Axis) -> String {
        let values = self.lines.iter().flat_map(|line| &line.points);
        let values = values.map(|(_, value)| *value);
        if !values.clone().any(f64::is_finite) {
            return String::new();
        }
        let axis = Axis::new(values, self.begins);
        let thin = |line: &Line| thinned(&line.points, COLUMNS);
        let lines: Vec<(&Line, Vec<Point>)> =
            self.lines.iter().map(|line| (line, thin(line))).collect();
        let log = if axis.is_log { ", logarithmic" } else { "" };
        let mut html = format!(
            "<figure><figcaption><b>{}</b> <span class=soft>{}{log}</span></figcaption><div class=plot><div class=axes>",
            self.title, self.unit
        );
        for (value, label) in axis.ticks(5) {
            let bottom = 100.0 * axis.place(value);
            let _ = write!(
                html,
                "<span class=y style=\"bottom:{bottom:.2}%\">{label}</span>"
            );
        }
        for (value, label) in steps.ticks(6) {
            let left = 100.0 * steps.place(value);
            let _ = write!(
                html,
                "<span class=x style=\"left:{left:.2}%\">{label}</span>"
            );
        }
        html.push_str("</div>");
        self.svg(&mut html, &lines, steps, &axis);
        html.push_str("<i class=mark></i><div class=tip></div>");
        let _ = writeln!(
            html,
            "<script type=\"application/json\">{}</script></div>{}</figure>",
            data(&lines, steps),
            self.legend()
        );
        html
    }

    fn svg(&self, html: &mut String, lines: &[(&Line, Vec<Point>)], steps: &Axis, axis: &Axis) {
        let _ = write!(
            html,
            "<svg viewBox=\"0 0 {SIZE} {SIZE}\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"{} over steps\">",
            self.title
        );
        let mut grid = String::new();
        for (value, _) in axis.ticks(5) {
            let _ = write!(grid, "M0 {:.1}H{SIZE}", SIZE * (1.0 - axis.place(value)));
        }
        let _ = write!(html, "<path class=grid d=\"{grid}\"/>");
        for (line, points) in lines {
            let places = points.iter().map(|(step, value)| {
                [SIZE * steps.place(*step), SIZE * (1.0 - axis.place(*value))]
            });
            let places: Vec<[f64; 2]> = places.collect();
            let class = match line.kind {
                Kind::Plain => "",
                Kind::Each => "each",
                Kind::Dots => "dots",
            };
            let colour = colour(line.run);
            let _ = write!(
                html,
                "<path class=\"line {class}\" style=\"stroke:{colour}\" d=\"{}\"/>",
                path(&places)
            );
            // a line of one point is none; a dot of any width and height is round
            if places.len() == 1 || (line.kind == Kind::Dots && places.len() <= COLUMNS) {
                let dots = places.iter().map(|[x, y]| format!("M{x:.1} {y:.1}h0"));
                let _ = write!(
                    html,
                    "<path class=dot style=\"stroke:{colour}\" d=\"{}\"/>",
                    dots.collect::<String>()
                );
            }
        }
        html.push_str("</svg>");
    }

    /// What the kinds of lines mean, where there is more than one.
    fn legend(&self) -> String {
        let has = |kind| self.lines.iter().any(|line| line.kind == kind);
        let kinds = [
            (
                Kind::Plain,
                "<i class=key></i>",
                if has(Kind::Each) {
                    "mean of steps around"
                } else {
                    "each step"
                },
            ),
            (Kind::Each, "<i class=\"key each\"></i>", "each step"),
            (Kind::Dots, "<i class=\"key dots\"></i>", "validation"),
        ];
        let shown = kinds.into_iter().filter(|(kind, _, _)| has(*kind));
        let shown: Vec<String> = shown
            .map(|(_, key, name)| format!("<span>{key}{name}</span>"))
            .collect();
        if shown.len() < 2 {
            return String::new();
        }
        format!("<p class=\"legend soft\">{}</p>", shown.concat())
    }
}

/// The numbers that the pointer shows: those of means, where there are means.
fn data(lines: &[(&Line, Vec<Point>)], steps: &Axis) -> String {
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
    data.to_string().replace('<', "\\u003c")
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

/// A swatch and a run's name.
pub(super) fn named(run: usize, name: &str) -> String {
    format!(
        "<span class=run><i style=\"background:{}\"></i>{}</span>",
        colour(run),
        escape(name)
    )
}
