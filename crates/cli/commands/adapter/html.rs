//! The page of `simmer adapter inspect --html`: one file that needs nothing else.

use std::fmt::Write as _;

use simmer_eval::page::{self, escape};
use simmer_model::adapter::inspect::{Inspection, LowRankModule};

use super::grid::{Grid, Together};
use super::inspect::{Inspected, by_module, by_target, summary};
use super::short;

const STYLE: &str = "
:root { --line: #8884; --norm: 59 125 216; --rank: 59 165 93; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.3rem; overflow-wrap: anywhere; } h2 { font-size: 1.05rem; margin-top: 2rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; } .wide { overflow-x: auto; }
th { font-weight: 600; text-align: right; padding: .15rem .5rem; white-space: nowrap; }
td { padding: .15rem .5rem; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
.map td.cell { border: 1px solid var(--line); min-width: 3.2rem; text-align: center; }
.plain td, .plain th { border-bottom: 1px solid var(--line); }
.facts td { text-align: left; white-space: normal; overflow-wrap: anywhere; }
.warning { border-left: 4px solid #d8763b; padding: .2rem .8rem; margin: .4rem 0; }
.curves { display: grid; grid-template-columns: repeat(auto-fill, minmax(13rem, 1fr)); gap: 1rem; }
svg { width: 100%; height: auto; border: 1px solid var(--line); } .soft { opacity: .7; }
summary { cursor: pointer; }
";

/// Of a plot of singular values.
const WIDTH: f64 = 200.0;
const HEIGHT: f64 = 120.0;
/// Powers of ten below the largest singular value that a plot shows.
const DECADES: f64 = 4.0;

/// The whole page.
pub(super) fn html(all: &[Inspected]) -> String {
    let names: Vec<&str> = all
        .iter()
        .map(|inspected| inspected.name.as_str())
        .collect();
    let mut html = String::new();
    for inspected in all {
        of_adapter(&mut html, inspected);
    }
    page::page(&names.join(", "), STYLE, &html)
}

fn of_adapter(html: &mut String, inspected: &Inspected) {
    let found = &inspected.found;
    let _ = writeln!(html, "<h1>{}</h1>", escape(&inspected.name));
    for warning in &found.warnings {
        let _ = writeln!(html, "<p class=\"warning\">{}</p>", escape(warning));
    }
    html.push_str("<table class=\"facts\">\n");
    for (name, value) in summary(inspected) {
        let _ = writeln!(html, "<tr><td>{name}</td><td>{}</td></tr>", escape(&value));
    }
    html.push_str("</table>\n");
    html.push_str("<h2>Norm of the update s&middot;B&middot;A</h2>\n");
    map(html, found, "norm", Together::Norm, |module| {
        Some(module.update.as_ref()?.norm)
    });
    html.push_str("<h2>Effective rank</h2>\n");
    map(html, found, "rank", Together::Mean, |module| {
        Some(module.update.as_ref()?.effective_rank)
    });
    let _ = write!(
        html,
        "<h2>Singular values</h2>\n<p class=\"soft\">Each over the largest of its module, {DECADES} powers of ten down; a line \
         a layer, later layers darker.</p>\n<div class=\"curves\">\n"
    );
    for target in Grid::of(found, Together::Norm, |_| None).targets {
        curves(html, found, &target);
    }
    html.push_str("</div>\n<h2>Targets</h2>\n");
    table(html, &by_target(found));
    html.push_str("<details><summary>every module</summary>\n");
    table(html, &by_module(found));
    html.push_str("</details>\n");
}

fn map(
    html: &mut String,
    found: &Inspection,
    colour: &str,
    together: Together,
    value: impl Fn(&LowRankModule) -> Option<f64>,
) {
    let grid = Grid::of(found, together, value);
    let largest = grid.largest();
    html.push_str("<div class=\"wide\"><table class=\"map\">\n<tr><th>layer</th>");
    for target in &grid.targets {
        let _ = write!(html, "<th>{}</th>", escape(target));
    }
    html.push_str("</tr>\n");
    for (layer, cells) in &grid.rows {
        let _ = write!(html, "<tr><td>{layer}</td>");
        for (cell, target) in cells.iter().zip(&grid.targets) {
            let Some(value) = cell else {
                html.push_str("<td class=\"cell soft\">-</td>");
                continue;
            };
            let share = if largest > 0.0 { value / largest } else { 0.0 };
            let _ = write!(
                html,
                "<td class=\"cell\" style=\"background:rgb(var(--{colour}) / {:.0}%)\" title=\"layer {layer}, {}: {value}\">{}</td>",
                share * 90.0,
                escape(target),
                short(*value)
            );
        }
        html.push_str("</tr>\n");
    }
    html.push_str("</table></div>\n");
}

/// The singular values of one target's modules, on a logarithmic axis.
fn curves(html: &mut String, found: &Inspection, target: &str) {
    let modules = found
        .modules
        .iter()
        .filter(|module| module.target == target);
    let modules: Vec<&LowRankModule> = modules.collect();
    let _ = write!(
        html,
        "<figure style=\"margin:0\"><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"singular values of {0}\">",
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
            html,
            "<polyline fill=\"none\" stroke=\"rgb(var(--norm))\" stroke-opacity=\"{strength:.2}\" points=\"{}\"><title>{}</title></polyline>",
            points.join(" "),
            escape(&module.module)
        );
    }
    let _ = writeln!(
        html,
        "</svg><figcaption>{}</figcaption></figure>",
        escape(target)
    );
}

fn table(html: &mut String, rows: &[Vec<String>]) {
    html.push_str("<div class=\"wide\"><table class=\"plain\">\n");
    for (number, row) in rows.iter().enumerate() {
        let tag = if number == 0 { "th" } else { "td" };
        html.push_str("<tr>");
        for cell in row {
            let _ = write!(html, "<{tag}>{}</{tag}>", escape(cell));
        }
        html.push_str("</tr>\n");
    }
    html.push_str("</table></div>\n");
}
