//! The page of `simmer adapter inspect --html`.

use std::fmt::Write as _;

use serde::Serialize;
use simmer_model::adapter::inspect::{Inspection, LowRankModule};
use simmer_page::{Html, PageError, Template, escape, render};

use super::grid::{Grid, Together};
use super::inspect::{Inspected, by_module, by_target};
use super::summary::summary;
use super::{alone, short};

const PAGE: Template = Template {
    name: "adapters.html",
    text: include_str!("page.html"),
};

/// The size of a plot of singular values.
const WIDTH: f64 = 200.0;
const HEIGHT: f64 = 120.0;
/// Powers of ten below the largest singular value that a plot shows.
const DECADES: f64 = 4.0;

/// What the template is filled with.
#[derive(Serialize)]
struct Context<'a> {
    title: String,
    /// [`DECADES`], in text.
    decades: String,
    adapters: Vec<Adapter<'a>>,
}

#[derive(Serialize)]
struct Adapter<'a> {
    name: &'a str,
    warnings: &'a [String],
    summary: Vec<(&'static str, String)>,
    norms: Map,
    ranks: Map,
    curves: Vec<Curves>,
    by_target: Vec<Vec<String>>,
    by_module: Vec<Vec<String>>,
    /// Whether it has low-rank branches, which the maps and plots are about.
    is_low_rank: bool,
}

/// A heat map.
#[derive(Serialize)]
struct Map {
    targets: Vec<String>,
    rows: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    layer: String,
    /// One for each target; `None` if the layer has no such module.
    cells: Vec<Option<Cell>>,
}

#[derive(Serialize)]
struct Cell {
    /// Strength of the colour.
    percent: f64,
    /// The value, with all its digits.
    value: String,
    /// The value, rounded.
    shown: String,
}

/// The plot of one target.
#[derive(Serialize)]
struct Curves {
    target: String,
    svg: Html,
}

/// The whole page.
pub(super) fn html(all: &[Inspected]) -> Result<String, PageError> {
    let names: Vec<&str> = all
        .iter()
        .map(|inspected| inspected.name.as_str())
        .collect();
    let context = Context {
        title: names.join(", "),
        decades: DECADES.to_string(),
        adapters: all.iter().map(Adapter::of).collect(),
    };
    render(PAGE, &[], &context)
}

impl<'a> Adapter<'a> {
    fn of(inspected: &'a Inspected) -> Self {
        let found = &inspected.found;
        let norms = Grid::of(found, Together::Norm, |module| {
            Some(module.update.as_ref()?.norm)
        });
        let ranks = Grid::of(found, Together::Mean, |module| {
            Some(module.update.as_ref()?.effective_rank)
        });
        let targets = norms.targets.iter();
        let is_low_rank = !found.modules.is_empty();
        Self {
            name: &inspected.name,
            warnings: &found.warnings,
            summary: summary(inspected),
            curves: targets.map(|target| curves(found, target)).collect(),
            norms: Map::of(norms),
            ranks: Map::of(ranks),
            by_target: if is_low_rank {
                by_target(found)
            } else {
                alone::by_target(found)
            },
            by_module: if is_low_rank {
                by_module(found)
            } else {
                alone::by_module(found)
            },
            is_low_rank,
        }
    }
}

impl Map {
    fn of(grid: Grid) -> Self {
        const STRONGEST: f64 = 90.0;
        let largest = grid.largest();
        let cell = |value: f64| Cell {
            percent: if largest > 0.0 {
                value / largest * STRONGEST
            } else {
                0.0
            },
            value: value.to_string(),
            shown: short(value),
        };
        let rows = grid.rows.into_iter().map(|(layer, cells)| Row {
            layer,
            cells: cells.into_iter().map(|value| value.map(cell)).collect(),
        });
        Self {
            rows: rows.collect(),
            targets: grid.targets,
        }
    }
}

/// The singular values of one target's modules, on a logarithmic axis.
fn curves(found: &Inspection, target: &str) -> Curves {
    let modules = found
        .modules
        .iter()
        .filter(|module| module.target == target);
    let modules: Vec<&LowRankModule> = modules.collect();
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"singular values of {0}\">",
        escape(target)
    );
    for (number, module) in modules.iter().enumerate() {
        let Some(update) = module
            .update
            .as_ref()
            .filter(|update| update.largest() > 0.0)
        else {
            continue;
        };
        let values = &update.singular_values;
        let last = (values.len() - 1).max(1) as f64;
        let place = |(at, value): (usize, &f64)| {
            let down = -(value / update.largest()).log10() / DECADES;
            let x = 4.0 + (WIDTH - 8.0) * at as f64 / last;
            let y = 4.0 + (HEIGHT - 8.0) * down.clamp(0.0, 1.0);
            format!("{x:.1},{y:.1}")
        };
        let points: Vec<String> = values.iter().enumerate().map(place).collect();
        let strength = 0.25 + 0.75 * (number + 1) as f64 / modules.len() as f64;
        let _ = write!(
            svg,
            "<polyline fill=\"none\" stroke=\"rgb(var(--norm))\" stroke-opacity=\"{strength:.2}\" points=\"{}\"><title>{}</title></polyline>",
            points.join(" "),
            escape(&module.module)
        );
    }
    Curves {
        target: target.to_owned(),
        svg: Html(svg + "</svg>"),
    }
}
