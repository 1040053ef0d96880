//! A heat map: one number for each layer and target module.

use std::fmt::Write as _;

use console::Style;
use simmer_model::adapter::inspect::{Inspection, LowRankModule};

use super::short;

/// Background colours from zero to the largest value, from a terminal's 256 colours.
const RAMP: [u8; 9] = [16, 17, 18, 19, 26, 32, 38, 44, 50];
/// From this colour on the text is black.
const LIGHT_FROM: usize = 5;

/// A number for each layer (row) and target module (column).
pub(super) struct Grid {
    /// The columns: last parts of the modules' paths.
    pub(super) targets: Vec<String>,
    /// A layer's name and its cells; `None` if the layer has no such module.
    pub(super) rows: Vec<(String, Vec<Option<f64>>)>,
}

/// How the numbers of a cell's modules are combined. A layer with experts has several modules in a cell.
#[derive(Clone, Copy)]
pub(super) enum Together {
    /// The root of the sum of squares, for norms.
    Norm,
    /// The mean.
    Mean,
}

impl Together {
    pub(super) fn of(self, values: &[f64]) -> Option<f64> {
        let count = values.len() as f64;
        let sum = |of: fn(&f64) -> f64| values.iter().map(of).sum::<f64>();
        (!values.is_empty()).then(|| match self {
            Self::Norm => sum(|x| x * x).sqrt(),
            Self::Mean => sum(|x| *x) / count,
        })
    }
}

impl Grid {
    pub(super) fn of(
        inspection: &Inspection,
        together: Together,
        value: impl Fn(&LowRankModule) -> Option<f64>,
    ) -> Self {
        let mut targets: Vec<String> = Vec::new();
        let mut layers: Vec<Option<usize>> = Vec::new();
        for module in &inspection.modules {
            if !targets.contains(&module.target) {
                targets.push(module.target.clone());
            }
            if !layers.contains(&module.layer) {
                layers.push(module.layer);
            }
        }
        let cell = |layer: Option<usize>, target: &str| {
            let modules = inspection.modules.iter();
            let here = modules.filter(|module| module.layer == layer && module.target == target);
            together.of(&here.filter_map(&value).collect::<Vec<_>>())
        };
        let row = |layer: Option<usize>| {
            let name = layer.map_or_else(|| "-".to_owned(), |layer| layer.to_string());
            (
                name,
                targets.iter().map(|target| cell(layer, target)).collect(),
            )
        };
        let rows = layers.into_iter().map(row).collect();
        Self { targets, rows }
    }

    /// The largest cell; 0 if there is none above it.
    pub(super) fn largest(&self) -> f64 {
        let cells = self.rows.iter().flat_map(|(_, cells)| cells).flatten();
        cells.copied().fold(0.0, f64::max)
    }

    /// The heat map as text, with background colours if `colours`.
    pub(super) fn text(&self, colours: bool) -> String {
        let width = |name: &String| name.chars().count().max(6);
        let mut text = format!("{:>5}", "layer");
        for target in &self.targets {
            let _ = write!(text, " {target:>0$} ", width(target));
        }
        let largest = self.largest();
        for (layer, cells) in &self.rows {
            let _ = write!(text, "\n{layer:>5}");
            for (cell, target) in cells.iter().zip(&self.targets) {
                let shown = cell.map_or_else(|| "-".to_owned(), short);
                let shown = format!(" {shown:>0$} ", width(target));
                text += &match cell {
                    Some(value) if colours => coloured(&shown, value / largest),
                    _ => shown,
                };
            }
        }
        let lines = text.lines().map(str::trim_end);
        lines.collect::<Vec<_>>().join("\n") + "\n"
    }
}

fn coloured(text: &str, share: f64) -> String {
    let most = RAMP.len() - 1;
    let at = ((share * most as f64).round() as usize).min(most);
    let style = Style::new()
        .color256(if at < LIGHT_FROM { 255 } else { 16 })
        .on_color256(RAMP[at]);
    style.force_styling(true).apply_to(text).to_string()
}
