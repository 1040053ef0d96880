//! Tables of adapters without low-rank branches.

use simmer_model::adapter::inspect::{AloneTensor, Inspection};

use super::short;

/// A row for each target and tensor, over all layers.
pub(super) fn by_target(found: &Inspection) -> Vec<Vec<String>> {
    let head = [
        "target",
        "tensor",
        "count",
        "parameters",
        "least",
        "mean",
        "most",
        "change",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    let mut groups: Vec<(&str, &str, Vec<&AloneTensor>)> = Vec::new();
    for tensor in &found.alone {
        let name = (tensor.target.as_str(), tensor.tensor.as_str());
        match groups.iter_mut().find(|group| (group.0, group.1) == name) {
            Some((_, _, tensors)) => tensors.push(tensor),
            None => groups.push((name.0, name.1, vec![tensor])),
        }
    }
    for (target, tensor, tensors) in groups {
        let sizes: Vec<usize> = tensors.iter().map(|of| of.shape.iter().product()).collect();
        let parameters: usize = sizes.iter().sum();
        let sizes = || sizes.iter().map(|size| *size as f64);
        let weighted = |value: &dyn Fn(&AloneTensor) -> Option<f64>| {
            let values = tensors.iter().zip(sizes());
            let sum: Option<f64> = values.map(|(of, size)| Some(value(of)? * size)).sum();
            Some(sum? / (parameters as f64).max(1.0))
        };
        let least = tensors
            .iter()
            .map(|of| of.least)
            .fold(f64::INFINITY, f64::min);
        let most = tensors
            .iter()
            .map(|of| of.most)
            .fold(f64::NEG_INFINITY, f64::max);
        let change = weighted(&|of| Some(of.change?.powi(2))).map(f64::sqrt);
        rows.push(vec![
            target.to_owned(),
            tensor.to_owned(),
            tensors.len().to_string(),
            parameters.to_string(),
            short(least),
            shown(weighted(&|of| Some(of.mean))),
            short(most),
            shown(change),
        ]);
    }
    rows
}

/// A row for each tensor.
pub(super) fn by_module(found: &Inspection) -> Vec<Vec<String>> {
    let head = [
        "module", "tensor", "shape", "least", "mean", "most", "change",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(found.alone.iter().map(|of| {
        let shape: Vec<String> = of.shape.iter().map(usize::to_string).collect();
        vec![
            of.module.clone(),
            of.tensor.clone(),
            shape.join("x"),
            short(of.least),
            short(of.mean),
            short(of.most),
            shown(of.change),
        ]
    }));
    rows
}

fn shown(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), short)
}
