//! Compares two adapters by their updates.
//!
//! Both updates of a module are expressed in one pair of orthonormal bases, of the columns of `[B₁ B₂]` and of
//! `[A₁ᵀ A₂ᵀ]`. There they are matrices of at most r₁ + r₂ rows and columns, with the same distance, cosine and angles
//! as the full updates.

use std::collections::BTreeMap;
use std::path::Path;

use rayon::prelude::*;
use serde::Serialize;
use simmer_checkpoint::Tensor;

use super::inspect::{OpenAdapter, OpenBranch};
use super::spectrum::{Columns, dot, norm, product, singular, triangle};
use super::{AdapterConfig, AdapterError};
use crate::numbers::to_f64;

/// How two adapters differ.
#[derive(Debug, Clone, Serialize)]
pub struct AdapterDifference {
    /// Keys of the configurations that differ, with both values as JSON. If one adapter has no configuration, all keys
    /// differ.
    pub config: Vec<ConfigDifference>,
    /// Modules with a low-rank branch in both.
    pub modules: Vec<ModuleDifference>,
    /// Full tensors in both adapters, and those beside low-rank branches (DoRA's magnitudes), that are not equal byte for byte.
    pub whole: Vec<WholeDifference>,
    /// Modules and full tensors only in the first.
    pub only_first: Vec<String>,
    /// Modules and full tensors only in the second.
    pub only_second: Vec<String>,
    /// Norm of the difference of all updates, divided by the larger of their norms. A branch that only one adapter has
    /// differs from zero. `None` if both norms are zero or one is not finite.
    pub distance: Option<f64>,
    /// Cosine of all updates, as one vector; `None` if one norm is zero or not finite.
    pub cosine: Option<f64>,
    /// Whether all tensors are the same, byte for byte.
    pub same_tensors: bool,
}

/// One key of `adapter_config.json`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ConfigDifference {
    /// The key.
    pub key: String,
    /// Its value in the first.
    pub first: serde_json::Value,
    /// Its value in the second.
    pub second: serde_json::Value,
}

/// The updates Δ₁ and Δ₂ of one module.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModuleDifference {
    /// Its module path.
    pub module: String,
    /// Both ranks.
    pub ranks: [usize; 2],
    /// Frobenius norms ‖Δ₁‖ and ‖Δ₂‖.
    pub norms: [f64; 2],
    /// `‖Δ₁ - Δ₂‖ / max(‖Δ₁‖, ‖Δ₂‖)`: 0 if the updates are equal, 1 if one is zero, at most 2. `None` if both are zero
    /// or one is not finite.
    pub distance: Option<f64>,
    /// `⟨Δ₁, Δ₂⟩ / (‖Δ₁‖ ‖Δ₂‖)`.
    pub cosine: Option<f64>,
    /// The output spaces of the updates: their column spaces.
    pub outputs: Option<Subspaces>,
    /// The input spaces of the updates: their row spaces.
    pub inputs: Option<Subspaces>,
}

/// The angles between two subspaces.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Subspaces {
    /// Their dimensions k₁ and k₂.
    pub dimensions: [usize; 2],
    /// The min(k₁, k₂) principal angles in degrees, ascending.
    pub angles: Vec<f64>,
    /// Mean of the squared cosines of the angles, `‖U₁ᵀU₂‖² / min(k₁, k₂)`: 1 if one space contains the other, 0 if
    /// they are orthogonal.
    ///
    /// Source: Hu et al. 2021, LoRA, equation 4.
    pub overlap: f64,
}

/// A full tensor that both adapters have.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WholeDifference {
    /// Its key.
    pub key: String,
    /// Norm of the difference, divided by the larger norm; `None` if both norms are zero or one is not finite.
    pub distance: Option<f64>,
}

/// The tensors of an adapter that are no factors.
type Full<'a> = BTreeMap<&'a str, &'a Tensor>;

/// Sums over two vectors: of the squares of each, of their difference, and of their products.
#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    first: f64,
    second: f64,
    difference: f64,
    product: f64,
}

/// Compares two adapters, given as folders or weight files.
///
/// # Errors
/// As [`super::inspect::inspect`]; all modules and full tensors of different shapes, in one error.
pub fn difference(first: &Path, second: &Path) -> Result<AdapterDifference, AdapterError> {
    let [one, two] = [OpenAdapter::open(first)?, OpenAdapter::open(second)?];
    check_shapes(first, &one, second, &two)?;
    let (pairs, mut only) = paired(&one, &two);
    let compared: Vec<(ModuleDifference, Sums, bool)> = pairs
        .par_iter()
        .map(|(one, two)| of_module(one, two))
        .collect();
    let alone = |branches: &[&OpenBranch]| -> f64 {
        branches.par_iter().map(|branch| square(branch)).sum()
    };
    let mut sums = compared
        .iter()
        .fold(Sums::default(), |all, (_, sums, _)| all.and(*sums));
    let [alone_first, alone_second] = [&only[0], &only[1]].map(|branches| alone(branches));
    sums = sums.and(Sums {
        first: alone_first,
        second: alone_second,
        difference: alone_first + alone_second,
        product: 0.0,
    });
    let full = [one.full_tensors(), two.full_tensors()];
    let whole = whole(&full[0], &full[1]);
    let names = |branches: &mut Vec<&OpenBranch>, mine: &Full<'_>, other: &Full<'_>| {
        let keys = mine.keys().filter(|key| !other.contains_key(*key));
        let modules = branches.drain(..).map(|branch| branch.module.clone());
        let keys = keys.map(|key| (*key).to_owned());
        modules.chain(keys).collect::<Vec<String>>()
    };
    let [first_branches, second_branches] = &mut only;
    let only_first = names(first_branches, &full[0], &full[1]);
    let only_second = names(second_branches, &full[1], &full[0]);
    Ok(AdapterDifference {
        same_tensors: compared.iter().all(|(_, _, same)| *same)
            && [&only_first, &only_second]
                .iter()
                .all(|names| names.is_empty())
            && whole.is_empty(),
        config: configs(one.config.as_ref(), two.config.as_ref()),
        modules: compared.into_iter().map(|(module, ..)| module).collect(),
        whole,
        only_first,
        only_second,
        distance: sums.distance(),
        cosine: sums.cosine(),
    })
}

impl Sums {
    fn and(self, other: Self) -> Self {
        Self {
            first: self.first + other.first,
            second: self.second + other.second,
            difference: self.difference + other.difference,
            product: self.product + other.product,
        }
    }

    fn distance(self) -> Option<f64> {
        let larger = self.first.max(self.second);
        let distance = (self.difference / larger).sqrt();
        (larger > 0.0 && distance.is_finite()).then_some(distance)
    }

    fn cosine(self) -> Option<f64> {
        let both = self.first.sqrt() * self.second.sqrt();
        let cosine = self.product / both;
        (both > 0.0 && cosine.is_finite()).then(|| cosine.clamp(-1.0, 1.0))
    }
}

/// The branches of both adapters in pairs, and those that only one adapter has.
fn paired<'a>(
    one: &'a OpenAdapter,
    two: &'a OpenAdapter,
) -> (
    Vec<(&'a OpenBranch, &'a OpenBranch)>,
    [Vec<&'a OpenBranch>; 2],
) {
    let by_name = |adapter: &'a OpenAdapter| -> BTreeMap<&'a str, &'a OpenBranch> {
        let branches = adapter.branches.iter();
        branches
            .map(|branch| (branch.module.as_str(), branch))
            .collect()
    };
    let [first, second] = [by_name(one), by_name(two)];
    let pair = |branch: &'a OpenBranch| Some((branch, *second.get(branch.module.as_str())?));
    let alone = |of: &'a OpenAdapter, other: &BTreeMap<&str, &OpenBranch>| {
        let branches = of.branches.iter();
        branches
            .filter(|branch| !other.contains_key(branch.module.as_str()))
            .collect()
    };
    let pairs = one.branches.iter().filter_map(pair).collect();
    (pairs, [alone(one, &second), alone(two, &first)])
}

fn check_shapes(
    first: &Path,
    one: &OpenAdapter,
    second: &Path,
    two: &OpenAdapter,
) -> Result<(), AdapterError> {
    let (pairs, _) = paired(one, two);
    let low_rank = pairs
        .iter()
        .filter(|(one, two)| (one.shape(), one.embedding) != (two.shape(), two.embedding));
    let low_rank = low_rank.map(|(one, two)| {
        (
            one.module.clone(),
            one.shape().to_vec(),
            two.shape().to_vec(),
        )
    });
    let others = two.full_tensors();
    let whole = one.full_tensors().into_iter().filter_map(|(key, tensor)| {
        let other = others.get(key)?;
        let (mine, other) = (&tensor.shape, &other.shape);
        (mine != other).then(|| (key.to_owned(), mine.clone(), other.clone()))
    });
    let differ: Vec<String> = low_rank
        .chain(whole)
        .map(|(name, one, two)| format!("  {name}: {one:?} and {two:?}"))
        .collect();
    if differ.is_empty() {
        return Ok(());
    }
    let shown = differ
        .iter()
        .take(10)
        .cloned()
        .collect::<Vec<_>>()
        .join("\n");
    let more = match differ.len().saturating_sub(10) {
        0 => String::new(),
        more => format!("\n  and {more} more"),
    };
    Err(AdapterError::OtherBase {
        first: first.into(),
        second: second.into(),
        differences: shown + &more,
    })
}

/// ‖s·B·A‖²
fn square(branch: &OpenBranch) -> f64 {
    let [a, b] = branch.factors();
    let [a, b] = branch.columns(&a, &b).map(triangle);
    let length = norm(&product(&b, &a).concat()) * branch.scale;
    length * length
}

fn of_module(one: &OpenBranch, two: &OpenBranch) -> (ModuleDifference, Sums, bool) {
    let [first, second] = updates(one, two);
    let [flat_first, flat_second] = [first.concat(), second.concat()];
    let apart: Vec<f64> = flat_first
        .iter()
        .zip(&flat_second)
        .map(|(a, b)| a - b)
        .collect();
    let sums = Sums {
        first: dot(&flat_first, &flat_first),
        second: dot(&flat_second, &flat_second),
        difference: dot(&apart, &apart),
        product: dot(&flat_first, &flat_second),
    };
    let finite = [sums.first, sums.second].iter().all(|sum| sum.is_finite());
    let size = one.shape().into_iter().max().unwrap_or(0);
    let subspaces = |first: &Columns, second: &Columns| {
        finite.then(|| subspaces(first, second, size)).flatten()
    };
    let difference = ModuleDifference {
        module: one.module.clone(),
        ranks: [one.rank, two.rank],
        norms: [sums.first.sqrt(), sums.second.sqrt()],
        distance: sums.distance(),
        cosine: sums.cosine(),
        outputs: subspaces(&first, &second),
        inputs: subspaces(&transposed(&first), &transposed(&second)),
    };
    (difference, sums, one.is_same(two))
}

/// Both updates of a module, in common orthonormal bases.
fn updates(one: &OpenBranch, two: &OpenBranch) -> [Columns; 2] {
    let columns = |branch: &OpenBranch| {
        let [a, b] = branch.factors();
        branch.columns(&a, &b)
    };
    let ([mut a, mut b], [other_a, other_b]) = (columns(one), columns(two));
    a.extend(other_a);
    b.extend(other_b);
    let [a, b] = [a, b].map(triangle);
    let scaled = |ranks: std::ops::Range<usize>, scale: f64| {
        let mut update = product(&b[ranks.clone()], &a[ranks]);
        update
            .iter_mut()
            .flatten()
            .for_each(|value| *value *= scale);
        update
    };
    let rank = one.rank;
    [
        scaled(0..rank, one.scale),
        scaled(rank..rank + two.rank, two.scale),
    ]
}

/// Compares the column spaces of two matrices; `None` if one of them is zero. `size` is the longest side of the full
/// updates: a singular value below `size` rounding errors counts as zero, as in NumPy's `matrix_rank`.
fn subspaces(first: &Columns, second: &Columns, size: usize) -> Option<Subspaces> {
    let basis = |matrix: &Columns| -> Columns {
        let (values, vectors) = singular(matrix.clone());
        let least = values
            .first()
            .map_or(0.0, |largest| largest * size as f64 * f64::EPSILON);
        let kept = values.iter().take_while(|value| **value > least).count();
        vectors.into_iter().take(kept).collect()
    };
    let [first, second] = [basis(first), basis(second)];
    let dimensions = [first.len(), second.len()];
    let smaller = dimensions
        .into_iter()
        .min()
        .filter(|smaller| *smaller > 0)?;
    let cosines = second
        .iter()
        .map(|v| first.iter().map(|u| dot(u, v)).collect());
    let (cosines, _) = singular(cosines.collect());
    let cosines: Vec<f64> = cosines.iter().map(|cosine| cosine.min(1.0)).collect();
    Some(Subspaces {
        dimensions,
        angles: cosines
            .iter()
            .map(|cosine| cosine.acos().to_degrees())
            .collect(),
        overlap: dot(&cosines, &cosines) / smaller as f64,
    })
}

fn transposed(matrix: &Columns) -> Columns {
    let rows = matrix.first().map_or(0, Vec::len);
    let row = |at: usize| matrix.iter().map(|column| column[at]).collect();
    (0..rows).map(row).collect()
}

fn whole(one: &Full<'_>, two: &Full<'_>) -> Vec<WholeDifference> {
    let differ = one.iter().filter_map(|(key, first)| {
        let second = two.get(key)?;
        if (first.dtype, &first.bytes) == (second.dtype, &second.bytes) {
            return None;
        }
        let [first, second] = [first, second].map(|tensor| to_f64(&tensor.bytes, tensor.dtype));
        let apart: Vec<f64> = first.iter().zip(&second).map(|(a, b)| a - b).collect();
        let sums = Sums {
            first: dot(&first, &first),
            second: dot(&second, &second),
            difference: dot(&apart, &apart),
            product: dot(&first, &second),
        };
        Some(WholeDifference {
            key: (*key).to_owned(),
            distance: sums.distance(),
        })
    });
    differ.collect()
}

/// Keys whose values differ, as they are written in the file.
fn configs(one: Option<&AdapterConfig>, two: Option<&AdapterConfig>) -> Vec<ConfigDifference> {
    let entries = |config: Option<&AdapterConfig>| -> serde_json::Map<String, serde_json::Value> {
        let text = config.map(AdapterConfig::to_json).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    };
    let [one, two] = [one, two].map(entries);
    let keys: std::collections::BTreeSet<&String> = one.keys().chain(two.keys()).collect();
    let value =
        |map: &serde_json::Map<_, _>, key: &String| map.get(key).cloned().unwrap_or_default();
    let differ = keys.into_iter().filter_map(|key| {
        let (first, second) = (value(&one, key), value(&two, key));
        (first != second).then(|| ConfigDifference {
            key: key.clone(),
            first,
            second,
        })
    });
    differ.collect()
}
