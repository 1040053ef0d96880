//! Says which weights an adapter was merged into, and how large the error of their quantisation is.

use std::collections::BTreeSet;

use simmer_files::size::counted;
use simmer_model::merge::{MergeReport, MergedTensor, QuantisedTensor};

use super::bases::Bases;
use crate::output::note;

/// Number of tensors with the largest errors that are named.
const NAMED: usize = 3;

pub(super) fn describe(bases: &Bases, report: &MergeReport) {
    note(&bases.describe());
    if let Some(warning) = &bases.warning {
        note(&format!("warning: {warning}"));
    }
    if let Some(error) = error(report) {
        note(&error);
    }
}

/// The error of the quantised tensors, if the original ones are at hand.
fn error(report: &MergeReport) -> Option<String> {
    if report.quantised.is_empty() {
        return None;
    }
    let mut worst: Vec<&QuantisedTensor> = report.quantised.iter().collect();
    worst.sort_by(|a, b| b.relative.total_cmp(&a.relative));
    worst.truncate(NAMED);
    let worst: Vec<String> = worst
        .into_iter()
        .map(|tensor| format!("{} {}", tensor.name, percent(tensor.relative)))
        .collect();
    let kinds: BTreeSet<&str> = report.quantised.iter().map(|tensor| tensor.kind).collect();
    let kinds: Vec<&str> = kinds.into_iter().collect();
    let quantised = report.quantised.iter();
    Some(format!(
        "quantisation: {} in {} differ from the original by {} of their norm (the adapter changes {} by {}); most: {}",
        counted(report.quantised.len(), "tensor"),
        kinds.join(", "),
        percent(share(quantised.map(|tensor| (tensor.error, tensor.norm)))),
        counted(report.merged.len(), "tensor"),
        percent(share(report.merged.iter().map(changed))),
        worst.join(", ")
    ))
}

fn changed(tensor: &MergedTensor) -> (f64, f64) {
    (tensor.change, tensor.norm)
}

/// The norm of all parts together, relative to that of all wholes.
fn share(norms: impl Iterator<Item = (f64, f64)>) -> f64 {
    let (part, whole) = norms.fold((0.0, 0.0), |(part, whole), norm| {
        (part + norm.0 * norm.0, whole + norm.1 * norm.1)
    });
    if whole > 0.0 {
        (part / whole).sqrt()
    } else {
        0.0
    }
}

fn percent(share: f64) -> String {
    format!("{:.2}%", 100.0 * share)
}
