//! Inspects an adapter without its base model: the content of its file, and the size of its updates.

mod alone;
mod file;
mod parts;
mod warnings;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::Serialize;
use simmer_checkpoint::family::all_modules;
use simmer_checkpoint::{Dtype, Tensor};

pub use self::alone::AloneTensor;
use self::file::AdapterFile;
pub use self::file::weights_path;
use self::parts::{Factors, Parts, place};
use super::kind;
use super::spectrum::{Columns, columns_of, norm, product, rows_of, singular, triangle};
use super::tokens;
use super::weights::{count_not_finite, is_head};
use super::{AdapterConfig, AdapterError, Spectrum};
use crate::numbers::to_f64;

/// The result of inspecting an adapter.
#[derive(Debug, Clone)]
pub struct Inspection {
    /// The weight file.
    pub weights: PathBuf,
    /// Its configuration; `None` if there is none next to the weights.
    pub config: Option<AdapterConfig>,
    /// Modules with a low-rank branch, by layer, and within a layer in the order in which it uses them. Modules outside
    /// the layers are last.
    pub modules: Vec<LowRankModule>,
    /// The tensors of a kind without low-rank branches, in the same order.
    pub alone: Vec<AloneTensor>,
    /// Full tensors: fully trained modules, biases, resized embeddings.
    pub whole: Vec<WholeTensor>,
    /// Tensors with values that are NaN or infinite: such an adapter cannot be used.
    pub not_finite: Vec<NotFinite>,
    /// Warnings, one sentence each.
    pub warnings: Vec<String>,
}

/// A module with a low-rank branch.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LowRankModule {
    /// Its module path.
    pub module: String,
    /// Its layer, counted from 0; `None` outside the layers.
    pub layer: Option<usize>,
    /// The last part of its path.
    pub target: String,
    /// `[out, in]`, or `[vocab, hidden]` for an embedding.
    pub shape: [usize; 2],
    /// Dtypes of A and B.
    pub dtypes: [String; 2],
    /// Rank, from the shape of A.
    pub rank: usize,
    /// Its alpha; `None` without a configuration.
    pub alpha: Option<f64>,
    /// The scale of B·A.
    pub scale: f64,
    /// Number of parameters of the adapter.
    pub parameters: usize,
    /// Frobenius norm of A.
    pub norm_a: f64,
    /// Frobenius norm of B.
    pub norm_b: f64,
    /// Singular values of the update s·B·A; `None` if A or B has values that are not finite.
    pub update: Option<Spectrum>,
}

/// A full tensor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WholeTensor {
    /// Its key.
    pub key: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its dtype.
    pub dtype: String,
    /// Whether it was trained: a module of `modules_to_save`, a bias, or the head of a classifier. Others are copies of
    /// base weights.
    pub trained: bool,
}

/// Values of an adapter that are NaN or infinite.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NotFinite {
    /// The key of the tensor.
    pub key: String,
    /// How many of its values.
    pub count: usize,
}

impl WholeTensor {
    /// Whether it belongs to the head of a classifier or of a reward model.
    pub fn is_head(&self) -> bool {
        is_head(&self.key)
    }
}

impl Inspection {
    /// Number of trained parameters.
    pub fn parameters(&self) -> usize {
        let low_rank = self.modules.iter().map(|module| module.parameters);
        let whole = self.whole.iter().filter(|tensor| tensor.trained);
        let whole = whole.map(|tensor| tensor.shape.iter().product::<usize>());
        let alone = self.alone.iter();
        let alone = alone.map(|tensor| tensor.shape.iter().product::<usize>());
        low_rank.sum::<usize>() + alone.sum::<usize>() + whole.sum::<usize>()
    }

    /// Frobenius norm of all updates together, except those that are not finite.
    pub fn norm(&self) -> f64 {
        let norms = self
            .modules
            .iter()
            .filter_map(|module| module.update.as_ref());
        norm(&norms.map(|update| update.norm).collect::<Vec<_>>())
    }
}

/// Inspects the adapter in a folder, or a weight file (`.safetensors`, or `.bin` of early versions of PEFT). The
/// configuration is read from the folder of the weight file.
///
/// # Errors
/// Missing or damaged files, tensors of an unsupported dtype, and a file without any tensor of an adapter.
pub fn inspect(path: &Path) -> Result<Inspection, AdapterError> {
    let opened = OpenAdapter::open(path)?;
    let modules: Vec<LowRankModule> = opened.branches.par_iter().map(OpenAdapter::look).collect();
    let alone = opened.alone()?;
    let mut warnings = opened.warnings.clone();
    warnings.extend(warnings::of_modules(&modules));
    warnings.extend(alone::warning(&alone));
    Ok(Inspection {
        whole: opened.whole_tensors()?,
        not_finite: opened.not_finite,
        weights: opened.path,
        config: opened.config,
        modules,
        alone,
        warnings,
    })
}

/// An opened adapter, its tensors sorted by kind.
pub(super) struct OpenAdapter {
    pub(super) path: PathBuf,
    pub(super) config: Option<AdapterConfig>,
    pub(super) branches: Vec<OpenBranch>,
    /// Full tensors, and those of kinds without low-rank branches, by key in their stored dtype.
    pub(super) whole: BTreeMap<String, Tensor>,
    /// Tensors beside the factors of low-rank branches, such as DoRA's magnitudes.
    beside: BTreeMap<String, Tensor>,
    parts: Parts,
    not_finite: Vec<NotFinite>,
    warnings: Vec<String>,
}

/// The factors of one module, in their stored dtype.
pub(super) struct OpenBranch {
    pub(super) module: String,
    pub(super) embedding: bool,
    pub(super) rank: usize,
    alpha: Option<f64>,
    pub(super) scale: f64,
    /// Number of parameters beside A and B.
    beside: usize,
    /// `[r, in]`
    a: Tensor,
    /// `[out, r]`
    b: Tensor,
}

impl OpenAdapter {
    pub(super) fn open(path: &Path) -> Result<Self, AdapterError> {
        let AdapterFile {
            path,
            config,
            mut tensors,
            mut warnings,
        } = AdapterFile::open(path)?;
        let parts = Parts::of(&tensors);
        let not_finite = tensors.iter().map(|(key, tensor)| NotFinite {
            key: key.clone(),
            count: count_not_finite(tensor),
        });
        let not_finite = not_finite.filter(|tensor| tensor.count > 0).collect();
        if parts.factors.is_empty() && parts.alone.is_empty() {
            let found = match tensors.keys().next() {
                None => "it is empty".to_owned(),
                Some(key) => format!("its first key is `{key}`"),
            };
            return Err(AdapterError::NoBranch { file: path, found });
        }
        let mut branches = Vec::new();
        let mut skipped = Vec::new();
        for (module, factors) in &parts.factors {
            match factors_of(factors, &mut tensors) {
                Err(what) => skipped.push(format!("`{module}` {what}")),
                Ok((a, b)) => {
                    for (key, tensor) in [(&factors.a, &a), (&factors.b, &b)] {
                        check_dtype(&path, key.as_deref().unwrap_or_default(), tensor)?;
                    }
                    let mut branch = OpenBranch::new(module, factors, config.as_ref(), a, b)?;
                    let beside = factors.beside.iter().filter_map(|key| tensors.get(key));
                    branch.beside = beside.map(|of| of.shape.iter().product::<usize>()).sum();
                    branches.push(branch);
                }
            }
        }
        if branches.is_empty() && parts.alone.is_empty() {
            return Err(AdapterError::NoPair {
                file: path,
                count: skipped.len(),
                example: skipped.swap_remove(0),
            });
        }
        warnings.extend(skipped.iter().map(|what| format!("{what}: skipped")));
        branches.sort_by_key(|branch| order(&branch.module));
        warnings.extend(warnings::of_keys(config.as_ref(), &parts, &branches)?);
        let is_whole = |key: &str| parts.whole.contains_key(key) || parts.alone.contains_key(key);
        let (whole, rest): (BTreeMap<_, _>, BTreeMap<_, _>) =
            tensors.into_iter().partition(|(key, _)| is_whole(key));
        let is_beside = |key: &String| {
            let mut factors = parts.factors.values();
            factors.any(|factors| factors.beside.contains(key))
        };
        let beside = rest.into_iter().filter(|(key, _)| is_beside(key)).collect();
        Ok(Self {
            path,
            config,
            branches,
            whole,
            beside,
            parts,
            not_finite,
            warnings,
        })
    }

    /// All tensors but the factors of low-rank branches.
    pub(super) fn full_tensors(&self) -> BTreeMap<&str, &Tensor> {
        let all = self.whole.iter().chain(&self.beside);
        all.map(|(key, tensor)| (key.as_str(), tensor)).collect()
    }

    fn look(branch: &OpenBranch) -> LowRankModule {
        let OpenBranch { a, b, rank, .. } = branch;
        let (layer, target) = place(&branch.module);
        let [wide_a, wide_b] = branch.factors();
        let finite = wide_a.iter().chain(&wide_b).all(|value| value.is_finite());
        let update = finite.then(|| {
            let middle = branch.middle(&wide_a, &wide_b);
            let (values, _) = singular(middle);
            Spectrum::new(
                values
                    .iter()
                    .map(|value| value * branch.scale.abs())
                    .collect(),
            )
        });
        LowRankModule {
            module: branch.module.clone(),
            layer,
            target: target.to_owned(),
            shape: branch.shape(),
            dtypes: [a.dtype, b.dtype].map(|dtype| dtype.to_string()),
            rank: *rank,
            alpha: branch.alpha,
            scale: branch.scale,
            parameters: wide_a.len() + wide_b.len() + branch.beside,
            norm_a: norm(&wide_a),
            norm_b: norm(&wide_b),
            update,
        }
    }

    /// Frozen copies of base weights: key, module and tensor.
    pub(super) fn base_weights(&self) -> Result<Vec<(&str, &str, &Tensor)>, AdapterError> {
        let all = self.whole_tensors()?;
        let frozen: Vec<&WholeTensor> = all.iter().filter(|of| !of.trained).collect();
        let of = |whole: &&WholeTensor| {
            let (key, tensor) = self.whole.get_key_value(&whole.key)?;
            Some((key.as_str(), self.parts.whole.get(key)?.as_str(), tensor))
        };
        Ok(frozen.iter().filter_map(of).collect())
    }

    pub(super) fn whole_tensors(&self) -> Result<Vec<WholeTensor>, AdapterError> {
        let whole = self.whole.iter();
        let whole =
            whole.filter_map(|(key, tensor)| Some((key, tensor, self.parts.whole.get(key)?)));
        let described = whole.map(|(key, tensor, module)| {
            check_dtype(&self.path, key, tensor)?;
            Ok(WholeTensor {
                key: key.clone(),
                shape: tensor.shape.clone(),
                dtype: tensor.dtype.to_string(),
                trained: warnings::is_bias(key)
                    || warnings::is_saved(self.config.as_ref(), module)
                    || key.ends_with(tokens::ROWS)
                    || is_head(key),
            })
        });
        described.collect()
    }
}

impl OpenBranch {
    fn new(
        module: &str,
        factors: &Factors,
        config: Option<&AdapterConfig>,
        a: Tensor,
        b: Tensor,
    ) -> Result<Self, AdapterError> {
        let rank = a.shape[0];
        let (alpha, scale) = match config {
            None => (None, 1.0),
            Some(config) => {
                let alpha = config.alpha_of(module)?;
                (Some(alpha), config.scaling(alpha, rank))
            }
        };
        Ok(Self {
            module: module.to_owned(),
            embedding: factors.embedding,
            rank,
            alpha,
            scale,
            beside: 0,
            a,
            b,
        })
    }

    /// `[out, in]`, or `[vocab, hidden]` for an embedding.
    pub(super) fn shape(&self) -> [usize; 2] {
        let (out, inner) = (self.b.shape[0], self.a.shape[1]);
        if self.embedding {
            [inner, out]
        } else {
            [out, inner]
        }
    }

    /// The values of A and of B.
    pub(super) fn factors(&self) -> [Vec<f64>; 2] {
        [&self.a, &self.b].map(|tensor| to_f64(&tensor.bytes, tensor.dtype))
    }

    /// Aᵀ and B as columns, one for each unit of the rank.
    pub(super) fn columns(&self, a: &[f64], b: &[f64]) -> [Columns; 2] {
        [rows_of(a, self.a.shape[1]), columns_of(b, self.rank)]
    }

    /// Whether both have the same factors, byte for byte, and the same scale.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let (scale, others) = (self.scale.to_bits(), other.scale.to_bits());
        (&self.a, &self.b, scale) == (&other.a, &other.b, others)
    }

    /// The matrix between the orthonormal factors of B·A, without the scale.
    fn middle(&self, a: &[f64], b: &[f64]) -> Columns {
        let [a, b] = self.columns(a, b).map(triangle);
        product(&b, &a)
    }
}

/// Takes the factors of a module out of `tensors`. If they do not match, the error is the end of a sentence.
fn factors_of(
    factors: &Factors,
    tensors: &mut BTreeMap<String, Tensor>,
) -> Result<(Tensor, Tensor), String> {
    let [first, second] = kind::factors(factors.embedding);
    let mut take = |key: &Option<String>| key.as_ref().and_then(|key| tensors.remove(key));
    let (a, b) = match (take(&factors.a), take(&factors.b)) {
        (Some(a), Some(b)) => (a, b),
        (Some(_), None) => return Err(format!("has {} but no {}", first.field, second.field)),
        (None, Some(_)) => return Err(format!("has {} but no {}", second.field, first.field)),
        (None, None) => {
            return Err(format!(
                "has a magnitude vector but neither {} nor {}",
                first.field, second.field
            ));
        }
    };
    match (&a.shape[..], &b.shape[..]) {
        ([rank, inner], [out, other])
            if rank == other && [*rank, *inner, *out].iter().all(|n| *n > 0) =>
        {
            Ok((a, b))
        }
        _ => Err(format!(
            "has A of shape {:?} and B of shape {:?}, which do not match",
            a.shape, b.shape
        )),
    }
}

fn check_dtype(file: &Path, key: &str, tensor: &Tensor) -> Result<(), AdapterError> {
    if matches!(tensor.dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16) {
        return Ok(());
    }
    Err(AdapterError::Dtype {
        file: file.into(),
        tensor: key.to_owned(),
        found: tensor.dtype.to_string(),
    })
}

/// Sort key: by layer, and within a layer in the order in which it uses its modules.
pub(super) fn order(module: &str) -> (usize, usize, String) {
    let (layer, target) = place(module);
    let known = all_modules().position(|module| module.last_part() == target);
    (
        layer.unwrap_or(usize::MAX),
        known.unwrap_or(usize::MAX),
        module.to_owned(),
    )
}
